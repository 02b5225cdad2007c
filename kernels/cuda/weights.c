// Weights of the cuda backend: converted to the stream's dtype on the host, uploaded once.
#include "kernels/cuda/cuda.h"

#include <stdlib.h>
#include <string.h>

static void convert(const atedm_host_tensor *from, void *to, atedm_dtype dtype)
{
    atedm_host_tensor_convert(from, 0, (size_t)atedm_host_tensor_count(from), to, dtype);
}

void atedm_cuda_weight_destroy(atedm_weight *head)
{
    if (!head)
        return;
    atedm_cuda_weight *weight = (atedm_cuda_weight *)head;
    atedm_cuda_free(head->device, weight->values);
    atedm_cuda_free(head->device, weight->bias);
    atedm_cuda_free(head->device, weight->act_bias);
    free(weight);
}

// Device memory with the host's `bytes` bytes in it, counted in the weight's size.
static atedm_status put(atedm_cuda_weight *weight, const void *from, size_t bytes,
                        void **ret_memory, atedm_error *err)
{
    void *memory = NULL;
    atedm_status status = atedm_cuda_alloc(weight->head.device, bytes, &memory, err);
    if (status)
        return status;
    // From memory that is not pinned cudaMemcpy may return while the copy is still on its way, on
    // CUDA's default stream, which ours do not wait for.
    cudaError_t error = cudaMemcpy(memory, from, bytes, cudaMemcpyHostToDevice);
    if (!error)
        error = cudaStreamSynchronize(NULL);
    status = atedm_cuda_status(error, "uploading a weight", err);
    if (status) {
        atedm_cuda_free(weight->head.device, memory);
        return status;
    }
    weight->head.bytes += bytes;
    *ret_memory = memory;
    return ATEDM_OK;
}

// The vectors one after the other, in F32.
static atedm_status put_vectors(atedm_cuda_weight *weight, const atedm_host_tensor *parts,
                                size_t n_parts, int64_t n, float **ret_memory, atedm_error *err)
{
    float *host = malloc((size_t)n * sizeof *host);
    void *memory = NULL;
    if (!host)
        return atedm_error_set(err, ATEDM_ERR_NOMEM, "no memory for a weight's vector");
    for (size_t i = 0, at = 0; i < n_parts; at += (size_t)parts[i++].shape[0])
        convert(&parts[i], host + at, ATEDM_F32);
    atedm_status status = put(weight, host, (size_t)n * sizeof *host, &memory, err);
    free(host);
    if (!status)
        *ret_memory = memory;
    return status;
}

// The bias in act too, where act holds it exactly: then cuBLASLt and cuDNN can add it.
static atedm_status put_act_bias(atedm_cuda_weight *weight, const atedm_host_tensor *parts,
                                 size_t n_parts, atedm_error *err)
{
    size_t n = (size_t)weight->head.out, element = atedm_dtype_size(weight->head.act);
    float *exact = malloc(n * sizeof *exact), *back = malloc(n * sizeof *back);
    char *rounded = malloc(n * element);
    atedm_status status = ATEDM_OK;
    if (!exact || !back || !rounded) {
        status = atedm_error_set(err, ATEDM_ERR_NOMEM, "no memory for a weight's bias");
    } else {
        for (size_t i = 0, at = 0; i < n_parts; at += (size_t)parts[i++].shape[0])
            convert(&parts[i], exact + at, ATEDM_F32);
        atedm_convert(exact, ATEDM_F32, rounded, weight->head.act, n);
        atedm_convert(rounded, weight->head.act, back, ATEDM_F32, n);
        bool same = true;
        for (size_t i = 0; i < n; i++)
            same = same && exact[i] == back[i];
        if (same)
            status = put(weight, rounded, n * element, &weight->act_bias, err);
    }
    free(exact);
    free(back);
    free(rounded);
    return status;
}

// A weight without data; NULL when memory is out.
static atedm_cuda_weight *make(const atedm_weight *head, atedm_error *err)
{
    atedm_cuda_weight *weight = calloc(1, sizeof *weight);
    if (!weight) {
        (void)atedm_error_set(err, ATEDM_ERR_NOMEM, "no memory for a weight");
        return NULL;
    }
    weight->head = *head;
    weight->head.bytes = 0;
    return weight;
}

// Elements of a row of the matrix: the inputs of a window, rounded up as the kernels want it.
static int64_t row_elements(const atedm_weight *head)
{
    int64_t window = head->in * head->kernel * head->kernel, step = ATEDM_CUDA_WEIGHT_STEP;
    return (window + step - 1) / step * step;
}

// A row of the matrix, [taps, in], from [in, taps].
static void put_row(char *to, const char *from, size_t in, size_t taps, size_t element)
{
    if (taps == 1) {
        memcpy(to, from, in * element);
        return;
    }
    for (size_t t = 0; t < taps; t++)
        for (size_t i = 0; i < in; i++)
            memcpy(to + (t * in + i) * element, from + (i * taps + t) * element, element);
}

