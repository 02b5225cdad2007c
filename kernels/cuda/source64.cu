// The most similar kept token by attention, with heads of 64, on tensor cores: see source.cu. A
// block has 64 pruned and 64 kept tokens of a span and walks over the heads, with the next heads'
// tiles on their way. What it finds goes to scratch; a second kernel takes the best of a pruned
// token's.
#include "kernels/cuda/pruned.cuh"
#include "kernels/cuda/tile64.cuh"

namespace
{

constexpr int STAGES = 3;

template <class T> struct tiles {
    T q[STAGES][TILE_ELEMENTS], k[STAGES][TILE_ELEMENTS];
    int64_t pruned[TILE], kept[TILE]; // rows; -1: none
};

// Where the best of each tile of kept tokens stands: [spans, tiles, pruned], as long as the longest
// span's.
struct found_place {
    best_slot *found;
    int64_t n_tiles, n_pruned;
    GPU_FN best_slot *at(int64_t span, int64_t tile, int64_t number) const
    {
        return found + (span * n_tiles + tile) * n_pruned + number;
    }
};

struct named_rows {
    const int64_t *row;
    GPU_FN int64_t operator()(int i) const
    {
        return row[i];
    }
};

// Names the rows of the pruned tokens from number `first` on, and of the kept ones from slot0 on.
template <class T>
GPU_FN void name_rows(tiles<T> &t, const int32_t *kept, const atedm_prune_span &span, int64_t first,
                      int64_t slot0)
{
    int64_t i = threadIdx.x % TILE, number = first + i, slot = slot0 + i;
    if (threadIdx.x < TILE)
        t.pruned[i] = number < span.n - span.keep
                          ? span.first + pruned_position(kept, span.keep, number)
                          : -1;
    else
        t.kept[i] = slot < span.keep ? span.first + kept[slot] : -1;
}

// Starts to load a head's tiles; behind the last head there is nothing to load.
template <class T> GPU_FN void load_head(tiles<T> &t, const atedm_source_map &map, int64_t head)
{
    if (head < map.heads) {
        int64_t stage = head % STAGES, column = head * TILE;
        tile_load(t.q[stage], static_cast<const T *>(map.q) + column, map.q_stride,
                  named_rows{t.pruned});
        tile_load(t.k[stage], static_cast<const T *>(map.k) + column, map.k_stride,
                  named_rows{t.kept});
    }
    gpu_copy_commit();
}

// A head's log-sum-exp of the thread's two rows, to base 2.
GPU_FN void load_lse(float (&lse2)[2], const atedm_source_map &map, int64_t head,
                     const int64_t (&row)[2])
{
#pragma unroll
    for (int half = 0; half < 2; half++)
        lse2[half] = row[half] < 0 || head >= map.heads
                         ? 0.0f
                         : map.lse[head * map.lse_stride + row[half]] * TILE_LOG2E;
}

// Sums attention over the heads, laid out as tile_scores does.
template <class T>
GPU_FN void sum_heads(float (&p)[8][4], tiles<T> &t, const atedm_source_map &map,
                      const int64_t (&row)[2])
{
    float lse2[2], next_lse2[2];
    load_lse(lse2, map, 0, row);
#pragma unroll
    for (int head = 0; head < STAGES - 1; head++)
        load_head(t, map, head);
    for (int64_t head = 0; head < map.heads; head++) {
        load_lse(next_lse2, map, head + 1, row);
        gpu_copy_wait<STAGES - 2>();
        __syncthreads(); // this head's tiles are there, and nobody reads the last one's any more
        load_head(t, map, head + STAGES - 1);
        float s[8][4];
        uint32_t queries[4][4];
        tile_rows(queries, t.q[head % STAGES]);
        tile_scores(s, queries, t.k[head % STAGES]);
#pragma unroll
        for (int n = 0; n < 8; n++)
#pragma unroll
            for (int i = 0; i < 4; i++)
                p[n][i] += gpu_exp2(fmaf(s[n][i], TILE_SCALE2, -lse2[i / 2]));
        lse2[0] = next_lse2[0];
        lse2[1] = next_lse2[1];
    }
    gpu_copy_wait<0>();
}

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
__global__ void __launch_bounds__(TILE_THREADS, 4)
    source64_kernel(const int32_t *kept, found_place place,
                    const __grid_constant__ atedm_source_map map,
                    const __grid_constant__ atedm_cuda_prune_spans spans)
{
    const atedm_prune_span &span = spans.span[blockIdx.z];
    int64_t first = (int64_t)blockIdx.x * TILE, slot0 = (int64_t)blockIdx.y * TILE;
    if (first >= span.n - span.keep || slot0 >= span.keep)
        return;
    tiles<T> &t = *gpu_shared<tiles<T>>();
    name_rows(t, kept + span.kept_first, span, first, slot0);
    __syncthreads();
    int mine = (threadIdx.x >> 5) * 16 + (threadIdx.x & 31) / 4;
    const int64_t row[2] = {t.pruned[mine], t.pruned[mine + 8]};
    float p[8][4] = {};
    sum_heads(p, t, map, row);
    best_slot best[2] = {{-INFINITY, -1}, {-INFINITY, -1}};
    offer(best, p, slot0, span.keep);
#pragma unroll
    for (int half = 0; half < 2; half++) {
        best_merge(best[half], 4);
        if ((threadIdx.x & 3) == 0 && row[half] >= 0)
            *place.at(blockIdx.z, blockIdx.y, first + mine + half * 8) = best[half];
    }
}

// Thread: a pruned token. Where nothing was comparable, the first slot does.
__global__ void __launch_bounds__(TILE_THREADS)
    best_kernel(const int32_t *kept, found_place place, int32_t *source,
                const __grid_constant__ atedm_cuda_prune_spans spans)
{
    const atedm_prune_span &span = spans.span[blockIdx.y];
    int64_t number = (int64_t)blockIdx.x * TILE_THREADS + threadIdx.x;
    if (number >= span.n - span.keep)
        return;
    best_slot best = {-INFINITY, -1};
#pragma unroll 4
    for (int64_t tile = 0; tile * TILE < span.keep; tile++) {
        best_slot found = *place.at(blockIdx.y, tile, number);
        best_offer(best, found.similarity, found.slot);
    }
    source[span.first + pruned_position(kept + span.kept_first, span.keep, number)] =
        best.slot < 0 ? 0 : best.slot;
}

int64_t most_tiles(const atedm_cuda_prune_spans *spans)
{
    return (most_kept(spans) + TILE - 1) / TILE;
}

template <class T>
cudaError_t source64(const int32_t *kept, int32_t *source, const atedm_source_map *map,
                     const found_place &place, const atedm_cuda_prune_spans *spans,
                     cudaStream_t stream)
{
    unsigned n = (unsigned)spans->n;
    cudaError_t error = GPU_LAUNCH(
        (source64_kernel<T>), dim3(gpu_blocks(place.n_pruned, TILE), (unsigned)place.n_tiles, n),
        dim3(TILE_THREADS), sizeof(tiles<T>), stream, kept, place, *map, *spans);
    if (error)
        return error;
    return GPU_LAUNCH(best_kernel, dim3(gpu_blocks(place.n_pruned, TILE_THREADS), n),
                      dim3(TILE_THREADS), 0, stream, kept, place, source, *spans);
}

} // namespace

int64_t atedm_cuda_source64_scratch(const atedm_cuda_prune_spans *spans)
{
    return spans->n * most_tiles(spans) * most_pruned(spans) * (int64_t)sizeof(best_slot);
}

cudaError_t atedm_cuda_launch_source_attention64(atedm_dtype act, const int32_t *kept,
                                                 int32_t *source, const atedm_source_map *map,
                                                 void *scratch, const atedm_cuda_prune_spans *spans,
                                                 cudaStream_t stream)
{
    found_place place = {static_cast<best_slot *>(scratch), most_tiles(spans), most_pruned(spans)};
    if (!place.n_pruned)
        return cudaSuccess;
    return act == ATEDM_BF16 ? source64<gpu_bf16>(kept, source, map, place, spans, stream)
                             : source64<gpu_f16>(kept, source, map, place, spans, stream);
}
