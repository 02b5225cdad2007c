// Primitives for kernels of compute capability 9.0, on top of gpu.cuh: mbarriers, copies of tiles
// through tensor maps (TMA), clusters, and wgmma, the product of a warpgroup. As in gpu.cuh, every
// difference between nvcc and the emulation is here. Names in quotation marks are sections of the
// PTX ISA. tests/emulated/wgmma.cpp checks the layout of matrices in shared memory and in
// registers.
#ifndef ATEDM_KERNELS_CUDA_GPU_HOPPER_CUH
#define ATEDM_KERNELS_CUDA_GPU_HOPPER_CUH

#include "kernels/cuda/gpu.cuh"

#ifndef __CUDACC__
#include "tests/emulated/hopper_emulated.hpp"
#endif

// Threads of a warpgroup: four consecutive warps, the first with a number that is a multiple of
// four.
constexpr int GPU_WARPGROUP = 128;
constexpr int GPU_MMA_K = 16; // columns of a product's first operand
// Alignment of a tile: the pattern of 128-byte swizzling repeats every 1024 bytes.
constexpr int GPU_TILE_ALIGN = 1024;

// ("mbarrier") Counts arrivals, and bytes that copies have written. A phase ends when all expected
// arrivals and bytes are there.
struct alignas(8) gpu_mbarrier {
    uint64_t bits;
};

// Descriptor of a matrix in shared memory for wgmma ("Matrix Descriptor Format"; the same fields in
// CUTLASS's cute/arch/mma_sm90_desc.hpp). The matrix has rows of 128 bytes with 128-byte swizzling
// and is aligned to GPU_TILE_ALIGN. Bits 0-13: address / 16. Bits 16-29: leading byte offset / 16,
// which this layout does not use. Bits 32-45: stride byte offset / 16, from a group of eight rows
// to the next group. Bits 62-63: the swizzling, 1 for 128 bytes.
GPU_FN uint64_t gpu_matrix_at(uint32_t address)
{
    constexpr uint64_t eight_rows = 8 * 128;
    return (uint64_t)((address & 0x3ffff) >> 4) | (uint64_t)1 << 16 | (eight_rows >> 4) << 32 |
           (uint64_t)1 << 62;
}
// The descriptor of the matrix `bytes` further on: a step of columns within the first 128 bytes, or
// of whole groups of eight rows.
GPU_FN uint64_t gpu_matrix_step(uint64_t matrix, int bytes)
{
    return matrix + (uint64_t)(bytes >> 4);
}

#ifdef __CUDACC__

template <class T> GPU_FN T *gpu_shared_tiles()
{
    extern __shared__ __align__(1024) unsigned char gpu_shared_tile_bytes[];
    return reinterpret_cast<T *>(gpu_shared_tile_bytes);
}
GPU_FN uint64_t gpu_matrix(const void *p)
{
    return gpu_matrix_at(gpu_shared_address(p));
}

// ---- barriers

