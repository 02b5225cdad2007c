// Events of the fake runtime: a place in a stream that the host waits for. C++.
#include "tests/emulated/stream.hpp"

using guard = std::lock_guard<std::recursive_mutex>;

struct CUevent_st {
    cudaStream_t stream = nullptr; // in which it was recorded last
    long recorded = 0, passed = 0; // how often
};

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
    if (event->recorded != event->passed)
        emulated::run_until(event->stream, [=] { return event->recorded == event->passed; });
    delete event;
    return cudaSuccess;
}

cudaError_t cudaEventRecord(cudaEvent_t event, cudaStream_t stream)
{
    guard g(emulated::lock);
    event->stream = stream;
    long number = ++event->recorded;
    struct mark {
        cudaEvent_t event;
        long number;
    };
    return emulated::enqueue(
        stream,
        [](void *p) {
            auto *m = static_cast<mark *>(p);
            m->event->passed = m->number;
        },
        new mark{event, number}, [](void *p) { delete static_cast<mark *>(p); });
}

cudaError_t cudaEventSynchronize(cudaEvent_t event)
{
    guard g(emulated::lock);
    if (event->stream) // what was captured does not come to pass
        if (cudaError_t error = emulated::forbid(event->stream))
            return error;
    if (event->recorded == event->passed)
        return cudaSuccess;
    if (cudaError_t error = emulated::lost(emulated::device_of(event->stream)))
        return error;
    emulated::run_until(event->stream, [=] { return event->recorded == event->passed; });
    return cudaSuccess;
}

} // extern "C"
