// The results of `atedm bench step`, measured or only counted, as a table or as JSON.
#ifndef ATEDM_CLI_BENCH_REPORT_H
#define ATEDM_CLI_BENCH_REPORT_H

#include "cli/bench_options.h"
#include "core/checkpoint_names.h"
#include "core/model.h"
#include "kernels/kernels.h"
#include "kernels/profile.h"

#define ATEDM_BENCH_MAX_ROWS 512

// One stage, timed. On the dry backend times mean nothing, and are not shown.
typedef struct atedm_bench_row {
    const char *stage;     // "gemm", "copy", "matrix", "wait", "text", "unet", "loop", "vae"
    atedm_bench_size size; // pixels; 0 if the stage has none
    int64_t batch;         // samples, prompts; loop: images, with guidance
    const char *pruning;   // as given; NULL if it does not apply
    int first_step, steps; // steps of the plan with this cost; 0 if it does not apply
    bool profiled;         // --ops applies
    double min_s, median_s;
    atedm_op_counts counts;
    size_t scratch_bytes;
    atedm_profile_op ops[ATEDM_PROFILE_MAX]; // of one run, longest first
    size_t n_ops;                            // 0: not wanted
} atedm_bench_row;

typedef struct atedm_bench_report {
    const atedm_bench_options *options;
    const atedm_model_config *config;
    const char *backend;
    atedm_dtype dtype, vae_dtype;
    double load_s[ATEDM_VAE + 1]; // seconds of loading, by atedm_component
    atedm_bench_row rows[ATEDM_BENCH_MAX_ROWS];
    size_t n_rows;
    double gemm_flops_per_s; // the yardstick's best rate
    // From the stage "ceilings" or --rates; 0: not known.
    double matrix_flops_per_s, copy_bytes_per_s;
    double wait_s; // time of an operation on one element, including the wait
} atedm_bench_report;

// FLOPs per second of the best run, without pruning's own operations.
double atedm_bench_row_rate(const atedm_bench_row *row);
// Prints to standard output. Returns the exit status.
int atedm_bench_report_print(const atedm_bench_report *report);

#endif
