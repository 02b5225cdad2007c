// Shared by the files of `atedm bench step`: a case, its timing, and its inputs.
#ifndef ATEDM_CLI_BENCH_PRIVATE_H
#define ATEDM_CLI_BENCH_PRIVATE_H

#include "cli/bench_report.h"
#include "core/arena.h"
#include "core/model.h"
#include "core/weights.h"

typedef struct atedm_bench {
    atedm_bench_report *report;
    const atedm_model_config *config;
    atedm_model *dry;         // the whole model on the dry device
    atedm_model real;         // the device, with the one component that is being timed
    atedm_recorder *recorder; // the component's weights, on a dry device
    void *inputs;             // [host] random values in the report's dtype
    float *vae_latents;       // [host] the same values in F32
} atedm_bench;

// One timed case.
typedef struct atedm_bench_case {
    atedm_bench *b;
    const atedm_model *model; // the dry one or the real one
    int64_t h, w;             // of the latents
    int64_t batch;
    const atedm_plan *plan;     // NULL: off
    int step;                   // of the plan
    void *x, *y;                // [device] of a UNet evaluation; NULL: it takes memory for them
    const atedm_weight *weight; // of a matrix product, on the real device
    int64_t rows, width;        // of the product's operands
    // The inputs are on the device already. The first, unmeasured run uploads them. Each later run
    // finds them, because scratch memory has the same layout in each run, and no operation writes
    // to its inputs.
    bool warm;
    // The number of calls that a run enqueues before it waits. It is more than 1 for a case that
    // takes less time than the wait.
    int calls;
    double run_s; // minimum seconds of a run; 0: one call for each run
} atedm_bench_case;
// Enqueues the case once, inputs included.
typedef void (*atedm_bench_fn)(const atedm_bench_case *c, atedm_stream *s, atedm_arena *arena);

// ---- bench_time.c

// [device] memory of the arena, with `values` random values in the stream's dtype or in F32. On
// failure the stream fails.
void *atedm_bench_input(const atedm_bench_case *c, atedm_stream *s, atedm_arena *arena,
                        int64_t values);
float *atedm_bench_input_f32(const atedm_bench_case *c, atedm_stream *s, atedm_arena *arena,
                             int64_t values);
// Appends `row` to the report, with the case's times, counts and memory. It makes one unmeasured
// run, then --repeat runs, and more until they have taken `seconds`.
ATEDM_MUST_CHECK atedm_status atedm_bench_add_row(atedm_bench_case *c, atedm_dtype dtype,
                                                  atedm_bench_fn enqueue,
                                                  const atedm_bench_row *row, double seconds,
                                                  atedm_error *err);

// ---- bench_ceiling.c

// Times a product of [rows, width] and [width, width] as a row of stage `stage`. *ret_rate has its
// FLOPs per second.
ATEDM_MUST_CHECK atedm_status atedm_bench_matrix(atedm_bench *b, const char *stage, int64_t rows,
                                                 int64_t width, double *ret_rate, atedm_error *err);
// Times the stage "ceilings": a large copy, a large product, and the shortest operation. Sets the
// report's rates from them.
ATEDM_MUST_CHECK atedm_status atedm_bench_ceilings(atedm_bench *b, atedm_error *err);

// ---- bench_step.c, bench_loop.c

// One UNet evaluation of c->batch samples at c->step of the plan.
void atedm_bench_enqueue_unet(const atedm_bench_case *c, atedm_stream *s, atedm_arena *arena);
// All steps of c->batch images, with two samples each.
void atedm_bench_enqueue_loop(const atedm_bench_case *c, atedm_stream *s, atedm_arena *arena);

#endif
