// Algorithms of cuBLASLt for linear layers: y^T = W x^T, column-major as it wants it.
//
// Another number of rows wants another algorithm: with the one for 1024 rows, 600 take 1.4 times as
// long as they have to, and so do 65536. But a row's bits may not depend on how many rows there
// are. So the heuristic is asked for ATEDM_CUDA_PLAN_ROWS rows first, without reductions across
// blocks. What it says for other numbers is taken where it gives the same bits in a trial (a kernel
// that adds along a row in the same order, in tiles of another size), the fastest of these. The
// device suite checks the outcome: samples alone and in batches, at full size.
#include "kernels/cuda/linear.h"
#include "kernels/cuda/trial.h"

#include <stdlib.h>

// Plans are for numbers of rows in steps of a quarter of the power of two below, from 16 on.
#define LEAST_ROWS 16
#define ROW_STEPS 4
#define MOST_ROWS 65536
#define MOST_ALIGN ((size_t)16) // that any algorithm can use

// One product: descriptors for a number of rows.
typedef struct product {
    cublasLtMatmulDesc_t desc;
    cublasLtMatrixLayout_t weight, x, y;
} product;

void atedm_cuda_plans_destroy(atedm_cuda_plan *plans)
{
    while (plans) {
        atedm_cuda_plan *next = plans->next;
        free(plans);
        plans = next;
    }
}

// ---- products

static cudaDataType_t data_type(atedm_dtype dtype)
{
    return dtype == ATEDM_F32 ? CUDA_R_32F : dtype == ATEDM_BF16 ? CUDA_R_16BF : CUDA_R_16F;
}

static void product_finish(product *p)
{
    if (p->desc)
        (void)cublasLtMatmulDescDestroy(p->desc);
    if (p->weight)
        (void)cublasLtMatrixLayoutDestroy(p->weight);
    if (p->x)
        (void)cublasLtMatrixLayoutDestroy(p->x);
    if (p->y)
        (void)cublasLtMatrixLayoutDestroy(p->y);
}

static cublasStatus_t product_init(product *p, atedm_dtype dtype, const atedm_cuda_plan_key *key,
                                   const void *bias, int64_t rows)
{
    *p = (product){0};
    const cublasOperation_t transposed = CUBLAS_OP_T;
    const cublasLtEpilogue_t epilogue = CUBLASLT_EPILOGUE_BIAS;
    cudaDataType_t act = data_type(dtype);
    uint64_t in = (uint64_t)key->in, out = (uint64_t)key->out;
    cublasStatus_t status = cublasLtMatmulDescCreate(&p->desc, CUBLAS_COMPUTE_32F, CUDA_R_32F);
    if (!status)
        status = cublasLtMatmulDescSetAttribute(p->desc, CUBLASLT_MATMUL_DESC_TRANSA, &transposed,
                                                sizeof transposed);
    if (!status && key->bias)
        status = cublasLtMatmulDescSetAttribute(p->desc, CUBLASLT_MATMUL_DESC_EPILOGUE, &epilogue,
                                                sizeof epilogue);
    if (!status && key->bias)
        status = cublasLtMatmulDescSetAttribute(p->desc, CUBLASLT_MATMUL_DESC_BIAS_POINTER, &bias,
                                                sizeof bias);
    if (!status)
        status = cublasLtMatrixLayoutCreate(&p->weight, act, in, out, key->weight_stride);
    if (!status)
        status = cublasLtMatrixLayoutCreate(&p->x, act, in, (uint64_t)rows, key->in);
    if (!status)
        status = cublasLtMatrixLayoutCreate(&p->y, key->sums ? CUDA_R_32F : act, out,
                                            (uint64_t)rows, key->out);
    if (status)
        product_finish(p);
    return status;
}

