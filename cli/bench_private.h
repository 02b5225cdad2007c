// What the files of `atedm bench step` share: a case, its timing, and its inputs.
#ifndef ATEDM_CLI_BENCH_PRIVATE_H
#define ATEDM_CLI_BENCH_PRIVATE_H

#include "cli/bench_report.h"
#include "core/arena.h"
#include "core/model.h"
#include "core/weights.h"

typedef struct atedm_bench {
    atedm_bench_report *report;
    const atedm_model_config *config;
    atedm_model *dry;
    atedm_model real;         // with the component that is being timed
    atedm_recorder *recorder; // its weights, where nothing is computed with them
    void *inputs;             // [host] random values of dtype
    float *vae_latents;       // [host] random values
} atedm_bench;

// What one timed case is.
typedef struct atedm_bench_case {
    atedm_bench *b;
    const atedm_model *model; // the dry one or the real one
    int64_t h, w, batch;
    const atedm_plan *plan; // NULL: off
    int step;
    void *x, *y;                // [device] of an evaluation; NULL: takes them itself
    const atedm_weight *weight; // of a matrix product, on the real device
    int64_t rows, width;        // of it
    // Inputs are uploaded by the first run, which is not measured: scratch memory is laid out the
    // same way each time, and no operation writes to its inputs.
    bool warm;
    // Several calls a run, for what takes less time than waiting for it; 1 while that is not known.
    int calls;
    double run_s; // 0: one call a run
} atedm_bench_case;
typedef void (*atedm_bench_fn)(const atedm_bench_case *c, atedm_stream *s, atedm_arena *arena);

// ---- bench_time.c

// Random values on the device.
void *atedm_bench_input(const atedm_bench_case *c, atedm_stream *s, atedm_arena *arena,
                        int64_t values);
float *atedm_bench_input_f32(const atedm_bench_case *c, atedm_stream *s, atedm_arena *arena,
                             int64_t values);
// Appends `row` with the case's times, counts and memory: one run to warm up, then as many as
// --repeat says (or as many more as fill `seconds`).
ATEDM_MUST_CHECK atedm_status atedm_bench_add_row(atedm_bench_case *c, atedm_dtype dtype,
                                                  atedm_bench_fn enqueue,
                                                  const atedm_bench_row *row, double seconds,
                                                  atedm_error *err);

// ---- bench_ceiling.c

// A product of [rows, width] and [width, width] as a row of stage `stage`; *ret_rate has its
// FLOPs per second.
ATEDM_MUST_CHECK atedm_status atedm_bench_matrix(atedm_bench *b, const char *stage, int64_t rows,
                                                 int64_t width, double *ret_rate, atedm_error *err);
// The stage "ceilings": a large copy, a large product, and the shortest operation.
ATEDM_MUST_CHECK atedm_status atedm_bench_ceilings(atedm_bench *b, atedm_error *err);

// ---- bench_step.c, bench_loop.c

// Evaluates the UNet on the samples' inputs, which the caller may have made.
void atedm_bench_enqueue_unet(const atedm_bench_case *c, atedm_stream *s, atedm_arena *arena);
// All steps of as many images as the case's batch says, two samples each.
void atedm_bench_enqueue_loop(const atedm_bench_case *c, atedm_stream *s, atedm_arena *arena);

#endif
