// Trials of algorithms, those that cuBLASLt and cuDNN propose and own ones: the fastest one that
// gives the same bits as a known one. Why: docs/adr/0016-trials.md.
#ifndef ATEDM_KERNELS_CUDA_TRIAL_H
#define ATEDM_KERNELS_CUDA_TRIAL_H

#include "kernels/cuda/cuda.h"

// Device memory of a trial, which is given back: whoever needs more gets none, nor who does where
// the device has no room.
#define ATEDM_CUDA_TRIAL_BYTES ((size_t)1 << 30)
#define ATEDM_CUDA_TRIAL_CANDIDATES 13
#define ATEDM_CUDA_TRIAL_KNOWN (-1) // in place of a candidate's number

// A matrix of the stream's act.
typedef struct atedm_cuda_trial_operand {
    int64_t rows, columns, stride;
    atedm_cuda_noise noise; // of rounds that are not ordinary
} atedm_cuda_trial_operand;

// One behind the other in memory, from x on. Noise of x and weight goes together, so that sums of
// their products are 0 but for rounding; addends, bias and all else that is added, are 0 in that
// kind of round. Addends may have noise in rounds of their own: opposed, where two of them are
// added, whose order is seen then.
typedef struct atedm_cuda_trial_operands {
    atedm_cuda_trial_operand x, weight, addends;
    size_t weight_at, addends_at, bytes; // by atedm_cuda_trial_place
} atedm_cuda_trial_operands;

typedef struct atedm_cuda_trial {
    const atedm_cuda_trial_operands *operands;
    size_t y_bytes;  // of results, a multiple of 4
    int64_t results; // elements of y
    int candidates;
    // Enqueues an algorithm with the operands, results to y; whether it could.
    bool (*run)(const void *user, const char *operands, int candidate, char *y);
    const void *user;
} atedm_cuda_trial;

// Bytes of an operand, up to where the next one can begin.
size_t atedm_cuda_trial_whole(size_t bytes);
// Sets where each of the operands begins, and their bytes.
void atedm_cuda_trial_place(atedm_dtype act, atedm_cuda_trial_operands *operands);
// Enqueues their values of a round, others each time; those of round 1 are ordinary.
cudaError_t atedm_cuda_trial_fill(const atedm_cuda_stream *s,
                                  const atedm_cuda_trial_operands *operands, char *memory,
                                  int round);
// How many words of 32 bits of a and b, [device] of `bytes` bytes, differ; INFINITY after failing
// the stream. `counts`: [device] of ATEDM_CUDA_DIFFERENCES. Waits for the device.
float atedm_cuda_count_differences(atedm_cuda_stream *s, const void *a, const void *b, size_t bytes,
                                   float *counts);
// The number of the fastest candidate that gives the known one's bits; ATEDM_CUDA_TRIAL_KNOWN where
// none does, or there is no trial: memory is out, or results are too few. May fail the stream.
// Waits for the device.
int atedm_cuda_trial_pick(atedm_cuda_stream *s, const atedm_cuda_trial *trial);

#endif
