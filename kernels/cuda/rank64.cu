// A^T s with heads of 64 on tensor cores; the method is in rank.cu. A block has 64 keys of a head
// of a span and goes over the queries, 64 at a time. Queries have two stages: cp.async loads the
// next tile into one while the products read the other, with one barrier for each tile. Each warp
// adds up its own 16 rows of queries; at the end the block adds up the four warps' sums.
#include "kernels/cuda/tile64.cuh"

namespace
{

template <class T> struct tiles {
    T k[TILE_ELEMENTS], q[2][TILE_ELEMENTS];
    float sums[TILE_THREADS / 32][TILE];
};

// total[n][i] += A(row, column) s(row), over the thread's two rows.
GPU_FN void add_columns(float (&total)[8][2], const float (&s)[8][4], const float (&lse2)[2],
                        const float (&weight)[2])
{
#pragma unroll
    for (int n = 0; n < 8; n++)
#pragma unroll
        for (int i = 0; i < 4; i++)
            total[n][i % 2] += exp2f(s[n][i] * TILE_SCALE2 - lse2[i / 2]) * weight[i / 2];
}

// Adds up total[n][i] over the warp's rows, and writes the sums of the 64 columns to sums [64].
GPU_FN void store_columns(float (&total)[8][2], float *sums)
{
    int lane = threadIdx.x & 31;
#pragma unroll
    for (int n = 0; n < 8; n++)
#pragma unroll
        for (int i = 0; i < 2; i++) {
            float sum = total[n][i];
#pragma unroll
            for (int with = 4; with < 32; with *= 2)
                sum += __shfl_xor_sync(0xffffffffu, sum, with);
            if (lane < 4)
                sums[n * 8 + lane * 2 + i] = sum;
        }
}

template <class T>
__global__ void __launch_bounds__(TILE_THREADS)
    columns64_kernel(const __grid_constant__ atedm_cuda_rank a, int t)
{
    int number = blockIdx.z;
    const atedm_span &span = a.span[number];
    int64_t head = blockIdx.y, key0 = (int64_t)blockIdx.x * TILE;
    if (key0 >= span.nk || a.last[number] != 0)
        return;
    tiles<T> &tile = *gpu_shared<tiles<T>>();
    const T *q = static_cast<const T *>(a.q) + head * TILE;
    const float *from = a.scores[(t - 1) % 2] + head * a.rows + a.span_at[number];
    const float *lse = a.lse + head * a.lse_stride + span.q0;
    int lane = threadIdx.x & 31, warp = threadIdx.x >> 5;
    int64_t end = span.q0 + span.nq;
    tile_load(tile.k, static_cast<const T *>(a.k) + head * TILE, a.k_stride,
              tile_range{span.k0 + key0, span.k0 + span.nk});
    tile_load(tile.q[0], q, a.q_stride, tile_range{span.q0, end});
    gpu_copy_commit();
    float total[8][2] = {};
    for (int64_t row0 = 0, stage = 0; row0 < span.nq; row0 += TILE, stage ^= 1) {
        gpu_copy_wait<0>();
        __syncthreads(); // this tile is there, and the other one is free
        if (row0 + TILE < span.nq)
            tile_load(tile.q[stage ^ 1], q, a.q_stride, tile_range{span.q0 + row0 + TILE, end});
        gpu_copy_commit();
        uint32_t queries[4][4];
        float s[8][4], lse2[2] = {}, weight[2] = {};
#pragma unroll
        for (int half = 0; half < 2; half++) {
            int64_t row = row0 + warp * 16 + lane / 4 + half * 8;
            if (row < span.nq) {
                lse2[half] = lse[row] * TILE_LOG2E;
                weight[half] = from[row];
            }
        }
        tile_rows(queries, tile.q[stage]);
        tile_scores(s, queries, tile.k);
        add_columns(total, s, lse2, weight);
    }
    gpu_copy_wait<0>();
    store_columns(total, tile.sums[warp]);
    __syncthreads();
    float *to = a.cross ? a.keys + head * a.n_keys + a.key_at[number]
                        : a.scores[t % 2] + head * a.rows + a.span_at[number];
    int c = threadIdx.x;
    if (c < TILE && key0 + c < span.nk)
        to[key0 + c] = (tile.sums[0][c] + tile.sums[1][c]) + (tile.sums[2][c] + tile.sums[3][c]);
}

template <class T> cudaError_t columns64(const atedm_cuda_rank *a, int t, cudaStream_t stream)
{
    int64_t most = 0;
    for (int32_t i = 0; i < a->n; i++)
        most = a->span[i].nk > most ? a->span[i].nk : most;
    return GPU_LAUNCH((columns64_kernel<T>),
                      dim3(gpu_blocks(most, TILE), (unsigned)a->heads, (unsigned)a->n),
                      dim3(TILE_THREADS), sizeof(tiles<T>), stream, *a, t);
}

} // namespace

cudaError_t atedm_cuda_launch_columns64(atedm_dtype act, const atedm_cuda_rank *rank, int t,
                                        cudaStream_t stream)
{
    return act == ATEDM_BF16 ? columns64<gpu_bf16>(rank, t, stream)
                             : columns64<gpu_f16>(rank, t, stream);
}
