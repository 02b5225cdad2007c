// Attention with heads of 64 and few keys, such as those of a text, on tensor cores. The contract
// is that of attention64.cu, including lse, but without key_bias and causal: calls with these use
// the other kernels.
//
// A block computes 64 or 128 queries of a head of a span. All keys and values of the head are in
// shared memory. All logits of a row are in registers, so the largest is known before the first
// exponential, and there is no running maximum. Each warp loads its own queries and stores its own
// results. The warps synchronise only twice, when keys and when values have arrived.
//
// A query's results have the same bits in blocks of either size. Its row sees the same products in
// the same order, and fmaf is explicit wherever the compiler could round once or twice.
#include "kernels/cuda/attention_call.cuh"
#include "kernels/cuda/tile64.cuh"

namespace
{

constexpr int KEYS = ATEDM_CUDA_SHORT_KEYS, WARPS = TILE_THREADS / 32;
constexpr int MMA_ROWS = 16, MMA_K = 16, MMA_COLUMNS = 8;
static_assert(KEYS % MMA_K == 0);

using call = attention_call;

// A warp has 16 N rows, a block four times as many.
template <int N> constexpr int WARP_ROWS = N *MMA_ROWS;
template <int N> constexpr int BLOCK_ROWS = WARPS *WARP_ROWS<N>;
// Blocks of a multiprocessor: as many as registers allow without spills.
template <int N> constexpr int MULTIPROCESSOR_BLOCKS = N == 1 ? 5 : 4;

// Results overwrite the queries.
template <class T, int N> struct tiles {
    T k[KEYS * TILE], v[KEYS * TILE], q[WARPS][WARP_ROWS<N> * TILE];
};

// The state of a thread's rows, two for each 16 of the warp.
template <int N> struct rows {
    float factor[N][2];             // 1 / sum of exponentials
    uint32_t p[N][KEYS / MMA_K][4]; // exponentials, as the next product's first operand
};

// Starts to load the share of `thread`, out of THREADS, of ROWS rows. Rows from n on are zeros.
template <int ROWS, int THREADS, class T>
GPU_FN void load_rows(T *tile, const T *matrix, int64_t stride, int64_t n, int thread)
{
    constexpr int STEP = THREADS / TILE_VECTORS;
    int first = thread / TILE_VECTORS, vector = thread % TILE_VECTORS;
    const T *from = matrix + first * stride + vector * 8;
#pragma unroll
    for (int i = 0; i < ROWS / STEP; i++) {
        int row = first + i * STEP;
        gpu_copy_16(tile + tile_at(row, vector), row < n ? from + i * STEP * stride : matrix,
                    row < n);
    }
}

template <class T, int N>
GPU_FN void load_queries(const call &a, const atedm_span &span, T *tile, int64_t row)
{
    const T *q = static_cast<const T *>(a.q) + (span.q0 + row) * a.q_stride + blockIdx.y * TILE;
    load_rows<WARP_ROWS<N>, 32>(tile, q, a.q_stride, span.nq - row, threadIdx.x & 31);
}

// Called by the whole block.
template <class T>
GPU_FN void load_keys(T *tile, const void *matrix, int64_t stride, const atedm_span &span)
{
    load_rows<KEYS, TILE_THREADS>(
        tile, static_cast<const T *>(matrix) + span.k0 * stride + blockIdx.y * TILE, stride,
        span.nk, threadIdx.x);
}

// s = q k^T, in the layout of tile_scores. Each fragment of keys is used for all rows of the warp.
template <class T, int N>
GPU_FN void scores(float (&s)[N][KEYS / MMA_COLUMNS][4], const T *q, const T *k)
{
    int lane = threadIdx.x & 31;
#pragma unroll
    for (int m = 0; m < N; m++)
#pragma unroll
        for (int n = 0; n < KEYS / MMA_COLUMNS; n++)
#pragma unroll
            for (int i = 0; i < 4; i++)
                s[m][n][i] = 0;
#pragma unroll
    for (int step = 0; step < TILE / MMA_K; step++) {
        uint32_t a[N][4], f[4];
#pragma unroll
        for (int m = 0; m < N; m++)
            gpu_ldmatrix(a[m], q + tile_at(m * MMA_ROWS + (lane & 15), step * 2 + (lane >> 4)));
#pragma unroll
        for (int n = 0; n < KEYS / 16; n++) {
            gpu_ldmatrix(
                f, k + tile_at(n * 16 + (lane & 7) + (lane >> 4 << 3), step * 2 + (lane >> 3 & 1)));
#pragma unroll
            for (int m = 0; m < N; m++) {
                gpu_mma(T(), s[m][2 * n], a[m], f[0], f[1]);
                gpu_mma(T(), s[m][2 * n + 1], a[m], f[2], f[3]);
            }
        }
    }
}

// Masks keys from `end` on.
GPU_FN void mask(float (&s)[KEYS / MMA_COLUMNS][4], int end)
{
#pragma unroll
    for (int n = 0; n < KEYS / MMA_COLUMNS; n++)
        if (n * MMA_COLUMNS + MMA_COLUMNS > end) // uniform over the block, mostly false
#pragma unroll
            for (int i = 0; i < 4; i++)
                if (n * MMA_COLUMNS + (int)threadIdx.x % 4 * 2 + i % 2 >= end)
                    s[n][i] = -INFINITY;
}

// Replaces logits by exponentials, packed as the first operand of the product with values.
template <class T>
GPU_FN void exponentials(float (&most)[2], float (&total)[2], uint32_t (&p)[KEYS / MMA_K][4],
                         float (&s)[KEYS / MMA_COLUMNS][4])
{
    float most2[2];
#pragma unroll
    for (int half = 0; half < 2; half++) {
        float largest = -INFINITY;
#pragma unroll
        for (int n = 0; n < KEYS / MMA_COLUMNS; n++)
            largest = fmaxf(largest, fmaxf(s[n][half * 2], s[n][half * 2 + 1]));
        most[half] = quad_max(largest); // finite: every row sees key 0
        most2[half] = most[half] * TILE_SCALE2;
        total[half] = 0;
    }
#pragma unroll
    for (int n = 0; n < KEYS / MMA_COLUMNS; n++) {
#pragma unroll
        for (int i = 0; i < 4; i++) {
            s[n][i] = gpu_exp2(fmaf(s[n][i], TILE_SCALE2, -most2[i / 2]));
            total[i / 2] += s[n][i];
        }
        p[n / 2][n % 2 * 2] = gpu_pack(T(), s[n][0], s[n][1]);
        p[n / 2][n % 2 * 2 + 1] = gpu_pack(T(), s[n][2], s[n][3]);
    }
}

// Computes the attention weights of `end` keys. If lse is not NULL, it points at the entry of the
// warp's first row, and `left` rows have one.
template <class T, int N>
GPU_FN void weigh(rows<N> &r, const T *q, const T *k, int end, float *lse, int64_t left)
{
    float s[N][KEYS / MMA_COLUMNS][4], most[2], total[2];
    scores<T, N>(s, q, k);
#pragma unroll
    for (int m = 0; m < N; m++) {
        mask(s[m], end);
        exponentials<T>(most, total, r.p[m], s[m]);
#pragma unroll
        for (int half = 0; half < 2; half++) {
            int lane = threadIdx.x & 31, row = m * MMA_ROWS + half * 8 + lane / 4;
            total[half] = quad_sum(total[half]);
            r.factor[m][half] = gpu_reciprocal(total[half]);
            if (lse && lane % 4 == 0 && row < left)
                lse[row] = fmaf(most[half], TILE_SCALE, logf(total[half]));
        }
    }
}

// Writes the rows' results into the tile that held their queries.
template <class T, int N> GPU_FN void add_values(const rows<N> &r, T *tile, const T *v)
{
    int lane = threadIdx.x & 31;
    __syncwarp(); // all lanes have read their queries
#pragma unroll
    for (int n = 0; n < TILE / 16; n++) { // 16 columns at a time, for registers
        float sums[N][2][4] = {};
#pragma unroll
        for (int step = 0; step < KEYS / MMA_K; step++) {
            uint32_t f[4];
            gpu_ldmatrix_transposed(f,
                                    v + tile_at(step * MMA_K + (lane & 15), n * 2 + (lane >> 4)));
#pragma unroll
            for (int m = 0; m < N; m++) {
                gpu_mma(T(), sums[m][0], r.p[m][step], f[0], f[1]);
                gpu_mma(T(), sums[m][1], r.p[m][step], f[2], f[3]);
            }
        }
#pragma unroll
        for (int m = 0; m < N; m++)
#pragma unroll
            for (int i = 0; i < 4; i++) { // i / 2: vector, i % 2: the lower rows
                T *to = tile + tile_at(m * MMA_ROWS + i % 2 * 8 + lane / 4, n * 2 + i / 2);
                const float *x = &sums[m][i / 2][i % 2 * 2];
                *reinterpret_cast<uint32_t *>(to + lane % 4 * 2) =
                    gpu_pack(T(), x[0] * r.factor[m][i % 2], x[1] * r.factor[m][i % 2]);
            }
    }
}

// Stores the rows below n of the warp's tile.
template <int N, class T> GPU_FN void store_rows(T *o, int64_t stride, const T *tile, int64_t n)
{
    constexpr int STEP = 32 / TILE_VECTORS;
    int lane = threadIdx.x & 31, first = lane / TILE_VECTORS, vector = lane % TILE_VECTORS;
    T *to = o + first * stride + vector * 8;
#pragma unroll
    for (int i = 0; i < WARP_ROWS<N> / STEP; i++) {
        int row = first + i * STEP;
        if (row < n)
            *reinterpret_cast<uint4 *>(to + i * STEP * stride) =
                *reinterpret_cast<const uint4 *>(tile + tile_at(row, vector));
    }
}

template <class T, int N>
__global__ void __launch_bounds__(TILE_THREADS, MULTIPROCESSOR_BLOCKS<N>)
    attention64_short_kernel(const __grid_constant__ call a)
{
    const atedm_span &span = a.spans.span[blockIdx.z];
    int64_t row = (int64_t)blockIdx.x * BLOCK_ROWS<N>, o_stride = (int64_t)a.heads * TILE;
    if (row >= span.nq)
        return;
    tiles<T, N> &t = *gpu_shared<tiles<T, N>>();
    int warp = threadIdx.x >> 5;
    row += warp * WARP_ROWS<N>;
    int64_t left = span.nq - row;
    T *tile = t.q[warp];
    load_queries<T, N>(a, span, tile, row);
    load_keys(t.k, a.k, a.k_stride, span);
    gpu_copy_commit();
    load_keys(t.v, a.v, a.v_stride, span);
    gpu_copy_commit();
    rows<N> r;
    gpu_copy_wait<1>(); // queries and keys are there; values may be on their way
    __syncthreads();
    if (left > 0) // a warp without rows only takes part in the barriers
        weigh<T, N>(r, tile, t.k, (int)span.nk,
                    a.lse ? a.lse + blockIdx.y * a.lse_stride + span.q0 + row : nullptr, left);
    gpu_copy_wait<0>();
    __syncthreads();
    if (left <= 0)
        return;
    add_values<T, N>(r, tile, t.v);
    __syncwarp(); // all of the tile's results are there
    store_rows<N>(static_cast<T *>(a.o) + (span.q0 + row) * o_stride + blockIdx.y * TILE, o_stride,
                  tile, left);
}

template <class T, int N> cudaError_t attend(const call &a, cudaStream_t stream)
{
    unsigned x = gpu_blocks(gpu_most_queries(&a.spans), BLOCK_ROWS<N>);
    return GPU_LAUNCH((attention64_short_kernel<T, N>),
                      dim3(x, (unsigned)a.heads, (unsigned)a.spans.n), dim3(TILE_THREADS),
                      sizeof(tiles<T, N>), stream, a);
}

// With twice the rows for each warp, shared memory is read half as often for each row, and keys and
// values are loaded half as often. That pays if there are still enough blocks for all
// multiprocessors.
bool are_large_better(const call &a, int multiprocessors)
{
    int64_t blocks = 0;
    for (int32_t i = 0; i < a.spans.n; i++)
        blocks += gpu_blocks(a.spans.span[i].nq, BLOCK_ROWS<2>);
    return blocks * a.heads >= (int64_t)multiprocessors * MULTIPROCESSOR_BLOCKS<2>;
}

template <class T> cudaError_t attend_rows(const call &a, int multiprocessors, cudaStream_t stream)
{
    return are_large_better(a, multiprocessors) ? attend<T, 2>(a, stream) : attend<T, 1>(a, stream);
}

} // namespace

cudaError_t atedm_cuda_launch_attention64_short(atedm_dtype act, const atedm_attention_args *args,
                                                const atedm_cuda_spans *spans, int multiprocessors,
                                                cudaStream_t stream)
{
    const call a = make_attention_call(args, spans);
    return act == ATEDM_BF16 ? attend_rows<gpu_bf16>(a, multiprocessors, stream)
                             : attend_rows<gpu_f16>(a, multiprocessors, stream);
}
