// The header of every kernel. It includes CUDA under nvcc, and the emulation of tests/emulated
// under a C++ compiler. Every difference between the two is here: launches, shared memory,
// instructions of tensor cores and of copies. So the kernels themselves have no #ifdef and no
// assembly.
#ifndef ATEDM_KERNELS_CUDA_GPU_CUH
#define ATEDM_KERNELS_CUDA_GPU_CUH

#include "kernels/cuda/launch.h"

#ifdef __CUDACC__
#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime.h>

#include <math.h>
#include <stdint.h>
#include <string.h>
#else
#include "tests/emulated/cuda_emulated.hpp"
#endif

#define GPU_FN __device__ __forceinline__

// ---- launches: GPU_LAUNCH((kernel<T>), grid, block, shared bytes, stream, arguments...);
// GPU_LAUNCH_CLUSTERS((kernel<T>), blocks of a cluster, as before...)

#ifdef __CUDACC__
// A launch without its kernel. `config` names `cluster`: neither moves.
struct gpu_launch_config {
    cudaLaunchConfig_t config = {};
    cudaLaunchAttribute cluster = {};
    gpu_launch_config(int blocks_of_cluster, dim3 grid, dim3 block, size_t shared,
                      cudaStream_t stream)
    {
        cluster.id = cudaLaunchAttributeClusterDimension;
        cluster.val.clusterDim = {(unsigned)blocks_of_cluster, 1, 1};
        config.gridDim = grid;
        config.blockDim = block;
        config.dynamicSmemBytes = shared;
        config.stream = stream;
        config.attrs = &cluster;
        config.numAttrs = blocks_of_cluster > 1;
    }
    gpu_launch_config(const gpu_launch_config &) = delete;
    gpu_launch_config &operator=(const gpu_launch_config &) = delete;
};

// Shared memory beyond the default limit has to be allowed of each kernel.
inline cudaError_t gpu_allow_shared(const void *kernel, size_t bytes)
{
    return bytes > 48u << 10 ? cudaFuncSetAttribute(
                                   kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, (int)bytes)
                             : cudaSuccess;
}

template <class... P, class... A>
inline cudaError_t gpu_launch(void (*kernel)(P...), int cluster, dim3 grid, dim3 block,
                              size_t shared, cudaStream_t stream, A &&...arguments)
{
    gpu_launch_config launch(cluster, grid, block, shared, stream);
    if (cudaError_t error = gpu_allow_shared((const void *)kernel, shared))
        return error;
    return cudaLaunchKernelEx(&launch.config, kernel, static_cast<A &&>(arguments)...);
}

// How many clusters of `cluster` blocks run at once: multiprocessors come in groups, of which a
// cluster must fit into one.
template <class... P>
inline cudaError_t gpu_count_clusters(void (*kernel)(P...), int cluster, dim3 block, size_t shared,
                                      int *ret_clusters)
{
    gpu_launch_config launch(cluster, dim3((unsigned)cluster), block, shared, nullptr);
    if (cudaError_t error = gpu_allow_shared((const void *)kernel, shared))
        return error;
    return cudaOccupancyMaxActiveClusters(ret_clusters, kernel, &launch.config);
}
#define GPU_LAUNCH_CLUSTERS(kernel, ...) gpu_launch(kernel, __VA_ARGS__)
#else
#define GPU_LAUNCH_CLUSTERS(kernel, ...) ::emulated::launch(#kernel, kernel, __VA_ARGS__)
using emulated::gpu_count_clusters;
#endif
#define GPU_LAUNCH(kernel, ...) GPU_LAUNCH_CLUSTERS(kernel, 1, __VA_ARGS__)

// Shared memory, all of it dynamic.
template <class T> GPU_FN T *gpu_shared()
{
#ifdef __CUDACC__
    extern __shared__ __align__(128) unsigned char gpu_shared_bytes[];
    return reinterpret_cast<T *>(gpu_shared_bytes);
#else
    return static_cast<T *>(::emulated::shared_memory());
#endif
}

// ---- tensor cores and asynchronous copies (PTX ISA: ldmatrix, mma.m16n8k16, cp.async)

