// The part of cuBLASLt that kernels/cuda calls, on the host. C++.
//
// Like the real one, it proposes different algorithms for different numbers of rows, and the
// algorithms add in different orders. A caller who asks again for every size would get results that
// depend on the batch. One algorithm adds as wgmma.cpp's products do, term by term from the first.
// Callers are held to the alignment that they promised to the heuristic.
#include "tests/emulated/engine.hpp"
#include "tests/emulated/memory.hpp"

#include "tests/emulated/fallback/cublasLt.h"

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <thread>

using emulated::is_device;

// The number of products enqueued so far, for tests.
extern "C" {
__attribute__((visibility("default"))) extern long atedm_emulated_products;
long atedm_emulated_products;
}

// The words of an algorithm.
enum { WORD_ORDER, WORD_ALIGN_A, WORD_ALIGN_B, WORD_ALIGN_C, WORD_ALIGN_D };
enum { ORDER_WHOLE, ORDER_HALVES };
constexpr int LANES = 16;           // sums computed at a time
constexpr int64_t FEW_COLUMNS = 64; // for fewer, the heuristic proposes the other algorithm first

struct cublasLtContext {
};
struct cublasLtMatmulDescOpaque {
    bool transposed_a = false;
    int epilogue = CUBLASLT_EPILOGUE_DEFAULT;
    const void *bias = nullptr;
};
struct cublasLtMatrixLayoutOpaque {
    cudaDataType_t type;
    int64_t rows, columns, stride; // column-major
};
struct cublasLtMatmulPreferenceOpaque {
    uint64_t workspace = 0;
    uint32_t reductions = ~0u, align[4] = {256, 256, 256, 256};
};

static size_t type_size(cudaDataType_t type)
{
    return type == CUDA_R_32F ? 4 : 2;
}

static float load(const void *p, int64_t i, cudaDataType_t type)
{
    if (type == CUDA_R_32F)
        return ((const float *)p)[i];
    return type == CUDA_R_16BF ? __bfloat162float(((const __nv_bfloat16 *)p)[i])
                               : __half2float(((const __half *)p)[i]);
}

static void store(void *p, int64_t i, cudaDataType_t type, float value)
{
    if (type == CUDA_R_32F)
        ((float *)p)[i] = value;
    else if (type == CUDA_R_16BF)
        ((__nv_bfloat16 *)p)[i] = __float2bfloat16_rn(value);
    else
        ((__half *)p)[i] = __float2half_rn(value);
}

// d [m, n] = A^T B + beta c + bias, all column-major; A [k, m].
struct product {
    cublasLtMatmulDescOpaque desc;
    cublasLtMatrixLayoutOpaque la, lb, lc, ld;
    const void *a, *b, *c;
    void *d;
    float beta;
    uint64_t order;
    bool rounds_twice;

    // Copies columns into groups of N, padded with zeros. The elements of a row of a group are
    // adjacent.
    template <int N>
    static std::vector<float> read(const void *p, const cublasLtMatrixLayoutOpaque &l)
    {
        std::vector<float> values((size_t)((l.columns + N - 1) / N * N * l.rows));
        float *to = values.data();
        for (int64_t first = 0; first < l.columns; first += N)
            for (int64_t i = 0; i < l.rows; i++, to += N)
                for (int64_t j = 0; j < N && first + j < l.columns; j++)
                    to[j] = load(p, (first + j) * l.stride + i, l.type);
        return values;
    }

    // Dot products, over rows first .. end - 1, of a group of A's columns with one column of B. The
    // vectors are explicit, because gcc would vectorise the loop over rows instead.
    static void dot(const float *x, const float *y, int64_t first, int64_t end, float *sums)
    {
        typedef float vector __attribute__((vector_size(16), aligned(4), may_alias));
        const vector *from = (const vector *)(x + first * LANES);
        vector a = {}, b = {}, c = {}, d = {};
        static_assert(sizeof(vector[4]) == LANES * sizeof(float));
        for (int64_t i = first; i < end; i++, from += 4) {
            a += from[0] * y[i];
            b += from[1] * y[i];
            c += from[2] * y[i];
            d += from[3] * y[i];
        }
        vector *to = (vector *)sums;
        to[0] += a;
        to[1] += b;
        to[2] += c;
        to[3] += d;
    }

