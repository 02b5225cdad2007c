// G-WPR: the iterations of atedm_rank_tokens, as passes over queries and keys. rank64.cu and
// rank64_hopper.cu have the fast passes.
//
// No attention map is stored. Every pass computes A(i, j) = exp(scale q_i k_j - lse_i) again. One
// block computes each sum over a column or a row, in order, so that its bits do not depend on the
// batch. decide_kernel decides whether a span goes on, and the next launches read that from device
// memory, so that the host never waits.
#include "kernels/cuda/plain_tile.cuh"

namespace
{

constexpr int THREADS = 256; // of a block of the kernels that process vectors

GPU_FN bool has_ended(const atedm_cuda_rank &a, int span)
{
    return a.last[span] != 0;
}

// s^t of a head of a span.
GPU_FN float *scores_at(const atedm_cuda_rank &a, int t, int64_t head, int span)
{
    return a.scores[t % 2] + head * a.rows + a.span_at[span];
}

GPU_FN float *keys_at(const atedm_cuda_rank &a, int64_t head, int span)
{
    return a.keys + head * a.n_keys + a.key_at[span];
}

// s^0 = 1 / N.
__global__ void __launch_bounds__(THREADS) begin_kernel(const __grid_constant__ atedm_cuda_rank a)
{
    int span = blockIdx.z;
    int64_t i = (int64_t)blockIdx.x * THREADS + threadIdx.x, n = a.span[span].nq;
    if (i < n)
        scores_at(a, 0, blockIdx.y, span)[i] = 1.0f / (float)n;
    if (i == 0 && blockIdx.y == 0)
        a.last[span] = 0;
    if (i == 0 && blockIdx.y == 0 && span == 0)
        *a.taken = 0;
}

// A block computes 32 keys of a head of a span: to[j] = sum over i of A(i, j) s_i. `to` is s^t for
// self-attention, else the scores of the keys.
template <class T>
__global__ void __launch_bounds__(PLAIN_THREADS, PLAIN_BLOCKS)
    columns_kernel(const __grid_constant__ atedm_cuda_rank a, int t)
{
    int n = blockIdx.z;
    const atedm_span &span = a.span[n];
    int64_t head = blockIdx.y, key0 = (int64_t)blockIdx.x * PLAIN_COLUMNS;
    if (key0 >= span.nk || has_ended(a, n))
        return;
    plain_tiles &tiles = *gpu_shared<plain_tiles>();
    plain_matrix<T> q = {static_cast<const T *>(a.q) + head * a.head_dim, a.q_stride};
    plain_matrix<T> k = {static_cast<const T *>(a.k) + head * a.head_dim, a.k_stride};
    const float *from = scores_at(a, t - 1, head, n);
    const float *lse = a.lse + head * a.lse_stride + span.q0;
    float scale = 1.0f / sqrtf((float)a.head_dim), total[4] = {};
    int r = threadIdx.x / 8, c = threadIdx.x % 8;
    plain_name(tiles.column, PLAIN_COLUMNS, span.k0 + key0, span.k0 + span.nk);
    for (int64_t row0 = 0; row0 < span.nq; row0 += PLAIN_ROWS) {
        float s[4];
        __syncthreads();
        plain_name(tiles.row, PLAIN_ROWS, span.q0 + row0, span.q0 + span.nq);
        plain_scores(tiles, q, k, a.head_dim, s);
        int64_t row = row0 + r;
        float mine = row < span.nq ? lse[row] : 0.0f, weight = row < span.nq ? from[row] : 0.0f;
#pragma unroll
        for (int j = 0; j < 4; j++)
            total[j] += expf(s[j] * scale - mine) * weight;
    }
    __syncthreads();
#pragma unroll
    for (int j = 0; j < 4; j++)
        tiles.a[r * PLAIN_STRIDE + c + 8 * j] = total[j];
    __syncthreads();
    float *to = a.cross ? keys_at(a, head, n) : scores_at(a, t, head, n);
    if (threadIdx.x < PLAIN_COLUMNS && key0 + threadIdx.x < span.nk) {
        float sum = 0;
        for (int i = 0; i < PLAIN_ROWS; i++)
            sum += tiles.a[i * PLAIN_STRIDE + threadIdx.x];
        to[key0 + threadIdx.x] = sum;
    }
}

// A block computes 16 queries of a head of a span: s^t_i = sum over j of A(i, j) k_j.
template <class T>
__global__ void __launch_bounds__(PLAIN_THREADS, PLAIN_BLOCKS)
    rows_kernel(const __grid_constant__ atedm_cuda_rank a, int t)
{
    int n = blockIdx.z;
    const atedm_span &span = a.span[n];
    int64_t head = blockIdx.y, row0 = (int64_t)blockIdx.x * PLAIN_ROWS;
    if (row0 >= span.nq || has_ended(a, n))
        return;
    plain_tiles &tiles = *gpu_shared<plain_tiles>();
    plain_matrix<T> q = {static_cast<const T *>(a.q) + head * a.head_dim, a.q_stride};
    plain_matrix<T> k = {static_cast<const T *>(a.k) + head * a.head_dim, a.k_stride};
    const float *from = keys_at(a, head, n);
    int64_t row = row0 + threadIdx.x / 8;
    float lse = row < span.nq ? a.lse[head * a.lse_stride + span.q0 + row] : 0.0f;
    float scale = 1.0f / sqrtf((float)a.head_dim), total = 0;
    plain_name(tiles.row, PLAIN_ROWS, span.q0 + row0, span.q0 + span.nq);
    for (int64_t key0 = 0; key0 < span.nk; key0 += PLAIN_COLUMNS) {
        float s[4];
        __syncthreads();
        plain_name(tiles.column, PLAIN_COLUMNS, span.k0 + key0, span.k0 + span.nk);
        plain_scores(tiles, q, k, a.head_dim, s);
#pragma unroll
        for (int j = 0; j < 4; j++) {
            int64_t key = key0 + threadIdx.x % 8 + 8 * j;
            if (key < span.nk)
                total += expf(s[j] * scale - lse) * from[key];
        }
    }
    total = plain_row_sum(total);
    if (threadIdx.x % 8 == 0 && row < span.nq)
        scores_at(a, t, head, n)[row] = total;
}

// A block divides the keys' scores, or s^t, of a head of a span by the sum of their absolute
// values.
__global__ void __launch_bounds__(THREADS)
    normalize_kernel(const __grid_constant__ atedm_cuda_rank a, int t, bool keys)
{
    int span = blockIdx.y;
    if (has_ended(a, span))
        return;
    float *x = keys ? keys_at(a, blockIdx.x, span) : scores_at(a, t, blockIdx.x, span), sum = 0;
    int64_t n = keys ? a.span[span].nk : a.span[span].nq;
    for (int64_t i = threadIdx.x; i < n; i += THREADS)
        sum += fabsf(x[i]);
    sum = gpu_block_sum(sum, gpu_shared<float>());
    for (int64_t i = threadIdx.x; i < n; i += THREADS)
        x[i] /= sum;
}

// A block computes |s^t - s^(t-1)|_1 of a head of a span.
__global__ void __launch_bounds__(THREADS)
    change_kernel(const __grid_constant__ atedm_cuda_rank a, int t)
{
    int head = blockIdx.x, span = blockIdx.y;
    if (has_ended(a, span))
        return;
    const float *now = scores_at(a, t, head, span), *before = scores_at(a, t - 1, head, span);
    float change = 0;
    for (int64_t i = threadIdx.x; i < a.span[span].nq; i += THREADS)
        change += fabsf(now[i] - before[i]);
    change = gpu_block_sum(change, gpu_shared<float>());
    if (threadIdx.x == 0)
        a.changes[((int64_t)span * a.heads + head) * a.change_blocks] = change;
}

GPU_FN float change_of(const atedm_cuda_rank &a, int64_t block)
{
    float change = 0;
    for (int warp = 0; warp < a.change_warps; warp++)
        change += a.changes[block * a.change_warps + warp];
    return change;
}

// A block decides for a span; its warps divide the heads among them. The span ends when every
// head's change is within the tolerance, or after its last iteration.
__global__ void __launch_bounds__(THREADS)
    decide_kernel(const __grid_constant__ atedm_cuda_rank a, int t)
{
    int span = blockIdx.x, lane = threadIdx.x & 31, warp = threadIdx.x >> 5;
    if (span == 0 && threadIdx.x == 0)
        *a.taken = 0; // for the next iteration
    if (has_ended(a, span))
        return;
    int64_t blocks = (a.span[span].nk + ATEDM_CUDA_HOPPER_KEYS - 1) / ATEDM_CUDA_HOPPER_KEYS;
    float moving = 0; // the number of heads that still change
    for (int head = warp; head < a.heads; head += THREADS / 32) {
        int64_t first = ((int64_t)span * a.heads + head) * a.change_blocks;
        float change = 0;
        for (int64_t i = lane; i < a.change_blocks && i < blocks; i += 32)
            change += change_of(a, first + i);
        change = gpu_warp_sum(change);
        moving += lane == 0 && !(change <= a.params[span].tolerance); // NaN goes on
    }
    moving = gpu_block_sum(moving, gpu_shared<float>());
    if (threadIdx.x == 0 && (moving == 0 || t >= a.params[span].max_iterations))
        a.last[span] = t;
}

__global__ void __launch_bounds__(THREADS) end_kernel(const __grid_constant__ atedm_cuda_rank a)
{
    int span = blockIdx.y;
    int64_t i = (int64_t)blockIdx.x * THREADS + threadIdx.x;
    if (i >= a.span[span].nq)
        return;
    bool squares = a.params[span].heads == ATEDM_HEADS_RMS;
    float sum = 0;
    for (int head = 0; head < a.heads; head++) {
        float score = scores_at(a, a.last[span], head, span)[i];
        sum += squares ? score * score : score;
    }
    sum /= (float)a.heads;
    a.out[a.span[span].q0 + i] = squares ? sqrtf(sum) : sum;
}

struct sizes {
    int64_t queries, keys; // of the largest span
    unsigned heads, spans;
};

sizes sizes_of(const atedm_cuda_rank *a)
{
    sizes s = {0, 0, (unsigned)a->heads, (unsigned)a->n};
    for (int32_t i = 0; i < a->n; i++) {
        s.queries = a->span[i].nq > s.queries ? a->span[i].nq : s.queries;
        s.keys = a->span[i].nk > s.keys ? a->span[i].nk : s.keys;
    }
    return s;
}

cudaError_t normalize(const atedm_cuda_rank *a, int t, bool keys, cudaStream_t stream)
{
    return GPU_LAUNCH(normalize_kernel, dim3((unsigned)a->heads, (unsigned)a->n), dim3(THREADS),
                      THREADS / 32 * sizeof(float), stream, *a, t, keys);
}

template <class T> cudaError_t columns(const atedm_cuda_rank *a, int t, cudaStream_t stream)
{
    sizes s = sizes_of(a);
    return GPU_LAUNCH((columns_kernel<T>),
                      dim3(gpu_blocks(s.keys, PLAIN_COLUMNS), s.heads, s.spans),
                      dim3(PLAIN_THREADS), sizeof(plain_tiles), stream, *a, t);
}

template <class T> cudaError_t rows(const atedm_cuda_rank *a, int t, cudaStream_t stream)
{
    sizes s = sizes_of(a);
    return GPU_LAUNCH((rows_kernel<T>), dim3(gpu_blocks(s.queries, PLAIN_ROWS), s.heads, s.spans),
                      dim3(PLAIN_THREADS), sizeof(plain_tiles), stream, *a, t);
}

} // namespace

