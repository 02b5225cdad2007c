// Streams of the fake runtime, for runtime.cpp and graph.cpp. C++.
#ifndef ATEDM_TESTS_EMULATED_STREAM_HPP
#define ATEDM_TESTS_EMULATED_STREAM_HPP

#include "tests/emulated/memory.hpp"

#include <deque>
#include <memory>
#include <thread>

namespace emulated
{

// What was enqueued, with its arguments; a graph runs it as often as it is launched.
struct task {
    void (*run)(void *);
    void *closure;
    void (*drop)(void *);
    task(void (*run_)(void *), void *closure_, void (*drop_)(void *))
        : run(run_), closure(closure_), drop(drop_)
    {
    }
    task(const task &) = delete;
    task &operator=(const task &) = delete;
    ~task()
    {
        drop(closure);
    }
};
using task_pointer = std::shared_ptr<task>;

} // namespace emulated

struct CUstream_st {
    explicit CUstream_st(int device_) : device(device_)
    {
    }
    int device;
    std::deque<emulated::task_pointer> queue;
    cudaStreamCaptureStatus capture = cudaStreamCaptureStatusNone;
    cudaStreamCaptureMode mode = cudaStreamCaptureModeGlobal;
    std::thread::id capturer;
    std::vector<emulated::task_pointer> captured;
};

namespace emulated
{

extern std::vector<CUstream_st *> streams; // guarded by lock

// Holds under lock: work for a stream that is capturing.
cudaError_t capture(CUstream_st *stream, const task_pointer &t);
// Holds under lock: a call that a capture does not allow, on its own stream or (`any`) at all.
cudaError_t forbid(CUstream_st *stream);
cudaError_t forbid_any();

} // namespace emulated

#endif
