// Linear layers of the cuda backend, by cuBLASLt: y^T = W x^T, column-major as it wants it.
//
// The heuristic is asked once a shape, for PLAN_ROWS rows, without reductions across blocks; what
// it says is used for every number of rows, so that a row's sum is always formed in the same order.
// Where act can hold the bias and there is no activation, cuBLASLt does all; else it leaves sums in
// F32 and an own kernel goes on, since its GELU is the tanh approximation and its bias has act's
// dtype. Shapes for which it has nothing (rows at odd addresses) are a 1 x 1 convolution.
#include "kernels/cuda/cuda.h"

#include <stdlib.h>

#define PLAN_ROWS 1024
#define MOST_ALIGN ((size_t)16) // that any algorithm can use

// What an algorithm is chosen by. Alignments are those of every row of the operand.
typedef struct plan_key {
    int64_t in, out;
    size_t weight_align, x_align, y_align, residual_align;
    bool bias, residual, sums; // added by cuBLASLt; leaves F32 sums
} plan_key;

typedef struct atedm_cuda_plan {
    plan_key key;
    bool found;
    cublasLtMatmulAlgo_t algo;
    struct atedm_cuda_plan *next;
} atedm_cuda_plan;

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

static cudaDataType_t data_type(atedm_dtype dtype)
{
    return dtype == ATEDM_F32 ? CUDA_R_32F : dtype == ATEDM_BF16 ? CUDA_R_16BF : CUDA_R_16F;
}