GPU_FN void gpu_mbarrier_init(gpu_mbarrier &b, unsigned arrivals)
{
    asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(gpu_shared_address(&b)),
                 "r"(arrivals)
                 : "memory");
}
// Call this after the last gpu_mbarrier_init, in the thread that initialised the barriers. It makes
// them visible to copies, and, after gpu_cluster_sync, to the other blocks of the cluster.
GPU_FN void gpu_mbarrier_fence()
{
    asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
}
GPU_FN void gpu_mbarrier_arrive(gpu_mbarrier &b)
{
    asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];" ::"r"(gpu_shared_address(&b))
                 : "memory");
}
// Arrives, and adds `bytes` to the bytes that copies must write before the phase ends.
GPU_FN void gpu_mbarrier_expect(gpu_mbarrier &b, unsigned bytes)
{
    asm volatile(
        "mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(gpu_shared_address(&b)),
        "r"(bytes)
        : "memory");
}
// Waits until a phase of this parity has ended. Phases are counted from 0. On a new barrier a wait
// for parity 1 returns at once, as if a phase before phase 0 had ended.
GPU_FN void gpu_mbarrier_wait(gpu_mbarrier &b, unsigned parity)
{
    asm volatile("{\n"
                 ".reg .pred ended;\n"
                 "again_%=:\n"
                 "mbarrier.try_wait.parity.shared::cta.b64 ended, [%0], %1;\n"
                 "@!ended bra again_%=;\n"
                 "}\n" ::"r"(gpu_shared_address(&b)),
                 "r"(parity)
                 : "memory");
}
// ("mapa") Arrives at another block's barrier: the one at the same place in the shared memory of
// block `rank` of the cluster.
GPU_FN void gpu_mbarrier_arrive_at(gpu_mbarrier &b, int rank)
{
    asm volatile("{\n"
                 ".reg .b32 there;\n"
                 "mapa.shared::cluster.u32 there, %0, %1;\n"
                 "mbarrier.arrive.shared::cluster.b64 _, [there];\n"
                 "}\n" ::"r"(gpu_shared_address(&b)),
                 "r"(rank)
                 : "memory");
}
// ("barrier.cluster") Waits for all threads of all blocks of the cluster, or of the block if it was
// launched without clusters. After gpu_mbarrier_fence, the other blocks then see this block's
// mbarriers, and no other writes. Without "relaxed", every thread would also wait until its earlier
// writes are visible to the whole device.
GPU_FN void gpu_cluster_sync()
{
    asm volatile("barrier.cluster.arrive.relaxed.aligned;\nbarrier.cluster.wait.aligned;" ::
                     : "memory");
}
// ("barrier.cta") Named barriers 1..15. `threads` counts the threads that sync together with those
// that only arrive.
GPU_FN void gpu_named_sync(int id, int threads)
{
    asm volatile("barrier.cta.sync %0, %1;" ::"r"(id), "r"(threads) : "memory");
}
GPU_FN void gpu_named_arrive(int id, int threads)
{
    asm volatile("barrier.cta.arrive %0, %1;" ::"r"(id), "r"(threads) : "memory");
}

// ---- copies ("cp.async.bulk.tensor")

// ("prefetch") Fetches the map before its first use.
GPU_FN void gpu_prefetch_map(const CUtensorMap &map)
{
    asm volatile("prefetch.tensormap [%0];" ::"l"(&map) : "memory");
}
// Copies the map's box that starts at (column, row) into shared memory, and writes zeros for
// elements outside the tensor. `b` counts the bytes.
GPU_FN void gpu_tensor_load(void *to, const CUtensorMap &map, int column, int row, gpu_mbarrier &b)
{
    asm volatile("cp.async.bulk.tensor.2d.shared::cluster.global.tile.mbarrier::complete_tx::bytes "
                 "[%0], [%1, {%2, %3}], [%4];" ::"r"(gpu_shared_address(to)),
                 "l"(&map), "r"(column), "r"(row), "r"(gpu_shared_address(&b))
                 : "memory");
}
// The same for a map of four dimensions. `i` is the coordinate in the map's first dimension.
// Elements outside the tensor are zeros on every side.
GPU_FN void gpu_tensor_load_4(void *to, const CUtensorMap &map, int i, int j, int k, int l,
                              gpu_mbarrier &b)
{
    asm volatile("cp.async.bulk.tensor.4d.shared::cluster.global.tile.mbarrier::complete_tx::bytes "
                 "[%0], [%1, {%2, %3, %4, %5}], [%6];" ::"r"(gpu_shared_address(to)),
                 "l"(&map), "r"(i), "r"(j), "r"(k), "r"(l), "r"(gpu_shared_address(&b))
                 : "memory");
}
// (".multicast::cluster") The same copy to every block of the cluster that has its bit set in
// `blocks`. It arrives at the same place in each block's shared memory, and each block's own
// barrier counts the bytes.
GPU_FN void gpu_tensor_load_to_all(void *to, const CUtensorMap &map, int column, int row,
                                   gpu_mbarrier &b, unsigned blocks)
{
    asm volatile(
        "cp.async.bulk.tensor.2d.shared::cluster.global.tile.mbarrier::complete_tx::bytes"
        ".multicast::cluster [%0], [%1, {%2, %3}], [%4], %5;" ::"r"(gpu_shared_address(to)),
        "l"(&map), "r"(column), "r"(row), "r"(gpu_shared_address(&b)), "h"((unsigned short)blocks)
        : "memory");
}
// An ordinary load of data that a copy has written. Before another copy may overwrite the data, the
// reading thread must call gpu_async_fence: copies run in the async proxy, and no order is
// guaranteed between them and ordinary loads ("Async Proxy").
template <class V> GPU_FN V gpu_read_copied(const V *p)
{
    return *p;
}
// Sets 16 bytes of a tile to 0. Products see an ordinary store only after the storing thread has
// called gpu_async_fence ("fence.proxy.async").
GPU_FN void gpu_clear_16(void *to)
{
    *static_cast<uint4 *>(to) = make_uint4(0, 0, 0, 0);
}
GPU_FN void gpu_async_fence()
{
    asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
}

