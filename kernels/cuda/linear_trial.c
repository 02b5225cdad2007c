// What algorithms for linear layers do, by trying them: which have the bits of a known
// one, and whether one rounds twice.
#include "kernels/cuda/linear.h"
#include "kernels/cuda/trial.h"

_Static_assert(ATEDM_CUDA_PLAN_TRIED <= ATEDM_CUDA_TRIAL_CANDIDATES, "all are tried");

typedef struct call {
    atedm_cuda_stream *s;
    const atedm_cuda_plan_key *key;
    const atedm_cuda_algorithm *known, *candidates;
    atedm_cuda_trial_operands operands;
} call;

// Addends are the bias, and behind it the residual.
static void place_operands(call *c)
{
    const atedm_cuda_plan_key *key = c->key;
    c->operands = (atedm_cuda_trial_operands){
        .x = {.rows = key->rows,
              .columns = key->in,
              .stride = key->in,
              .noise = ATEDM_CUDA_NOISE_CANCELS},
        .weight = {.rows = key->out,
                   .columns = key->in,
                   .stride = key->weight_stride,
                   .noise = ATEDM_CUDA_NOISE_ROWS},
        .addends = {.rows = key->rows + 1, .columns = key->out, .stride = key->out},
    };
    if (key->bias && key->residual)
        c->operands.addends.noise = ATEDM_CUDA_NOISE_OPPOSED;
    atedm_cuda_trial_place(c->s->head.act, &c->operands);
}

static const char *residual_of(const call *c, const char *operands)
{
    return operands + c->operands.addends_at +
           (size_t)c->key->out * atedm_dtype_size(c->s->head.act);
}

static bool run(const void *user, const char *operands, int candidate, char *y)
{
    const call *c = user;
    const atedm_cuda_operands all = {.weight = operands + c->operands.weight_at,
                                     .x = operands,
                                     .bias = operands + c->operands.addends_at,
                                     .residual = residual_of(c, operands),
                                     .y = y,
                                     .rows = c->key->rows};
    return !atedm_cuda_multiply(
        c->s, c->key, candidate == ATEDM_CUDA_TRIAL_KNOWN ? c->known : &c->candidates[candidate],
        &all);
}

atedm_cuda_algorithm atedm_cuda_pick(atedm_cuda_stream *s, const atedm_cuda_plan_key *key,
                                     const atedm_cuda_algorithm *candidates, int n,
                                     const atedm_cuda_algorithm *known)
{
    size_t element = atedm_dtype_size(s->head.act), results = (size_t)(key->rows * key->out);
    call c = {.s = s, .key = key, .known = known, .candidates = candidates};
    place_operands(&c);
    const atedm_cuda_trial trial = {
        .operands = &c.operands,
        .y_bytes = results * (key->sums ? sizeof(float) : element),
        .results = (int64_t)results,
        .candidates = n,
        .run = run,
        .user = &c,
    };
    int picked = atedm_cuda_trial_pick(s, &trial);
    return picked == ATEDM_CUDA_TRIAL_KNOWN ? *known : candidates[picked];
}

// ---- roundings

// Of results that differ: algorithms that add up in another order differ in some of ten thousand,
// those that round before the bias is added in a tenth.
#define MOST_SHARE 0.01F

// Places in scratch memory, behind a trial's operands.
typedef struct comparison {
    void *y, *other;
    float *sums, *bias, *counts;
} comparison;

// False where scratch memory, as large as it is from the start, has no room.
static bool place(atedm_cuda_stream *s, call *c, char **ret_operands, comparison *ret_places)
{
    const atedm_cuda_plan_key *key = c->key;
    place_operands(c);
    size_t element = atedm_dtype_size(s->head.act), results = (size_t)(key->rows * key->out);
    size_t y = atedm_cuda_trial_whole(results * element);
    size_t sums = atedm_cuda_trial_whole(results * sizeof(float));
    size_t bias = atedm_cuda_trial_whole((size_t)key->out * sizeof(float));
    size_t counts = ATEDM_CUDA_DIFFERENCES * sizeof(float), operands = c->operands.bytes;
    if (operands + 2 * y + sums + bias + counts > ATEDM_CUDA_SUMS_BYTES)
        return false;
    char *memory = atedm_cuda_scratch_get(s, ATEDM_CUDA_SCRATCH_SUMS, 1, ATEDM_CUDA_SUMS_BYTES);
    if (!memory)
        return false;
    *ret_operands = memory;
    memory += operands;
    *ret_places = (comparison){.y = memory, .other = memory + y};
    memory += 2 * y;
    ret_places->sums = (float *)(void *)memory;
    ret_places->bias = (float *)(void *)(memory + sums);
    ret_places->counts = (float *)(void *)(memory + sums + bias);
    return true;
}

// The same by an own kernel: sums in F32, then bias and residual.
static bool add_by_own(atedm_cuda_stream *s, const call *c, const char *operands,
                       const comparison *at)
{
    atedm_cuda_plan_key key = *c->key;
    atedm_cuda_algorithm for_sums;
    key.sums = true;
    key.bias = key.residual = false;
    key.y_align = key.residual_align = ATEDM_CUDA_LINEAR_ALIGN;
    call own = *c;
    own.key = &key;
    own.known = &for_sums;
    if (atedm_cuda_propose(s, &key, 1, &for_sums) < 1 ||
        !run(&own, operands, ATEDM_CUDA_TRIAL_KNOWN, (char *)at->sums))
        return false;
    const char *addends = operands + c->operands.addends_at;
    cudaError_t error =
        atedm_cuda_launch_to_f32(s->head.act, addends, at->bias, key.out, s->stream);
    if (!error)
        error = atedm_cuda_launch_epilogue(s->head.act, ATEDM_ACT_NONE, at->sums, at->bias,
                                           c->key->residual ? residual_of(c, operands) : NULL,
                                           at->other, key.rows, key.out, s->stream);
    atedm_cuda_check(&s->head, error, "linear");
    return !s->head.status;
}

bool atedm_cuda_rounds_once(atedm_cuda_stream *s, const atedm_cuda_plan *plan)
{
    atedm_cuda_plan_key key = plan->key;
    call c = {.s = s, .key = &key, .known = &plan->algo};
    comparison at;
    char *operands = NULL;
    key.rows = ATEDM_CUDA_PLAN_LEAST_ROWS;
    if (s->graphs.capturing || !place(s, &c, &operands, &at))
        return false;
    atedm_cuda_check(&s->head, atedm_cuda_trial_fill(s, &c.operands, operands, 1), "linear");
    if (s->head.status || !run(&c, operands, ATEDM_CUDA_TRIAL_KNOWN, at.y) ||
        !add_by_own(s, &c, operands, &at))
        return false;
    size_t results = (size_t)(key.rows * key.out), bytes = results * sizeof(uint16_t);
    return atedm_cuda_count_differences(s, at.y, at.other, bytes, at.counts) <
           MOST_SHARE * (float)results;
}
