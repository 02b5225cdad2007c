// What kernels for compute capability 9.0 include beside gpu.cuh: barriers in shared memory, copies
// of tiles by tensor maps, products of a warpgroup. As there, all that nvcc and the emulation do
// differently is here. Names of sections are the PTX ISA's; how matrices lie in shared memory and
// in registers is tests/emulated/wgmma.cpp's to check.
#ifndef ATEDM_KERNELS_CUDA_GPU_HOPPER_CUH
#define ATEDM_KERNELS_CUDA_GPU_HOPPER_CUH

#include "kernels/cuda/gpu.cuh"

#ifndef __CUDACC__
#include "tests/emulated/hopper_emulated.hpp"
#endif

// Threads of a warpgroup: four warps, the first one's number a multiple of four.
constexpr int GPU_WARPGROUP = 128;
constexpr int GPU_MMA_K = 16; // columns of a product's first operand
// Where a tile starts: 128-byte swizzling repeats itself after so many bytes.
constexpr int GPU_TILE_ALIGN = 1024;

// ("mbarrier") Counts arrivals and bytes of copies; a phase ends when all are there.
struct alignas(8) gpu_mbarrier {
    uint64_t bits;
};

// A matrix in shared memory with rows of 128 bytes, 128-byte swizzling, aligned to GPU_TILE_ALIGN,
// as products want it described ("Matrix Descriptor Format"; the same fields in CUTLASS's
// cute/arch/mma_sm90_desc.hpp): bits 0-13 address / 16, 16-29 leading byte offset / 16, which this
// layout does not use, 32-45 stride byte offset / 16 (from eight rows to the next eight), 62-63 the
// swizzling, 1 for 128 bytes.
GPU_FN uint64_t gpu_matrix_at(uint32_t address)
{
    constexpr uint64_t eight_rows = 8 * 128;
    return (uint64_t)((address & 0x3ffff) >> 4) | (uint64_t)1 << 16 | (eight_rows >> 4) << 32 |
           (uint64_t)1 << 62;
}
// The same `bytes` further on: columns within the first 128 bytes, or whole eights of rows.
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
// Behind the last init, by the thread that did them, so that copies see the barriers too.
GPU_FN void gpu_mbarrier_fence()
{
    asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
}
GPU_FN void gpu_mbarrier_arrive(gpu_mbarrier &b)
{
    asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];" ::"r"(gpu_shared_address(&b))
                 : "memory");
}
// Arrives, and the phase does not end before so many more bytes have been copied.
GPU_FN void gpu_mbarrier_expect(gpu_mbarrier &b, unsigned bytes)
{
    asm volatile(
        "mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(gpu_shared_address(&b)),
        "r"(bytes)
        : "memory");
}
// Until a phase of this parity has ended; phases are counted from 0. A new barrier counts as one
// whose phase of parity 1 has.
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
// Arrives at the barrier that stands there in block `rank` of the cluster. ("mapa")
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
// ("barrier.cluster") All threads of all blocks of the cluster; of one where there are no clusters.
// Behind gpu_mbarrier_fence: others see the barriers then, and no more than that. Without "relaxed"
// everybody would wait for the whole device to see all that was written before.
GPU_FN void gpu_cluster_sync()
{
    asm volatile("barrier.cluster.arrive.relaxed.aligned;\nbarrier.cluster.wait.aligned;" ::
                     : "memory");
}
// ("barrier.cta") Barrier 1..15 of `threads`, who sync or arrive.
GPU_FN void gpu_named_sync(int id, int threads)
{
    asm volatile("barrier.cta.sync %0, %1;" ::"r"(id), "r"(threads) : "memory");
}
GPU_FN void gpu_named_arrive(int id, int threads)
{
    asm volatile("barrier.cta.arrive %0, %1;" ::"r"(id), "r"(threads) : "memory");
}

// ---- copies ("cp.async.bulk.tensor")

