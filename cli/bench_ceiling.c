// The best rates that the device reaches, with which everything else is compared. See
// bench_private.h.
#include "cli/bench_private.h"

#include "cli/bench_weights.h"

#define YARDSTICK_S 1.0 // duration of measuring
// The duration of a yardstick's run. It is long, so that waiting for it, some 10 us on a GPU, takes
// no noticeable part.
#define RUN_S 0.005
#define MIB ((int64_t)1 << 20)

static void enqueue_matrix(const atedm_bench_case *c, atedm_stream *s, atedm_arena *arena)
{
    void *x = atedm_bench_input(c, s, arena, c->rows * c->width);
    void *y = atedm_arena_take(
        arena, s, (size_t)(c->rows * c->width) * atedm_dtype_size(atedm_stream_dtype(s)));
    // The dry run only measures memory; the weight belongs to the real device.
    if (c->model != c->b->dry)
        atedm_linear(s, &(atedm_linear_args){.weight = c->weight, .x = x, .y = y, .rows = c->rows});
}

// Copies there and back. Pages that were never written need not exist, and reading them would take
// no time.
static void enqueue_copy(const atedm_bench_case *c, atedm_stream *s, atedm_arena *arena)
{
    size_t bytes = (size_t)c->b->report->options->copy_mib * MIB;
    void *a = atedm_arena_take(arena, s, bytes), *b = atedm_arena_take(arena, s, bytes);
    atedm_copy(s, a, b, bytes);
    atedm_copy(s, b, a, bytes);
}

static void enqueue_wait(const atedm_bench_case *c, atedm_stream *s, atedm_arena *arena)
{
    void *x = atedm_bench_input(c, s, arena, 1);
    atedm_activate(s, ATEDM_ACT_NONE, x, x, 1);
}

atedm_status atedm_bench_matrix(atedm_bench *b, const char *stage, int64_t rows, int64_t width,
                                double *ret_rate, atedm_error *err)
{
    const int64_t shape[2] = {width, width};
    atedm_weights *weights = NULL;
    atedm_weight *weight = NULL;
    atedm_host_tensor tensor;
    atedm_status status = atedm_random_weights_create(b->real.dtype, &weights);
    if (status)
        return atedm_error_set(err, status, "no memory for weights");
    status = weights->get(weights, stage, 2, shape, false, &tensor, err);
    if (!status) {
        status = atedm_linear_weight_create(b->real.device, b->real.dtype, &tensor, NULL, 1,
                                            &weight, err);
        weights->done(weights, &tensor);
    }
    atedm_random_weights_destroy(weights);
    atedm_bench_case c = {.b = b, .weight = weight, .rows = rows, .width = width, .run_s = RUN_S};
    const atedm_bench_row row = {.stage = stage, .batch = 1};
    if (!status)
        status = atedm_bench_add_row(&c, b->real.dtype, enqueue_matrix, &row, YARDSTICK_S, err);
    if (!status)
        *ret_rate = atedm_bench_row_rate(&b->report->rows[b->report->n_rows - 1]);
    atedm_weight_destroy(weight);
    return status;
}

atedm_status atedm_bench_ceilings(atedm_bench *b, atedm_error *err)
{
    atedm_bench_report *report = b->report;
    const atedm_bench_options *options = report->options;
    atedm_bench_case c = {.b = b, .run_s = RUN_S};
    const atedm_bench_row copy = {.stage = "copy", .batch = 1},
                          wait = {.stage = "wait", .batch = 1};
    atedm_status status =
        atedm_bench_add_row(&c, b->real.dtype, enqueue_copy, &copy, YARDSTICK_S, err);
    if (status)
        return status;
    // Two copies, each of which reads and writes.
    report->copy_bytes_per_s =
        4 * (double)(options->copy_mib * MIB) / report->rows[report->n_rows - 1].min_s;
    status = atedm_bench_matrix(b, "matrix", options->matrix, options->matrix,
                                &report->matrix_flops_per_s, err);
    c.run_s = 0;
    if (!status)
        status = atedm_bench_add_row(&c, b->real.dtype, enqueue_wait, &wait, 0, err);
    if (!status)
        report->wait_s = report->rows[report->n_rows - 1].min_s;
    return status;
}
