// Stream capture and graphs of the fake runtime, by the rules of the real one. C++.
//
// Work enqueued on a capturing stream does not run. Kernels get the arguments of the capture; host
// memory is read at each launch. Waiting or allocating invalidates the capture. Another stream
// joins the capture by waiting for a captured event, and the first stream must wait for it before
// the end. A launch keeps the captured order and no other.
#include "tests/emulated/engine.hpp"
#include "tests/emulated/stream.hpp"

#include <algorithm>
#include <cstdlib>
#include <set>

using emulated::capture_pointer;
using emulated::lock;
using emulated::task_pointer;
using guard = std::lock_guard<std::recursive_mutex>;
using nodes = std::vector<emulated::node>;

struct CUgraph_st {
    nodes list;
};
struct CUgraphExec_st {
    std::shared_ptr<const nodes> list; // a running launch keeps it alive after cudaGraphExecDestroy
    int device;
    size_t bytes; // of device memory, after the upload
};

constexpr size_t NODE_BYTES = 4096;

// ATEDM_EMULATED_REFUSE=begin|end|instantiate|launch: this call fails.
static bool is_refused(const char *call)
{
    const char *text = getenv("ATEDM_EMULATED_REFUSE");
    return text && !strcmp(text, call);
}

namespace emulated
{

static cudaError_t invalidate(const capture_pointer &c, cudaError_t error)
{
    if (c)
        c->valid = false;
    return error;
}

cudaError_t capture(CUstream_st *stream, const task_pointer &t)
{
    capturing &c = *stream->capture;
    if (!c.valid)
        return cudaErrorStreamCaptureInvalidated;
    c.nodes.push_back({t, stream->last});
    stream->last = {c.nodes.size() - 1};
    return cudaSuccess;
}

cudaError_t wait_captured(CUstream_st *stream, const capture_pointer &captured,
                          const std::vector<size_t> &last)
{
    if ((stream->capture && !stream->capture->valid) || (captured && !captured->valid))
        return cudaErrorStreamCaptureInvalidated;
    if (!captured)
        return invalidate(stream->capture, cudaErrorStreamCaptureIsolation);
    if (captured->over)
        return invalidate(stream->capture, cudaErrorCapturedEvent);
    if (stream->capture && stream->capture != captured) {
        captured->valid = false;
        return invalidate(stream->capture, cudaErrorStreamCaptureMerge);
    }
    stream->capture = captured;
    stream->last.insert(stream->last.end(), last.begin(), last.end());
    return cudaSuccess;
}

cudaError_t forbid(CUstream_st *stream)
{
    return stream->capture ? invalidate(stream->capture, cudaErrorStreamCaptureUnsupported)
                           : cudaSuccess;
}

cudaError_t forbid_any()
{
    cudaError_t error = cudaSuccess;
    for (CUstream_st *s : streams) {
        const capturing *c = s->capture.get();
        if (c && (c->mode == cudaStreamCaptureModeGlobal ||
                  (c->mode == cudaStreamCaptureModeThreadLocal &&
                   c->capturer == std::this_thread::get_id())))
            error = forbid(s);
    }
    return error;
}

} // namespace emulated

// Whether every node is in `last` or comes before a node in `last`.
static bool is_joined(const nodes &list, const std::vector<size_t> &last)
{
    std::vector<bool> reached(list.size());
    for (size_t i : last)
        reached[i] = true;
    for (size_t i = list.size(); i-- > 0;) // a node depends on earlier nodes only
        for (size_t before : list[i].after)
            reached[before] = reached[before] || reached[i];
    return std::find(reached.begin(), reached.end(), false) == reached.end();
}

// Runs all nodes, each after the nodes that it depends on.
static void run_nodes(const nodes &list)
{
    std::vector<std::vector<size_t>> behind(list.size());
    std::vector<size_t> missing(list.size());
    std::set<size_t> ready;
    for (size_t i = 0; i < list.size(); i++) {
        missing[i] = list[i].after.size();
        for (size_t before : list[i].after)
            behind[before].push_back(i);
        if (!missing[i])
            ready.insert(i);
    }
    while (!ready.empty()) {
        auto next = std::next(ready.begin(), (long)emulated::pick(ready.size()));
        size_t i = *next;
        ready.erase(next);
        list[i].task->run(list[i].task->closure);
        for (size_t other : behind[i])
            if (--missing[other] == 0)
                ready.insert(other);
    }
}

extern "C" {

cudaError_t cudaStreamBeginCapture(cudaStream_t stream, cudaStreamCaptureMode mode)
{
    guard g(lock);
    if (is_refused("begin"))
        return cudaErrorStreamCaptureUnsupported;
    if (!stream || stream->capture)
        return cudaErrorIllegalState;
    emulated::capturing c;
    c.origin = stream;
    c.mode = mode;
    c.capturer = std::this_thread::get_id();
    stream->capture = std::make_shared<emulated::capturing>(std::move(c));
    return cudaSuccess;
}

cudaError_t cudaStreamEndCapture(cudaStream_t stream, cudaGraph_t *ret_graph)
{
    guard g(lock);
    *ret_graph = nullptr;
    capture_pointer c = stream->capture;
    if (!c)
        return cudaErrorIllegalState;
    if (c->origin != stream)
        return emulated::invalidate(c, cudaErrorStreamCaptureUnmatched);
    if (c->mode != cudaStreamCaptureModeRelaxed && c->capturer != std::this_thread::get_id())
        return cudaErrorStreamCaptureWrongThread;
    bool joined = is_joined(c->nodes, stream->last);
    c->over = true;
    for (CUstream_st *s : emulated::streams)
        if (s->capture == c) {
            s->capture = nullptr;
            s->last.clear();
        }
    if (!c->valid || is_refused("end"))
        return cudaErrorStreamCaptureInvalidated;
    if (!joined)
        return cudaErrorStreamCaptureUnjoined;
    *ret_graph = new CUgraph_st{std::move(c->nodes)};
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
        stream, [](void *p) { run_nodes(**(closure *)p); }, new closure(exec->list),
        [](void *p) { delete (closure *)p; });
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
