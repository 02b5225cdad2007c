// What kernels for compute capability 9.0 may use beyond cuda_emulated.hpp: see
// kernels/cuda/gpu_hopper.cuh. Barriers and copies are hopper.cpp's, products wgmma.cpp's. C++.
#ifndef ATEDM_TESTS_HOPPER_EMULATED_HPP
#define ATEDM_TESTS_HOPPER_EMULATED_HPP

#include "tests/emulated/cuda_emulated.hpp"
#include "tests/emulated/fallback/cuda.h"

namespace emulated
{

// ---- hopper.cpp

// In the window of shared memory, as descriptors have it.
uint32_t shared_address(const void *p);
void mbarrier_init(void *barrier, uint32_t arrivals, place at);
void mbarrier_fence(place at);
void mbarrier_arrive(void *barrier, uint32_t more_bytes, place at);
void mbarrier_wait(void *barrier, uint32_t parity, place at);
void named_barrier_arrive(int id, int threads, bool waits, place at);
// Of a map of `rank` dimensions. Lands as late as the program allows: when somebody waits for it.
// Until then the target reads as NaN.
struct coordinates {
    int32_t at[4];
};
void tensor_load(void *to, const CUtensorMap &map, coordinates from, int rank, void *barrier,
                 place at);
void clear_16(void *to, place at);
void async_fence(place at);
void set_registers(int n, bool more, place at);

// ---- cluster.cpp

// The same place in the shared memory of block `rank` of the cluster.
void mbarrier_arrive_at(void *barrier, int rank, place at);
// To the same place of every block that has a bit in the mask; each counts at its own barrier.
void tensor_load_to_all(void *to, const CUtensorMap &map, coordinates from, int rank, void *barrier,
                        uint32_t mask, place at);
void cluster_barrier(place at);

// ---- wgmma.cpp

enum class element { BF16, F16 };
inline element kind_of(__nv_bfloat16)
{
    return element::BF16;
}
inline element kind_of(__half)
{
    return element::F16;
}

// d [64, n] = a b (+ d where `add`), a [64, 16] and b [16, n]. A thread's part of each.
struct product_operands {
    float *d;
    const uint32_t *a;           // [4], or NULL: a_matrix
    uint64_t a_matrix, b_matrix; // descriptors
    int n;
    bool add, b_is_n_major;
    element kind;
};
void product(const product_operands &operands, place at);
void product_fence(place at);
void product_commit(place at);
void product_wait(uint32_t groups_left, place at);

} // namespace emulated

#endif