    void finish(int64_t i, int64_t j, float value) const
    {
        bool has_bias = desc.epilogue == CUBLASLT_EPILOGUE_BIAS,
             is_first = emulated::setting().blas_bias_first && !rounds_twice;
        if (has_bias && is_first)
            value += load(desc.bias, i, ld.type);
        if (beta != 0)
            value += beta * load(c, j * lc.stride + i, lc.type);
        if (rounds_twice)
            value = __bfloat162float(__float2bfloat16_rn(value));
        if (has_bias && !is_first)
            value += load(desc.bias, i, ld.type);
        store(d, j * ld.stride + i, ld.type, value);
    }

    void run() const
    {
        if (int ms = emulated::setting().blas_ms)
            std::this_thread::sleep_for(std::chrono::milliseconds(ms));
        std::vector<float> x = read<LANES>(a, la), y = read<1>(b, lb);
        int64_t half = order == ORDER_WHOLE ? la.rows : la.rows / 2;
        for (int64_t j = 0; j < ld.columns; j++)
            for (int64_t i = 0; i < ld.rows; i += LANES) {
                const float *group = &x[(size_t)(i * la.rows)], *column = &y[(size_t)(j * lb.rows)];
                float sums[LANES] = {};
                dot(group, column, 0, half, sums);
                dot(group, column, half, la.rows, sums);
                for (int l = 0; l < LANES && i + l < ld.rows; l++)
                    finish(i + l, j, sums[l]);
            }
    }
};

static bool fits(const void *p, const cublasLtMatrixLayoutOpaque &l)
{
    return l.stride >= l.rows &&
           is_device(p, (size_t)((l.columns - 1) * l.stride + l.rows) * type_size(l.type));
}

template <class T> static bool take(T *to, const void *from, size_t bytes)
{
    if (bytes != sizeof *to)
        return false;
    memcpy(to, from, bytes);
    return true;
}

// ATEDM_EMULATED_ROWS=N: algorithms accept only numbers of rows (columns here) that are multiples
// of N.
static int64_t columns_taken()
{
    const char *text = getenv("ATEDM_EMULATED_ROWS");
    return text ? atoll(text) : 1;
}

// ATEDM_EMULATED_PROPOSALS=N: the heuristic proposes at most N algorithms.
static int most_proposals()
{
    const char *text = getenv("ATEDM_EMULATED_PROPOSALS");
    return text ? atoi(text) : 2;
}

static cublasStatus_t status_of(bool good)
{
    return good ? CUBLAS_STATUS_SUCCESS : CUBLAS_STATUS_INVALID_VALUE;
}