cudaError_t atedm_cuda_launch_rank_begin(const atedm_cuda_rank *rank, cudaStream_t stream)
{
    sizes s = sizes_of(rank);
    return GPU_LAUNCH(begin_kernel, dim3(gpu_blocks(s.queries, THREADS), s.heads, s.spans),
                      dim3(THREADS), 0, stream, *rank);
}

cudaError_t atedm_cuda_launch_rank_iterate(atedm_dtype act, const atedm_cuda_rank *rank,
                                           const atedm_cuda_hopper_rank_maps *maps, int t,
                                           cudaStream_t stream)
{
    cudaError_t error = maps ? atedm_cuda_launch_columns64_hopper(act, rank, maps, t, stream)
                        : rank->is_head64 ? atedm_cuda_launch_columns64(act, rank, t, stream)
                                          : GPU_FOR_ACT(act, columns, rank, t, stream);
    if (!error && rank->cross)
        error = normalize(rank, t, true, stream);
    if (!error && rank->cross)
        error = GPU_FOR_ACT(act, rows, rank, t, stream);
    if (!error && rank->cross)
        error = normalize(rank, t, false, stream);
    if (!error && (!maps || rank->cross))
        error = GPU_LAUNCH(change_kernel, dim3((unsigned)rank->heads, (unsigned)rank->n),
                           dim3(THREADS), THREADS / 32 * sizeof(float), stream, *rank, t);
    if (!error)
        error = GPU_LAUNCH(decide_kernel, dim3((unsigned)rank->n), dim3(THREADS),
                           THREADS / 32 * sizeof(float), stream, *rank, t);
    return error;
}

cudaError_t atedm_cuda_launch_rank_end(const atedm_cuda_rank *rank, cudaStream_t stream)
{
    sizes s = sizes_of(rank);
    return GPU_LAUNCH(end_kernel, dim3(gpu_blocks(s.queries, THREADS), s.spans), dim3(THREADS), 0,
                      stream, *rank);
}
