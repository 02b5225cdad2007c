// CUDA streams by priority, and whether their work is done.
#include "kernels/cuda/cuda.h"

// Streams are urgent unless they are asked to stand back: without a priority of its own a stream
// has the least, and there would be none below it.
cudaError_t atedm_cuda_stream_make(bool urgent, cudaStream_t *ret_stream)
{
    int least = 0, greatest = 0;
    cudaError_t error = cudaDeviceGetStreamPriorityRange(&least, &greatest);
    if (error)
        return error;
    return cudaStreamCreateWithPriority(ret_stream, cudaStreamNonBlocking,
                                        urgent ? greatest : least);
}

// Where there is no second stream the first one stays: it runs beside others too.
bool atedm_cuda_stream_set_background(atedm_stream *head)
{
    atedm_cuda_stream *s = atedm_cuda_stream_of(head);
    cudaStream_t stream = NULL;
    if (atedm_cuda_stream_make(false, &stream)) {
        (void)cudaGetLastError();
        return true;
    }
    if (!atedm_cuda_dnn_move(s->dnn, stream)) {
        (void)cudaStreamDestroy(stream);
        return true;
    }
    (void)cudaStreamDestroy(s->stream);
    s->stream = stream;
    return true;
}

bool atedm_cuda_stream_idle(atedm_stream *head)
{
    cudaError_t error = cudaStreamQuery(atedm_cuda_stream_of(head)->stream);
    if (error != cudaErrorNotReady)
        return true;          // errors are what waiting will find
    (void)cudaGetLastError(); // "not ready" is none, but may be kept like one
    return false;
}
