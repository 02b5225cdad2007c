// Which algorithm a linear layer is computed by, and products by it. cuBLASLt computes y^T = W x^T,
// since its matrices are column-major.
//
// Different numbers of rows want different algorithms: with the one for 1024 rows, 600 rows take
// 1.4 times as long as they need to, and so do 65536. But a row's bits may not depend on how many
// rows there are. So the heuristic's first algorithm for ATEDM_CUDA_PLAN_ROWS rows, without
// reductions across blocks, decides the bits. What the heuristic proposes for other numbers of rows
// is tried against it (linear_trial.c), as are our own kernels where the device has some, and the
// fastest one with the same bits is taken: a kernel that adds along a row in the same order, in
// tiles of another size. The device suite checks the outcome at full size, with samples alone and
// in batches.
#include "kernels/cuda/linear.h"

#include <stdlib.h>

// Plans are for numbers of rows in steps, so that there are few: ROW_STEPS of them between a power
// of two and the next one, up to MOST_ROWS; more rows than that have the plan for MOST_ROWS.
#define ROW_STEPS 4
#define MOST_ROWS 65536

// cuBLASLt's descriptors of one product.
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

static cublasStatus_t multiply_by_blas(atedm_cuda_stream *s, const atedm_cuda_plan_key *key,
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

cublasStatus_t atedm_cuda_multiply(atedm_cuda_stream *s, const atedm_cuda_plan_key *key,
                                   const atedm_cuda_algorithm *algo,
                                   const atedm_cuda_operands *operands)
{
    return algo->is_own ? atedm_cuda_hopper_linear(s, key, &algo->cut, operands)
                        : multiply_by_blas(s, key, &algo->blas, operands);
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

int atedm_cuda_propose(const atedm_cuda_stream *s, const atedm_cuda_plan_key *key, int wanted,
                       atedm_cuda_algorithm *ret_algos)
{
    cublasLtMatmulHeuristicResult_t results[ATEDM_CUDA_PLAN_CANDIDATES];
    // The bias's address does not matter yet.
    product p;
    cublasLtMatmulPreference_t preference = NULL;
    int n = 0, good = 0;
    if (product_init(&p, s->head.act, key, s->scratch[ATEDM_CUDA_SCRATCH_SUMS], key->rows))
        return 0;
    if (cublasLtMatmulPreferenceCreate(&preference) || set_preferences(preference, key) ||
        cublasLtMatmulAlgoGetHeuristic(((const atedm_cuda_device *)s->head.device)->blas, p.desc,
                                       p.weight, p.x, p.y, p.y, preference, wanted, results, &n))
        n = 0;
    if (preference)
        (void)cublasLtMatmulPreferenceDestroy(preference);
    product_finish(&p);
    for (int i = 0; i < n; i++)
        if (!results[i].state) // of others no field counts
            ret_algos[good++] = (atedm_cuda_algorithm){.blas = results[i].algo};
    return good;
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

// The plan for ATEDM_CUDA_PLAN_ROWS rows, whose algorithm decides the bits for all others. NULL
// after failing the stream.
static const atedm_cuda_plan *get_first(atedm_cuda_stream *s, const atedm_cuda_plan_key *key)
{
    atedm_cuda_plan *plan = find(s, key);
    if (plan || !(plan = add(s, key)))
        return plan;
    plan->found = atedm_cuda_propose(s, key, 1, &plan->algo) > 0;
    if (plan->found && key->bias && s->head.act != ATEDM_F32)
        plan->rounds_twice = !atedm_cuda_rounds_once(s, plan);
    return s->head.status ? NULL : plan;
}

// The number of rows that a plan for `rows` is made for: the next step.
static int64_t round_rows(int64_t rows)
{
    int64_t step = ATEDM_CUDA_PLAN_LEAST_ROWS / ROW_STEPS;
    if (rows >= MOST_ROWS)
        return MOST_ROWS;
    while (rows > 2 * ROW_STEPS * step)
        step *= 2;
    rows = (rows + step - 1) / step * step;
    return rows > ATEDM_CUDA_PLAN_LEAST_ROWS ? rows : ATEDM_CUDA_PLAN_LEAST_ROWS;
}

// Own algorithms for a trial: the best cuts, with either order of what is added where that matters.
// Returns how many there are.
static int propose_own(const atedm_cuda_stream *s, const atedm_cuda_plan_key *key,
                       atedm_cuda_algorithm ret_algos[ATEDM_CUDA_PLAN_OWN])
{
    atedm_cuda_linear_cut cuts[ATEDM_CUDA_PLAN_OWN];
    int orders = key->bias && key->residual ? 2 : 1, n = 0;
    int n_cuts = atedm_cuda_linear_cuts(s, key, ATEDM_CUDA_PLAN_OWN / orders, cuts);
    for (int i = 0; i < n_cuts; i++)
        for (int order = 0; order < orders; order++) {
            atedm_cuda_algorithm *algo = &ret_algos[n++];
            *algo = (atedm_cuda_algorithm){.is_own = true, .cut = cuts[i]};
            algo->cut.is_bias_first = order > 0;
        }
    return n;
}

// Whether our own algorithms are left out for this key, tried beside cuBLASLt's, or used alone.
static atedm_cuda_linear_choice choose(const atedm_cuda_stream *s, const atedm_cuda_plan_key *key)
{
    const atedm_cuda_hopper *hopper = &((const atedm_cuda_device *)s->head.device)->hopper;
    return hopper->linear && atedm_cuda_hopper_takes_linear(s, key) ? hopper->linear
                                                                    : ATEDM_CUDA_LINEAR_CUBLAS;
}

// A plan without cuBLASLt, and without a trial: all our own algorithms have the same bits.
static const atedm_cuda_plan *get_own(atedm_cuda_stream *s, const atedm_cuda_plan_key *key)
{
    atedm_cuda_plan *plan = add(s, key);
    if (plan)
        plan->found = plan->algo.is_own = atedm_cuda_linear_cuts(s, key, 1, &plan->algo.cut) > 0;
    return plan;
}

const atedm_cuda_plan *atedm_cuda_plan_get(atedm_cuda_stream *s, const atedm_cuda_plan_key *key,
                                           int64_t rows)
{
    atedm_cuda_plan_key wanted = *key;
    wanted.rows = rows < ATEDM_CUDA_PLAN_LEAST_ROWS ? ATEDM_CUDA_PLAN_ROWS : round_rows(rows);
    atedm_cuda_plan *plan = find(s, &wanted);
    if (plan)
        return plan;
    atedm_cuda_linear_choice choice = choose(s, key);
    if (choice == ATEDM_CUDA_LINEAR_HOPPER)
        return get_own(s, &wanted);
    atedm_cuda_plan_key for_first = wanted;
    for_first.rows = ATEDM_CUDA_PLAN_ROWS;
    const atedm_cuda_plan *first = get_first(s, &for_first);
    if (!first || !first->found || first->rounds_twice || wanted.rows == ATEDM_CUDA_PLAN_ROWS ||
        s->graphs.capturing) // a trial waits, which a capture cannot
        return first;
    if (!(plan = add(s, &wanted)))
        return NULL;
    atedm_cuda_algorithm candidates[ATEDM_CUDA_PLAN_TRIED];
    int n = atedm_cuda_propose(s, &wanted, ATEDM_CUDA_PLAN_CANDIDATES, candidates);
    if (choice == ATEDM_CUDA_LINEAR_TRIED)
        n += propose_own(s, &wanted, candidates + n);
    candidates[n++] = first->algo; // may be none of these, and faster
    plan->algo = atedm_cuda_pick(s, &wanted, candidates, n, &first->algo);
    plan->found = true;
    return s->head.status ? NULL : plan;
}
