// The part of the CUDA runtime that kernels/cuda calls, on the host: streams, copies, memory. C++.
//
// Streams run their work when it is enqueued or, with ATEDM_EMULATED_LATE=1, only when something
// waits for it. Streams that wait for each other then take turns, in the order of
// ATEDM_EMULATED_SCHEDULE. devices.cpp has the devices, graph.cpp captures and graphs.
#include "tests/emulated/engine.hpp"
#include "tests/emulated/stream.hpp"

#include <algorithm>
#include <cstdio>

using emulated::is_device;
using emulated::lock;
using emulated::memory_kind;
using guard = std::lock_guard<std::recursive_mutex>;

std::vector<CUstream_st *> emulated::streams;

static bool is_ready(const CUstream_st *s)
{
    return !s->queue.empty() && (!s->queue.front().awaits || !s->queue.front().awaits->stream);
}

static void run_first(CUstream_st *s)
{
    emulated::task_pointer t = s->queue.front().task;
    s->queue.pop_front();
    emulated::unlock opened(s->device);
    if (t)
        t->run(t->closure);
}

// Runs one piece of work: of this stream, or of a stream that waits for it or that it waits for.
// Other streams stand still until something waits for them.
static void advance(CUstream_st *s)
{
    while (!is_ready(s))
        s = s->queue.front().awaits->stream;
    std::vector<CUstream_st *> ready = {s};
    for (CUstream_st *other : emulated::streams)
        if (other != s && other->family == s->family && is_ready(other))
            ready.push_back(other);
    run_first(ready[emulated::pick(ready.size())]);
}

static void drain(CUstream_st *s)
{
    while (!s->queue.empty())
        advance(s);
}

// cudaMemcpy from pageable host memory: it returns as soon as it has read the bytes. They arrive
// when something waits for the default stream.
struct upload {
    int device;
    char *to;
    std::vector<char> bytes;
};
static std::vector<upload> uploads; // guarded by lock

static void land_uploads()
{
    for (const upload &u : uploads) {
        emulated::unlock opened(u.device);
        memcpy(u.to, u.bytes.data(), u.bytes.size());
    }
    uploads.clear();
}

static void drain_all()
{
    land_uploads();
    for (CUstream_st *s : emulated::streams)
        drain(s);
}

namespace emulated
{

size_t pick(size_t n)
{
    static uint64_t x = setting().seed * 0x9e3779b97f4a7c15u | 1; // Marsaglia's xorshift64
    if (setting().schedule != settings::RANDOM)
        return setting().schedule == settings::FORWARD ? 0 : n - 1;
    x ^= x << 13;
    x ^= x >> 7;
    x ^= x << 17;
    return (size_t)((x >> 32) * n >> 32);
}

int device_of(cudaStream_t stream)
{
    if (!stream)
        fail("work on the default stream, which orders all others");
    return stream->device;
}

void run_until(cudaStream_t stream, const std::function<bool()> &passed)
{
    while (!passed() && !stream->queue.empty())
        advance(stream);
}

void append(CUstream_st *stream, const work &w)
{
    stream->queue.push_back(w);
    if (!setting().late)
        drain(stream);
}

cudaError_t enqueue(cudaStream_t stream, void (*run)(void *), void *closure, void (*drop)(void *))
{
    guard g(lock);
    auto t = std::make_shared<task>(run, closure, drop);
    if (cudaError_t error = use(device_of(stream)))
        return error;
    if (stream->capture)
        return capture(stream, t);
    append(stream, {t, nullptr});
    return cudaSuccess;
}

} // namespace emulated

template <class F> static cudaError_t enqueue(cudaStream_t stream, F f)
{
    return emulated::enqueue(
        stream, [](void *p) { (*(F *)p)(); }, new F(std::move(f)), [](void *p) { delete (F *)p; });
}

static cudaError_t check_copy(const void *to, const void *from, size_t bytes, cudaMemcpyKind kind,
                              int device)
{
    bool to_device = is_device(to, bytes), from_device = is_device(from, bytes);
    if ((to_device && emulated::device_of(to) != device) ||
        (from_device && emulated::device_of(from) != device))
        emulated::fail("a copy on device %d of another one's memory", device);
    if (to_device == (kind != cudaMemcpyDeviceToHost) &&
        from_device == (kind != cudaMemcpyHostToDevice))
        return cudaSuccess;
    fprintf(stderr, "emulated cuda: copy of %zu bytes, kind %d, to %s from %s\n", bytes, (int)kind,
            to_device ? "device" : emulated::describe(to),
            from_device ? "device" : emulated::describe(from));
    return cudaErrorInvalidValue;
}