// The map will be used soon. ("prefetch")
GPU_FN void gpu_prefetch_map(const CUtensorMap &map)
{
    asm volatile("prefetch.tensormap [%0];" ::"l"(&map) : "memory");
}
// The map's box from (column, row) on into shared memory; zeros where the tensor ends.
GPU_FN void gpu_tensor_load(void *to, const CUtensorMap &map, int column, int row, gpu_mbarrier &b)
{
    asm volatile("cp.async.bulk.tensor.2d.shared::cluster.global.tile.mbarrier::complete_tx::bytes "
                 "[%0], [%1, {%2, %3}], [%4];" ::"r"(gpu_shared_address(to)),
                 "l"(&map), "r"(column), "r"(row), "r"(gpu_shared_address(&b))
                 : "memory");
}
// The same of a map of four dimensions, the first one's coordinate first; zeros outside on every
// side.
GPU_FN void gpu_tensor_load_4(void *to, const CUtensorMap &map, int i, int j, int k, int l,
                              gpu_mbarrier &b)
{
    asm volatile("cp.async.bulk.tensor.4d.shared::cluster.global.tile.mbarrier::complete_tx::bytes "
                 "[%0], [%1, {%2, %3, %4, %5}], [%6];" ::"r"(gpu_shared_address(to)),
                 "l"(&map), "r"(i), "r"(j), "r"(k), "r"(l), "r"(gpu_shared_address(&b))
                 : "memory");
}
// The same to every block of the cluster that has a bit in `blocks`: to the same place of its
// shared memory, and its own barrier counts the bytes. (".multicast::cluster")
GPU_FN void gpu_tensor_load_to_all(void *to, const CUtensorMap &map, int column, int row,
                                   gpu_mbarrier &b, unsigned blocks)
{
    asm volatile(
        "cp.async.bulk.tensor.2d.shared::cluster.global.tile.mbarrier::complete_tx::bytes"
        ".multicast::cluster [%0], [%1, {%2, %3}], [%4], %5;" ::"r"(gpu_shared_address(to)),
        "l"(&map), "r"(column), "r"(row), "r"(gpu_shared_address(&b)), "h"((unsigned short)blocks)
        : "memory");
}
// What a copy has brought, read like any memory. Before another copy may come to its place, the
// reader fences, since copies and loads have no order of their own ("Async Proxy").
template <class V> GPU_FN V gpu_read_copied(const V *p)
{
    return *p;
}
// 16 bytes of a tile become 0. What stores wrote, products see behind the fence of the thread that
// wrote it ("fence.proxy.async").
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

// d [64, N] = a b^T (+ d where `add`): a [64, 16] and b [N, 16], rows in shared memory; N 160, 128
// or 64. The same with a in registers; N 128.
// d [64, 64] += a b: a [64, 16] in registers, b [16, 64], rows in shared memory.
// Thread l of a warpgroup has d[n][i] of row 16 (l / 32) + l % 32 / 4 + (i / 2) * 8, column 8 n + l
// % 4 * 2 + i % 2, and a as mma.m16n8k16's, of the same rows.
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

// Before the first product behind other accesses to its registers.
GPU_FN void gpu_wgmma_fence()
{
    asm volatile("wgmma.fence.sync.aligned;" ::: "memory");
}
GPU_FN void gpu_wgmma_commit()
{
    asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory");
}
// Until all but N committed groups are done.
template <int N> GPU_FN void gpu_wgmma_wait_but()
{
    asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(N) : "memory");
}
// The same, `d` among those that are. The compiler, which does not know that d changes here, may
// not move accesses to it over this.
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

// log2 x, off by 2^-22 of it or of 1 at most; x that is denormal counts as 0.
GPU_FN float gpu_log2(float x)
{
    float y;
    asm("lg2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
}
// The larger one, NaN where one is.
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

// Two elements that lie side by side.
template <class T> GPU_FN void gpu_unpack_pair(uint32_t bits, float (&to)[2])
{
    T pair[2];
    memcpy(pair, &bits, sizeof bits);
    to[0] = gpu_load(pair[0]);
    to[1] = gpu_load(pair[1]);
}

// What is the same for all of a warp anyway: nvcc knows then, and keeps what is made of it, such as
// descriptors, in uniform registers.
GPU_FN int gpu_uniform(int x)
{
    return __shfl_sync(0xffffffffu, x, 0);
}

// What is left to do to a product's sums goes by groups of four eights of outputs. A thread has two
// outputs of each eight; in memory it sees to one eight of the four, and its quad to all: whole
// sectors.
#define GPU_GROUP 4

// The thread's eight in memory, zeros where there is none.
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

// Lane i of each four lanes gives its word j for word i of lane j.
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

// The next stage of N, in turn, and the parity of the phase in which it is used.
template <int N> struct gpu_ring {
    int stage = 0;
    unsigned phase = 0;
};
template <int N> GPU_FN void gpu_advance(gpu_ring<N> &r)
{
    r.stage = r.stage + 1 < N ? r.stage + 1 : 0;
    r.phase ^= r.stage == 0;
}
// The warp is done with a stage: one arrival for all of it.
GPU_FN void gpu_leave(gpu_mbarrier &free)
{
    if (threadIdx.x % 32 == 0)
        gpu_mbarrier_arrive(free);
}

#endif
