// The options of `atedm bench step`.
#ifndef ATEDM_CLI_BENCH_OPTIONS_H
#define ATEDM_CLI_BENCH_OPTIONS_H

#include "core/model.h"
#include "core/plan.h"
#include "kernels/profile.h"

#include <stdbool.h>
#include <stdint.h>

#define ATEDM_BENCH_MAX_LIST 8      // sizes, batches, prunings
#define ATEDM_BENCH_MAX_REPEAT 1000 // measured runs of a stage
#define ATEDM_BENCH_MAX_MATRIX 65536
#define ATEDM_BENCH_MAX_COPY_MIB 65536
#define ATEDM_BENCH_MIN_RATE 1.0 // of an assumed device: FLOPs or bytes per second
#define ATEDM_BENCH_MAX_RATE 1e24

typedef struct atedm_bench_size {
    int64_t width, height; // pixels
} atedm_bench_size;

typedef struct atedm_bench_options {
    const char *model; // directory; NULL: `arch` with random weights
    const char *arch;
    const char *backend, *dtype;
    bool dry;                  // backend "dry": counts the work, times nothing
    atedm_profile_rates rates; // of the device assumed then; 0: not given
    atedm_bench_size sizes[ATEDM_BENCH_MAX_LIST];
    int n_sizes; // 0: the native size
    int64_t batches[ATEDM_BENCH_MAX_LIST];
    int n_batches;
    int64_t images[ATEDM_BENCH_MAX_LIST]; // of denoising loops
    int n_images;
    const char *prunings[ATEDM_BENCH_MAX_LIST]; // as given
    atedm_prune_spec specs[ATEDM_BENCH_MAX_LIST];
    int n_prunings;
    int steps, repeat;
    int64_t matrix, copy_mib;             // sizes of the stage "ceilings"
    bool ceilings, text, unet, loop, vae; // stages
    bool ops;                             // also by operation
    bool json;
} atedm_bench_options;

// Returns true if there is something to time. Otherwise *ret_exit has the exit status.
bool atedm_bench_options_parse(int argc, char **argv, atedm_bench_options *ret_options,
                               int *ret_exit);
// Completes and checks the sizes. On an error it prints what is wrong and returns false.
bool atedm_bench_options_check_sizes(atedm_bench_options *options,
                                     const atedm_model_config *config);

#endif
