// Timing of a case: see bench_private.h.
//
// Every case is a function that enqueues it on a stream, inputs included. It runs first on the dry
// device with a measuring arena, which shows how much scratch memory it needs, then on the real
// device.
#include "cli/bench_private.h"

#include "cli/cli.h"
#include "core/base/clock.h"

#include <stdio.h>
#include <unistd.h>

#define MOST_CALLS 1000 // of a run

void *atedm_bench_input(const atedm_bench_case *c, atedm_stream *s, atedm_arena *arena,
                        int64_t values)
{
    size_t bytes = (size_t)values * atedm_dtype_size(atedm_stream_dtype(s));
    void *memory = atedm_arena_take(arena, s, bytes);
    if (!c->warm)
        atedm_upload(s, c->b->inputs, memory, bytes);
    return memory;
}

float *atedm_bench_input_f32(const atedm_bench_case *c, atedm_stream *s, atedm_arena *arena,
                             int64_t values)
{
    size_t bytes = (size_t)values * sizeof(float);
    float *memory = atedm_arena_take(arena, s, bytes);
    if (!c->warm)
        atedm_upload(s, c->b->vae_latents, memory, bytes);
    return memory;
}

static atedm_status measure_scratch(const atedm_bench_case *c, atedm_dtype dtype,
                                    atedm_bench_fn enqueue, size_t *ret_bytes, atedm_error *err)
{
    atedm_bench_case dry_case = *c;
    dry_case.model = c->b->dry;
    atedm_stream *s = NULL;
    atedm_arena arena;
    atedm_arena_init_measuring(&arena);
    atedm_status status = atedm_stream_create(c->b->dry->device, dtype, &s, err);
    if (status)
        return status;
    enqueue(&dry_case, s, &arena);
    status = atedm_stream_sync(s, err);
    if (!status)
        *ret_bytes = arena.peak;
    atedm_stream_destroy(s);
    return status;
}

// Makes one run. The result is the seconds of one call, until its results are there.
static atedm_status run_once(const atedm_bench_case *c, atedm_bench_fn enqueue, atedm_stream *s,
                             atedm_arena *arena, double *ret_seconds, atedm_error *err)
{
    double start = atedm_clock_monotonic();
    atedm_stream_reset_counts(s);
    for (int i = 0; i < c->calls; i++) {
        enqueue(c, s, arena);
        atedm_arena_release(arena, 0);
    }
    atedm_status status = atedm_stream_sync(s, err);
    *ret_seconds = (atedm_clock_monotonic() - start) / c->calls;
    return status;
}

// Makes the first runs, which do not count. They upload inputs, and find how many calls make a run
// that is long enough.
static atedm_status warm_up(atedm_bench_case *c, atedm_bench_fn enqueue, atedm_stream *s,
                            atedm_arena *arena, atedm_error *err)
{
    double seconds = 0;
    c->calls = 1;
    c->warm = false;
    atedm_status status = run_once(c, enqueue, s, arena, &seconds, err);
    c->warm = true;
    if (status || c->run_s <= 0)
        return status;
    status = run_once(c, enqueue, s, arena, &seconds, err);
    if (seconds * MOST_CALLS < c->run_s)
        c->calls = MOST_CALLS;
    else
        c->calls = 1 + (int)(c->run_s / seconds);
    return status;
}

// Runs the case again, `repeat` times, with each operation timed. Fills in the means of a run.
static atedm_status profile_case(const atedm_bench_case *c, atedm_bench_fn enqueue, atedm_stream *s,
                                 atedm_arena *arena, atedm_bench_row *row, atedm_error *err)
{
    const atedm_bench_report *report = c->b->report;
    const atedm_profile_rates rates = {
        .flops_per_s = report->matrix_flops_per_s > report->gemm_flops_per_s
                           ? report->matrix_flops_per_s
                           : report->gemm_flops_per_s,
        .bytes_per_s = report->copy_bytes_per_s,
    };
    atedm_profile *profile = NULL;
    double seconds;
    int repeat = report->options->repeat;
    atedm_status status = atedm_profile_start(c->b->real.device, &rates, &profile, err);
    for (int i = 0; i < repeat && !status; i++)
        status = run_once(c, enqueue, s, arena, &seconds, err);
    if (!status)
        row->n_ops = atedm_profile_read(profile, row->ops);
    for (size_t i = 0; i < row->n_ops; i++) {
        row->ops[i].calls /= (uint64_t)repeat;
        row->ops[i].flops /= (uint64_t)repeat;
        row->ops[i].bytes /= (uint64_t)repeat;
        row->ops[i].seconds /= repeat;
        row->ops[i].floor_s /= repeat;
    }
    atedm_profile_stop(profile);
    return status;
}

// Fills in the times, counts and memory of `row`.
static atedm_status time_case(atedm_bench_case *c, atedm_dtype dtype, atedm_bench_fn enqueue,
                              double seconds, atedm_bench_row *row, atedm_error *err)
{
    double times[ATEDM_BENCH_MAX_REPEAT], total = 0;
    const atedm_bench_options *options = c->b->report->options;
    atedm_stream *s = NULL;
    atedm_arena arena = {0};
    c->model = &c->b->real;
    atedm_status status = measure_scratch(c, dtype, enqueue, &row->scratch_bytes, err);
    if (!status)
        status = atedm_stream_create(c->b->real.device, dtype, &s, err);
    if (!status)
        status = atedm_arena_init(&arena, c->b->real.device, row->scratch_bytes, err);
    if (!status)
        status = warm_up(c, enqueue, s, &arena, err);
    int n = 0;
    while (!status && n < ATEDM_BENCH_MAX_REPEAT && (n < options->repeat || total < seconds)) {
        status = run_once(c, enqueue, s, &arena, &times[n], err);
        total += times[n++] * c->calls;
    }
    if (!status) {
        atedm_cli_sort(times, (size_t)n);
        row->min_s = times[0];
        row->median_s = times[n / 2];
        row->counts = atedm_stream_counts(s);
        row->counts.conv /= (uint64_t)c->calls;
        row->counts.linear /= (uint64_t)c->calls;
        row->counts.attention /= (uint64_t)c->calls;
        row->counts.overhead /= (uint64_t)c->calls;
    }
    // A case that is only counted gets its floor from its operations.
    if (!status && (options->ops || options->dry) && row->profiled)
        status = profile_case(c, enqueue, s, &arena, row, err);
    atedm_arena_finish(&arena);
    atedm_stream_destroy(s);
    return status;
}

atedm_status atedm_bench_add_row(atedm_bench_case *c, atedm_dtype dtype, atedm_bench_fn enqueue,
                                 const atedm_bench_row *row, double seconds, atedm_error *err)
{
    atedm_bench_report *report = c->b->report;
    if (report->n_rows == ATEDM_BENCH_MAX_ROWS)
        return atedm_error_set(err, ATEDM_ERR_LIMIT, "more than %d cases", ATEDM_BENCH_MAX_ROWS);
    bool visible = isatty(STDERR_FILENO) == 1;
    if (visible)
        fprintf(stderr, "\r\033[Ktiming %s ...", row->stage);
    atedm_bench_row *mine = &report->rows[report->n_rows];
    *mine = *row;
    atedm_status status = time_case(c, dtype, enqueue, seconds, mine, err);
    if (visible)
        fputs("\r\033[K", stderr);
    if (!status)
        report->n_rows++;
    return status;
}
