// Which of cuDNN's candidates a convolution gets.
//
// The heuristics propose other kernels for other numbers of samples, and the first of them is not
// always the fastest. But a sample's bits may not depend on the batch, of which cuDNN promises
// nothing. So all candidates are tried: the fastest of those that give the bits of the first one
// for a sample alone, which are kernels that add in the same order, in tiles of another size. The
// device suite checks the outcome: samples alone and in batches, at full size.
#include "core/base/clock.h"
#include "kernels/cuda/dnn.h"

#include <math.h>

// Memory of a trial, which is given back: where a shape needs more, there is none.
#define MOST_BYTES ((size_t)1 << 30)
#define TIMED_RUNS 3
#define ALIGN ((size_t)256)

// Operands, all of whose sums are 0 but for their rounding, which depends on the order, where a
// window is whole; and results.
typedef struct trial {
    char *x, *weight, *zeros, *expected, *y; // [device]
    float *counts;                           // [device] of differences
    size_t x_bytes, y_bytes;                 // of all samples
    void *workspace;
} trial;

static size_t whole(size_t bytes)
{
    return (bytes + ALIGN - 1) / ALIGN * ALIGN;
}

// Memory of the device for all of it, and its contents. NULL where there is none, or after failing
// the stream.
static void *prepare(atedm_cuda_stream *s, const atedm_cuda_dnn_shape *shape, trial *t)
{
    atedm_dtype act = s->head.act;
    size_t element = atedm_dtype_size(act);
    int64_t filter = shape->kernel * shape->kernel * shape->in, pixels = shape->n * shape->h;
    pixels *= shape->w;
    t->x_bytes = (size_t)(pixels * shape->in) * element;
    t->y_bytes = (size_t)(shape->n * shape->ho * shape->wo * shape->out) * element;
    size_t weight = whole((size_t)(shape->out * shape->weight_stride) * element);
    size_t x = whole(t->x_bytes), y = whole(t->y_bytes);
    size_t counts = ATEDM_CUDA_DIFFERENCES * sizeof *t->counts;
    void *memory = NULL;
    atedm_error err;
    t->workspace =
        atedm_cuda_scratch_get(s, ATEDM_CUDA_SCRATCH_WORKSPACE, 1, ATEDM_CUDA_DNN_WORKSPACE);
    if (!t->workspace || filter != shape->weight_stride ||
        x + weight + 3 * y + counts > MOST_BYTES ||
        atedm_cuda_alloc(s->head.device, x + weight + 3 * y + counts, &memory, &err))
        return NULL;
    t->x = memory;
    t->weight = t->x + x;
    t->zeros = t->weight + weight;
    t->expected = t->zeros + y;
    t->y = t->expected + y;
    t->counts = (float *)(void *)(t->y + y);
    cudaError_t error = atedm_cuda_launch_noise(act, ATEDM_CUDA_NOISE_ONE_ROW, t->x, pixels,
                                                shape->in, shape->in, s->stream);
    if (!error)
        error = atedm_cuda_launch_noise(act, ATEDM_CUDA_NOISE_CANCELS, t->weight, shape->out,
                                        filter, filter, s->stream);
    if (!error)
        error = cudaMemsetAsync(t->zeros, 0, t->y_bytes, s->stream);
    atedm_cuda_check(&s->head, error, "conv");
    return memory;
}

// Of the samples from `first` on, which go to `y`.
static bool run(const atedm_cuda_stream *s, const atedm_cuda_dnn_shape *shape, const trial *t,
                cudnnBackendDescriptor_t candidate, int64_t first, char *y)
{
    const void *const operands[ATEDM_CUDA_DNN_Y + 1] = {
        [ATEDM_CUDA_DNN_X] = t->x + (size_t)first * (t->x_bytes / (size_t)shape->n),
        [ATEDM_CUDA_DNN_WEIGHT] = t->weight,
        [ATEDM_CUDA_DNN_ADDEND] = shape->addend ? t->zeros : NULL,
        [ATEDM_CUDA_DNN_BIAS] = shape->bias ? t->zeros : NULL,
        [ATEDM_CUDA_DNN_Y] = y + (size_t)first * (t->y_bytes / (size_t)shape->n),
    };
    return !atedm_cuda_dnn_execute(s->dnn, candidate, operands, t->workspace);
}

// What `alone` gives, sample by sample.
static bool expect(atedm_cuda_stream *s, const atedm_cuda_dnn_plan *alone,
                   const atedm_cuda_dnn_shape *shape, const trial *t)
{
    bool good = true;
    for (int64_t i = 0; good && i < shape->n; i++)
        good = run(s, shape, t, alone->candidates[0], i, t->expected);
    return good;
}

// Whether the results are what is expected. Elements are two bytes, and whole vectors of them.
static bool is_expected(atedm_cuda_stream *s, const trial *t)
{
    float counts[ATEDM_CUDA_DIFFERENCES], all = 0;
    atedm_cuda_check(&s->head,
                     atedm_cuda_launch_differences(t->expected, t->y, (int64_t)(t->y_bytes / 4),
                                                   t->counts, s->stream),
                     "conv");
    atedm_cuda_download(&s->head, t->counts, counts, sizeof counts);
    atedm_cuda_sync(&s->head);
    for (int i = 0; !s->head.status && i < ATEDM_CUDA_DIFFERENCES; i++)
        all += counts[i];
    return !s->head.status && all == 0;
}

// Seconds of a candidate; infinite where it does not give what is expected.
static double try(atedm_cuda_stream *s, const atedm_cuda_dnn_shape *shape, const trial *t,
                  cudnnBackendDescriptor_t candidate)
{
    // NaN, so that what is not written is seen.
    atedm_cuda_check(&s->head, cudaMemsetAsync(t->y, 0xff, t->y_bytes, s->stream), "conv");
    if (s->head.status || !run(s, shape, t, candidate, 0, t->y) || !is_expected(s, t))
        return INFINITY;
    double start = atedm_clock_monotonic();
    for (int i = 0; i < TIMED_RUNS; i++)
        if (!run(s, shape, t, candidate, 0, t->y))
            return INFINITY;
    atedm_cuda_sync(&s->head);
    return atedm_clock_monotonic() - start;
}

void atedm_cuda_dnn_choose(atedm_cuda_stream *s, const atedm_cuda_dnn_plan *alone,
                           atedm_cuda_dnn_plan *plan)
{
    const atedm_cuda_dnn_shape *shape = &plan->shape;
    trial t;
    void *memory = plan->n_candidates > 0 && alone->n_candidates > 0 ? prepare(s, shape, &t) : NULL;
    double least = INFINITY;
    if (memory && !s->head.status && expect(s, alone, shape, &t))
        for (int i = 0; i < plan->n_candidates; i++) {
            double seconds = try(s, shape, &t, plan->candidates[i]);
            if (seconds < least) {
                least = seconds;
                plan->plan = plan->candidates[i];
            }
        }
    if (memory)
        atedm_cuda_free(s->head.device, memory);
    if (!plan->plan && shape->n == 1 && plan->n_candidates > 0)
        plan->plan = plan->candidates[0];
}
