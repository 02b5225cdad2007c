// What `atedm bench step` measured: see bench_report.h.
#include "cli/bench_report.h"

#include "cli/cli.h"
#include "core/flops.h"

#include <inttypes.h>
#include <stdio.h>

static uint64_t overhead_flops(const atedm_bench_row *row)
{
    return 2 * row->counts.overhead;
}

static uint64_t useful_flops(const atedm_bench_row *row)
{
    return atedm_op_counts_flops(&row->counts) - overhead_flops(row);
}

double atedm_bench_row_rate(const atedm_bench_row *row)
{
    return row->min_s > 0 ? (double)useful_flops(row) / row->min_s : 0;
}

// Seconds of a step, weighted by how many steps of the plan cost what; 0 where rows do not follow
// each other as the phases of one plan.
static double mean_step(const atedm_bench_report *report, size_t first, size_t *ret_end)
{
    double sum = 0;
    int steps = 0;
    size_t i = first;
    do {
        sum += report->rows[i].min_s * report->rows[i].steps;
        steps += report->rows[i].steps;
        i++;
    } while (i < report->n_rows && report->rows[i].first_step == steps);
    *ret_end = i;
    return sum / steps;
}

static void print_row(const atedm_bench_report *report, const atedm_bench_row *row)
{
    char size[32] = "", steps[32] = "";
    if (row->size.width)
        snprintf(size, sizeof size, "%" PRId64 "x%" PRId64, row->size.width, row->size.height);
    if (row->steps && row->steps < report->options->steps)
        snprintf(steps, sizeof steps, "%d-%d", row->first_step, row->first_step + row->steps - 1);
    printf("%-5s %-10s %5" PRId64 "  %-14.14s %-7s %10.4f %10.4f %10.1f %9.1f %8.1f %9.1f %7.0f\n",
           row->stage, size, row->batch, row->pruning ? row->pruning : "", steps, row->min_s,
           row->median_s, (double)useful_flops(row) * 1e-9, (double)overhead_flops(row) * 1e-9,
           atedm_bench_row_rate(row) * 1e-9,
           100 * atedm_bench_row_rate(row) / report->gemm_flops_per_s,
           (double)row->scratch_bytes / (1 << 20));
}

// Where the time of a row goes. What is not in an operation is checking, copying and waiting.
static void print_ops(const atedm_bench_report *report, const atedm_bench_row *row)
{
    double inside = 0;
    for (size_t i = 0; i < row->n_ops; i++)
        inside += row->ops[i].seconds;
    for (size_t i = 0; i < row->n_ops; i++) {
        const atedm_profile_op *op = &row->ops[i];
        double rate = (double)op->flops / op->seconds;
        printf("    %-18s %6" PRIu64 " calls %10.3f ms %6.1f %%", op->name, op->calls,
               op->seconds * 1e3, 100 * op->seconds / inside);
        if (op->flops)
            printf(" %10.2f GFLOP %8.1f GFLOP/s %6.1f %% of gemm", (double)op->flops * 1e-9,
                   rate * 1e-9, 100 * rate / report->gemm_flops_per_s);
        if (op->floor_s > 0)
            printf(" %6.1f %% is the floor", 100 * op->floor_s / op->seconds);
        puts("");
    }
}

static void print_table(const atedm_bench_report *report)
{
    printf("%s, backend %s, %s (VAE %s), %d measured runs\n\n",
           report->options->model ? report->config->name : report->options->arch, report->backend,
           atedm_dtype_name(report->dtype), atedm_dtype_name(report->vae_dtype),
           report->options->repeat);
    printf("%-5s %-10s %5s  %-14s %-7s %10s %10s %10s %9s %8s %9s %7s\n", "stage", "size", "batch",
           "pruning", "steps", "best s", "median s", "GFLOP", "overhead", "GFLOP/s", "% of gemm",
           "MiB");
    for (size_t i = 0; i < report->n_rows; i++) {
        print_row(report, &report->rows[i]);
        print_ops(report, &report->rows[i]);
    }
    for (size_t i = 0, end; i < report->n_rows; i = end) {
        end = i + 1;
        if (!report->rows[i].steps)
            continue;
        double mean = mean_step(report, i, &end);
        if (end > i + 1)
            printf("\n%" PRId64 "x%" PRId64 ", batch %" PRId64 ", %s: mean UNet evaluation of %d "
                   "steps %.4f s",
                   report->rows[i].size.width, report->rows[i].size.height, report->rows[i].batch,
                   report->rows[i].pruning, report->options->steps, mean);
    }
    if (report->options->ceilings)
        printf("\nceilings: %.1f GFLOP/s, %.1f GB/s; the shortest operation %.1f us",
               report->matrix_flops_per_s * 1e-9, report->copy_bytes_per_s * 1e-9,
               report->wait_s * 1e6);
    const double *load = report->load_s;
    printf("\nloading: text encoders %.1f s, UNet %.1f s, VAE %.1f s; peak memory %.2f GiB\n",
           load[0] + load[1], load[2], load[3], (double)atedm_cli_peak_memory() / (1 << 30));
}