#ifdef __CUDACC__
GPU_FN unsigned gpu_shared_address(const void *p)
{
    return (unsigned)__cvta_generic_to_shared(p);
}
GPU_FN void gpu_ldmatrix(uint32_t (&r)[4], const void *row)
{
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                 : "r"(gpu_shared_address(row))
                 : "memory");
}
GPU_FN void gpu_ldmatrix_transposed(uint32_t (&r)[4], const void *row)
{
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0,%1,%2,%3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                 : "r"(gpu_shared_address(row))
                 : "memory");
}
// d += a b, a [16, 16] row-major, b [16, 8] column-major, sums in f32.
#define GPU_MMA(TYPE, NAME)                                                                        \
    GPU_FN void gpu_mma(TYPE, float(&d)[4], const uint32_t(&a)[4], uint32_t b0, uint32_t b1)       \
    {                                                                                              \
        asm volatile("mma.sync.aligned.m16n8k16.row.col.f32." NAME "." NAME                        \
                     ".f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"                  \
                     : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])                              \
                     : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));              \
    }
GPU_MMA(__nv_bfloat16, "bf16")
GPU_MMA(__half, "f16")
// Copies 16 bytes from global to shared memory. If not `valid`, it writes zeros and does not read
// `from`.
GPU_FN void gpu_copy_16(void *to, const void *from, bool valid)
{
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(gpu_shared_address(to)),
                 "l"(from), "r"(valid ? 16 : 0)
                 : "memory");
}
// Stores 16 bytes to global memory in one instruction. nvcc would split some of these stores into
// four, because it does not know the alignment of their offsets.
GPU_FN void gpu_store_16(void *to, const uint4 &words)
{
    asm volatile("st.global.v4.u32 [%0], {%1,%2,%3,%4};" ::"l"(__cvta_generic_to_global(to)),
                 "r"(words.x), "r"(words.y), "r"(words.z), "r"(words.w)
                 : "memory");
}
GPU_FN void gpu_copy_commit()
{
    asm volatile("cp.async.commit_group;" ::: "memory");
}
template <int N> GPU_FN void gpu_copy_wait()
{
    asm volatile("cp.async.wait_group %0;" ::"n"(N) : "memory");
}
#else
inline void gpu_ldmatrix(uint32_t (&r)[4], const void *row, ATEDM_PLACE)
{
    emulated::touch(row, false);
    emulated::read_copied(row, 16);
    emulated::ldmatrix_operands o = {row, r};
    emulated::collective(~0u, &o, emulated::do_ldmatrix, "ldmatrix", at);
}
inline void gpu_ldmatrix_transposed(uint32_t (&r)[4], const void *row, ATEDM_PLACE)
{
    emulated::touch(row, false);
    emulated::read_copied(row, 16);
    emulated::ldmatrix_operands o = {row, r};
    emulated::collective(~0u, &o, emulated::do_ldmatrix_transposed, "ldmatrix.trans", at);
}
inline void gpu_mma(__nv_bfloat16, float (&d)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1,
                    ATEDM_PLACE)
{
    const uint32_t b[2] = {b0, b1};
    emulated::mma_operands o = {d, a, b, d};
    emulated::collective(~0u, &o, emulated::do_mma_bf16, "mma.bf16", at);
}
inline void gpu_mma(__half, float (&d)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1,
                    ATEDM_PLACE)
{
    const uint32_t b[2] = {b0, b1};
    emulated::mma_operands o = {d, a, b, d};
    emulated::collective(~0u, &o, emulated::do_mma_f16, "mma.f16", at);
}
inline void gpu_copy_16(void *to, const void *from, bool valid, ATEDM_PLACE)
{
    emulated::copy_async(to, from, valid ? 16 : 0, at);
}
inline void gpu_store_16(void *to, const uint4 &words)
{
    *static_cast<uint4 *>(to) = words;
}
inline void gpu_copy_commit()
{
    emulated::copy_commit();
}
template <int N> inline void gpu_copy_wait()
{
    emulated::copy_wait(N);
}
#endif

// ---- elements

typedef __nv_bfloat16 gpu_bf16;
typedef __half gpu_f16;

GPU_FN float gpu_load(float x)
{
    return x;
}
GPU_FN float gpu_load(gpu_bf16 x)
{
    return __bfloat162float(x);
}
GPU_FN float gpu_load(gpu_f16 x)
{
    return __half2float(x);
}
GPU_FN void gpu_store(float *to, float x)
{
    *to = x;
}
GPU_FN void gpu_store(gpu_bf16 *to, float x)
{
    *to = __float2bfloat16_rn(x);
}
GPU_FN void gpu_store(gpu_f16 *to, float x)
{
    *to = __float2half_rn(x);
}

