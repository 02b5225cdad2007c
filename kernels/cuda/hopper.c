// The host's side of the kernels for compute capability 9.0 (*_hopper.cu): which operations they
// do, and the tensor maps that they read by, which a function of the driver makes.
#include "kernels/cuda/cuda.h"

#include <stdlib.h>
#include <string.h>

// Attention and ranking with heads of 64. "portable": by attention64.cu and rank64.cu; "hopper": by
// attention64_hopper.cu and rank64_hopper.cu, an error on a device that is not of compute
// capability 9.0; "auto", the default: hopper on such a device, else portable.
#define ATTENTION_ENVIRONMENT "ATEDM_CUDA_ATTENTION"
// Convolutions. "hopper": by conv_hopper.cu where it takes them, an error on other devices; the
// rest, and all other values, are dnn.c's.
#define CONV_ENVIRONMENT "ATEDM_CUDA_CONV"
// Linear layers. "cublas", also by "auto", the default: by cuBLASLt; "tried": on a device of
// compute capability 9.0 linear_hopper.cu is one more candidate of the trials; "hopper": by
// linear_hopper.cu where it takes them, an error on other devices.
#define LINEAR_ENVIRONMENT "ATEDM_CUDA_LINEAR"

#define HOPPER_MAJOR 9
// The CUDA version whose cuTensorMapEncodeTiled is asked for: the first that has it.
#define ENCODE_VERSION 12000

#define HEAD 64 // columns of a box: one head

static atedm_status find_encode(atedm_cuda_encode_fn *ret_encode, atedm_error *err)
{
    void *function = NULL;
    enum cudaDriverEntryPointQueryResult found;
    cudaError_t error = cudaGetDriverEntryPointByVersion("cuTensorMapEncodeTiled", &function,
                                                         ENCODE_VERSION, cudaEnableDefault, &found);
    if (error)
        return atedm_cuda_status(error, "asking for tensor maps", err);
    if (found != cudaDriverEntryPointSuccess || !function)
        return atedm_error_set(err, ATEDM_ERR_UNSUPPORTED, "cuda: the driver has no tensor maps");
    // POSIX has it that a function's address fits into a void pointer; C has no cast for it.
    memcpy(ret_encode, &function, sizeof function);
    return ATEDM_OK;
}

// The error of a device whose compute capability is not that of the kernels asked for.
static atedm_status refuse(const char *environment, int major, atedm_error *err)
{
    return atedm_error_set(err, ATEDM_ERR_UNSUPPORTED,
                           "cuda: %s is \"hopper\": the device is of compute capability %d, not %d",
                           environment, major, HOPPER_MAJOR);
}

static atedm_status read_linear(atedm_cuda_linear_choice *ret_choice, atedm_error *err)
{
    static const char *const names[] = {[ATEDM_CUDA_LINEAR_CUBLAS] = "cublas",
                                        [ATEDM_CUDA_LINEAR_TRIED] = "tried",
                                        [ATEDM_CUDA_LINEAR_HOPPER] = "hopper"};
    const char *value = getenv(LINEAR_ENVIRONMENT);
    size_t i = 0, n = sizeof names / sizeof *names;
    if (!value || strcmp(value, "auto") == 0)
        value = names[ATEDM_CUDA_LINEAR_CUBLAS];
    while (i < n && strcmp(value, names[i]) != 0)
        i++;
    if (i == n)
        return atedm_error_set(
            err, ATEDM_ERR_UNSUPPORTED,
            "cuda: " LINEAR_ENVIRONMENT " is \"%s\": auto, cublas, tried or hopper", value);
    *ret_choice = (atedm_cuda_linear_choice)i;
    return ATEDM_OK;
}

static cudaError_t count_clusters(atedm_cuda_hopper *hopper)
{
    hopper->linear_clusters[0] = hopper->multiprocessors;
    cudaError_t error = atedm_cuda_linear_hopper_clusters(2, &hopper->linear_clusters[1]);
    return error ? error : atedm_cuda_linear_hopper_clusters(4, &hopper->linear_clusters[2]);
}

