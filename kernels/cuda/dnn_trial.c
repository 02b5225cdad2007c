// Which of cuDNN's candidates a convolution gets.
//
// The heuristics propose other kernels for other numbers of samples, and the first of them is not
// always the fastest. But a sample's bits may not depend on the batch, of which cuDNN promises
// nothing. So all candidates are tried: the fastest of those that give the bits of the first one
// for a sample alone, which are kernels that add in the same order, in tiles of another size. The
// device suite checks the outcome: samples alone and in batches, at full size.
#include "kernels/cuda/dnn.h"
#include "kernels/cuda/trial.h"

#include <math.h>

// A candidate with operands all of whose sums are 0 but for their rounding, which depends on the
// order, where a window is whole.
typedef struct call {
    const atedm_cuda_stream *s;
    const atedm_cuda_dnn_shape *shape;
    cudnnBackendDescriptor_t candidate;
    const char *x, *weight, *zeros; // [device]
    size_t sample_bytes;            // of x
    void *workspace;
} call;

static bool run(const void *user, char *y)
{
    const call *c = user;
    const void *const operands[ATEDM_CUDA_DNN_Y + 1] = {
        [ATEDM_CUDA_DNN_X] = c->x,
        [ATEDM_CUDA_DNN_WEIGHT] = c->weight,
        [ATEDM_CUDA_DNN_ADDEND] = c->shape->addend ? c->zeros : NULL,
        [ATEDM_CUDA_DNN_BIAS] = c->shape->bias ? c->zeros : NULL,
        [ATEDM_CUDA_DNN_Y] = y,
    };
    return !atedm_cuda_dnn_execute(c->s->dnn, c->candidate, operands, c->workspace);
}

// Memory and operands. False where there is none, or after failing the stream.
static bool begin(atedm_cuda_stream *s, const atedm_cuda_dnn_shape *shape, atedm_cuda_trial *trial,
                  call *ret_call)
{
    atedm_dtype act = s->head.act;
    size_t element = atedm_dtype_size(act);
    int64_t filter = shape->kernel * shape->kernel * shape->in;
    size_t sample = (size_t)(shape->h * shape->w * shape->in) * element;
    size_t x = atedm_cuda_trial_whole((size_t)shape->n * sample);
    size_t weight = atedm_cuda_trial_whole((size_t)(shape->out * filter) * element);
    size_t y = (size_t)(shape->n * shape->ho * shape->wo * shape->out) * element;
    void *workspace =
        atedm_cuda_scratch_get(s, ATEDM_CUDA_SCRATCH_WORKSPACE, 1, ATEDM_CUDA_DNN_WORKSPACE);
    if (!workspace || filter != shape->weight_stride ||
        !atedm_cuda_trial_begin(s, x + weight + y, y, trial))
        return false;
    *ret_call = (call){.s = s,
                       .shape = shape,
                       .x = trial->operands,
                       .weight = trial->operands + x,
                       .zeros = trial->operands + x + weight,
                       .sample_bytes = sample,
                       .workspace = workspace};
    cudaError_t error =
        atedm_cuda_launch_noise(act, ATEDM_CUDA_NOISE_ONE_ROW, trial->operands,
                                shape->n * shape->h * shape->w, shape->in, shape->in, s->stream);
    if (!error)
        error = atedm_cuda_launch_noise(act, ATEDM_CUDA_NOISE_CANCELS, trial->operands + x,
                                        shape->out, filter, filter, s->stream);
    if (!error)
        error = cudaMemsetAsync(trial->operands + x + weight, 0, y, s->stream);
    atedm_cuda_check(&s->head, error, "conv");
    return true;
}

// What `alone` gives, sample by sample.
static bool expect(const atedm_cuda_trial *trial, const atedm_cuda_dnn_plan *alone, const call *c)
{
    call one = *c;
    bool good = true;
    one.candidate = alone->candidates[0];
    for (int64_t i = 0; good && i < c->shape->n; i++, one.x += c->sample_bytes)
        good = run(&one, trial->expected + (size_t)i * (trial->y_bytes / (size_t)c->shape->n));
    return good;
}

static void try_candidates(atedm_cuda_stream *s, const atedm_cuda_dnn_plan *alone,
                           atedm_cuda_dnn_plan *plan)
{
    atedm_cuda_trial trial;
    call c;
    double least = INFINITY;
    if (!begin(s, &plan->shape, &trial, &c))
        return;
    bool ready = !s->head.status && expect(&trial, alone, &c);
    for (int i = 0; ready && i < plan->n_candidates; i++) {
        c.candidate = plan->candidates[i];
        double seconds = atedm_cuda_trial_time(s, &trial, run, &c);
        if (seconds < least) {
            least = seconds;
            plan->plan = c.candidate;
        }
    }
    atedm_cuda_trial_end(s, &trial);
}

void atedm_cuda_dnn_choose(atedm_cuda_stream *s, const atedm_cuda_dnn_plan *alone,
                           atedm_cuda_dnn_plan *plan)
{
    if (!plan->n_candidates || !alone->n_candidates)
        return;
    try_candidates(s, alone, plan);
    if (!plan->plan && plan->shape.n == 1)
        plan->plan = plan->candidates[0];
}