cublasStatus_t atedm_cuda_multiply(atedm_cuda_stream *s, const atedm_cuda_plan_key *key,
                                   const cublasLtMatmulAlgo_t *algo,
                                   const atedm_cuda_operands *operands)
{
    const float one = 1, beta = key->residual ? 1 : 0;
    const void *c = key->residual ? operands->residual : operands->y;
    void *workspace =
        atedm_cuda_scratch_get(s, ATEDM_CUDA_SCRATCH_WORKSPACE, 1, ATEDM_CUDA_WORKSPACE_BYTES);
    if (!workspace)
        return CUBLAS_STATUS_ALLOC_FAILED;
    product p;
    cublasStatus_t status = product_init(&p, s->head.act, key, operands->bias, operands->rows);
    if (status)
        return status;
    status =
        cublasLtMatmul(((const atedm_cuda_device *)s->head.device)->blas, p.desc, &one,
                       operands->weight, p.weight, operands->x, p.x, &beta, c, p.y, operands->y,
                       p.y, algo, workspace, ATEDM_CUDA_WORKSPACE_BYTES, s->stream);
    product_finish(&p);
    return status;
}

// ---- the heuristic

static cublasStatus_t set_preferences(cublasLtMatmulPreference_t preference,
                                      const atedm_cuda_plan_key *key)
{
    const size_t workspace = ATEDM_CUDA_WORKSPACE_BYTES;
    const uint32_t no_reductions = CUBLASLT_REDUCTION_SCHEME_NONE;
    const struct {
        cublasLtMatmulPreferenceAttributes_t attribute;
        uint32_t bytes;
    } align[] = {
        {CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES, (uint32_t)key->weight_align},
        {CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES, (uint32_t)key->x_align},
        {CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES, (uint32_t)key->residual_align},
        {CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES, (uint32_t)key->y_align},
    };
    cublasStatus_t status = cublasLtMatmulPreferenceSetAttribute(
        preference, CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, &workspace, sizeof workspace);
    if (!status)
        status = cublasLtMatmulPreferenceSetAttribute(preference,
                                                      CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK,
                                                      &no_reductions, sizeof no_reductions);
    for (size_t i = 0; !status && i < sizeof align / sizeof *align; i++)
        status = cublasLtMatmulPreferenceSetAttribute(preference, align[i].attribute,
                                                      &align[i].bytes, sizeof align[i].bytes);
    return status;
}

// Asks for so many algorithms for the key's rows; returns how many there are.
static int propose(const atedm_cuda_stream *s, const atedm_cuda_plan_key *key, int wanted,
                   cublasLtMatmulHeuristicResult_t *ret_results)
{
    // The bias's address does not matter yet.
    product p;
    cublasLtMatmulPreference_t preference = NULL;
    int n = 0;
    if (product_init(&p, s->head.act, key, s->scratch[ATEDM_CUDA_SCRATCH_SUMS], key->rows))
        return 0;
    if (cublasLtMatmulPreferenceCreate(&preference) || set_preferences(preference, key) ||
        cublasLtMatmulAlgoGetHeuristic(((const atedm_cuda_device *)s->head.device)->blas, p.desc,
                                       p.weight, p.x, p.y, p.y, preference, wanted, ret_results,
                                       &n))
        n = 0;
    if (preference)
        (void)cublasLtMatmulPreferenceDestroy(preference);
    product_finish(&p);
    return n;
}

// ---- trials

typedef struct call {
    atedm_cuda_stream *s;
    const atedm_cuda_plan_key *key;
    const cublasLtMatmulAlgo_t *known;
    const cublasLtMatmulHeuristicResult_t *candidates;
    size_t x_at, addends_at; // in operands: weight, x, then bias and residual in one
} call;

static cudaError_t prepare(const void *user, char *operands, int round)
{
    const call *c = user;
    const atedm_cuda_plan_key *key = c->key;
    atedm_dtype act = c->s->head.act;
    cudaStream_t stream = c->s->stream;
    bool plain = round % 2;
    uint32_t seed = (uint32_t)round << 20;
    cudaError_t error =
        atedm_cuda_launch_noise(act, plain ? ATEDM_CUDA_NOISE_PLAIN : ATEDM_CUDA_NOISE_ROWS, seed,
                                operands, key->out, key->in, key->weight_stride, stream);
    if (!error)
        error = atedm_cuda_launch_noise(
            act, plain ? ATEDM_CUDA_NOISE_PLAIN : ATEDM_CUDA_NOISE_CANCELS, seed + 1,
            operands + c->x_at, key->rows, key->in, key->in, stream);
    if (!error && plain)
        error =
            atedm_cuda_launch_noise(act, ATEDM_CUDA_NOISE_PLAIN, seed + 2, operands + c->addends_at,
                                    key->rows, key->out, key->out, stream);
    if (!error && !plain)
        error = cudaMemsetAsync(operands + c->addends_at, 0,
                                (size_t)(key->rows * key->out) * atedm_dtype_size(act), stream);
    return error;
}