static json_t *ops_json(const atedm_bench_row *row)
{
    json_t *list = json_array();
    for (size_t i = 0; i < row->n_ops; i++)
        json_array_append_new(
            list, json_pack("{s:s, s:I, s:f, s:I, s:I, s:f}", "op", row->ops[i].name, "calls",
                            (json_int_t)row->ops[i].calls, "seconds", row->ops[i].seconds, "flops",
                            (json_int_t)row->ops[i].flops, "bytes", (json_int_t)row->ops[i].bytes,
                            "floor_s", row->ops[i].floor_s));
    return list;
}

static json_t *row_json(const atedm_bench_report *report, const atedm_bench_row *row)
{
    json_t *out =
        json_pack("{s:s, s:I, s:f, s:f, s:I, s:I, s:f, s:f, s:I}", "stage", row->stage, "batch",
                  (json_int_t)row->batch, "min_s", row->min_s, "median_s", row->median_s, "flops",
                  (json_int_t)useful_flops(row), "overhead_flops", (json_int_t)overhead_flops(row),
                  "flops_per_s", atedm_bench_row_rate(row), "share_of_gemm",
                  atedm_bench_row_rate(row) / report->gemm_flops_per_s, "scratch_bytes",
                  (json_int_t)row->scratch_bytes);
    if (row->n_ops)
        json_object_set_new(out, "ops", ops_json(row));
    if (row->size.width) {
        json_object_set_new(out, "width", json_integer(row->size.width));
        json_object_set_new(out, "height", json_integer(row->size.height));
    }
    if (row->pruning) {
        json_object_set_new(out, "pruning", json_string(row->pruning));
        json_object_set_new(out, "first_step", json_integer(row->first_step));
        json_object_set_new(out, "steps", json_integer(row->steps));
    }
    return out;
}

static int print_json(const atedm_bench_report *report)
{
    json_t *rows = json_array();
    for (size_t i = 0; i < report->n_rows; i++)
        json_array_append_new(rows, row_json(report, &report->rows[i]));
    json_t *out =
        json_pack("{s:s, s:s, s:s, s:s, s:i, s:i, s:f, s:f, s:f, s:f, s:o, s:I}", "model",
                  report->options->model ? report->config->name : report->options->arch, "backend",
                  report->backend, "dtype", atedm_dtype_name(report->dtype), "vae_dtype",
                  atedm_dtype_name(report->vae_dtype), "plan_steps", report->options->steps,
                  "repeat", report->options->repeat, "gemm_flops_per_s", report->gemm_flops_per_s,
                  "load_text_s", report->load_s[0] + report->load_s[1], "load_unet_s",
                  report->load_s[2], "load_vae_s", report->load_s[3], "stages", rows,
                  "peak_memory_bytes", (json_int_t)atedm_cli_peak_memory());
    if (out && report->options->ceilings) {
        json_object_set_new(out, "matrix_flops_per_s", json_real(report->matrix_flops_per_s));
        json_object_set_new(out, "copy_bytes_per_s", json_real(report->copy_bytes_per_s));
        json_object_set_new(out, "wait_s", json_real(report->wait_s));
    }
    return atedm_cli_print_json("bench step", out);
}

int atedm_bench_report_print(const atedm_bench_report *report)
{
    if (report->options->json)
        return print_json(report);
    print_table(report);
    return 0;
}
