// Device memory of the cuda backend, and copies within it. Those from and to the host are
// staging.c's.
#include "kernels/cuda/cuda.h"

#include <inttypes.h>

atedm_status atedm_cuda_alloc(atedm_device *device, size_t bytes, void **ret_memory,
                              atedm_error *err)
{
    void *memory = NULL;
    cudaError_t error = atedm_cuda_use(device);
    if (!error)
        error = cudaMalloc(&memory, bytes ? bytes : 1); // 256 bytes' alignment at least
    if (error == cudaErrorMemoryAllocation) {
        (void)cudaGetLastError(); // is reported here, and is not for the next call to find
        return atedm_error_set(err, ATEDM_ERR_NOMEM, "no device memory for %zu bytes", bytes);
    }
    if (error)
        return atedm_cuda_status(error, "allocating", err);
    *ret_memory = memory;
    return ATEDM_OK;
}

void atedm_cuda_free(atedm_device *device, void *memory)
{
    (void)atedm_cuda_use(device);
    (void)cudaFree(memory); // fails only where the context is lost, and the memory with it
}

atedm_status atedm_cuda_scratch_init(atedm_cuda_stream *s, atedm_error *err)
{
    const size_t bytes[ATEDM_CUDA_SCRATCH_COUNT] = {
        [ATEDM_CUDA_SCRATCH_SUMS] = ATEDM_CUDA_SUMS_BYTES,
        [ATEDM_CUDA_SCRATCH_WORKSPACE] = ATEDM_CUDA_WORKSPACE_BYTES,
        [ATEDM_CUDA_SCRATCH_ASIDE] = s->aside.stream ? ATEDM_CUDA_ASIDE_BYTES : 0,
    };
    for (int i = 0; i < ATEDM_CUDA_SCRATCH_COUNT; i++) {
        atedm_status status = atedm_cuda_alloc(s->head.device, bytes[i], &s->scratch[i], err);
        if (status)
            return status;
        s->scratch_bytes[i] = bytes[i];
    }
    return ATEDM_OK;
}

void *atedm_cuda_scratch_get(atedm_cuda_stream *s, atedm_cuda_scratch which, int64_t elements,
                             size_t element)
{
    size_t bytes;
    if (elements < 0 || __builtin_mul_overflow((size_t)elements, element, &bytes)) {
        atedm_stream_fail(&s->head, ATEDM_ERR_NOMEM,
                          "no memory for %" PRId64 " elements of scratch", elements);
        return NULL;
    }
    if (s->scratch[which] && bytes <= s->scratch_bytes[which])
        return s->scratch[which];
    if (!atedm_cuda_graphs_release(s))
        return NULL;
    // The old one may be in use by what is enqueued, for which cudaFree need not wait.
    cudaError_t error = cudaStreamSynchronize(s->stream);
    if (!error && s->aside.stream)
        error = cudaStreamSynchronize(s->aside.stream);
    atedm_cuda_check(&s->head, error, "waiting for scratch memory");
    if (s->head.status)
        return NULL;
    atedm_cuda_free(s->head.device, s->scratch[which]);
    s->scratch[which] = NULL;
    s->scratch_bytes[which] = 0;
    atedm_error err;
    atedm_status status = atedm_cuda_alloc(s->head.device, bytes, &s->scratch[which], &err);
    if (status) {
        atedm_stream_fail(&s->head, status, "scratch: %s", err.message);
        return NULL;
    }
    s->scratch_bytes[which] = bytes;
    return s->scratch[which];
}

void atedm_cuda_copy(atedm_stream *s, const void *from_device, void *to_device, size_t bytes)
{
    atedm_cuda_check(s,
                     cudaMemcpyAsync(to_device, from_device, bytes, cudaMemcpyDeviceToDevice,
                                     atedm_cuda_stream_of(s)->stream),
                     "copy");
}
