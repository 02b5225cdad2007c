// Stream capture and graphs of the fake runtime, by the rules of the real one: what is enqueued on
// a capturing stream does not run, kernels' arguments are those of the capture, host memory is read
// at each launch, and waiting or allocating makes the capture invalid. C++.
#include "tests/emulated/engine.hpp"
#include "tests/emulated/stream.hpp"

#include <cstdlib>

using emulated::lock;
using emulated::task_pointer;
using guard = std::lock_guard<std::recursive_mutex>;
using nodes = std::vector<task_pointer>;

struct CUgraph_st {
    nodes list;
};
struct CUgraphExec_st {
    std::shared_ptr<const nodes> list; // a launch keeps it beyond cudaGraphExecDestroy
    int device;
    size_t bytes; // that it takes there, once it was uploaded
};

constexpr size_t NODE_BYTES = 4096;

// ATEDM_EMULATED_REFUSE=begin|end|instantiate|launch: that call fails.
static bool is_refused(const char *call)
{
    const char *text = getenv("ATEDM_EMULATED_REFUSE");
    return text && !strcmp(text, call);
}

namespace emulated
{

static void invalidate(CUstream_st *stream)
{
    stream->capture = cudaStreamCaptureStatusInvalidated;
    stream->captured.clear();
}

cudaError_t capture(CUstream_st *stream, const task_pointer &t)
{
    if (stream->capture == cudaStreamCaptureStatusInvalidated)
        return cudaErrorStreamCaptureInvalidated;
    stream->captured.push_back(t);
    return cudaSuccess;
}

cudaError_t forbid(CUstream_st *stream)
{
    if (stream->capture == cudaStreamCaptureStatusNone)
        return cudaSuccess;
    invalidate(stream);
    return cudaErrorStreamCaptureUnsupported;
}

cudaError_t forbid_any()
{
    cudaError_t error = cudaSuccess;
    for (CUstream_st *s : streams) {
        bool ours = s->mode == cudaStreamCaptureModeGlobal ||
                    (s->mode == cudaStreamCaptureModeThreadLocal &&
                     s->capturer == std::this_thread::get_id());
        if (ours && s->capture != cudaStreamCaptureStatusNone)
            error = forbid(s);
    }
    return error;
}

} // namespace emulated

extern "C" {

cudaError_t cudaStreamBeginCapture(cudaStream_t stream, cudaStreamCaptureMode mode)
{
    guard g(lock);
    if (is_refused("begin"))
        return cudaErrorStreamCaptureUnsupported;
    if (!stream || stream->capture != cudaStreamCaptureStatusNone)
        return cudaErrorIllegalState;
    stream->capture = cudaStreamCaptureStatusActive;
    stream->mode = mode;
    stream->capturer = std::this_thread::get_id();
    return cudaSuccess;
}

cudaError_t cudaStreamEndCapture(cudaStream_t stream, cudaGraph_t *ret_graph)
{
    guard g(lock);
    *ret_graph = nullptr;
    if (stream->capture == cudaStreamCaptureStatusNone)
        return cudaErrorIllegalState;
    if (stream->mode != cudaStreamCaptureModeRelaxed &&
        stream->capturer != std::this_thread::get_id())
        return cudaErrorStreamCaptureWrongThread;
    bool valid = stream->capture == cudaStreamCaptureStatusActive && !is_refused("end");
    stream->capture = cudaStreamCaptureStatusNone;
    nodes list = std::move(stream->captured);
    stream->captured.clear();
    if (!valid)
        return cudaErrorStreamCaptureInvalidated;
    *ret_graph = new CUgraph_st{std::move(list)};
    return cudaSuccess;
}

cudaError_t cudaGraphInstantiate(cudaGraphExec_t *ret_exec, cudaGraph_t graph, unsigned long long)
{
    if (is_refused("instantiate"))
        return cudaErrorMemoryAllocation;
    *ret_exec = new CUgraphExec_st{std::make_shared<const nodes>(graph->list), 0, 0};
    return cudaSuccess;
}

cudaError_t cudaGraphUpload(cudaGraphExec_t exec, cudaStream_t stream)
{
    if (exec->bytes)
        return cudaSuccess;
    exec->device = stream->device;
    size_t bytes = exec->list->size() * NODE_BYTES;
    if (cudaError_t error = emulated::charge(exec->device, (long)bytes))
        return error;
    exec->bytes = bytes;
    return cudaSuccess;
}

cudaError_t cudaGraphLaunch(cudaGraphExec_t exec, cudaStream_t stream)
{
    if (is_refused("launch"))
        return cudaErrorInvalidValue;
    if (cudaError_t error = cudaGraphUpload(exec, stream))
        return error;
    using closure = std::shared_ptr<const nodes>;
    return emulated::enqueue(
        stream,
        [](void *p) {
            for (const task_pointer &t : **(closure *)p)
                t->run(t->closure);
        },
        new closure(exec->list), [](void *p) { delete (closure *)p; });
}

cudaError_t cudaGraphDestroy(cudaGraph_t graph)
{
    delete graph;
    return cudaSuccess;
}

cudaError_t cudaGraphExecDestroy(cudaGraphExec_t exec)
{
    (void)emulated::charge(exec->device, -(long)exec->bytes);
    delete exec;
    return cudaSuccess;
}

} // extern "C"
