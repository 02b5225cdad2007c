// Attention on tensor cores with heads of up to 512, in whole vectors of 8. The VAE's one head is
// as wide as its channels.
//
// As in attention64.cu, a block computes 64 queries of a head of a span and goes over the keys 64
// at a time. But sums of values this wide need the registers of eight warps. Warp w has rows 16 (w
// % 4) .. + 15, and columns 32 (w / 4) .. + 31 of the logits and of each slice of the sums. So two
// warps have halves of the same rows, and exchange maxima, exponentials and totals through shared
// memory.
//
// All slices of the queries stay in shared memory. Keys and values arrive in slices of 64 columns,
// by cp.async, through a ring of three tiles: all slices of a tile of keys, then all of its values.
// One barrier for each slice makes it visible to all warps, and frees the slice before it.
#include "kernels/cuda/attention_call.cuh"
#include "kernels/cuda/tile64.cuh"

namespace
{

constexpr int THREADS = 256, STAGES = 3;

struct call : attention_call {
    int slices;
    float scale, scale2; // of logits; the same for exponentials of base 2
};

// Shared memory. The queries' slices follow it, all of them.
template <class T> struct tiles {
    float most[2][TILE], total[2][TILE]; // by half of the columns
    T p[TILE_ELEMENTS], ring[STAGES][TILE_ELEMENTS];
};
// 99 KiB is the least that a block may have on the architectures that the kernels are compiled for,
// and on those between them.
static_assert(sizeof(tiles<gpu_bf16>) + ATEDM_CUDA_HEAD512 / TILE * TILE_ELEMENTS * 2 <= 99u << 10,
              "a block's shared memory");

// The state of a thread's two rows: the largest logit, unscaled, and, over the thread's columns,
// the sum of exponentials and the sums of values.
template <int SLICES> struct rows {
    float most[2], total[2], sums[SLICES][4][4];
};

// Starts to load 64 columns from `column` on. Columns after the head's last one are zeros.
template <class T>
GPU_FN void load_slice(T *tile, const T *matrix, int64_t stride, tile_range range, int column,
                       int head_dim)
{
#pragma unroll
    for (int i = 0; i < TILE * TILE_VECTORS / THREADS; i++) {
        int unit = i * THREADS + threadIdx.x, r = unit / TILE_VECTORS, vector = unit % TILE_VECTORS;
        int64_t row = range(r);
        bool valid = row >= 0 && column + vector * 8 < head_dim;
        gpu_copy_16(tile + tile_at(r, vector),
                    matrix + (valid ? row * stride + column + vector * 8 : 0), valid);
    }
}

// Loads slices in the order in which they are used: all of a tile of keys, then all of its values.
template <class T> struct feed {
    const call &a;
    const T *k, *v; // the head's columns
    int64_t first, end, key0;
    int part, stage;

    GPU_FN void load(T (&ring)[STAGES][TILE_ELEMENTS])
    {
        if (first + key0 < end) {
            tile_range range = {first + key0, end};
            if (part < a.slices)
                load_slice(ring[stage], k, a.k_stride, range, part * TILE, a.head_dim);
            else
                load_slice(ring[stage], v, a.v_stride, range, (part - a.slices) * TILE, a.head_dim);
        }
        gpu_copy_commit();
        stage = stage + 1 == STAGES ? 0 : stage + 1;
        if (++part == 2 * a.slices) {
            part = 0;
            key0 += TILE;
        }
    }
};

// Waits for the next slice and returns it. Starts to load another slice in place of the previous
// one.
template <class T> GPU_FN const T *next_slice(tiles<T> &t, feed<T> &next, int &stage)
{
    gpu_copy_wait<STAGES - 2>();
    __syncthreads(); // this slice is there, and no warp reads the last one any more
    next.load(t.ring);
    const T *slice = t.ring[stage];
    stage = stage + 1 == STAGES ? 0 : stage + 1;
    return slice;
}

// s += q k^T over a slice.
template <class T> GPU_FN void add_scores(float (&s)[4][4], const T *q, const T *k)
{
    int lane = threadIdx.x & 31, row = (threadIdx.x >> 5 & 3) * 16, column = threadIdx.x / 128 * 32;
#pragma unroll
    for (int c = 0; c < 4; c++) {
        uint32_t a[4];
        gpu_ldmatrix(a, q + tile_at(row + (lane & 15), c * 2 + (lane >> 4)));
#pragma unroll
        for (int n = 0; n < 2; n++) {
            uint32_t f[4];
            gpu_ldmatrix(f, k + tile_at(column + n * 16 + (lane & 7) + (lane >> 4 << 3),
                                        c * 2 + (lane >> 3 & 1)));
            gpu_mma(T(), s[2 * n], a, f[0], f[1]);
            gpu_mma(T(), s[2 * n + 1], a, f[2], f[3]);
        }
    }
}

// sums += p v over the columns of a slice.
template <class T>
GPU_FN void add_values(float (&sums)[4][4], const uint32_t (&p)[4][4], const T *v)
{
    int lane = threadIdx.x & 31, vector = threadIdx.x / 128 * 4;
#pragma unroll
    for (int k = 0; k < 4; k++)
#pragma unroll
        for (int n = 0; n < 2; n++) {
            uint32_t f[4];
            gpu_ldmatrix_transposed(
                f, v + tile_at(k * 16 + (lane & 15), vector + n * 2 + (lane >> 4)));
            gpu_mma(T(), sums[2 * n], p[k], f[0], f[1]);
            gpu_mma(T(), sums[2 * n + 1], p[k], f[2], f[3]);
        }
}

// Adds the biases of keys key0 .. key0 + 63 below `end` to the unscaled logits, hence divided by
// the scale.
GPU_FN void add_bias(float (&s)[4][4], const float *bias, float scale, int64_t key0, int64_t end)
{
    int column = threadIdx.x / 128 * 32 + threadIdx.x % 4 * 2;
#pragma unroll
    for (int n = 0; n < 4; n++)
#pragma unroll
        for (int i = 0; i < 2; i++) {
            int64_t key = key0 + column + n * 8 + i;
            float b = key < end ? bias[key] / scale : 0.0f;
            s[n][i] += b;
            s[n][i + 2] += b;
        }
}

// Masks columns that the row does not see: after the last key, or, if causal, after the row's own.
GPU_FN void mask(float (&s)[4][4], int64_t key0, int64_t n_keys, int64_t row, bool causal)
{
    int column = threadIdx.x / 128 * 32 + threadIdx.x % 4 * 2;
#pragma unroll
    for (int n = 0; n < 4; n++)
#pragma unroll
        for (int i = 0; i < 4; i++) {
            int64_t key = key0 + column + n * 8 + i % 2;
            if (key >= n_keys || (causal && key > row + i / 2 * 8))
                s[n][i] = -INFINITY;
        }
}

// Writes the exponentials of a tile of logits to shared memory, because the product with values
// needs the columns of both halves.
template <class T, int SLICES>
GPU_FN void exponentials(tiles<T> &t, rows<SLICES> &r, float (&s)[4][4], float scale2)
{
    int lane = threadIdx.x & 31, half = threadIdx.x / 128;
    int row = (threadIdx.x >> 5 & 3) * 16 + lane / 4;
#pragma unroll
    for (int i = 0; i < 2; i++) {
        float largest = -INFINITY;
#pragma unroll
        for (int n = 0; n < 4; n++)
            largest = fmaxf(largest, fmaxf(s[n][i * 2], s[n][i * 2 + 1]));
        largest = quad_max(largest);
        if (lane % 4 == 0)
            t.most[half][row + i * 8] = largest;
    }
    __syncthreads(); // the maxima of both halves are there
#pragma unroll
    for (int i = 0; i < 2; i++) {
        float largest = fmaxf(t.most[0][row + i * 8], t.most[1][row + i * 8]);
        largest = fmaxf(largest, r.most[i]); // finite: every row sees key 0
        float shrink = exp2f((r.most[i] - largest) * scale2);
        r.most[i] = largest;
        r.total[i] *= shrink;
#pragma unroll
        for (int slice = 0; slice < SLICES; slice++)
#pragma unroll
            for (int n = 0; n < 4; n++) {
                r.sums[slice][n][i * 2] *= shrink;
                r.sums[slice][n][i * 2 + 1] *= shrink;
            }
    }
#pragma unroll
    for (int n = 0; n < 4; n++) {
#pragma unroll
        for (int i = 0; i < 4; i++) {
            s[n][i] = exp2f((s[n][i] - r.most[i / 2]) * scale2);
            r.total[i / 2] += s[n][i];
        }
#pragma unroll
        for (int i = 0; i < 2; i++)
            *reinterpret_cast<uint32_t *>(t.p + tile_at(row + i * 8, half * 4 + n) + lane % 4 * 2) =
                gpu_pack(T(), s[n][i * 2], s[n][i * 2 + 1]);
    }
}

template <class T, int SLICES>
GPU_FN void store(const call &a, const atedm_span &span, tiles<T> &t, const rows<SLICES> &r,
                  int64_t row0)
{
    int lane = threadIdx.x & 31, half = threadIdx.x / 128;
    int in_tile = (threadIdx.x >> 5 & 3) * 16 + lane / 4;
#pragma unroll
    for (int i = 0; i < 2; i++) {
        float sum = quad_sum(r.total[i]);
        if (lane % 4 == 0)
            t.total[half][in_tile + i * 8] = sum;
    }
    __syncthreads(); // both halves' sums are there
#pragma unroll
    for (int i = 0; i < 2; i++) {
        int64_t row = row0 + in_tile + i * 8;
        float total = t.total[0][in_tile + i * 8] + t.total[1][in_tile + i * 8];
        float factor = 1.0f / total;
        if (row >= span.nq)
            continue;
        if (a.lse && half == 0 && lane % 4 == 0)
            a.lse[blockIdx.y * a.lse_stride + span.q0 + row] = r.most[i] * a.scale + logf(total);
        T *to = static_cast<T *>(a.o) + ((span.q0 + row) * a.heads + blockIdx.y) * a.head_dim;
#pragma unroll
        for (int slice = 0; slice < SLICES; slice++)
#pragma unroll
            for (int n = 0; n < 4; n++) {
                int column = slice * TILE + half * 32 + n * 8 + lane % 4 * 2;
                if (column < a.head_dim)
                    *reinterpret_cast<uint32_t *>(to + column) =
                        gpu_pack(T(), r.sums[slice][n][i * 2] * factor,
                                 r.sums[slice][n][i * 2 + 1] * factor);
            }
    }
}

template <class T, int SLICES>
__global__ void __launch_bounds__(THREADS) attention512_kernel(const __grid_constant__ call a)
{
    const atedm_span &span = a.spans.span[blockIdx.z];
    int64_t row0 = (int64_t)blockIdx.x * TILE, end = span.nk,
            head = (int64_t)blockIdx.y * a.head_dim;
    if (row0 >= span.nq)
        return;
    if (a.causal && row0 + TILE < end)
        end = row0 + TILE;
    tiles<T> &t = *gpu_shared<tiles<T>>();
    T *queries = reinterpret_cast<T *>(&t + 1);
    for (int slice = 0; slice < a.slices; slice++)
        load_slice(queries + slice * TILE_ELEMENTS, static_cast<const T *>(a.q) + head, a.q_stride,
                   tile_range{span.q0 + row0, span.q0 + span.nq}, slice * TILE, a.head_dim);
    feed<T> next = {a,
                    static_cast<const T *>(a.k) + head,
                    static_cast<const T *>(a.v) + head,
                    span.k0,
                    span.k0 + end,
                    0,
                    0,
                    0};
#pragma unroll
    for (int i = 0; i < STAGES - 1; i++)
        next.load(t.ring); // the first slice and the queries are one cp.async group
    int64_t row = row0 + (threadIdx.x >> 5 & 3) * 16 + (threadIdx.x & 31) / 4;
    int stage = 0;
    rows<SLICES> r = {{-INFINITY, -INFINITY}, {0, 0}, {}};
    for (int64_t key0 = 0; key0 < end; key0 += TILE) {
        float s[4][4] = {};
        for (int slice = 0; slice < a.slices; slice++) {
            const T *keys = next_slice(t, next, stage);
            add_scores(s, queries + slice * TILE_ELEMENTS, keys);
        }
        if (a.bias)
            add_bias(s, a.bias + span.k0, a.scale, key0, end);
        if (key0 + TILE > end || a.causal)
            mask(s, key0, end, row, a.causal);
        exponentials(t, r, s, a.scale2);
        uint32_t p[4][4];
#pragma unroll
        for (int slice = 0; slice < SLICES; slice++) {
            if (slice >= a.slices)
                continue;
            const T *values = next_slice(t, next, stage);
            if (slice == 0)
                tile_rows(p, t.p);
            add_values(r.sums[slice], p, values);
        }
    }
    gpu_copy_wait<0>();
    store(a, span, t, r, row0);
}

template <class T, int SLICES>
cudaError_t attend(const call &a, int64_t most_queries, cudaStream_t stream)
{
    return GPU_LAUNCH((attention512_kernel<T, SLICES>),
                      dim3(gpu_blocks(most_queries, TILE), (unsigned)a.heads, (unsigned)a.spans.n),
                      dim3(THREADS), sizeof(tiles<T>) + a.slices * TILE_ELEMENTS * sizeof(T),
                      stream, a);
}

// Narrower heads get fewer registers for sums, so that a multiprocessor runs more blocks at a time.
template <class T> cudaError_t choose(const call &a, int64_t most_queries, cudaStream_t stream)
{
    return a.slices <= 2   ? attend<T, 2>(a, most_queries, stream)
           : a.slices <= 4 ? attend<T, 4>(a, most_queries, stream)
                           : attend<T, 8>(a, most_queries, stream);
}

} // namespace

bool atedm_cuda_is_head512(atedm_dtype act, int head_dim, const void *const *matrices,
                           const int64_t *strides, int n)
{
    return head_dim <= ATEDM_CUDA_HEAD512 && head_dim % 8 == 0 && act != ATEDM_F32 &&
           tile_rows_align(matrices, strides, n);
}

cudaError_t atedm_cuda_launch_attention512(atedm_dtype act, const atedm_attention_args *args,
                                           const atedm_cuda_spans *spans, cudaStream_t stream)
{
    call a = {};
    static_cast<attention_call &>(a) = make_attention_call(args, spans);
    a.slices = (args->head_dim + TILE - 1) / TILE;
    a.scale = 1.0f / sqrtf((float)args->head_dim);
    a.scale2 = a.scale * TILE_LOG2E;
    int64_t most = gpu_most_queries(spans);
    return act == ATEDM_BF16 ? choose<gpu_bf16>(a, most, stream) : choose<gpu_f16>(a, most, stream);
}