// The alignment of rows of `row_bytes` bytes from p on: the same whichever row comes first.
static size_t row_align(const void *p, size_t row_bytes)
{
    size_t bits = (size_t)(uintptr_t)p | row_bytes | MOST_ALIGN;
    return bits & -bits;
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

static cublasStatus_t product_init(product *p, const atedm_cuda_weight *w, const plan_key *key,
                                   int64_t rows)
{
    *p = (product){0};
    const cublasOperation_t transposed = CUBLAS_OP_T;
    const cublasLtEpilogue_t epilogue = CUBLASLT_EPILOGUE_BIAS;
    cudaDataType_t act = data_type(w->head.act);
    uint64_t in = (uint64_t)key->in, out = (uint64_t)key->out;
    cublasStatus_t status = cublasLtMatmulDescCreate(&p->desc, CUBLAS_COMPUTE_32F, CUDA_R_32F);
    if (!status)
        status = cublasLtMatmulDescSetAttribute(p->desc, CUBLASLT_MATMUL_DESC_TRANSA, &transposed,
                                                sizeof transposed);
    if (!status && key->bias)
        status = cublasLtMatmulDescSetAttribute(p->desc, CUBLASLT_MATMUL_DESC_EPILOGUE, &epilogue,
                                                sizeof epilogue);
    if (!status && key->bias)
        status = cublasLtMatmulDescSetAttribute(p->desc, CUBLASLT_MATMUL_DESC_BIAS_POINTER,
                                                &w->act_bias, sizeof w->act_bias);
    if (!status)
        status = cublasLtMatrixLayoutCreate(&p->weight, act, in, out, w->row_elements);
    if (!status)
        status = cublasLtMatrixLayoutCreate(&p->x, act, in, (uint64_t)rows, key->in);
    if (!status)
        status = cublasLtMatrixLayoutCreate(&p->y, key->sums ? CUDA_R_32F : act, out,
                                            (uint64_t)rows, key->out);
    if (status)
        product_finish(p);
    return status;
}

static cublasStatus_t set_preferences(cublasLtMatmulPreference_t preference, const plan_key *key)
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

// Asks the heuristic. No algorithm is an answer, not a failure.
static void choose(const atedm_cuda_device *device, const atedm_cuda_weight *w,
                   atedm_cuda_plan *plan)
{
    product p;
    cublasLtMatmulPreference_t preference = NULL;
    cublasLtMatmulHeuristicResult_t result;
    int n = 0;
    if (product_init(&p, w, &plan->key, PLAN_ROWS))
        return;
    if (!cublasLtMatmulPreferenceCreate(&preference) && !set_preferences(preference, &plan->key) &&
        !cublasLtMatmulAlgoGetHeuristic(device->blas, p.desc, p.weight, p.x, p.y, p.y, preference,
                                        1, &result, &n) &&
        n > 0) {
        plan->algo = result.algo;
        plan->found = true;
    }
    if (preference)
        (void)cublasLtMatmulPreferenceDestroy(preference);
    product_finish(&p);
}

static bool same_key(const plan_key *a, const plan_key *b)
{
    return a->in == b->in && a->out == b->out && a->weight_align == b->weight_align &&
           a->x_align == b->x_align && a->y_align == b->y_align &&
           a->residual_align == b->residual_align && a->bias == b->bias &&
           a->residual == b->residual && a->sums == b->sums;
}

// The shape's plan, made at its first use; NULL after failing the stream.
static const atedm_cuda_plan *get_plan(atedm_cuda_stream *s, const atedm_cuda_weight *w,
                                       const plan_key *key)
{
    for (const atedm_cuda_plan *p = s->plans; p; p = p->next)
        if (same_key(&p->key, key))
            return p;
    atedm_cuda_plan *plan = calloc(1, sizeof *plan);
    if (!plan) {
        atedm_stream_fail(&s->head, ATEDM_ERR_NOMEM, "no memory for a linear layer's plan");
        return NULL;
    }
    plan->key = *key;
    choose((const atedm_cuda_device *)s->head.device, w, plan);
    plan->next = s->plans;
    s->plans = plan;
    return plan;
}

static void multiply(atedm_cuda_stream *s, const atedm_cuda_weight *w, const atedm_cuda_plan *plan,
                     const atedm_linear_args *args, void *y)
{
    const float one = 1, beta = plan->key.residual ? 1 : 0;
    const void *c = plan->key.residual ? args->residual : y;
    void *workspace =
        atedm_cuda_scratch_get(s, ATEDM_CUDA_SCRATCH_WORKSPACE, 1, ATEDM_CUDA_WORKSPACE_BYTES);
    if (!workspace)
        return;
    product p;
    cublasStatus_t status = product_init(&p, w, &plan->key, args->rows);
    if (!status) {
        status = cublasLtMatmul(((const atedm_cuda_device *)s->head.device)->blas, p.desc, &one,
                                w->values, p.weight, args->x, p.x, &beta, c, p.y, y, p.y,
                                &plan->algo, workspace, ATEDM_CUDA_WORKSPACE_BYTES, s->stream);
        product_finish(&p);
    }
    if (status) // where the device is lost, CUDA's own words are better
        atedm_cuda_check(&s->head, cudaGetLastError(), "linear");
    if (status)
        atedm_stream_fail(&s->head, ATEDM_ERR_DEVICE,
                          "cuda: linear: cuBLASLt status %d on %lld rows, %lld to %lld",
                          (int)status, (long long)args->rows, (long long)plan->key.in,
                          (long long)plan->key.out);
}

// By way of sums, of as many rows at a time as scratch memory has room for. A row's result does not
// depend on which others are in its piece.
static void multiply_in_pieces(atedm_cuda_stream *s, const atedm_cuda_weight *w,
                               const atedm_cuda_plan *plan, const atedm_linear_args *args)
{
    atedm_stream *head = &s->head;
    int64_t out = w->head.out, element = (int64_t)atedm_dtype_size(head->act);
    int64_t most = (int64_t)(ATEDM_CUDA_SUMS_BYTES / sizeof(float)) / out, n;
    most = most > 0 ? most : 1;
    for (int64_t first = 0; !head->status && first < args->rows; first += n) {
        n = args->rows - first < most ? args->rows - first : most;
        int64_t x_at = first * w->head.in * element, y_at = first * out * element;
        atedm_linear_args piece = *args;
        piece.rows = n;
        piece.x = (const char *)args->x + x_at;
        piece.y = (char *)args->y + y_at;
        piece.residual = args->residual ? (const char *)args->residual + y_at : NULL;
        float *sums = atedm_cuda_scratch_get(s, ATEDM_CUDA_SCRATCH_SUMS, n * out, sizeof *sums);
        if (!sums)
            return;
        multiply(s, w, plan, &piece, sums);
        if (!head->status)
            atedm_cuda_check(head,
                             atedm_cuda_launch_epilogue(head->act, (int)args->activation, sums,
                                                        w->bias, piece.residual, piece.y, n, out,
                                                        s->stream),
                             "linear");
    }
}

// As a convolution over a column of pixels.
static void convolve(atedm_cuda_stream *s, const atedm_cuda_weight *w,
                     const atedm_linear_args *args)
{
    const atedm_cuda_conv_call conv = {
        .x = args->x,
        .weight = w->values,
        .bias = w->bias,
        .residual = args->residual,
        .y = args->y,
        .n = 1,
        .h = args->rows,
        .w = 1,
        .ho = args->rows,
        .wo = 1,
        .in = (int32_t)w->head.in,
        .out = (int32_t)w->head.out,
        .kernel = 1,
        .stride = 1,
        .activation = (int32_t)args->activation,
        .weight_stride = w->row_elements,
    };
    atedm_cuda_check(&s->head, atedm_cuda_launch_conv(s->head.act, &conv, s->stream), "linear");
}

void atedm_cuda_linear(atedm_stream *head, const atedm_linear_args *args)
{
    atedm_cuda_stream *s = atedm_cuda_stream_of(head);
    const atedm_cuda_weight *w = atedm_cuda_weight_of(args->weight);
    size_t element = atedm_dtype_size(head->act);
    size_t in_bytes = (size_t)w->head.in * element, out_bytes = (size_t)w->head.out * element;
    plan_key key = {
        .in = w->head.in,
        .out = w->head.out,
        .weight_align = row_align(w->values, (size_t)w->row_elements * element),
        .x_align = row_align(args->x, in_bytes),
        .sums = args->activation != ATEDM_ACT_NONE || (w->bias && !w->act_bias),
    };
    key.bias = w->bias && !key.sums;
    key.residual = args->residual && !key.sums;
    // Sums stand at the start of scratch memory, whichever rows they are of.
    key.y_align = key.sums ? row_align(NULL, (size_t)w->head.out * sizeof(float))
                           : row_align(args->y, out_bytes);
    key.residual_align = key.residual ? row_align(args->residual, out_bytes) : key.y_align;
    const atedm_cuda_plan *plan = get_plan(s, w, &key);
    if (!plan)
        return;
    if (!plan->found) {
        convolve(s, w, args);
        return;
    }
    if (!key.sums) {
        multiply(s, w, plan, args, args->y);
        return;
    }
    multiply_in_pieces(s, w, plan, args);
}
