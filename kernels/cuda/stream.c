// CUDA streams by priority, and whether their work is done.
#include "kernels/cuda/cuda.h"

// Streams are urgent unless they are asked to stand back: without a priority of its own a stream
// has the least, and there would be none below it.
cudaError_t atedm_cuda_stream_make(atedm_cuda_urgency urgency, cudaStream_t *ret_stream)
{
    int least = 0, greatest = 0;
    cudaError_t error = cudaDeviceGetStreamPriorityRange(&least, &greatest);
    if (error)
        return error;
    // Numbers grow the other way: the greatest priority is the least number.
    int beside = greatest + 1 < least ? greatest + 1 : greatest;
    int priority = urgency == ATEDM_CUDA_URGENT   ? greatest
                   : urgency == ATEDM_CUDA_BESIDE ? beside
                                                  : least;
    return cudaStreamCreateWithPriority(ret_stream, cudaStreamNonBlocking, priority);
}

static void swap(cudaStream_t *a, cudaStream_t *b)
{
    cudaStream_t was = *a;
    *a = *b;
    *b = was;
}

// Both queues. Where there are no further streams they stay: they run beside others too.
bool atedm_cuda_stream_set_background(atedm_stream *head)
{
    atedm_cuda_stream *s = atedm_cuda_stream_of(head);
    cudaStream_t stream = NULL, aside = NULL;
    bool good = !atedm_cuda_stream_make(ATEDM_CUDA_BACKGROUND, &stream) &&
                (!s->aside.stream || !atedm_cuda_stream_make(ATEDM_CUDA_BACKGROUND, &aside)) &&
                atedm_cuda_dnn_move(s->dnn, stream);
    if (good) {
        swap(&s->stream, &stream);
        swap(&s->aside.stream, &aside);
    } else {
        (void)cudaGetLastError(); // is not for the next call to find
    }
    if (stream)
        (void)cudaStreamDestroy(stream);
    if (aside)
        (void)cudaStreamDestroy(aside);
    return true;
}

static bool is_idle(cudaStream_t stream)
{
    cudaError_t error = cudaStreamQuery(stream);
    if (error != cudaErrorNotReady)
        return true;          // errors are what waiting will find
    (void)cudaGetLastError(); // "not ready" is none, but may be kept like one
    return false;
}

bool atedm_cuda_stream_idle(atedm_stream *head)
{
    const atedm_cuda_stream *s = atedm_cuda_stream_of(head);
    return is_idle(s->stream) && (!s->aside.unjoined || is_idle(s->aside.stream));
}