// Two elements as a register of an mma fragment, `low` in its lower half.
GPU_FN uint32_t gpu_pack(gpu_bf16, float low, float high)
{
    __nv_bfloat162 pair = __floats2bfloat162_rn(low, high);
    uint32_t bits;
    memcpy(&bits, &pair, sizeof bits);
    return bits;
}
GPU_FN uint32_t gpu_pack(gpu_f16, float low, float high)
{
    __half2 pair = __floats2half2_rn(low, high);
    uint32_t bits;
    memcpy(&bits, &pair, sizeof bits);
    return bits;
}

// Elements that a thread of an element-wise kernel processes: 16 bytes of a 16-bit type.
#define GPU_VECTOR 8

// Whether GPU_VECTOR elements at p can be moved as whole vectors.
__host__ GPU_FN bool gpu_is_aligned(const void *p)
{
    return ((uintptr_t)p & 15) == 0;
}

// GPU_VECTOR elements in the format that they have in memory. In 16 bits they take half the
// registers of their F32 values.
template <class T> struct gpu_vector {
    uint4 words[GPU_VECTOR * sizeof(T) / sizeof(uint4)];
};

// Reads `n` <= GPU_VECTOR elements and fills up with zeros. `whole` means that there are GPU_VECTOR
// elements and that p is aligned.
template <class T> GPU_FN void gpu_read_vector(const T *p, int64_t n, bool whole, gpu_vector<T> &x)
{
    if (whole) {
#pragma unroll
        for (unsigned i = 0; i < sizeof x / sizeof(uint4); i++)
            x.words[i] = reinterpret_cast<const uint4 *>(p)[i];
        return;
    }
    T v[GPU_VECTOR], zero;
    gpu_store(&zero, 0.0f);
#pragma unroll
    for (int i = 0; i < GPU_VECTOR; i++)
        v[i] = i < n ? p[i] : zero;
    memcpy(&x, v, sizeof x);
}

template <class T> GPU_FN void gpu_unpack(const gpu_vector<T> &x, float *to)
{
    T v[GPU_VECTOR];
    memcpy(v, &x, sizeof x);
#pragma unroll
    for (int i = 0; i < GPU_VECTOR; i++)
        to[i] = gpu_load(v[i]);
}
// A bf16 is the upper half of a float. Unpacking whole words makes nvcc keep the words as they are
// until the values are used.
GPU_FN void gpu_unpack(const gpu_vector<gpu_bf16> &x, float *to)
{
    const unsigned w[] = {x.words[0].x, x.words[0].y, x.words[0].z, x.words[0].w};
#pragma unroll
    for (int i = 0; i < GPU_VECTOR / 2; i++) {
        to[i * 2] = __uint_as_float(w[i] << 16);
        to[i * 2 + 1] = __uint_as_float(w[i] & 0xffff0000u);
    }
}

// Makes the compiler unpack x again when it is used next, instead of keeping unpacked values in
// registers until then.
template <class T> GPU_FN void gpu_forget_unpacked(gpu_vector<T> &x)
{
#ifdef __CUDACC__
    for (uint4 &word : x.words)
        asm volatile("" : "+r"(word.x), "+r"(word.y), "+r"(word.z), "+r"(word.w));
#else
    (void)x;
#endif
}

template <class T> GPU_FN void gpu_load_vector(const T *p, int64_t n, bool whole, float *x)
{
    gpu_vector<T> v;
    gpu_read_vector(p, n, whole, v);
    gpu_unpack(v, x);
}

template <class T> GPU_FN void gpu_store_vector(T *p, int64_t n, bool whole, const float *x)
{
    if (whole) {
        alignas(16) T v[GPU_VECTOR];
#pragma unroll
        for (int i = 0; i < GPU_VECTOR; i++)
            gpu_store(&v[i], x[i]);
#pragma unroll
        for (unsigned i = 0; i < GPU_VECTOR * sizeof(T) / sizeof(uint4); i++)
            reinterpret_cast<uint4 *>(p)[i] = reinterpret_cast<const uint4 *>(v)[i];
        return;
    }
#pragma unroll
    for (int i = 0; i < GPU_VECTOR; i++)
        if (i < n)
            gpu_store(p + i, x[i]);
}

// Calls FN<T>(...) for the stream's activation dtype; FN is a function of this file's includer that
// launches for element type T.
#define GPU_FOR_ACT(ACT, FN, ...)                                                                  \
    ((ACT) == ATEDM_F32    ? FN<float>(__VA_ARGS__)                                                \
     : (ACT) == ATEDM_BF16 ? FN<gpu_bf16>(__VA_ARGS__)                                             \
                           : FN<gpu_f16>(__VA_ARGS__))

