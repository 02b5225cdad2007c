// Fake device memory: what the fake runtime and the fake cuBLASLt ask of it. C++, only for
// tests/emulated.
#ifndef ATEDM_TESTS_EMULATED_MEMORY_HPP
#define ATEDM_TESTS_EMULATED_MEMORY_HPP

#include "tests/emulated/cuda_emulated.hpp"

#include <mutex>

namespace emulated
{

enum class memory_kind { DEVICE, PINNED };

// Guards allocations and streams. A stream's work runs under it too.
extern std::recursive_mutex lock;

// Each allocation is a mapping of its own, between guard pages, filled with NaN.
cudaError_t allocate(void **p, size_t bytes, memory_kind kind);
cudaError_t release(void *p); // checks the bytes behind the allocation
bool is_device(const void *p, size_t bytes);
bool is_known(const void *p);
void memory_info(size_t *ret_free, size_t *ret_total);

// While one lives, host code may touch device memory; without protection it always may.
class unlock
{
  public:
    unlock();
    ~unlock();
    unlock(const unlock &) = delete;
    unlock &operator=(const unlock &) = delete;

  private:
    std::lock_guard<std::recursive_mutex> guard{lock};
};

} // namespace emulated

#endif
