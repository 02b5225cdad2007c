// The report of `atedm bench step`: see bench_report.h.
#include "cli/bench_report.h"

#include "cli/cli.h"
#include "core/flops.h"

#include <inttypes.h>
#include <stdio.h>

// A number in a table.
typedef struct cell {
    char text[32];
} cell;

// Prints as "-" if it is not known.
static cell number(double value, int decimals, bool known)
{
    cell c = {"-"};
    if (known)
        snprintf(c.text, sizeof c.text, "%.*f", decimals, value);
    return c;
}

static bool is_timed(const atedm_bench_report *report)
{
    return !report->options->dry;
}

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

// The floor of a row: the sum of its operations' floors. 0 if it is not known.
static double row_floor(const atedm_bench_row *row)
{
    double sum = 0;
    for (size_t i = 0; i < row->n_ops; i++)
        sum += row->ops[i].floor_s;
    return sum;
}

// The mean seconds of a step, or their floor if nothing is timed, weighted by the number of the
// plan's steps that each row stands for. 0 if the rows are not consecutive phases of one plan.
static double mean_step(const atedm_bench_report *report, size_t first, size_t *ret_end)
{
    double sum = 0;
    int steps = 0;
    size_t i = first;
    do {
        const atedm_bench_row *row = &report->rows[i];
        sum += (is_timed(report) ? row->min_s : row_floor(row)) * row->steps;
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
    const bool timed = is_timed(report);
    const double rate = atedm_bench_row_rate(row), least = row_floor(row);
    printf("%-5s %-10s %5" PRId64 "  %-14.14s %-7s %10s %10s %10s %10.1f %9.1f %8s %9s %7.0f\n",
           row->stage, size, row->batch, row->pruning ? row->pruning : "", steps,
           number(row->min_s, 4, timed).text, number(row->median_s, 4, timed).text,
           number(least, 6, least > 0).text, (double)useful_flops(row) * 1e-9,
           (double)overhead_flops(row) * 1e-9, number(rate * 1e-9, 1, timed).text,
           number(100 * rate / report->gemm_flops_per_s, 1, timed).text,
           (double)row->scratch_bytes / (1 << 20));
}

// Prints how the time of a row is divided. Time outside of operations is checking, copying and
// waiting.
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

// Prints the operations of a row that was only counted.
static void print_counted_ops(const atedm_bench_row *row)
{
    for (size_t i = 0; i < row->n_ops; i++) {
        const atedm_profile_op *op = &row->ops[i];
        printf("    %-18s %6" PRIu64 " calls %12.3f GFLOP %10.4f GB %12s ms\n", op->name, op->calls,
               (double)op->flops * 1e-9, (double)op->bytes * 1e-9,
               number(op->floor_s * 1e3, 4, op->floor_s > 0).text);
    }
}

static void print_means(const atedm_bench_report *report)
{
    for (size_t i = 0, end; i < report->n_rows; i = end) {
        end = i + 1;
        if (!report->rows[i].steps)
            continue;
        double mean = mean_step(report, i, &end);
        if (end > i + 1 && mean > 0)
            printf("\n%" PRId64 "x%" PRId64 ", batch %" PRId64 ", %s: mean %sUNet evaluation of %d "
                   "steps %s s",
                   report->rows[i].size.width, report->rows[i].size.height, report->rows[i].batch,
                   report->rows[i].pruning, is_timed(report) ? "" : "floor of a ",
                   report->options->steps, number(mean, is_timed(report) ? 4 : 6, true).text);
    }
}

static void print_table(const atedm_bench_report *report)
{
    const atedm_bench_options *options = report->options;
    printf("%s, backend %s, %s (VAE %s), ", options->model ? report->config->name : options->arch,
           report->backend, atedm_dtype_name(report->dtype), atedm_dtype_name(report->vae_dtype));
    if (is_timed(report))
        printf("%d measured runs\n\n", options->repeat);
    else
        puts("nothing is run\n");
    printf("%-5s %-10s %5s  %-14s %-7s %10s %10s %10s %10s %9s %8s %9s %7s\n", "stage", "size",
           "batch", "pruning", "steps", "best s", "median s", "floor s", "GFLOP", "overhead",
           "GFLOP/s", "% of gemm", "MiB");
    for (size_t i = 0; i < report->n_rows; i++) {
        print_row(report, &report->rows[i]);
        if (options->ops && is_timed(report))
            print_ops(report, &report->rows[i]);
        else if (options->ops)
            print_counted_ops(&report->rows[i]);
    }
    print_means(report);
    if (options->ceilings)
        printf("\nceilings: %.1f GFLOP/s, %.1f GB/s; the shortest operation %.1f us",
               report->matrix_flops_per_s * 1e-9, report->copy_bytes_per_s * 1e-9,
               report->wait_s * 1e6);
    const double *load = report->load_s;
    putchar('\n');
    if (is_timed(report))
        printf("loading: text encoders %.1f s, UNet %.1f s, VAE %.1f s; ",
               load[ATEDM_TEXT_ENCODER] + load[ATEDM_TEXT_ENCODER_2], load[ATEDM_UNET],
               load[ATEDM_VAE]);
    else if (report->matrix_flops_per_s > 0)
        printf("floors: at %.1f GFLOP/s, %.1f GB/s; ", report->matrix_flops_per_s * 1e-9,
               report->copy_bytes_per_s * 1e-9);
    printf("peak memory %.2f GiB\n", (double)atedm_cli_peak_memory() / (1 << 30));
}

// For "o*" of json_pack, which leaves out fields that are NULL.
static json_t *number_json(double value, bool known)
{
    return known ? json_real(value) : NULL;
}

static json_t *ops_json(const atedm_bench_report *report, const atedm_bench_row *row)
{
    // Rows timed without the ceilings have floors of 0.
    const bool timed = is_timed(report), has_floor = timed || report->matrix_flops_per_s > 0;
    json_t *list = json_array();
    for (size_t i = 0; i < row->n_ops; i++) {
        const atedm_profile_op *op = &row->ops[i];
        json_array_append_new(list, json_pack("{s:s, s:I, s:o*, s:I, s:I, s:o*}", "op", op->name,
                                              "calls", (json_int_t)op->calls, "seconds",
                                              number_json(op->seconds, timed), "flops",
                                              (json_int_t)op->flops, "bytes", (json_int_t)op->bytes,
                                              "floor_s", number_json(op->floor_s, has_floor)));
    }
    return list;
}

static json_t *row_json(const atedm_bench_report *report, const atedm_bench_row *row)
{
    const bool timed = is_timed(report);
    const double rate = atedm_bench_row_rate(row), least = row_floor(row);
    json_t *out = json_pack(
        "{s:s, s:I, s:o*, s:o*, s:o*, s:I, s:I, s:o*, s:o*, s:I}", "stage", row->stage, "batch",
        (json_int_t)row->batch, "min_s", number_json(row->min_s, timed), "median_s",
        number_json(row->median_s, timed), "floor_s", number_json(least, least > 0), "flops",
        (json_int_t)useful_flops(row), "overhead_flops", (json_int_t)overhead_flops(row),
        "flops_per_s", number_json(rate, timed), "share_of_gemm",
        number_json(rate / report->gemm_flops_per_s, timed), "scratch_bytes",
        (json_int_t)row->scratch_bytes);
    if (row->n_ops && report->options->ops)
        json_object_set_new(out, "ops", ops_json(report, row));
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
    const bool timed = is_timed(report), has_ceilings = report->matrix_flops_per_s > 0;
    json_t *out = json_pack(
        "{s:s, s:s, s:s, s:s, s:i, s:o*, s:o*, s:o*, s:o*, s:o*, s:o*, s:o*, s:o*, s:o, s:I}",
        "model", report->options->model ? report->config->name : report->options->arch, "backend",
        report->backend, "dtype", atedm_dtype_name(report->dtype), "vae_dtype",
        atedm_dtype_name(report->vae_dtype), "plan_steps", report->options->steps, "repeat",
        timed ? json_integer(report->options->repeat) : NULL, "gemm_flops_per_s",
        number_json(report->gemm_flops_per_s, timed), "load_text_s",
        number_json(report->load_s[ATEDM_TEXT_ENCODER] + report->load_s[ATEDM_TEXT_ENCODER_2],
                    timed),
        "load_unet_s", number_json(report->load_s[ATEDM_UNET], timed), "load_vae_s",
        number_json(report->load_s[ATEDM_VAE], timed), "matrix_flops_per_s",
        number_json(report->matrix_flops_per_s, has_ceilings), "copy_bytes_per_s",
        number_json(report->copy_bytes_per_s, has_ceilings), "wait_s",
        number_json(report->wait_s, report->options->ceilings), "stages", rows, "peak_memory_bytes",
        (json_int_t)atedm_cli_peak_memory());
    return atedm_cli_print_json("bench step", out);
}

int atedm_bench_report_print(const atedm_bench_report *report)
{
    if (report->options->json)
        return print_json(report);
    print_table(report);
    return 0;
}
