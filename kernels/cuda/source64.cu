// The most similar kept token by attention, with heads of 64, on tensor cores: see source.cu. A
// block has 64 pruned tokens of a span and walks over 64 kept tokens and all heads at a time; the
// next head's tiles are loaded meanwhile.
#include "kernels/cuda/pruned.cuh"
#include "kernels/cuda/tile64.cuh"

namespace
{

template <class T> struct tiles {
    T q[2][TILE_ELEMENTS], k[2][TILE_ELEMENTS];
    int64_t row[TILE]; // of the pruned tokens; -1: none
};

// Rows of the kept tokens from slot `first` on.
struct kept_rows {
    const int32_t *kept;
    int64_t first_row, first, keep;
    GPU_FN int64_t operator()(int i) const
    {
        return first + i < keep ? first_row + kept[first + i] : -1;
    }
};

struct named_rows {
    const int64_t *row;
    GPU_FN int64_t operator()(int i) const
    {
        return row[i];
    }
};

// Looks through a tile of similarities, the thread's two rows of it.
GPU_FN void offer(best_slot (&best)[2], const float (&p)[8][4], int64_t slot0, int64_t keep)
{
    int lane = threadIdx.x & 31;
#pragma unroll
    for (int n = 0; n < 8; n++)
#pragma unroll
        for (int i = 0; i < 4; i++) {
            int64_t slot = slot0 + n * 8 + lane % 4 * 2 + i % 2;
            if (slot < keep)
                best_offer(best[i / 2], p[n][i], (int32_t)slot);
        }
}

template <class T>
__global__ void __launch_bounds__(TILE_THREADS)
    source64_kernel(const int32_t *kept, int32_t *source,
                    const __grid_constant__ atedm_source_map map,
                    const __grid_constant__ atedm_cuda_prune_spans spans)
{
    const atedm_prune_span &span = spans.span[blockIdx.y];
    int64_t first = (int64_t)blockIdx.x * TILE, n_pruned = span.n - span.keep;
    if (first >= n_pruned)
        return;
    kept += span.kept_first;
    tiles<T> &t = *gpu_shared<tiles<T>>();
    if (threadIdx.x < TILE)
        t.row[threadIdx.x] =
            first + threadIdx.x < n_pruned
                ? span.first + pruned_position(kept, span.keep, first + threadIdx.x)
                : -1;
    __syncthreads();
    const T *q = static_cast<const T *>(map.q), *k = static_cast<const T *>(map.k);
    int mine = (threadIdx.x >> 5) * 16 + (threadIdx.x & 31) / 4;
    int64_t row[2] = {t.row[mine], t.row[mine + 8]};
    best_slot best[2] = {{-INFINITY, -1}, {-INFINITY, -1}};
    float p[8][4] = {};
    int64_t steps = (span.keep + TILE - 1) / TILE * map.heads;
    tile_load(t.q[0], q, map.q_stride, named_rows{t.row});
    tile_load(t.k[0], k, map.k_stride, kept_rows{kept, span.first, 0, span.keep});
    gpu_copy_commit();
    for (int64_t step = 0; step < steps; step++) {
        int64_t head = step % map.heads, slot0 = step / map.heads * TILE, next = step + 1;
        gpu_copy_wait<0>();
        __syncthreads(); // these tiles are there, and the others are free
        if (next < steps) {
            int64_t column = next % map.heads * TILE, slots = next / map.heads * TILE;
            tile_load(t.q[next % 2], q + column, map.q_stride, named_rows{t.row});
            tile_load(t.k[next % 2], k + column, map.k_stride,
                      kept_rows{kept, span.first, slots, span.keep});
        }
        gpu_copy_commit();
        float s[8][4], lse2[2];
#pragma unroll
        for (int half = 0; half < 2; half++)
            lse2[half] =
                row[half] < 0 ? 0.0f : map.lse[head * map.lse_stride + row[half]] * TILE_LOG2E;
        uint32_t queries[4][4];
        tile_rows(queries, t.q[step % 2]);
        tile_scores(s, queries, t.k[step % 2]);
#pragma unroll
        for (int n = 0; n < 8; n++)
#pragma unroll
            for (int i = 0; i < 4; i++)
                p[n][i] = (head == 0 ? 0.0f : p[n][i]) + exp2f(s[n][i] * TILE_SCALE2 - lse2[i / 2]);
        if (head == map.heads - 1)
            offer(best, p, slot0, span.keep);
    }
    gpu_copy_wait<0>();
#pragma unroll
    for (int half = 0; half < 2; half++) {
        best_merge(best[half], 4);
        if ((threadIdx.x & 3) == 0 && row[half] >= 0)
            source[row[half]] = best[half].slot < 0 ? 0 : best[half].slot;
    }
}

template <class T>
cudaError_t source64(const int32_t *kept, int32_t *source, const atedm_source_map *map,
                     const atedm_cuda_prune_spans *spans, int64_t most, cudaStream_t stream)
{
    return GPU_LAUNCH((source64_kernel<T>), dim3(gpu_blocks(most, TILE), (unsigned)spans->n),
                      dim3(TILE_THREADS), sizeof(tiles<T>), stream, kept, source, *map, *spans);
}

} // namespace

cudaError_t atedm_cuda_launch_source_attention64(atedm_dtype act, const int32_t *kept,
                                                 int32_t *source, const atedm_source_map *map,
                                                 const atedm_cuda_prune_spans *spans,
                                                 cudaStream_t stream)
{
    int64_t most = most_pruned(spans);
    if (!most)
        return cudaSuccess;
    return act == ATEDM_BF16 ? source64<gpu_bf16>(kept, source, map, spans, most, stream)
                             : source64<gpu_f16>(kept, source, map, spans, most, stream);
}
