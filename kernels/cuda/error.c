// Errors of the CUDA runtime as statuses.
#include "kernels/cuda/cuda.h"

#include <stdio.h>

static atedm_status status_of(cudaError_t error)
{
    return error == cudaErrorMemoryAllocation ? ATEDM_ERR_NOMEM : ATEDM_ERR_DEVICE;
}

// Errors that stay: the context is lost, and with it all memory of the device.
static bool is_final(cudaError_t error)
{
    return error != cudaErrorMemoryAllocation && cudaGetLastError() == error &&
           cudaGetLastError() == error;
}

static void describe(cudaError_t error, const char *what, char *text, size_t size)
{
    if (error == cudaErrorMemoryAllocation)
        (void)cudaGetLastError(); // is reported here, and is not for the next launch to find
    snprintf(text, size, "cuda: %s: %s (%s)%s", what, cudaGetErrorString(error),
             cudaGetErrorName(error),
             is_final(error) ? "; the device is lost to this process, which has to be started anew"
                             : "");
}

void atedm_cuda_check(atedm_stream *s, cudaError_t error, const char *what)
{
    char text[ATEDM_ERROR_MAX];
    if (!error || s->status)
        return;
    describe(error, what, text, sizeof text);
    atedm_stream_fail(s, status_of(error), "%s", text);
}

atedm_status atedm_cuda_status(cudaError_t error, const char *what, atedm_error *err)
{
    char text[ATEDM_ERROR_MAX];
    if (!error)
        return ATEDM_OK;
    describe(error, what, text, sizeof text);
    return atedm_error_set(err, status_of(error), "%s", text);
}