// ---- registers ("setmaxnreg"), by whole warpgroups

template <int N> GPU_FN void gpu_more_registers()
{
    asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;" ::"n"(N));
}
template <int N> GPU_FN void gpu_fewer_registers()
{
    asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;" ::"n"(N));
}

// ---- products ("wgmma"), by whole warpgroups

#define GPU_4(r) "+f"((r)[0]), "+f"((r)[1]), "+f"((r)[2]), "+f"((r)[3])
#define GPU_32(d)                                                                                  \
    GPU_4(d[0]), GPU_4(d[1]), GPU_4(d[2]), GPU_4(d[3]), GPU_4(d[4]), GPU_4(d[5]), GPU_4(d[6]),     \
        GPU_4(d[7])
#define GPU_64(d)                                                                                  \
    GPU_32(d), GPU_4(d[8]), GPU_4(d[9]), GPU_4(d[10]), GPU_4(d[11]), GPU_4(d[12]), GPU_4(d[13]),   \
        GPU_4(d[14]), GPU_4(d[15])
#define GPU_80(d) GPU_64(d), GPU_4(d[16]), GPU_4(d[17]), GPU_4(d[18]), GPU_4(d[19])
#define GPU_TEXT_32                                                                                \
    "%0,%1,%2,%3,%4,%5,%6,%7,%8,%9,%10,%11,%12,%13,%14,%15,%16,%17,%18,%19,%20,%21,%22,%23,%24,"   \
    "%25,%26,%27,%28,%29,%30,%31"
#define GPU_TEXT_64                                                                                \
    GPU_TEXT_32                                                                                    \
    ",%32,%33,%34,%35,%36,%37,%38,%39,%40,%41,%42,%43,%44,%45,%46,%47,%48,%49,%50,%51,%52,%53,"    \
    "%54,%55,%56,%57,%58,%59,%60,%61,%62,%63"

#define GPU_TEXT_80                                                                                \
    GPU_TEXT_64                                                                                    \
    ",%64,%65,%66,%67,%68,%69,%70,%71,%72,%73,%74,%75,%76,%77,%78,%79"

