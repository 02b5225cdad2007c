// Trials of algorithms: which of those that cuBLASLt and cuDNN propose, and of our own, is the
// fastest with the same bits as a known one. docs/adr/0016-trials.md says why.
#ifndef ATEDM_KERNELS_CUDA_TRIAL_H
#define ATEDM_KERNELS_CUDA_TRIAL_H

#include "kernels/cuda/cuda.h"

// Most device memory of a trial, which gives it back. Operands that want more are not tried, nor is
// anything where the device has not the room.
#define ATEDM_CUDA_TRIAL_BYTES ((size_t)1 << 30)
// Of these, bytes that are written before a timed run, so that the second-level cache has nothing
// left of the weights: as many as the largest such cache has (126 MiB, on the B200).
#ifndef ATEDM_CUDA_TRIAL_COLD_BYTES
#define ATEDM_CUDA_TRIAL_COLD_BYTES ((size_t)128 << 20)
#endif
#define ATEDM_CUDA_TRIAL_CANDIDATES 13 // at most
#define ATEDM_CUDA_TRIAL_KNOWN (-1)    // the known algorithm, in place of a candidate's number

// A matrix of the stream's act.
typedef struct atedm_cuda_trial_operand {
    int64_t rows, columns, stride;
    atedm_cuda_noise noise; // its values in rounds with noise; in the others they are plain ones
} atedm_cuda_trial_operand;

// The operands, one behind the other in device memory: x, weight, addends. There are up to three
// kinds of rounds, in turn. In the first, x and weight have their noise, so chosen that sums of
// their products are 0 but for rounding, and addends (bias, residual: all that is added) are 0. In
// the second all values are plain. In the third, for addends with noise alone, they have that:
// opposed values, of which two that are added show in which order.
typedef struct atedm_cuda_trial_operands {
    atedm_cuda_trial_operand x, weight, addends;
    size_t weight_at, addends_at; // bytes from the start of x; by atedm_cuda_trial_place
    size_t bytes;                 // of all
} atedm_cuda_trial_operands;

typedef struct atedm_cuda_trial {
    const atedm_cuda_trial_operands *operands;
    size_t y_bytes;  // of the results, a multiple of 4
    int64_t results; // elements of y
    int candidates;  // how many there are
    // Enqueues a candidate on [device] operands, which begin at `operands`, with results to y.
    // False: the algorithm refuses.
    bool (*run)(const void *user, const char *operands, int candidate, char *y);
    const void *user;
} atedm_cuda_trial;

// `bytes` rounded up to where the next operand can begin.
size_t atedm_cuda_trial_whole(size_t bytes);
// Sets weight_at, addends_at and bytes.
void atedm_cuda_trial_place(atedm_dtype act, atedm_cuda_trial_operands *operands);
// Enqueues writing the operands' values of a round to `memory`, others in each round. Round 1 has
// plain ones.
cudaError_t atedm_cuda_trial_fill(const atedm_cuda_stream *s,
                                  const atedm_cuda_trial_operands *operands, char *memory,
                                  int round);
// How many words of 32 bits of a and b, [device] of `bytes` bytes, differ; INFINITY after failing
// the stream. `counts`: [device] scratch of ATEDM_CUDA_DIFFERENCES floats. Waits for the device.
float atedm_cuda_count_differences(atedm_cuda_stream *s, const void *a, const void *b, size_t bytes,
                                   float *counts);
// The number of the fastest candidate that gives the known algorithm's bits; ATEDM_CUDA_TRIAL_KNOWN
// where none does, or where nothing is tried: by ATEDM_CUDA_TRIALS, in F32, without memory, or with
// so few results that it would take too many rounds. May fail the stream. Waits for the device.
int atedm_cuda_trial_pick(atedm_cuda_stream *s, const atedm_cuda_trial *trial);

#endif
