// Fake devices and their memory: what the fake runtime and the fake cuBLASLt ask of them. C++, only
// for tests/emulated.
#ifndef ATEDM_TESTS_EMULATED_MEMORY_HPP
#define ATEDM_TESTS_EMULATED_MEMORY_HPP

#include "tests/emulated/cuda_emulated.hpp"

#include <functional>
#include <mutex>

namespace emulated
{

enum class memory_kind { DEVICE, PINNED };

// Guards allocations and streams. A stream's work runs under it too.
extern std::recursive_mutex lock;

// ---- devices.cpp

int device_of_thread();
// What every call on the device returns from now on, as long as its context is as it is.
cudaError_t lost(int device);
// The same for a call that enqueues something, at which it may be lost.
cudaError_t use(int device);

// ---- runtime.cpp

int device_of(cudaStream_t stream);
// Runs the stream's work, as far as is needed.
void run_until(cudaStream_t stream, const std::function<bool()> &passed);

// ---- memory.cpp

// Each allocation is a mapping of its own, between guard pages, filled with NaN.
cudaError_t allocate(void **p, size_t bytes, memory_kind kind, int device);
cudaError_t release(void *p); // checks the bytes behind the allocation
// Memory that has no address here, as that of graphs; bytes < 0: gives it back.
cudaError_t charge(int device, long bytes);
bool is_device(const void *p, size_t bytes);
int device_of(const void *p); // of device memory
// Ends the program where the host would have to wait for a copy of pageable memory.
void check_pinned(const void *p, size_t bytes);
// For the fault handler, which holds no lock: whether the access may be repeated, since it is to
// protected memory and somebody has unlocked it.
bool open_at(const void *p);
void memory_info(int device, size_t *ret_free, size_t *ret_total);

// While one lives, host code may touch memory of this device, and of no other; without protection
// it may touch all at other times.
constexpr int ANY_DEVICE = -1;
class unlock
{
  public:
    explicit unlock(int device);
    ~unlock();
    unlock(const unlock &) = delete;
    unlock &operator=(const unlock &) = delete;

  private:
    std::lock_guard<std::recursive_mutex> guard{lock};
    int device;
};

} // namespace emulated

#endif