extern "C" {

cudaError_t cudaMalloc(void **p, size_t bytes)
{
    guard g(lock);
    if (cudaError_t error = emulated::forbid_any())
        return error;
    int device = emulated::device_of_thread();
    cudaError_t error = emulated::lost(device);
    return error ? error : emulated::allocate(p, bytes, memory_kind::DEVICE, device);
}

cudaError_t cudaFree(void *p)
{
    guard g(lock);
    if (cudaError_t error = emulated::forbid_any())
        return error;
    drain_all();
    return emulated::release(p);
}

cudaError_t cudaMallocHost(void **p, size_t bytes)
{
    guard g(lock);
    if (cudaError_t error = emulated::forbid_any())
        return error;
    return emulated::allocate(p, bytes, memory_kind::PINNED, emulated::device_of_thread());
}

cudaError_t cudaFreeHost(void *p)
{
    guard g(lock);
    if (cudaError_t error = emulated::forbid_any())
        return error;
    drain_all();
    return emulated::release(p);
}

cudaError_t cudaMemcpyAsync(void *to, const void *from, size_t bytes, cudaMemcpyKind kind,
                            cudaStream_t stream)
{
    guard g(lock);
    if (cudaError_t error = check_copy(to, from, bytes, kind, emulated::device_of(stream)))
        return error;
    if (kind != cudaMemcpyDeviceToDevice)
        emulated::check_pinned(kind == cudaMemcpyHostToDevice ? from : to, bytes);
    return enqueue(stream, [=] { memcpy(to, from, bytes); });
}

cudaError_t cudaMemcpy(void *to, const void *from, size_t bytes, cudaMemcpyKind kind)
{
    guard g(lock);
    int device = emulated::device_of_thread();
    if (cudaError_t error = emulated::lost(device))
        return error;
    if (cudaError_t error = emulated::forbid_any())
        return error;
    if (cudaError_t error = check_copy(to, from, bytes, kind, device))
        return error;
    if (kind == cudaMemcpyHostToDevice) {
        const char *first = (const char *)from;
        uploads.push_back({device, (char *)to, std::vector<char>(first, first + bytes)});
        return cudaSuccess;
    }
    emulated::unlock opened(device);
    memcpy(to, from, bytes);
    return cudaSuccess;
}

cudaError_t cudaMemsetAsync(void *to, int value, size_t bytes, cudaStream_t stream)
{
    guard g(lock);
    return is_device(to, bytes) ? enqueue(stream, [=] { memset(to, value, bytes); })
                                : cudaErrorInvalidValue;
}

// Priorities change nothing that a caller can observe here.
cudaError_t cudaStreamCreateWithPriority(cudaStream_t *ret_stream, unsigned flags, int)
{
    guard g(lock);
    if (flags != cudaStreamNonBlocking)
        return cudaErrorInvalidValue;
    *ret_stream = new CUstream_st(emulated::device_of_thread());
    emulated::streams.push_back(*ret_stream);
    return cudaSuccess;
}

cudaError_t cudaDeviceGetStreamPriorityRange(int *ret_least, int *ret_greatest)
{
    *ret_least = 0;
    *ret_greatest = -5;
    return cudaSuccess;
}

cudaError_t cudaStreamDestroy(cudaStream_t stream)
{
    guard g(lock);
    drain(stream);
    auto &all = emulated::streams;
    all.erase(std::find(all.begin(), all.end(), stream));
    delete stream;
    return cudaSuccess;
}

cudaError_t cudaStreamSynchronize(cudaStream_t stream)
{
    guard g(lock);
    if (!stream) { // the default stream has only uploads
        land_uploads();
        return emulated::lost(emulated::device_of_thread());
    }
    if (cudaError_t error = emulated::forbid(stream))
        return error;
    drain(stream);
    return emulated::lost(stream->device);
}

cudaError_t cudaDeviceSynchronize(void)
{
    guard g(lock);
    if (cudaError_t error = emulated::forbid_any())
        return error;
    drain_all();
    return emulated::lost(emulated::device_of_thread());
}

// Each query runs some work, so that repeated queries see progress.
cudaError_t cudaStreamQuery(cudaStream_t stream)
{
    guard g(lock);
    if (cudaError_t error = emulated::forbid(stream))
        return error;
    if (cudaError_t error = emulated::lost(stream->device))
        return error;
    if (stream->queue.empty())
        return cudaSuccess;
    advance(stream);
    return cudaErrorNotReady;
}

cudaError_t cudaGetLastError(void)
{
    guard g(lock);
    return emulated::lost(emulated::device_of_thread());
}

const char *cudaGetErrorName(cudaError_t error)
{
    return error == cudaSuccess                         ? "cudaSuccess"
           : error == cudaErrorMemoryAllocation         ? "cudaErrorMemoryAllocation"
           : error == cudaErrorIllegalAddress           ? "cudaErrorIllegalAddress"
           : error == cudaErrorStreamCaptureUnsupported ? "cudaErrorStreamCaptureUnsupported"
           : error == cudaErrorStreamCaptureInvalidated ? "cudaErrorStreamCaptureInvalidated"
           : error == cudaErrorStreamCaptureUnjoined    ? "cudaErrorStreamCaptureUnjoined"
           : error == cudaErrorStreamCaptureIsolation   ? "cudaErrorStreamCaptureIsolation"
                                                        : "cudaError";
}

const char *cudaGetErrorString(cudaError_t error)
{
    return error == cudaErrorMemoryAllocation ? "out of memory" : "an emulated error";
}

// For tests: the number of operations that are enqueued and have not run.
__attribute__((visibility("default"))) size_t atedm_emulated_pending(void)
{
    guard g(lock);
    size_t n = 0;
    for (const CUstream_st *s : emulated::streams)
        n += s->queue.size();
    return n;
}

// For the fake cuDNN, which is a separate library.

cudaError_t atedm_emulated_enqueue(cudaStream_t stream, void (*run)(void *), void *closure,
                                   void (*drop)(void *))
{
    return emulated::enqueue(stream, run, closure, drop);
}

int atedm_emulated_is_device(const void *p, size_t bytes)
{
    return is_device(p, bytes);
}

} // extern "C"
