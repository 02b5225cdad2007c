// Trials of algorithms: see trial.h.
#include "kernels/cuda/trial.h"

#include "core/base/clock.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

// "0" turns trials off: linear layers have one algorithm for all numbers of rows, convolutions by
// cuDNN are a call for each sample.
#define SWITCH "ATEDM_CUDA_TRIALS"
#define TIMED_RUNS 3
#define ALIGN ((size_t)256)

size_t atedm_cuda_trial_whole(size_t bytes)
{
    return (bytes + ALIGN - 1) / ALIGN * ALIGN;
}

bool atedm_cuda_trial_begin(atedm_cuda_stream *s, size_t operand_bytes, size_t y_bytes,
                            atedm_cuda_trial *ret_trial)
{
    size_t operands = atedm_cuda_trial_whole(operand_bytes), y = atedm_cuda_trial_whole(y_bytes);
    size_t all = operands + 2 * y + ATEDM_CUDA_DIFFERENCES * sizeof *ret_trial->counts;
    const char *value = getenv(SWITCH);
    bool off = value && strcmp(value, "0") == 0;
    void *memory = NULL;
    atedm_error err;
    if (off || s->head.status || all > ATEDM_CUDA_TRIAL_BYTES ||
        atedm_cuda_alloc(s->head.device, all, &memory, &err))
        return false;
    ret_trial->operands = memory;
    ret_trial->expected = ret_trial->operands + operands;
    ret_trial->y = ret_trial->expected + y;
    ret_trial->counts = (float *)(void *)(ret_trial->y + y);
    ret_trial->y_bytes = y_bytes;
    return true;
}

void atedm_cuda_trial_end(atedm_cuda_stream *s, atedm_cuda_trial *trial)
{
    atedm_cuda_free(s->head.device, trial->operands); // which waits for what uses it
}

static bool is_expected(atedm_cuda_stream *s, const atedm_cuda_trial *trial)
{
    float counts[ATEDM_CUDA_DIFFERENCES], all = 0;
    atedm_cuda_check(&s->head,
                     atedm_cuda_launch_differences(trial->expected, trial->y,
                                                   (int64_t)(trial->y_bytes / sizeof(uint32_t)),
                                                   trial->counts, s->stream),
                     "trial");
    atedm_cuda_download(&s->head, trial->counts, counts, sizeof counts);
    atedm_cuda_sync(&s->head);
    for (int i = 0; !s->head.status && i < ATEDM_CUDA_DIFFERENCES; i++)
        all += counts[i];
    return !s->head.status && all == 0;
}

double atedm_cuda_trial_time(atedm_cuda_stream *s, const atedm_cuda_trial *trial,
                             atedm_cuda_trial_fn run, const void *user)
{
    // NaN, so that what is not written is seen.
    atedm_cuda_check(&s->head, cudaMemsetAsync(trial->y, 0xff, trial->y_bytes, s->stream), "trial");
    if (s->head.status || !run(user, trial->y) || !is_expected(s, trial))
        return INFINITY;
    double start = atedm_clock_monotonic();
    for (int i = 0; i < TIMED_RUNS; i++)
        if (!run(user, trial->y))
            return INFINITY;
    atedm_cuda_sync(&s->head);
    return s->head.status ? INFINITY : atedm_clock_monotonic() - start;
}
