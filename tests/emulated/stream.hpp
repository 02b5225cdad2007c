// Streams of the fake runtime, for runtime.cpp, events.cpp and graph.cpp. C++.
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

// A place in a stream.
struct mark {
    CUstream_st *stream;  // NULL: passed,
    double seconds = NAN; // then, by the host's clock
};
using mark_pointer = std::shared_ptr<mark>;

// What stands in a stream: something to do, or to wait for.
struct work {
    task_pointer task;
    mark_pointer awaits;
};

// What a capture has so far. Nodes come behind the earlier ones that they name, and are otherwise
// without order.
struct node {
    task_pointer task;
    std::vector<size_t> after;
};
struct capturing {
    CUstream_st *origin;
    cudaStreamCaptureMode mode;
    std::thread::id capturer;
    bool valid = true, over = false;
    std::vector<node> nodes;
};
using capture_pointer = std::shared_ptr<capturing>;

} // namespace emulated

struct CUstream_st {
    explicit CUstream_st(int device_) : device(device_)
    {
    }
    int device;
    std::deque<emulated::work> queue;
    const void *family = this;         // of streams that wait for each other
    emulated::capture_pointer capture; // NULL: it captures nothing
    std::vector<size_t> last;          // nodes that its next one comes behind
};

namespace emulated
{

extern std::vector<CUstream_st *> streams; // guarded by lock

// All of these hold under lock.

// Which of `n` things that may happen now happens first, as the schedule has it: the first, the
// last, or any.
size_t pick(size_t n);
// Work for a stream that does not capture.
void append(CUstream_st *stream, const work &w);
// Work for a stream that is capturing.
cudaError_t capture(CUstream_st *stream, const task_pointer &t);
// The stream waits for an event, where it or the event's stream captures: `captured` and `last` are
// where that was recorded, NULL: outside of captures.
cudaError_t wait_captured(CUstream_st *stream, const capture_pointer &captured,
                          const std::vector<size_t> &last);
// A call that a capture does not allow, on its own stream or (`any`) at all.
cudaError_t forbid(CUstream_st *stream);
cudaError_t forbid_any();

} // namespace emulated

#endif