atedm_status atedm_cuda_hopper_choose(int index, atedm_cuda_hopper *ret_hopper, atedm_error *err)
{
    const char *attention = getenv(ATTENTION_ENVIRONMENT), *conv = getenv(CONV_ENVIRONMENT);
    bool is_auto = !attention || strcmp(attention, "auto") == 0;
    bool is_asked = !is_auto && strcmp(attention, "hopper") == 0;
    atedm_cuda_hopper found = {.conv = conv && strcmp(conv, "hopper") == 0};
    int major = 0;
    if (!is_auto && !is_asked && strcmp(attention, "portable") != 0)
        return atedm_error_set(
            err, ATEDM_ERR_UNSUPPORTED,
            "cuda: " ATTENTION_ENVIRONMENT " is \"%s\": auto, portable or hopper", attention);
    atedm_status status = read_linear(&found.linear, err);
    if (status)
        return status;
    const char *asked = is_asked                                   ? ATTENTION_ENVIRONMENT
                        : found.conv                               ? CONV_ENVIRONMENT
                        : found.linear == ATEDM_CUDA_LINEAR_HOPPER ? LINEAR_ENVIRONMENT
                                                                   : NULL;
    cudaError_t error = cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, index);
    if (!error)
        error =
            cudaDeviceGetAttribute(&found.multiprocessors, cudaDevAttrMultiProcessorCount, index);
    if (error)
        return atedm_cuda_status(error, "asking the device", err);
    if (asked && major != HOPPER_MAJOR)
        return refuse(asked, major, err);
    if (major == HOPPER_MAJOR && (is_auto || asked || found.linear))
        status = find_encode(&found.encode, err);
    if (status && asked)
        return status;
    found.attention = found.encode && (is_auto || is_asked);
    found.linear = found.encode ? found.linear : ATEDM_CUDA_LINEAR_CUBLAS;
    error = found.linear ? count_clusters(&found) : cudaSuccess;
    if (error)
        return atedm_cuda_status(error, "asking for clusters", err);
    *ret_hopper = found;
    return ATEDM_OK;
}

// ---- tensor maps

bool atedm_cuda_hopper_encode(atedm_cuda_encode_fn function, atedm_dtype act, const void *tensor,
                              cuuint32_t rank, const cuuint64_t *dims, const cuuint64_t *strides,
                              const cuuint32_t *box, CUtensorMap *ret_map)
{
    const cuuint32_t steps[4] = {1, 1, 1, 1};
    // The driver's argument is not const; it only keeps the address.
    void *at = NULL;
    memcpy(&at, &tensor, sizeof at);
    return function(ret_map,
                    act == ATEDM_BF16 ? CU_TENSOR_MAP_DATA_TYPE_BFLOAT16
                                      : CU_TENSOR_MAP_DATA_TYPE_FLOAT16,
                    rank, at, dims, strides, box, steps, CU_TENSOR_MAP_INTERLEAVE_NONE,
                    box[0] * atedm_dtype_size(act) == 128 ? CU_TENSOR_MAP_SWIZZLE_128B
                                                          : CU_TENSOR_MAP_SWIZZLE_NONE,
                    CU_TENSOR_MAP_L2_PROMOTION_L2_128B,
                    CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE) == CUDA_SUCCESS;
}

// A matrix of whole heads. Copies read zeros behind its last row.
typedef struct matrix {
    const void *at; // [device]
    int64_t rows, columns;
    int64_t stride;    // elements from one row to the next
    uint32_t box_rows; // rows that a copy takes
} matrix;

static bool encode(atedm_cuda_encode_fn function, atedm_dtype act, const matrix *m,
                   CUtensorMap *ret_map)
{
    const cuuint64_t dims[] = {(cuuint64_t)m->columns, (cuuint64_t)m->rows};
    const cuuint64_t row_bytes = (cuuint64_t)m->stride * atedm_dtype_size(act);
    const cuuint32_t box[] = {HEAD, m->box_rows};
    return atedm_cuda_hopper_encode(function, act, m->at, 2, dims, &row_bytes, box, ret_map);
}

// ---- attention and ranking