// gpu_wgmma_rows: d [64, N] = a b^T (+ d if `add`). b is [N, 16], its rows in shared memory. a is
// [64, 16]: its rows are in shared memory (N is 160, 128 or 64), or its elements are in registers
// (N is 128).
//
// gpu_wgmma_columns: d [64, 64] += a b. a is [64, 16] in registers, b is [16, 64] with its rows in
// shared memory.
//
// Thread l of the warpgroup has d[n][i] of row 16 (l / 32) + l % 32 / 4 + (i / 2) * 8, column 8 n +
// l % 4 * 2 + i % 2. An a in registers has the layout of mma.m16n8k16, with the same rows for each
// thread.
#define GPU_WGMMA(TYPE, NAME)                                                                      \
    GPU_FN void gpu_wgmma_rows(TYPE, float(&d)[20][4], uint64_t a, uint64_t b, bool add)           \
    {                                                                                              \
        asm volatile("{\n.reg .pred add;\nsetp.ne.b32 add, %82, 0;\n"                              \
                     "wgmma.mma_async.sync.aligned.m64n160k16.f32." NAME "." NAME " {" GPU_TEXT_80 \
                     "}, %80, %81, add, 1, 1, 0, 0;\n}"                                            \
                     : GPU_80(d)                                                                   \
                     : "l"(a), "l"(b), "r"((int)add));                                             \
    }                                                                                              \
    GPU_FN void gpu_wgmma_rows(TYPE, float(&d)[16][4], uint64_t a, uint64_t b, bool add)           \
    {                                                                                              \
        asm volatile("{\n.reg .pred add;\nsetp.ne.b32 add, %66, 0;\n"                              \
                     "wgmma.mma_async.sync.aligned.m64n128k16.f32." NAME "." NAME " {" GPU_TEXT_64 \
                     "}, %64, %65, add, 1, 1, 0, 0;\n}"                                            \
                     : GPU_64(d)                                                                   \
                     : "l"(a), "l"(b), "r"((int)add));                                             \
    }                                                                                              \
    GPU_FN void gpu_wgmma_rows(TYPE, float(&d)[8][4], uint64_t a, uint64_t b, bool add)            \
    {                                                                                              \
        asm volatile("{\n.reg .pred add;\nsetp.ne.b32 add, %34, 0;\n"                              \
                     "wgmma.mma_async.sync.aligned.m64n64k16.f32." NAME "." NAME " {" GPU_TEXT_32  \
                     "}, %32, %33, add, 1, 1, 0, 0;\n}"                                            \
                     : GPU_32(d)                                                                   \
                     : "l"(a), "l"(b), "r"((int)add));                                             \
    }                                                                                              \
    GPU_FN void gpu_wgmma_rows(TYPE, float(&d)[16][4], const uint32_t(&a)[4], uint64_t b,          \
                               bool add)                                                           \
    {                                                                                              \
        asm volatile("{\n.reg .pred add;\nsetp.ne.b32 add, %69, 0;\n"                              \
                     "wgmma.mma_async.sync.aligned.m64n128k16.f32." NAME "." NAME " {" GPU_TEXT_64 \
                     "}, {%64,%65,%66,%67}, %68, add, 1, 1, 0;\n}"                                 \
                     : GPU_64(d)                                                                   \
                     : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b), "r"((int)add));         \
    }                                                                                              \
    GPU_FN void gpu_wgmma_columns(TYPE, float(&d)[8][4], const uint32_t(&a)[4], uint64_t b)        \
    {                                                                                              \
        asm volatile("{\n.reg .pred add;\nsetp.ne.b32 add, 1, 0;\n"                                \
                     "wgmma.mma_async.sync.aligned.m64n64k16.f32." NAME "." NAME " {" GPU_TEXT_32  \
                     "}, {%32,%33,%34,%35}, %36, add, 1, 1, 1;\n}"                                 \
                     : GPU_32(d)                                                                   \
                     : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b));                        \
    }
GPU_WGMMA(__nv_bfloat16, "bf16")
GPU_WGMMA(__half, "f16")

// Required before the first product, and before a product that follows other accesses to its
// registers.
GPU_FN void gpu_wgmma_fence()
{
    asm volatile("wgmma.fence.sync.aligned;" ::: "memory");
}
GPU_FN void gpu_wgmma_commit()
{
    asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory");
}
// Waits until at most the N latest committed groups are still running.
template <int N> GPU_FN void gpu_wgmma_wait_but()
{
    asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(N) : "memory");
}
// The same, for the product whose sums are in d. wgmma writes d after the instruction was issued,
// which the compiler does not know. The empty asm keeps it from moving accesses to d across the
// wait.
template <int N> GPU_FN void gpu_wgmma_wait(float (&d)[20][4])
{
    gpu_wgmma_wait_but<N>();
    asm volatile("" : GPU_80(d)::"memory");
}
template <int N> GPU_FN void gpu_wgmma_wait(float (&d)[16][4])
{
    gpu_wgmma_wait_but<N>();
    asm volatile("" : GPU_64(d)::"memory");
}
template <int N> GPU_FN void gpu_wgmma_wait(float (&d)[8][4])
{
    gpu_wgmma_wait_but<N>();
    asm volatile("" : GPU_32(d)::"memory");
}

