// The part of the CUDA runtime that kernels/cuda calls, on the host. Streams run their work when it
// is enqueued, or (ATEDM_EMULATED_LATE=1) only when something waits for it. Capture and graphs are
// in graph.cpp. C++.
#include "tests/emulated/engine.hpp"
#include "tests/emulated/stream.hpp"

#include <algorithm>
#include <cstdio>
#include <cstdlib>

using emulated::is_device;
using emulated::lock;
using emulated::memory_kind;
using guard = std::lock_guard<std::recursive_mutex>;

std::vector<CUstream_st *> emulated::streams;
static cudaError_t sticky;  // as an illegal access leaves a context; guarded by lock
static int calls_left = -1; // until a call fails; -1: none does

static void run_first(CUstream_st *s)
{
    emulated::task_pointer t = s->queue.front();
    s->queue.pop_front();
    emulated::unlock opened;
    t->run(t->closure);
}

static void drain(CUstream_st *s)
{
    while (!s->queue.empty())
        run_first(s);
}

static void drain_all()
{
    for (CUstream_st *s : emulated::streams)
        drain(s);
}

// ATEDM_EMULATED_FAIL_AFTER=N: the context is lost at the N-th call that enqueues something.
static bool context_is_lost()
{
    static std::once_flag once;
    std::call_once(once, [] {
        if (const char *text = getenv("ATEDM_EMULATED_FAIL_AFTER"))
            calls_left = (int)strtol(text, nullptr, 10);
    });
    if (calls_left > 0 && --calls_left == 0)
        sticky = cudaErrorIllegalAddress;
    return sticky != cudaSuccess;
}

namespace emulated
{

cudaError_t enqueue(cudaStream_t stream, void (*run)(void *), void *closure, void (*drop)(void *))
{
    guard g(lock);
    auto t = std::make_shared<task>(run, closure, drop);
    if (context_is_lost())
        return sticky;
    if (!stream)
        fail("work on the default stream, which orders all others");
    if (stream->capture != cudaStreamCaptureStatusNone)
        return capture(stream, t);
    stream->queue.push_back(t);
    if (!setting().late)
        drain(stream);
    return cudaSuccess;
}

} // namespace emulated

template <class F> static cudaError_t enqueue(cudaStream_t stream, F f)
{
    return emulated::enqueue(
        stream, [](void *p) { (*(F *)p)(); }, new F(std::move(f)), [](void *p) { delete (F *)p; });
}

static cudaError_t check_copy(const void *to, const void *from, size_t bytes, cudaMemcpyKind kind)
{
    bool to_device = is_device(to, bytes), from_device = is_device(from, bytes);
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
    return sticky ? sticky : emulated::allocate(p, bytes, memory_kind::DEVICE);
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
    return emulated::allocate(p, bytes, memory_kind::PINNED);
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
    if (cudaError_t error = check_copy(to, from, bytes, kind))
        return error;
    if (kind == cudaMemcpyHostToDevice && !emulated::is_known(from) &&
        stream->capture == cudaStreamCaptureStatusNone) {
        // Pageable memory is staged before the call returns.
        std::vector<char> staged((const char *)from, (const char *)from + bytes);
        return enqueue(stream, [=] { memcpy(to, staged.data(), bytes); });
    }
    return enqueue(stream, [=] { memcpy(to, from, bytes); });
}

cudaError_t cudaMemcpy(void *to, const void *from, size_t bytes, cudaMemcpyKind kind)
{
    guard g(lock);
    if (sticky)
        return sticky;
    if (cudaError_t error = emulated::forbid_any())
        return error;
    if (cudaError_t error = check_copy(to, from, bytes, kind))
        return error;
    emulated::unlock opened;
    memcpy(to, from, bytes);
    return cudaSuccess;
}

cudaError_t cudaMemsetAsync(void *to, int value, size_t bytes, cudaStream_t stream)
{
    guard g(lock);
    return is_device(to, bytes) ? enqueue(stream, [=] { memset(to, value, bytes); })
                                : cudaErrorInvalidValue;
}

cudaError_t cudaStreamCreateWithFlags(cudaStream_t *ret_stream, unsigned flags)
{
    guard g(lock);
    if (flags != cudaStreamNonBlocking)
        return cudaErrorInvalidValue;
    *ret_stream = new CUstream_st;
    emulated::streams.push_back(*ret_stream);
    return cudaSuccess;
}

// Which stream goes first is seen by nobody here.
cudaError_t cudaStreamCreateWithPriority(cudaStream_t *ret_stream, unsigned flags, int)
{
    return cudaStreamCreateWithFlags(ret_stream, flags);
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
    if (cudaError_t error = emulated::forbid(stream))
        return error;
    drain(stream);
    return sticky;
}

// Whoever asks again and again sees the work go on.
cudaError_t cudaStreamQuery(cudaStream_t stream)
{
    guard g(lock);
    if (cudaError_t error = emulated::forbid(stream))
        return error;
    if (sticky)
        return sticky;
    if (stream->queue.empty())
        return cudaSuccess;
    run_first(stream);
    return cudaErrorNotReady;
}

cudaError_t cudaGetLastError(void)
{
    guard g(lock);
    return sticky;
}

const char *cudaGetErrorName(cudaError_t error)
{
    return error == cudaSuccess                         ? "cudaSuccess"
           : error == cudaErrorMemoryAllocation         ? "cudaErrorMemoryAllocation"
           : error == cudaErrorIllegalAddress           ? "cudaErrorIllegalAddress"
           : error == cudaErrorStreamCaptureUnsupported ? "cudaErrorStreamCaptureUnsupported"
           : error == cudaErrorStreamCaptureInvalidated ? "cudaErrorStreamCaptureInvalidated"
                                                        : "cudaError";
}

const char *cudaGetErrorString(cudaError_t error)
{
    return error == cudaErrorMemoryAllocation ? "out of memory" : "an emulated error";
}

cudaError_t cudaGetDeviceCount(int *ret_count)
{
    const char *text = getenv("ATEDM_EMULATED_DEVICES");
    *ret_count = text ? (int)strtol(text, nullptr, 10) : 1;
    return *ret_count ? cudaSuccess : cudaErrorNoDevice;
}

cudaError_t cudaSetDevice(int device)
{
    return device == 0 ? cudaSuccess : cudaErrorInvalidValue;
}

cudaError_t cudaMemGetInfo(size_t *ret_free, size_t *ret_total)
{
    emulated::memory_info(ret_free, ret_total);
    return cudaSuccess;
}

cudaError_t cudaDeviceGetAttribute(int *ret_value, cudaDeviceAttr attribute, int)
{
    int sm = emulated::setting().sm;
    switch (attribute) {
    case cudaDevAttrComputeCapabilityMajor:
        *ret_value = sm / 10;
        return cudaSuccess;
    case cudaDevAttrComputeCapabilityMinor:
        *ret_value = sm % 10;
        return cudaSuccess;
    case cudaDevAttrMaxSharedMemoryPerBlockOptin:
        *ret_value = sm >= 90 ? (int)emulated::MOST_SHARED : 163 << 10;
        return cudaSuccess;
    }
    return cudaErrorInvalidValue;
}

} // extern "C"
