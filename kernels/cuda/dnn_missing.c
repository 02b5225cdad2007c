// In place of dnn.c and dnn_plan.c where cuDNN's headers are not there at build time: all
// convolutions are conv.cu's.
#include "kernels/cuda/cuda.h"

#include <stdlib.h>
#include <string.h>

atedm_status atedm_cuda_dnn_load(struct atedm_cuda_dnn_library **ret_library, atedm_error *err)
{
    const char *choice = getenv("ATEDM_CUDA_CONV");
    if (choice && strcmp(choice, "auto") != 0 && strcmp(choice, "hopper") != 0 &&
        strcmp(choice, "own") != 0)
        return atedm_error_set(
            err, ATEDM_ERR_UNSUPPORTED,
            "cuda: ATEDM_CUDA_CONV is \"%s\": auto, hopper or own; this program was "
            "built without cuDNN's headers",
            choice);
    *ret_library = NULL;
    return ATEDM_OK;
}

void atedm_cuda_dnn_unload(struct atedm_cuda_dnn_library *library)
{
}

atedm_status atedm_cuda_dnn_create(const struct atedm_cuda_dnn_library *library,
                                   cudaStream_t stream, atedm_dtype act,
                                   struct atedm_cuda_dnn **ret_dnn, atedm_error *err)
{
    *ret_dnn = NULL;
    return ATEDM_OK;
}

void atedm_cuda_dnn_destroy(struct atedm_cuda_dnn *dnn)
{
}

bool atedm_cuda_dnn_move(struct atedm_cuda_dnn *dnn, cudaStream_t stream)
{
    return true;
}

bool atedm_cuda_dnn_conv(atedm_stream *s, const atedm_conv_args *args)
{
    return false;
}
