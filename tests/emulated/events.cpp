// Events of the fake runtime. An event is a point in a stream, or in a capture, for which the host
// or another stream can wait. C++.
#include "tests/emulated/stream.hpp"

#include <chrono>

using guard = std::lock_guard<std::recursive_mutex>;

struct CUevent_st {
    bool is_timed;
    emulated::mark_pointer mark;       // where it was recorded last, outside a capture
    emulated::capture_pointer capture; // or: the capture,
    std::vector<size_t> last;          // and the nodes before it
};

static void run_to(const emulated::mark_pointer &mark)
{
    if (mark && mark->stream)
        emulated::run_until(mark->stream, [=] { return !mark->stream; });
}

static void pass(emulated::mark &mark)
{
    mark.stream = nullptr;
    mark.seconds =
        std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

extern "C" {

cudaError_t cudaEventCreateWithFlags(cudaEvent_t *ret_event, unsigned flags)
{
    if (flags != cudaEventDefault && flags != cudaEventDisableTiming)
        return cudaErrorInvalidValue;
    *ret_event = new CUevent_st{flags == cudaEventDefault, nullptr, nullptr, {}};
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
        *event = {event->is_timed, nullptr, stream->capture, stream->last};
        return emulated::use(stream->device);
    }
    using closure = emulated::mark_pointer;
    *event = {
        event->is_timed, std::make_shared<emulated::mark>(emulated::mark{stream}), nullptr, {}};
    return emulated::enqueue(
        stream, [](void *p) { pass(**(closure *)p); }, new closure(event->mark),
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

cudaError_t cudaEventElapsedTime(float *ret_ms, cudaEvent_t start, cudaEvent_t end)
{
    guard g(emulated::lock);
    if (start->capture || end->capture)
        return cudaErrorCapturedEvent;
    if (!start->is_timed || !end->is_timed || !start->mark || !end->mark)
        return cudaErrorInvalidResourceHandle;
    if (start->mark->stream || end->mark->stream)
        return cudaErrorNotReady;
    *ret_ms = (float)((end->mark->seconds - start->mark->seconds) * 1e3);
    return cudaSuccess;
}

} // extern "C"