// The rows of the matrices that the spans are in: up to the last span's end.
static void count_rows(const atedm_span *spans, int32_t n, int64_t *ret_q, int64_t *ret_k)
{
    *ret_q = *ret_k = 0;
    for (int32_t i = 0; i < n; i++) {
        const atedm_span *span = &spans[i];
        *ret_q = span->q0 + span->nq > *ret_q ? span->q0 + span->nq : *ret_q;
        *ret_k = span->k0 + span->nk > *ret_k ? span->k0 + span->nk : *ret_k;
    }
}

bool atedm_cuda_hopper_takes_rank(const atedm_cuda_hopper *hopper, const atedm_cuda_rank *rank)
{
    int64_t q_rows, k_rows;
    count_rows(rank->span, rank->n, &q_rows, &k_rows);
    return rank->is_head64 && hopper->attention && q_rows <= ATEDM_CUDA_HOPPER_MOST_ROWS &&
           k_rows <= ATEDM_CUDA_HOPPER_MOST_ROWS &&
           rank->offset_rows <= ATEDM_CUDA_HOPPER_MOST_ROWS / 2;
}

bool atedm_cuda_hopper_rank_maps_make(const atedm_cuda_hopper *hopper, atedm_dtype act,
                                      const atedm_cuda_rank *rank,
                                      atedm_cuda_hopper_rank_maps *ret_maps)
{
    int64_t q_rows, k_rows, columns = (int64_t)rank->heads * rank->head_dim;
    count_rows(rank->span, rank->n, &q_rows, &k_rows);
    const matrix q = {.at = rank->q,
                      .rows = q_rows,
                      .columns = columns,
                      .stride = rank->q_stride,
                      .box_rows = ATEDM_CUDA_HOPPER_RANK_QUERIES};
    const matrix k = {.at = rank->k,
                      .rows = k_rows,
                      .columns = columns,
                      .stride = rank->k_stride,
                      .box_rows = ATEDM_CUDA_HOPPER_KEYS};
    // Two elements of 16 bits for each.
    const cuuint64_t dims[] = {2 * (cuuint64_t)rank->offset_rows, (cuuint64_t)rank->heads};
    const cuuint64_t row_bytes = (cuuint64_t)rank->offset_rows * sizeof(float);
    const cuuint32_t box[] = {2 * ATEDM_CUDA_HOPPER_RANK_QUERIES, 1};
    bool good = encode(hopper->encode, act, &q, &ret_maps->q) &&
                encode(hopper->encode, act, &k, &ret_maps->k);
    for (int i = 0; i < 2 && good; i++)
        good = atedm_cuda_hopper_encode(hopper->encode, act, rank->offsets[i], 2, dims, &row_bytes,
                                        box, &ret_maps->offsets[i]);
    return good;
}

cudaError_t atedm_cuda_hopper_attention(const atedm_cuda_hopper *hopper, atedm_dtype act,
                                        const atedm_attention_args *args,
                                        const atedm_cuda_spans *spans, cudaStream_t stream)
{
    int64_t q_rows, k_rows, columns = (int64_t)args->heads * args->head_dim;
    count_rows(spans->span, spans->n, &q_rows, &k_rows);
    const matrix q = {.at = args->q,
                      .rows = q_rows,
                      .columns = columns,
                      .stride = args->q_stride,
                      .box_rows = ATEDM_CUDA_HOPPER_QUERIES};
    const matrix k = {.at = args->k,
                      .rows = k_rows,
                      .columns = columns,
                      .stride = args->k_stride,
                      .box_rows = ATEDM_CUDA_HOPPER_KEYS};
    const matrix v = {.at = args->v,
                      .rows = k_rows,
                      .columns = columns,
                      .stride = args->v_stride,
                      .box_rows = ATEDM_CUDA_HOPPER_KEYS};
    atedm_cuda_hopper_maps maps;
    if (q_rows > ATEDM_CUDA_HOPPER_MOST_ROWS || k_rows > ATEDM_CUDA_HOPPER_MOST_ROWS ||
        !encode(hopper->encode, act, &q, &maps.q) || !encode(hopper->encode, act, &k, &maps.k) ||
        !encode(hopper->encode, act, &v, &maps.v))
        return cudaErrorInvalidValue;
    return atedm_cuda_launch_attention64_hopper(act, args, spans, &maps, hopper->multiprocessors,
                                                stream);
}