extern "C" {

cublasStatus_t cublasLtCreate(cublasLtHandle_t *ret_handle)
{
    *ret_handle = new cublasLtContext;
    return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtDestroy(cublasLtHandle_t handle)
{
    delete handle;
    return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatmulDescCreate(cublasLtMatmulDesc_t *ret_desc, cublasComputeType_t compute,
                                        cudaDataType_t scale)
{
    if (compute != CUBLAS_COMPUTE_32F || scale != CUDA_R_32F)
        return CUBLAS_STATUS_NOT_SUPPORTED;
    *ret_desc = new cublasLtMatmulDescOpaque;
    return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatmulDescDestroy(cublasLtMatmulDesc_t desc)
{
    delete desc;
    return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatmulDescSetAttribute(cublasLtMatmulDesc_t desc,
                                              cublasLtMatmulDescAttributes_t attribute,
                                              const void *value, size_t bytes)
{
    int32_t number = 0;
    switch (attribute) {
    case CUBLASLT_MATMUL_DESC_TRANSA:
        if (!take(&number, value, bytes))
            return CUBLAS_STATUS_INVALID_VALUE;
        desc->transposed_a = number == CUBLAS_OP_T;
        return CUBLAS_STATUS_SUCCESS;
    case CUBLASLT_MATMUL_DESC_EPILOGUE:
        return status_of(take(&desc->epilogue, value, bytes));
    case CUBLASLT_MATMUL_DESC_BIAS_POINTER:
        return status_of(take(&desc->bias, value, bytes));
    }
    return CUBLAS_STATUS_NOT_SUPPORTED;
}

cublasStatus_t cublasLtMatrixLayoutCreate(cublasLtMatrixLayout_t *ret_layout, cudaDataType type,
                                          uint64_t rows, uint64_t columns, int64_t stride)
{
    *ret_layout = new cublasLtMatrixLayoutOpaque{type, (int64_t)rows, (int64_t)columns, stride};
    return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatrixLayoutDestroy(cublasLtMatrixLayout_t layout)
{
    delete layout;
    return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatmulPreferenceCreate(cublasLtMatmulPreference_t *ret_preference)
{
    *ret_preference = new cublasLtMatmulPreferenceOpaque;
    return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatmulPreferenceDestroy(cublasLtMatmulPreference_t preference)
{
    delete preference;
    return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatmulPreferenceSetAttribute(cublasLtMatmulPreference_t preference,
                                                    cublasLtMatmulPreferenceAttributes_t attribute,
                                                    const void *value, size_t bytes)
{
    if (attribute == CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES)
        return status_of(take(&preference->workspace, value, bytes));
    if (attribute == CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK)
        return status_of(take(&preference->reductions, value, bytes));
    return status_of(take(
        &preference->align[attribute - CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES], value, bytes));
}

cublasStatus_t cublasLtMatmulAlgoGetHeuristic(cublasLtHandle_t, cublasLtMatmulDesc_t,
                                              cublasLtMatrixLayout_t, cublasLtMatrixLayout_t,
                                              cublasLtMatrixLayout_t, cublasLtMatrixLayout_t d,
                                              cublasLtMatmulPreference_t preference, int wanted,
                                              cublasLtMatmulHeuristicResult_t *ret_results,
                                              int *ret_count)
{
    *ret_count = 0;
    if (wanted < 1)
        return CUBLAS_STATUS_INVALID_VALUE;
    // For some calls the real one has no algorithm. Here these are calls in which x has only 2-byte
    // alignment, and y has more.
    if (preference->align[1] < 4 && preference->align[3] >= 4)
        return CUBLAS_STATUS_NOT_SUPPORTED;
    // The algorithm that it considers best comes first.
    bool is_small = d->columns < FEW_COLUMNS;
    for (int n = 0; n < most_proposals() && n < wanted; n++, ++*ret_count) {
        cublasLtMatmulHeuristicResult_t result = {};
        result.algo.data[WORD_ORDER] = is_small == (n == 0) ? ORDER_HALVES : ORDER_WHOLE;
        for (int i = 0; i < 4; i++)
            result.algo.data[WORD_ALIGN_A + i] = preference->align[i];
        ret_results[n] = result;
    }
    return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatmul(cublasLtHandle_t, cublasLtMatmulDesc_t desc, const void *alpha,
                              const void *a, cublasLtMatrixLayout_t la, const void *b,
                              cublasLtMatrixLayout_t lb, const void *beta, const void *c,
                              cublasLtMatrixLayout_t lc, void *d, cublasLtMatrixLayout_t ld,
                              const cublasLtMatmulAlgo_t *algo, void *, size_t, cudaStream_t stream)
{
    const void *operands[] = {a, b, c, d};
    atedm_emulated_products++;
    for (int i = 0; i < 4; i++)
        if ((uintptr_t)operands[i] % algo->data[WORD_ALIGN_A + i])
            return CUBLAS_STATUS_EXECUTION_FAILED;
    if (ld->columns % columns_taken())
        return CUBLAS_STATUS_NOT_SUPPORTED;
    product p = {*desc, *la, *lb, *lc, *ld, a, b, c, d, *(const float *)beta, 0, false};
    p.order = algo->data[WORD_ORDER];
    // Like the real kernels for rows that do not consist of whole vectors.
    p.rounds_twice = desc->epilogue == CUBLASLT_EPILOGUE_BIAS && ld->type != CUDA_R_32F &&
                     std::min({algo->data[WORD_ALIGN_B], algo->data[WORD_ALIGN_C],
                               algo->data[WORD_ALIGN_D]}) < 16;
    if (*(const float *)alpha != 1 || !desc->transposed_a || la->rows != lb->rows ||
        la->columns != ld->rows || lb->columns != ld->columns || lc->rows != ld->rows ||
        lc->columns != ld->columns || lc->type != ld->type || !fits(a, *la) || !fits(b, *lb) ||
        !fits(d, *ld) || (p.beta != 0 && !fits(c, *lc)))
        return CUBLAS_STATUS_INVALID_VALUE;
    if (desc->epilogue == CUBLASLT_EPILOGUE_BIAS &&
        !is_device(desc->bias, (size_t)ld->rows * type_size(ld->type)))
        return CUBLAS_STATUS_INVALID_VALUE;
    cudaError_t error = emulated::enqueue(
        stream, [](void *self) { ((product *)self)->run(); }, new product(p),
        [](void *self) { delete (product *)self; });
    return error ? CUBLAS_STATUS_ALLOC_FAILED : CUBLAS_STATUS_SUCCESS;
}

} // extern "C"
