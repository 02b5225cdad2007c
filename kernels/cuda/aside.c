// The second queue of a stream, for work that runs beside its main one: a CUDA stream and two
// events, which in a capture become edges of the graph. It has scratch memory of its own.
#include "kernels/cuda/cuda.h"

#include <stdlib.h>
#include <string.h>

// For measuring what it brings: "0" leaves it out, and work aside is done in order. "2" and more:
// as many multiprocessors at most are a ranking's that stays on them, the others the main queue's.
// "first", alone or behind a number: it has the main queue's priority, not a lower one.
#define SWITCH "ATEDM_CUDA_ASIDE"

atedm_status atedm_cuda_aside_init(atedm_cuda_aside *aside, atedm_error *err)
{
    const char *value = getenv(SWITCH);
    if (value && strcmp(value, "0") == 0)
        return ATEDM_OK;
    long number = value ? strtol(value, NULL, 10) : 1;
    aside->multiprocessors = number > 1 && number < INT32_MAX ? (int32_t)number : INT32_MAX;
    bool is_first = value && strstr(value, "first");
    cudaError_t error = cudaEventCreateWithFlags(&aside->begun, cudaEventDisableTiming);
    if (!error)
        error = cudaEventCreateWithFlags(&aside->done, cudaEventDisableTiming);
    if (!error)
        error = atedm_cuda_stream_make(is_first ? ATEDM_CUDA_URGENT : ATEDM_CUDA_BESIDE,
                                       &aside->stream);
    return atedm_cuda_status(error, "making a stream's second queue", err);
}

void atedm_cuda_aside_finish(atedm_cuda_aside *aside)
{
    if (aside->stream)
        (void)cudaStreamDestroy(aside->stream);
    if (aside->begun)
        (void)cudaEventDestroy(aside->begun);
    if (aside->done)
        (void)cudaEventDestroy(aside->done);
}

// What is enqueued in `behind` from now on waits for what is in `first`.
static bool order(atedm_cuda_stream *s, cudaStream_t first, cudaEvent_t event, cudaStream_t behind)
{
    cudaError_t error = cudaEventRecord(event, first);
    if (!error)
        error = cudaStreamWaitEvent(behind, event, 0);
    atedm_cuda_check(&s->head, error, "work aside");
    return !error;
}

void atedm_cuda_stream_begin_aside(atedm_stream *head)
{
    atedm_cuda_stream *s = atedm_cuda_stream_of(head);
    if (s->aside.stream)
        s->aside.open = s->aside.unjoined = order(s, s->stream, s->aside.begun, s->aside.stream);
}

void atedm_cuda_stream_end_aside(atedm_stream *head)
{
    atedm_cuda_stream_of(head)->aside.open = false;
}

// Also behind a failure: a capture has to end with all of its branches joined.
void atedm_cuda_stream_join_aside(atedm_stream *head)
{
    atedm_cuda_stream *s = atedm_cuda_stream_of(head);
    if (s->aside.unjoined)
        s->aside.unjoined = !order(s, s->aside.stream, s->aside.done, s->stream);
}
