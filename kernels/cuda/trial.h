// Trials of the algorithms that cuBLASLt and cuDNN propose: the fastest one that gives the same
// bits as a known one. Why: linear_plan.c, dnn_trial.c.
#ifndef ATEDM_KERNELS_CUDA_TRIAL_H
#define ATEDM_KERNELS_CUDA_TRIAL_H

#include "kernels/cuda/cuda.h"

// Device memory of a trial, which is given back: whoever needs more gets none, nor who does where
// the device has no room.
#define ATEDM_CUDA_TRIAL_BYTES ((size_t)1 << 30)

typedef struct atedm_cuda_trial {
    char *operands; // [device]
    char *expected; // [device] y_bytes: the known results
    char *y;        // [device] y_bytes
    float *counts;  // [device] of differences
    size_t y_bytes; // a multiple of 4
} atedm_cuda_trial;

// Bytes of an operand, up to where the next one can begin.
size_t atedm_cuda_trial_whole(size_t bytes);
// False where there is no memory for it.
bool atedm_cuda_trial_begin(atedm_cuda_stream *s, size_t operand_bytes, size_t y_bytes,
                            atedm_cuda_trial *ret_trial);
void atedm_cuda_trial_end(atedm_cuda_stream *s, atedm_cuda_trial *trial);

// Enqueues the algorithm that `user` stands for, with results to y; whether it could.
typedef bool (*atedm_cuda_trial_fn)(const void *user, char *y);
// Seconds that it takes; infinite where it does not give the expected results, or after failing the
// stream. Waits for the device.
double atedm_cuda_trial_time(atedm_cuda_stream *s, const atedm_cuda_trial *trial,
                             atedm_cuda_trial_fn run, const void *user);

#endif