// ---- arithmetic

// 2^x with a relative error of at most 2^-22, and 1 / x. Results that would be denormal are 0.
// These take fewer instructions than exp2f and a division, which treat denormal results separately.
#ifdef __CUDACC__
GPU_FN float gpu_exp2(float x)
{
    float y;
    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
}
GPU_FN float gpu_reciprocal(float x)
{
    float y;
    asm("rcp.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
}
#else
inline float gpu_flush(float x)
{
    return fabsf(x) < 0x1p-126f ? 0.0f : x;
}
inline float gpu_exp2(float x)
{
    return gpu_flush(exp2f(x));
}
inline float gpu_reciprocal(float x)
{
    return gpu_flush(1.0f / x);
}
#endif

// x Phi(x), where Phi is the cumulative distribution function of the normal distribution. It is
// computed as max(x, 0) - a Phi(-a) with a = |x|, so that small results keep their relative
// precision. Phi(-a) is exp(-a^2 / 2) t P(t) with t = 1 / (1 + 0.4 a). P comes from Remez' exchange
// algorithm; its relative error is below 1.5e-8 up to a = 13.3. Results for larger a are denormal.
// a is limited to 16 so that infinity works.
GPU_FN float gpu_gelu(float x)
{
    constexpr float P[] = {0.159576818f, 0.159608409f,  0.133304685f, 0.0905454382f, -0.0245226473f,
                           0.115135573f, -0.368777514f, 0.37835741f,  -0.175132677f, 0.0319045112f};
    constexpr float scale = -0.72134752044448170368f, scale_rest = -9.62981496e-09f; // -log2(e) / 2
    float a = fminf(fabsf(x), 16.0f), t = gpu_reciprocal(fmaf(0.4f, a, 1.0f)), p = P[9];
#pragma unroll
    for (int k = 8; k >= 0; k--)
        p = fmaf(p, t, P[k]);
    // The exponent's rounding error would become a relative error of the power, so it is computed
    // and compensated.
    float square = a * a, exponent = square * scale, power = gpu_exp2(exponent);
    float error = fmaf(square, scale_rest, fmaf(square, scale, -exponent));
    error = fmaf(fmaf(a, a, -square), scale, error);
    power = fmaf(power, error * 0.69314718055994530942f, power);
    return fmaf(-a * (p * t), power, x < 0.0f ? 0.0f : x);
}

// Formulas of atedm_activation in kernels.h.
GPU_FN float gpu_activate(int activation, float x)
{
    if (activation == ATEDM_ACT_SILU)
        return x * gpu_reciprocal(1.0f + expf(-x));
    if (activation == ATEDM_ACT_GELU)
        return gpu_gelu(x);
    if (activation == ATEDM_ACT_QUICK_GELU)
        return x * gpu_reciprocal(1.0f + expf(-1.702f * x));
    return x;
}

// SiLU for 16-bit results, with an error of some units in the last place of F32.
GPU_FN float gpu_quick_silu(float x)
{
    return x * gpu_reciprocal(1.0f + gpu_exp2(x * -1.4426950408889634f));
}

GPU_FN float gpu_warp_sum(float x)
{
#pragma unroll
    for (int with = 16; with; with >>= 1)
        x += __shfl_xor_sync(0xffffffffu, x, with);
    return x;
}

// The sum over the block. Every thread gets the same bits, and they do not change as long as the
// block size does not. `shared` has room for one float for each warp. The block consists of whole
// warps, 32 at most.
GPU_FN float gpu_block_sum(float x, float *shared)
{
    int lane = threadIdx.x & 31, warp = threadIdx.x >> 5, warps = blockDim.x >> 5;
    x = gpu_warp_sum(x);
    __syncthreads(); // all threads have read the previous sum
    if (lane == 0)
        shared[warp] = x;
    __syncthreads();
    x = 0;
    for (int i = 0; i < warps; i++)
        x += shared[i];
    return x;
}

inline int64_t gpu_most_queries(const atedm_cuda_spans *spans)
{
    int64_t most = 0;
    for (int32_t i = 0; i < spans->n; i++)
        most = spans->span[i].nq > most ? spans->span[i].nq : most;
    return most;
}

// The number of blocks of `size` that `count` elements need.
inline unsigned gpu_blocks(int64_t count, int64_t size)
{
    return (unsigned)((count + size - 1) / size);
}

#endif