static bool run(const void *user, const char *operands, int candidate, char *y)
{
    const call *c = user;
    const atedm_cuda_operands all = {.weight = operands,
                                     .x = operands + c->x_at,
                                     .bias = operands + c->addends_at,
                                     .residual = operands + c->addends_at,
                                     .y = y,
                                     .rows = c->key->rows};
    return !atedm_cuda_multiply(
        c->s, c->key,
        candidate == ATEDM_CUDA_TRIAL_KNOWN ? c->known : &c->candidates[candidate].algo, &all);
}

// Where the operands are that `prepare` makes; returns their bytes, but for the addends'.
static size_t place_operands(call *c)
{
    size_t element = atedm_dtype_size(c->s->head.act);
    const atedm_cuda_plan_key *key = c->key;
    c->x_at = atedm_cuda_trial_whole((size_t)(key->out * key->weight_stride) * element);
    c->addends_at = c->x_at + atedm_cuda_trial_whole((size_t)(key->rows * key->in) * element);
    return c->addends_at;
}

// The fastest of the algorithms that give the same bits as `known`, which is one of them.
static cublasLtMatmulAlgo_t pick(atedm_cuda_stream *s, const atedm_cuda_plan_key *key,
                                 const cublasLtMatmulHeuristicResult_t *candidates, int n,
                                 const cublasLtMatmulAlgo_t *known)
{
    size_t element = atedm_dtype_size(s->head.act), results = (size_t)(key->rows * key->out);
    call c = {.s = s, .key = key, .known = known, .candidates = candidates};
    const atedm_cuda_trial trial = {
        .operand_bytes = place_operands(&c) + results * element,
        .y_bytes = results * (key->sums ? sizeof(float) : element),
        .results = (int64_t)results,
        .candidates = n,
        .prepare = prepare,
        .run = run,
        .user = &c,
    };
    int picked = atedm_cuda_trial_pick(s, &trial);
    return picked == ATEDM_CUDA_TRIAL_KNOWN ? *known : candidates[picked].algo;
}

// ---- plans

static bool same_key(const atedm_cuda_plan_key *a, const atedm_cuda_plan_key *b)
{
    return a->in == b->in && a->out == b->out && a->weight_align == b->weight_align &&
           a->x_align == b->x_align && a->y_align == b->y_align &&
           a->residual_align == b->residual_align && a->bias == b->bias &&
           a->residual == b->residual && a->sums == b->sums && a->rows == b->rows;
}

static atedm_cuda_plan *find(const atedm_cuda_stream *s, const atedm_cuda_plan_key *key)
{
    atedm_cuda_plan *plan = s->plans;
    while (plan && !same_key(&plan->key, key))
        plan = plan->next;
    return plan;
}

static atedm_cuda_plan *add(atedm_cuda_stream *s, const atedm_cuda_plan_key *key)
{
    atedm_cuda_plan *plan = calloc(1, sizeof *plan);
    if (!plan) {
        atedm_stream_fail(&s->head, ATEDM_ERR_NOMEM, "no memory for a linear layer's plan");
        return NULL;
    }
    plan->key = *key;
    plan->next = s->plans;
    s->plans = plan;
    return plan;
}

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
    size_t element = atedm_dtype_size(s->head.act), results = (size_t)(key->rows * key->out);
    size_t y = atedm_cuda_trial_whole(results * element);
    size_t sums = atedm_cuda_trial_whole(results * sizeof(float));
    size_t bias = atedm_cuda_trial_whole((size_t)key->out * sizeof(float));
    size_t counts = ATEDM_CUDA_DIFFERENCES * sizeof(float), operands = place_operands(c) + y;
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
    cublasLtMatmulHeuristicResult_t for_sums;
    key.sums = true;
    key.bias = key.residual = false;
    key.y_align = key.residual_align = MOST_ALIGN;
    call own = *c;
    own.key = &key;
    own.known = &for_sums.algo;
    if (propose(s, &key, 1, &for_sums) < 1 ||
        !run(&own, operands, ATEDM_CUDA_TRIAL_KNOWN, (char *)at->sums))
        return false;
    const char *addends = operands + c->addends_at;
    cudaError_t error =
        atedm_cuda_launch_to_f32(s->head.act, addends, at->bias, key.out, s->stream);
    if (!error)
        error = atedm_cuda_launch_epilogue(s->head.act, ATEDM_ACT_NONE, at->sums, at->bias, addends,
                                           at->other, key.rows, key.out, s->stream);
    atedm_cuda_check(&s->head, error, "linear");
    return !s->head.status;
}

