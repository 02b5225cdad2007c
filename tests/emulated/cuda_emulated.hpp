// CUDA on the host, for tests: what a kernel may use beyond C++, so that the .cu files of
// kernels/cuda compile as plain C++17 and run here. One OS thread runs a block at a time; every
// CUDA thread of the block is a fiber with a stack of its own. The engine is engine.cpp, what a
// warp does together warp.cpp, the fake runtime runtime.cpp and memory.cpp, the fake cuBLASLt
// blas.cpp.
#ifndef ATEDM_TESTS_CUDA_EMULATED_HPP
#define ATEDM_TESTS_CUDA_EMULATED_HPP

#ifdef __CUDACC__
#error "for host compilers only"
#endif

#define __host__
#define __device__
#define __global__
#define __launch_bounds__(...)
#define __grid_constant__
#define __forceinline__ inline __attribute__((always_inline))
// There is no __shared__: shared memory is dynamic, so that it ends at a guard page.

#include "tests/emulated/fallback/cuda_bf16.h"
#include "tests/emulated/fallback/cuda_fp16.h"
#include "tests/emulated/fallback/cuda_runtime.h"

#include <cmath>
#include <cstdint>
#include <cstring>
#include <tuple>
#include <type_traits>
#include <utility>
#include <vector>

// Plain thread-locals, rewritten whenever the engine switches fibers; initial-exec since the
// general model's call is slow.
#define ATEDM_EMULATED_TLS extern __thread __attribute__((tls_model("initial-exec")))
ATEDM_EMULATED_TLS uint3 threadIdx, blockIdx;
ATEDM_EMULATED_TLS dim3_pod blockDim, gridDim;

namespace emulated
{

// Where in the kernel's source an operation stands: default arguments are evaluated at the call.
struct place {
    const char *file;
    int line;
};
#define ATEDM_PLACE ::emulated::place at = {__builtin_FILE(), __builtin_LINE()}

enum class state : uint8_t { RUNS, WAITS_FOR_KEY, DONE };

struct warp;
// What all lanes of a warp do together; the last lane to arrive does it for `lanes`.
using collective_fn = void (*)(warp &, uint32_t lanes);

struct async_copy {
    void *to;
    const void *from;
    uint32_t bytes; // of 16; the others become 0
};

// What a switch and a collective touch comes first: it is a large part of what tests take.
struct alignas(64) fiber {
    void *stack_pointer = nullptr;
    warp *in = nullptr;
    uint3 index{};
    uint32_t lane = 0, mask = 0;
    state now = state::DONE;
    void *operands = nullptr; // of the collective that it waits for, on its own stack
    collective_fn fn = nullptr;
    const char *what = "";
    place at{};
    const void *waits_for = nullptr; // where it waits for a key
    std::vector<async_copy> copies;  // issued, not landed
    std::vector<uint32_t> groups;    // number of copies at the end of each committed group
    void *tsan = nullptr;
    char *stack_top = nullptr;
};

struct block;
struct warp {
    block *of = nullptr;
    fiber *lane = nullptr; // [32]
    // Lanes: in `arrived` those that wait for a collective, in at_barrier those that wait there.
    uint32_t index = 0, alive = 0, ready = 0, arrived = 0, at_barrier = 0;
    // The collective of the first lane that has arrived, and whether all others wait for the same.
    collective_fn fn = nullptr;
    uint32_t mask = 0;
    bool alike = false;
};

ATEDM_EMULATED_TLS fiber *current;

// ---- engine.cpp

// Ends the program with a message that names kernel, block and thread.
[[noreturn]] void fail(const char *format, ...) __attribute__((format(printf, 1, 2)));
void collective(uint32_t mask, void *operands, collective_fn fn, const char *what, place at);
void barrier(place at);
enum class reduction { SUM, ALL, ANY };
long barrier_reduce(reduction how, long value, place at);
void *shared_memory();
bool in_shared_memory(const void *p, size_t bytes);
// Lands as late as the program allows; until then the target reads as NaN.
void copy_async(void *to, const void *from, uint32_t bytes, place at);
void copy_commit();
void copy_wait(uint32_t groups_left);

struct launch_request {
    int cluster; // blocks of each, one behind the other in x
    dim3 grid, block;
    size_t shared;
    const char *name;
    void (*call)(void *);
    void *closure;
};
cudaError_t check_launch(const launch_request &launch); // what a driver would refuse
cudaError_t count_clusters(int cluster, int *ret_clusters);
void run_launch(const launch_request &launch);

// ---- memory.cpp

// Ends the program unless p is NULL or memory of the stream's device: the argument of a kernel.
void check_pointer(const void *p, const char *kernel, int argument, cudaStream_t stream);
const char *describe(const void *p); // the allocation next to p; for the fault handler

// ---- runtime.cpp

cudaError_t enqueue(cudaStream_t stream, void (*run)(void *), void *closure, void (*drop)(void *));

template <class T>
inline void check_argument(const T &value, const char *kernel, int argument, cudaStream_t stream)
{
    if constexpr (std::is_pointer_v<T>)
        check_pointer((const void *)value, kernel, argument, stream);
}

// What <<<>>> is to nvcc.
template <class... P, class... A>
cudaError_t launch(const char *name, void (*kernel)(P...), int cluster, dim3 grid, dim3 block,
                   size_t shared, cudaStream_t stream, A &&...arguments)
{
    struct closure {
        launch_request request;
        void (*kernel)(P...);
        std::tuple<std::decay_t<P>...> arguments;
    };
    auto *c = new closure{{cluster, grid, block, shared, name, nullptr, nullptr},
                          kernel,
                          std::tuple<std::decay_t<P>...>(std::forward<A>(arguments)...)};
    int i = 0;
    std::apply([&](auto &...v) { (check_argument(v, name, i++, stream), ...); }, c->arguments);
    c->request.call = [](void *p) {
        auto *self = static_cast<closure *>(p);
        std::apply(self->kernel, self->arguments);
    };
    c->request.closure = c;
    if (cudaError_t error = check_launch(c->request)) {
        delete c;
        return error;
    }
    return enqueue(
        stream, [](void *p) { run_launch(static_cast<closure *>(p)->request); }, c,
        [](void *p) { delete static_cast<closure *>(p); });
}

template <class... P>
cudaError_t gpu_count_clusters(void (*)(P...), int cluster, dim3, size_t, int *ret_clusters)
{
    return count_clusters(cluster, ret_clusters);
}

// ---- warp.cpp

struct shuffle_operands {
    uint64_t in, out;
    uint32_t from;
};
struct vote_operands {
    uint32_t in, out;
};
struct ldmatrix_operands {
    const void *row;
    uint32_t *r; // [4]
};
struct mma_operands {
    float *d;
    const uint32_t *a, *b;
    const float *c;
};
void do_shuffle(warp &, uint32_t);
void do_ballot(warp &, uint32_t);
void do_sync(warp &, uint32_t);
void do_ldmatrix(warp &, uint32_t);
void do_ldmatrix_transposed(warp &, uint32_t);
void do_mma_bf16(warp &, uint32_t);
void do_mma_f16(warp &, uint32_t);
// Under ThreadSanitizer: an access of 16 bytes by the current fiber that the engine makes for it.
void touch(const void *p, bool write);
// Loads of the current fiber from shared memory, which a copy by a tensor map has to be ordered
// behind: hopper.cpp.
void read_copied(const void *from, size_t bytes);

template <class T>
inline T shuffle(uint32_t mask, T value, uint32_t from, const char *what, place at)
{
    static_assert(sizeof(T) <= 8 && std::is_trivially_copyable_v<T>);
    shuffle_operands o = {0, 0, from};
    memcpy(&o.in, &value, sizeof value);
    collective(mask, &o, do_shuffle, what, at);
    memcpy(&value, &o.out, sizeof value);
    return value;
}

inline uint32_t vote(uint32_t mask, uint32_t value, collective_fn fn, const char *what, place at)
{
    vote_operands o = {value, 0};
    collective(mask, &o, fn, what, at);
    return o.out;
}

} // namespace emulated

