// Which of cuDNN's candidates a convolution gets.
//
// The heuristics propose other kernels for other numbers of samples, and the first of them is not
// always the fastest. But a sample's bits may not depend on the batch, of which cuDNN promises
// nothing. So all candidates are tried: the fastest of those that give the bits of the first one
// for a sample alone, which are kernels that add in the same order, in tiles of another size. The
// device suite checks the outcome: samples alone and in batches, at full size.
#include "kernels/cuda/dnn.h"
#include "kernels/cuda/trial.h"

_Static_assert(ATEDM_CUDA_DNN_CANDIDATES <= ATEDM_CUDA_TRIAL_CANDIDATES, "all are tried");

typedef struct call {
    atedm_cuda_stream *s;
    const atedm_cuda_dnn_plan *alone, *plan;
    atedm_cuda_trial_operands operands;
    size_t x_bytes, y_bytes; // of a sample
    void *workspace;
} call;

// A candidate for all samples from `first` on that it is for.
static bool convolve(const call *c, const char *operands, cudnnBackendDescriptor_t candidate,
                     int64_t first, char *y)
{
    const atedm_cuda_dnn_shape *shape = &c->plan->shape;
    const char *addends = operands + c->operands.addends_at;
    const void *const all[ATEDM_CUDA_DNN_Y + 1] = {
        [ATEDM_CUDA_DNN_X] = operands + (size_t)first * c->x_bytes,
        [ATEDM_CUDA_DNN_WEIGHT] = operands + c->operands.weight_at,
        [ATEDM_CUDA_DNN_ADDEND] = shape->addend ? addends + (size_t)first * c->y_bytes : NULL,
        [ATEDM_CUDA_DNN_BIAS] = shape->bias ? addends : NULL,
        [ATEDM_CUDA_DNN_Y] = y + (size_t)first * c->y_bytes,
    };
    return !atedm_cuda_dnn_execute(c->s->dnn, candidate, all, c->workspace);
}

static bool run(const void *user, const char *operands, int candidate, char *y)
{
    const call *c = user;
    bool good = true;
    if (candidate != ATEDM_CUDA_TRIAL_KNOWN)
        return convolve(c, operands, c->plan->candidates[candidate], 0, y);
    for (int64_t i = 0; good && i < c->plan->shape.n; i++)
        good = convolve(c, operands, c->alone->candidates[0], i, y);
    return good;
}

void atedm_cuda_dnn_choose(atedm_cuda_stream *s, const atedm_cuda_dnn_plan *alone,
                           atedm_cuda_dnn_plan *plan)
{
    const atedm_cuda_dnn_shape *shape = &plan->shape;
    size_t element = atedm_dtype_size(s->head.act);
    int64_t results = shape->ho * shape->wo * shape->out;
    call c = {
        .s = s,
        .alone = alone,
        .plan = plan,
        .x_bytes = (size_t)(shape->h * shape->w * shape->in) * element,
        .y_bytes = (size_t)results * element,
        .workspace =
            atedm_cuda_scratch_get(s, ATEDM_CUDA_SCRATCH_WORKSPACE, 1, ATEDM_CUDA_DNN_WORKSPACE),
    };
    if (!c.workspace || !plan->n_candidates || !alone->n_candidates)
        return;
    // Sums are 0 but for their rounding where a window is whole: pixels are alike.
    c.operands = (atedm_cuda_trial_operands){
        .x = {.rows = shape->n * shape->h * shape->w,
              .columns = shape->in,
              .stride = shape->in,
              .noise = ATEDM_CUDA_NOISE_ONE_ROW},
        .weight = {.rows = shape->out,
                   .columns = shape->weight_stride,
                   .stride = shape->weight_stride,
                   .noise = ATEDM_CUDA_NOISE_CANCELS},
        .addends = {.rows = shape->n * shape->ho * shape->wo,
                    .columns = shape->out,
                    .stride = shape->out},
    };
    atedm_cuda_trial_place(s->head.act, &c.operands);
    const atedm_cuda_trial trial = {
        .operands = &c.operands,
        .y_bytes = (size_t)shape->n * c.y_bytes,
        .results = shape->n * results,
        .candidates = plan->n_candidates,
        .run = run,
        .user = &c,
    };
    int picked = atedm_cuda_trial_pick(s, &trial);
    if (picked != ATEDM_CUDA_TRIAL_KNOWN)
        plan->plan = plan->candidates[picked];
    else if (shape->n == 1)
        plan->plan = plan->candidates[0];
}
