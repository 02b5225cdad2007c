// Events of the fake runtime. An event is a point in a stream, or in a capture, for which the host
// or another stream can wait. C++.
#include "tests/emulated/stream.hpp"

using guard = std::lock_guard<std::recursive_mutex>;

struct CUevent_st {
    emulated::mark_pointer mark;       // where it was recorded last, outside a capture
    emulated::capture_pointer capture; // or: the capture,
    std::vector<size_t> last;          // and the nodes before it
};

static void run_to(const emulated::mark_pointer &mark)
{
    if (mark && mark->stream)
        emulated::run_until(mark->stream, [=] { return !mark->stream; });
}

extern "C" {

cudaError_t cudaEventCreateWithFlags(cudaEvent_t *ret_event, unsigned flags)
{
    if (flags != cudaEventDisableTiming)
        return cudaErrorInvalidValue;
    *ret_event = new CUevent_st;
    return cudaSuccess;
}

cudaError_t cudaEventDestroy(cudaEvent_t event)
{
    guard g(emulated::lock);
    run_to(event->mark);
    delete event;
    return cudaSuccess;
}

cudaError_t cudaEventRecord(cudaEvent_t event, cudaStream_t stream)
{
    guard g(emulated::lock);
    if (stream->capture) {
        if (!stream->capture->valid)
            return cudaErrorStreamCaptureInvalidated;
        *event = {nullptr, stream->capture, stream->last};
        return emulated::use(stream->device);
    }
    using closure = emulated::mark_pointer;
    *event = {std::make_shared<emulated::mark>(emulated::mark{stream}), nullptr, {}};
    return emulated::enqueue(
        stream, [](void *p) { (*(closure *)p)->stream = nullptr; }, new closure(event->mark),
        [](void *p) { delete (closure *)p; });
}

cudaError_t cudaStreamWaitEvent(cudaStream_t stream, cudaEvent_t event, unsigned flags)
{
    guard g(emulated::lock);
    if (flags != 0)
        return cudaErrorInvalidValue;
    if (cudaError_t error = emulated::use(emulated::device_of(stream)))
        return error;
    if (stream->capture || event->capture)
        return emulated::wait_captured(stream, event->capture, event->last);
    if (!event->mark || !event->mark->stream)
        return cudaSuccess;
    const void *family = stream->family;
    for (CUstream_st *s : emulated::streams)
        if (s->family == family)
            s->family = event->mark->stream->family;
    emulated::append(stream, {nullptr, event->mark});
    return cudaSuccess;
}

cudaError_t cudaEventSynchronize(cudaEvent_t event)
{
    guard g(emulated::lock);
    if (event->capture) // a captured event never occurs by itself
        return cudaErrorCapturedEvent;
    if (!event->mark || !event->mark->stream)
        return cudaSuccess;
    if (cudaError_t error = emulated::forbid(event->mark->stream))
        return error;
    if (cudaError_t error = emulated::lost(event->mark->stream->device))
        return error;
    run_to(event->mark);
    return cudaSuccess;
}

} // extern "C"