// ---- CUDA's own names

inline void __syncthreads(ATEDM_PLACE)
{
    emulated::barrier(at);
}
inline int __syncthreads_count(int p, ATEDM_PLACE)
{
    return (int)emulated::barrier_reduce(emulated::reduction::SUM, !!p, at);
}
inline int __syncthreads_and(int p, ATEDM_PLACE)
{
    return (int)emulated::barrier_reduce(emulated::reduction::ALL, !!p, at);
}
inline int __syncthreads_or(int p, ATEDM_PLACE)
{
    return (int)emulated::barrier_reduce(emulated::reduction::ANY, !!p, at);
}
inline void __syncwarp(unsigned mask = ~0u, ATEDM_PLACE)
{
    emulated::vote(mask, 0, emulated::do_sync, "__syncwarp", at);
}
inline unsigned __ballot_sync(unsigned mask, int p, ATEDM_PLACE)
{
    return emulated::vote(mask, !!p, emulated::do_ballot, "__ballot_sync", at);
}
template <class T> inline T __shfl_sync(unsigned mask, T value, int from, ATEDM_PLACE)
{
    return emulated::shuffle(mask, value, (uint32_t)from & 31, "__shfl_sync", at);
}
template <class T> inline T __shfl_xor_sync(unsigned mask, T value, int with, ATEDM_PLACE)
{
    uint32_t from = emulated::current->lane ^ (uint32_t)with;
    return emulated::shuffle(mask, value, from & 31, "__shfl_xor_sync", at);
}
template <class T> inline T __shfl_up_sync(unsigned mask, T value, unsigned by, ATEDM_PLACE)
{
    uint32_t lane = emulated::current->lane;
    return emulated::shuffle(mask, value, lane < by ? lane : lane - by, "__shfl_up_sync", at);
}

// Blocks may run on several OS threads.
template <class T> inline T atomicAdd(T *p, T value)
{
    return __atomic_fetch_add(p, value, __ATOMIC_RELAXED);
}

inline float rsqrtf(float x)
{
    return 1.0f / sqrtf(x);
}
inline unsigned __float_as_uint(float x)
{
    unsigned u;
    memcpy(&u, &x, sizeof u);
    return u;
}
inline float __uint_as_float(unsigned u)
{
    float x;
    memcpy(&x, &u, sizeof x);
    return x;
}
inline int __popc(unsigned x)
{
    return __builtin_popcount(x);
}
inline int __ffs(int x)
{
    return __builtin_ffs(x);
}
template <class T> inline T min(T a, T b)
{
    return b < a ? b : a;
}
template <class T> inline T max(T a, T b)
{
    return a < b ? b : a;
}

#endif