// Matrix [out, row_elements] from the parts, [out_i, in, kernel, kernel], with channels innermost.
static atedm_status put_matrix(atedm_cuda_weight *weight, const atedm_host_tensor *parts,
                               size_t n_parts, atedm_error *err)
{
    const atedm_weight *head = &weight->head;
    size_t element = atedm_dtype_size(head->act), in = (size_t)head->in;
    size_t taps = (size_t)head->kernel * (size_t)head->kernel;
    size_t stride = (size_t)row_elements(head), most = 0;
    for (size_t i = 0; i < n_parts; i++)
        most = (size_t)parts[i].shape[0] > most ? (size_t)parts[i].shape[0] : most;
    char *matrix = calloc((size_t)head->out * stride, element);
    char *part = malloc(most * in * taps * element);
    atedm_status status = ATEDM_OK;
    if (!matrix || !part)
        status = atedm_error_set(err, ATEDM_ERR_NOMEM, "no memory for a weight of %lld x %lld",
                                 (long long)head->out, (long long)head->in);
    size_t row = 0;
    for (size_t p = 0; !status && p < n_parts; p++) {
        convert(&parts[p], part, head->act);
        for (size_t o = 0; o < (size_t)parts[p].shape[0]; o++, row++)
            put_row(matrix + row * stride * element, part + o * in * taps * element, in, taps,
                    element);
    }
    weight->row_elements = (int64_t)stride;
    if (!status)
        status = put(weight, matrix, (size_t)head->out * stride * element, &weight->values, err);
    free(matrix);
    free(part);
    return status;
}

static atedm_status finish(atedm_status status, atedm_cuda_weight *weight,
                           atedm_weight **ret_weight)
{
    if (status)
        atedm_cuda_weight_destroy(&weight->head);
    else
        *ret_weight = &weight->head;
    return status;
}

atedm_status atedm_cuda_linear_weight_create(const atedm_weight *head,
                                             const atedm_host_tensor *parts,
                                             const atedm_host_tensor *biases, size_t n_parts,
                                             atedm_weight **ret_weight, atedm_error *err)
{
    atedm_cuda_weight *weight = make(head, err);
    if (!weight)
        return ATEDM_ERR_NOMEM;
    atedm_status status = put_matrix(weight, parts, n_parts, err);
    if (!status && biases)
        status = put_vectors(weight, biases, n_parts, head->out, &weight->bias, err);
    if (!status && biases)
        status = put_act_bias(weight, biases, n_parts, err);
    return finish(status, weight, ret_weight);
}

atedm_status atedm_cuda_conv_weight_create(const atedm_weight *head,
                                           const atedm_host_tensor *tensor,
                                           const atedm_host_tensor *bias, atedm_weight **ret_weight,
                                           atedm_error *err)
{
    atedm_cuda_weight *weight = make(head, err);
    if (!weight)
        return ATEDM_ERR_NOMEM;
    atedm_status status = put_matrix(weight, tensor, 1, err);
    if (!status && bias)
        status = put_vectors(weight, bias, 1, head->out, &weight->bias, err);
    if (!status && bias)
        status = put_act_bias(weight, bias, 1, err);
    return finish(status, weight, ret_weight);
}

atedm_status atedm_cuda_norm_weight_create(const atedm_weight *head, const atedm_host_tensor *scale,
                                           const atedm_host_tensor *shift,
                                           atedm_weight **ret_weight, atedm_error *err)
{
    float *values = NULL;
    atedm_cuda_weight *weight = make(head, err);
    if (!weight)
        return ATEDM_ERR_NOMEM;
    atedm_status status = put_vectors(weight, scale, 1, head->in, &values, err);
    if (!status) {
        weight->values = values;
        status = put_vectors(weight, shift, 1, head->in, &weight->bias, err);
    }
    return finish(status, weight, ret_weight);
}

atedm_status atedm_cuda_table_weight_create(const atedm_weight *head,
                                            const atedm_host_tensor *table,
                                            atedm_weight **ret_weight, atedm_error *err)
{
    atedm_cuda_weight *weight = make(head, err);
    if (!weight)
        return ATEDM_ERR_NOMEM;
    size_t bytes = (size_t)head->in * (size_t)head->out * atedm_dtype_size(head->act);
    atedm_status status = ATEDM_OK;
    char *host = malloc(bytes);
    if (!host) {
        status = atedm_error_set(err, ATEDM_ERR_NOMEM, "no memory for an embedding table");
    } else {
        convert(table, host, head->act);
        status = put(weight, host, bytes, &weight->values, err);
    }
    free(host);
    return finish(status, weight, ret_weight);
}