// log2 x, with an error of at most 2^-22, relative or absolute, whichever is larger. A denormal x
// counts as 0.
GPU_FN float gpu_log2(float x)
{
    float y;
    asm("lg2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
}
// The larger one, or NaN if either is NaN.
GPU_FN float gpu_max_nan(float a, float b)
{
    float y;
    asm("max.NaN.f32 %0, %1, %2;" : "=f"(y) : "f"(a), "f"(b));
    return y;
}

#else

template <class T> inline T *gpu_shared_tiles()
{
    static_assert(alignof(T) == 1024);
    return static_cast<T *>(emulated::shared_memory());
}
inline uint64_t gpu_matrix(const void *p)
{
    return gpu_matrix_at(emulated::shared_address(p));
}
inline void gpu_mbarrier_init(gpu_mbarrier &b, unsigned arrivals, ATEDM_PLACE)
{
    emulated::mbarrier_init(&b.bits, arrivals, at);
}
inline void gpu_mbarrier_fence(ATEDM_PLACE)
{
    emulated::mbarrier_fence(at);
}
inline void gpu_mbarrier_arrive(gpu_mbarrier &b, ATEDM_PLACE)
{
    emulated::mbarrier_arrive(&b.bits, 0, at);
}
inline void gpu_mbarrier_expect(gpu_mbarrier &b, unsigned bytes, ATEDM_PLACE)
{
    emulated::mbarrier_arrive(&b.bits, bytes, at);
}
inline void gpu_mbarrier_wait(gpu_mbarrier &b, unsigned parity, ATEDM_PLACE)
{
    emulated::mbarrier_wait(&b.bits, parity, at);
}
inline void gpu_mbarrier_arrive_at(gpu_mbarrier &b, int rank, ATEDM_PLACE)
{
    emulated::mbarrier_arrive_at(&b.bits, rank, at);
}
inline void gpu_cluster_sync(ATEDM_PLACE)
{
    emulated::cluster_barrier(at);
}
inline void gpu_named_sync(int id, int threads, ATEDM_PLACE)
{
    emulated::named_barrier_arrive(id, threads, true, at);
}
inline void gpu_named_arrive(int id, int threads, ATEDM_PLACE)
{
    emulated::named_barrier_arrive(id, threads, false, at);
}
inline void gpu_prefetch_map(const CUtensorMap &)
{
}
inline void gpu_tensor_load(void *to, const CUtensorMap &map, int column, int row, gpu_mbarrier &b,
                            ATEDM_PLACE)
{
    emulated::tensor_load(to, map, {column, row, 0, 0}, 2, &b.bits, at);
}
inline void gpu_tensor_load_4(void *to, const CUtensorMap &map, int i, int j, int k, int l,
                              gpu_mbarrier &b, ATEDM_PLACE)
{
    emulated::tensor_load(to, map, {i, j, k, l}, 4, &b.bits, at);
}
inline void gpu_tensor_load_to_all(void *to, const CUtensorMap &map, int column, int row,
                                   gpu_mbarrier &b, unsigned blocks, ATEDM_PLACE)
{
    emulated::tensor_load_to_all(to, map, {column, row, 0, 0}, 2, &b.bits, blocks, at);
}
template <class V> inline V gpu_read_copied(const V *p)
{
    emulated::read_copied(p, sizeof *p);
    return *p;
}
inline void gpu_clear_16(void *to, ATEDM_PLACE)
{
    emulated::clear_16(to, at);
}
inline void gpu_async_fence(ATEDM_PLACE)
{
    emulated::async_fence(at);
}
template <int N> inline void gpu_more_registers(ATEDM_PLACE)
{
    emulated::set_registers(N, true, at);
}
template <int N> inline void gpu_fewer_registers(ATEDM_PLACE)
{
    emulated::set_registers(N, false, at);
}
template <class T, int N>
inline void gpu_wgmma_rows(T, float (&d)[N][4], uint64_t a, uint64_t b, bool add, ATEDM_PLACE)
{
    emulated::product({&d[0][0], nullptr, a, b, N * 8, add, false, emulated::kind_of(T())}, at);
}
template <class T>
inline void gpu_wgmma_rows(T, float (&d)[16][4], const uint32_t (&a)[4], uint64_t b, bool add,
                           ATEDM_PLACE)
{
    emulated::product({&d[0][0], a, 0, b, 128, add, false, emulated::kind_of(T())}, at);
}
template <class T>
inline void gpu_wgmma_columns(T, float (&d)[8][4], const uint32_t (&a)[4], uint64_t b, ATEDM_PLACE)
{
    emulated::product({&d[0][0], a, 0, b, 64, true, true, emulated::kind_of(T())}, at);
}
inline void gpu_wgmma_fence(ATEDM_PLACE)
{
    emulated::product_fence(at);
}
inline void gpu_wgmma_commit(ATEDM_PLACE)
{
    emulated::product_commit(at);
}
template <int N> inline void gpu_wgmma_wait_but(ATEDM_PLACE)
{
    emulated::product_wait(N, at);
}
template <int N, class D> inline void gpu_wgmma_wait(D &, ATEDM_PLACE)
{
    emulated::product_wait(N, at);
}

inline float gpu_log2(float x)
{
    return log2f(gpu_flush(x));
}
inline float gpu_max_nan(float a, float b)
{
    return a != a || b != b ? NAN : fmaxf(a, b);
}

#endif

// Unpacks two adjacent elements.
template <class T> GPU_FN void gpu_unpack_pair(uint32_t bits, float (&to)[2])
{
    T pair[2];
    memcpy(pair, &bits, sizeof bits);
    to[0] = gpu_load(pair[0]);
    to[1] = gpu_load(pair[1]);
}

// Declares that x is the same in all lanes of a warp. nvcc then keeps it, and values computed from
// it such as descriptors, in uniform registers.
GPU_FN int gpu_uniform(int x)
{
    return __shfl_sync(0xffffffffu, x, 0);
}

// Epilogues of products work on groups of 32 outputs: four chunks of eight. In the accumulators
// each thread of a quad has two outputs of every chunk. In memory each thread loads and stores one
// whole chunk of the four, so that a quad moves whole sectors. gpu_quad_transpose converts between
// the two layouts.
#define GPU_GROUP 4

// Loads the thread's chunk of eight elements, or zeros if it does not exist.
template <class T>
GPU_FN void gpu_load_eight(const void *from, int64_t at, bool is_there,
                           uint32_t (&ret_words)[GPU_GROUP])
{
    uint4 words = {0, 0, 0, 0};
    if (is_there)
        words = *reinterpret_cast<const uint4 *>(static_cast<const T *>(from) + at);
    memcpy(ret_words, &words, sizeof words);
}
template <class T>
GPU_FN void gpu_store_eight(void *to, int64_t at, const uint32_t (&words)[GPU_GROUP])
{
    gpu_store_16(static_cast<T *>(to) + at, {words[0], words[1], words[2], words[3]});
}

// Transposes words within each quad: word j of lane i becomes word i of lane j.
GPU_FN void gpu_quad_transpose(uint32_t (&words)[GPU_GROUP])
{
#pragma unroll
    for (int step = 1; step <= 2; step *= 2) {
        bool high = threadIdx.x & step;
#pragma unroll
        for (int k = 0; k < 2; k++) {
            int low_word = step == 1 ? 2 * k : k;
            uint32_t &low = words[low_word], &other = words[low_word + step];
            uint32_t got = __shfl_xor_sync(0xffffffffu, high ? low : other, step);
            (high ? low : other) = got;
        }
    }
}

// A position in a ring of N stages: the stage, and the parity of the phase in which it is used.
template <int N> struct gpu_ring {
    int stage = 0;
    unsigned phase = 0;
};
template <int N> GPU_FN void gpu_advance(gpu_ring<N> &r)
{
    r.stage = r.stage + 1 < N ? r.stage + 1 : 0;
    r.phase ^= r.stage == 0;
}
// Reports that the warp has finished reading a stage: one arrival for the whole warp.
GPU_FN void gpu_leave(gpu_mbarrier &free)
{
    if (threadIdx.x % 32 == 0)
        gpu_mbarrier_arrive(free);
}

#endif