// Whether bias and residual are added in one rounding: some of cuBLASLt's kernels, for short rows
// or such as are at odd addresses, round to act in between. Where that cannot be tried it counts as
// not.
static bool rounds_once(atedm_cuda_stream *s, const atedm_cuda_plan *plan)
{
    atedm_cuda_plan_key key = plan->key;
    call c = {.s = s, .key = &key, .known = &plan->algo};
    comparison at;
    char *operands = NULL;
    float counts[ATEDM_CUDA_DIFFERENCES], differ = 0;
    key.rows = LEAST_ROWS;
    if (s->graphs.capturing || !place(s, &c, &operands, &at))
        return false;
    atedm_cuda_check(&s->head, prepare(&c, operands, 1), "linear");
    if (s->head.status || !run(&c, operands, ATEDM_CUDA_TRIAL_KNOWN, at.y) ||
        !add_by_own(s, &c, operands, &at))
        return false;
    size_t results = (size_t)(key.rows * key.out), words = results / 2; // of 16 bits
    atedm_cuda_check(
        &s->head,
        atedm_cuda_launch_differences(at.y, at.other, (int64_t)words, at.counts, s->stream),
        "linear");
    atedm_cuda_download(&s->head, at.counts, counts, sizeof counts);
    atedm_cuda_sync(&s->head);
    for (int i = 0; !s->head.status && i < ATEDM_CUDA_DIFFERENCES; i++)
        differ += counts[i];
    return !s->head.status && differ < MOST_SHARE * (float)results;
}

// The plan for ATEDM_CUDA_PLAN_ROWS rows, whose bits are everybody's.
static const atedm_cuda_plan *get_first(atedm_cuda_stream *s, const atedm_cuda_plan_key *key)
{
    atedm_cuda_plan *plan = find(s, key);
    cublasLtMatmulHeuristicResult_t result;
    if (plan || !(plan = add(s, key)))
        return plan;
    plan->found = propose(s, key, 1, &result) > 0;
    if (plan->found)
        plan->algo = result.algo;
    if (plan->found && key->bias && key->residual && s->head.act != ATEDM_F32)
        plan->rounds_twice = !rounds_once(s, plan);
    return s->head.status ? NULL : plan;
}

// The number of rows that plans are made for, from `rows` up.
static int64_t round_rows(int64_t rows)
{
    int64_t step = LEAST_ROWS / ROW_STEPS;
    if (rows >= MOST_ROWS)
        return MOST_ROWS;
    while (rows > 2 * ROW_STEPS * step)
        step *= 2;
    rows = (rows + step - 1) / step * step;
    return rows > LEAST_ROWS ? rows : LEAST_ROWS;
}

const atedm_cuda_plan *atedm_cuda_plan_get(atedm_cuda_stream *s, const atedm_cuda_plan_key *key,
                                           int64_t rows)
{
    atedm_cuda_plan_key wanted = *key;
    wanted.rows = ATEDM_CUDA_PLAN_ROWS;
    const atedm_cuda_plan *first = get_first(s, &wanted);
    wanted.rows = round_rows(rows);
    if (!first || !first->found || first->rounds_twice || rows < LEAST_ROWS ||
        wanted.rows == ATEDM_CUDA_PLAN_ROWS)
        return first;
    atedm_cuda_plan *plan = find(s, &wanted);
    if (plan || s->graphs.capturing) // a trial waits, which a capture cannot
        return plan ? plan : first;
    if (!(plan = add(s, &wanted)))
        return NULL;
    cublasLtMatmulHeuristicResult_t candidates[ATEDM_CUDA_TRIAL_CANDIDATES];
    int n = propose(s, &wanted, ATEDM_CUDA_TRIAL_CANDIDATES, candidates);
    plan->algo = pick(s, &wanted, candidates, n, &first->algo);
    plan->found = true;
    return s->head.status ? NULL : plan;
}
