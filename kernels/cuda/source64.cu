// The search for the most similar kept token on tensor cores, by attention with heads of 64, or by
// cosine over channels by 64; the method is in source.cu.
//
// A block compares 64 pruned with 64 kept tokens of a span. It goes over the heads, or over 64
// channels at a time, adding up similarities in registers. cp.async loads the next parts' tiles
// through three stages, with one barrier for each part. The block writes each pruned token's best
// slot among its kept ones to scratch memory. A second kernel takes the best over all blocks.
#include "kernels/cuda/pruned.cuh"
#include "kernels/cuda/tile64.cuh"

namespace
{

constexpr int STAGES = 3;

template <class T> struct tiles {
    T q[STAGES][TILE_ELEMENTS], k[STAGES][TILE_ELEMENTS];
    int32_t pruned[TILE], kept[TILE]; // positions in the span; -1: none
};

// The best slot of each pruned token in each tile of kept tokens: [spans, tiles, pruned], with the
// sizes of the longest span.
struct found_place {
    best_slot *found;
    int64_t n_tiles, n_pruned;
    GPU_FN best_slot *at(int64_t span, int64_t tile, int64_t number) const
    {
        return found + (span * n_tiles + tile) * n_pruned + number;
    }
};

// Finds the positions of the pruned tokens from number `first` on, and of the kept ones from slot0
// on.
template <class T>
GPU_FN void find_positions(tiles<T> &t, const int32_t *kept, const atedm_prune_span &span,
                           int64_t first, int64_t slot0)
{
    int64_t i = threadIdx.x % TILE, number = first + i, slot = slot0 + i;
    if (threadIdx.x < TILE)
        t.pruned[i] =
            number < span.n - span.keep ? (int32_t)pruned_position(kept, span.keep, number) : -1;
    else
        t.kept[i] = slot < span.keep ? kept[slot] : -1;
}

// A span's rows, from its first on, which are compared in n parts of 64 columns each.
template <class T> struct compared {
    const T *q, *k;
    int64_t q_stride, k_stride, n;
};

// The vectors of a tile that a thread loads: where each begins in the first part, in vectors from
// the span's first row. They are found once, because the parts' rows are the same.
constexpr int LOADS = TILE * TILE_VECTORS / TILE_THREADS;
constexpr uint32_t NOWHERE = UINT32_MAX; // of a token that is none, which is loaded as zeros
struct places {
    uint32_t at[LOADS];
};

GPU_FN int tile_row(int load)
{
    return (load * TILE_THREADS + (int)threadIdx.x) / TILE_VECTORS;
}

GPU_FN places find_places(const int32_t (&positions)[TILE], int64_t stride)
{
    places p;
#pragma unroll
    for (int i = 0; i < LOADS; i++) {
        int position = positions[tile_row(i)];
        p.at[i] = position < 0
                      ? NOWHERE
                      : (uint32_t)position * (uint32_t)(stride / 8) + threadIdx.x % TILE_VECTORS;
    }
    return p;
}

template <class T> GPU_FN void load_tile(T *tile, const T *matrix, const places &p)
{
#pragma unroll
    for (int i = 0; i < LOADS; i++) {
        bool is_there = p.at[i] != NOWHERE;
        gpu_copy_16(tile + tile_at(tile_row(i), (int)threadIdx.x % TILE_VECTORS),
                    matrix + (is_there ? (size_t)p.at[i] * 8 : 0), is_there);
    }
}

// Starts to load a part's tiles. After the last part it loads nothing.
template <class T>
GPU_FN void load_part(tiles<T> &t, const compared<T> &rows, const places &q, const places &k,
                      int64_t part)
{
    if (part < rows.n) {
        int64_t stage = part % STAGES, column = part * TILE;
        load_tile(t.q[stage], rows.q + column, q);
        load_tile(t.k[stage], rows.k + column, k);
    }
    gpu_copy_commit();
}

// Calls add(products, part) for each part in turn. The products have the layout of tile_scores.
template <class T, class ADD> GPU_FN void walk_parts(tiles<T> &t, const compared<T> &rows, ADD add)
{
    const places q = find_places(t.pruned, rows.q_stride), k = find_places(t.kept, rows.k_stride);
#pragma unroll
    for (int part = 0; part < STAGES - 1; part++)
        load_part(t, rows, q, k, part);
    for (int64_t part = 0; part < rows.n; part++) {
        gpu_copy_wait<STAGES - 2>();
        __syncthreads(); // this part's tiles are there, and no warp reads the last one's any more
        load_part(t, rows, q, k, part + STAGES - 1);
        float s[8][4];
        uint32_t queries[4][4];
        tile_rows(queries, t.q[part % STAGES]);
        tile_scores(s, queries, t.k[part % STAGES]);
        add(s, part);
    }
    gpu_copy_wait<0>();
}

// Loads a head's log-sum-exp of the thread's two rows, to base 2.
GPU_FN void load_lse(float (&lse2)[2], const atedm_source_map &map, int64_t head,
                     const int64_t (&row)[2])
{
#pragma unroll
    for (int half = 0; half < 2; half++)
        lse2[half] = row[half] < 0 || head >= map.heads
                         ? 0.0f
                         : map.lse[head * map.lse_stride + row[half]] * TILE_LOG2E;
}

// Similarity by attention, summed over the heads.
struct by_attention {
    atedm_source_map map;

    template <class T>
    GPU_FN void sum(float (&p)[8][4], tiles<T> &t, int64_t first, const int64_t (&row)[2]) const
    {
        float lse2[2];
        load_lse(lse2, map, 0, row);
        const compared<T> rows = {static_cast<const T *>(map.q) + first * map.q_stride,
                                  static_cast<const T *>(map.k) + first * map.k_stride,
                                  map.q_stride, map.k_stride, map.heads};
        walk_parts(t, rows, [&](const float(&s)[8][4], int64_t head) {
#pragma unroll
            for (int n = 0; n < 8; n++)
#pragma unroll
                for (int i = 0; i < 4; i++)
                    p[n][i] += gpu_exp2(fmaf(s[n][i], TILE_SCALE2, -lse2[i / 2]));
            load_lse(lse2, map, head + 1, row);
        });
    }

    GPU_FN float factor(int64_t) const
    {
        return 1.0f;
    }
};

// Similarity by cosine, over c channels. The pruned token's own length does not change which slot
// is the most similar, so it is left out.
struct by_cosine {
    atedm_cuda_cosine of;

    template <class T>
    GPU_FN void sum(float (&p)[8][4], tiles<T> &t, int64_t first, const int64_t (&)[2]) const
    {
        const T *x = static_cast<const T *>(of.x) + first * of.c;
        walk_parts(t, compared<T>{x, x, of.c, of.c, of.c / TILE},
                   [&](const float(&s)[8][4], int64_t) {
#pragma unroll
                       for (int n = 0; n < 8; n++)
#pragma unroll
                           for (int i = 0; i < 4; i++)
                               p[n][i] += s[n][i];
                   });
    }

    GPU_FN float factor(int64_t entry) const
    {
        return of.norms[entry - of.first_slot];
    }
};

// Offers a tile of similarities, the thread's two rows of it, to the best so far.
template <class BY>
GPU_FN void offer(best_slot (&best)[2], const float (&p)[8][4], int64_t slot0,
                  const atedm_prune_span &span, const BY &by)
{
    int lane = threadIdx.x & 31;
#pragma unroll
    for (int n = 0; n < 8; n++)
#pragma unroll
        for (int i = 0; i < 4; i++) {
            int64_t slot = slot0 + n * 8 + lane % 4 * 2 + i % 2;
            if (slot < span.keep)
                best_offer(best[i / 2], p[n][i] * by.factor(span.kept_first + slot), (int32_t)slot);
        }
}

template <class T, class BY>
__global__ void __launch_bounds__(TILE_THREADS, 4)
    source64_kernel(const int32_t *kept, found_place place, const __grid_constant__ BY by,
                    const __grid_constant__ atedm_cuda_prune_spans spans)
{
    const atedm_prune_span &span = spans.span[blockIdx.z];
    int64_t first = (int64_t)blockIdx.x * TILE, slot0 = (int64_t)blockIdx.y * TILE;
    if (first >= span.n - span.keep || slot0 >= span.keep)
        return;
    tiles<T> &t = *gpu_shared<tiles<T>>();
    find_positions(t, kept + span.kept_first, span, first, slot0);
    __syncthreads();
    int mine = (threadIdx.x >> 5) * 16 + (threadIdx.x & 31) / 4;
    int64_t row[2]; // -1: none
#pragma unroll
    for (int half = 0; half < 2; half++) {
        int position = t.pruned[mine + half * 8];
        row[half] = position < 0 ? -1 : span.first + position;
    }
    float p[8][4] = {};
    by.template sum<T>(p, t, span.first, row);
    best_slot best[2] = {{-INFINITY, -1}, {-INFINITY, -1}};
    offer(best, p, slot0, span, by);
#pragma unroll
    for (int half = 0; half < 2; half++) {
        best_merge(best[half], 4);
        if ((threadIdx.x & 3) == 0 && row[half] >= 0)
            *place.at(blockIdx.z, blockIdx.y, first + mine + half * 8) = best[half];
    }
}

// A thread takes the best slot of one pruned token. If nothing was comparable (NaN, for instance),
// the first slot is used.
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

template <class T, class BY>
cudaError_t source64(const int32_t *kept, int32_t *source, const BY &by, const found_place &place,
                     const atedm_cuda_prune_spans *spans, cudaStream_t stream)
{
    unsigned n = (unsigned)spans->n;
    cudaError_t error =
        GPU_LAUNCH((source64_kernel<T, BY>),
                   dim3(gpu_blocks(place.n_pruned, TILE), (unsigned)place.n_tiles, n),
                   dim3(TILE_THREADS), sizeof(tiles<T>), stream, kept, place, by, *spans);
    if (error)
        return error;
    return GPU_LAUNCH(best_kernel, dim3(gpu_blocks(place.n_pruned, TILE_THREADS), n),
                      dim3(TILE_THREADS), 0, stream, kept, place, source, *spans);
}

// `stride`: the larger one, of the rows that are compared.
template <class BY>
cudaError_t launch(atedm_dtype act, const int32_t *kept, int32_t *source, const BY &by,
                   int64_t stride, void *scratch, const atedm_cuda_prune_spans *spans,
                   cudaStream_t stream)
{
    for (int32_t i = 0; i < spans->n; i++)
        if (spans->span[i].n > NOWHERE / (stride / 8)) // 64 GiB of one sample
            return cudaErrorInvalidValue;
    found_place place = {static_cast<best_slot *>(scratch), most_tiles(spans), most_pruned(spans)};
    if (!place.n_pruned)
        return cudaSuccess;
    return act == ATEDM_BF16 ? source64<gpu_bf16>(kept, source, by, place, spans, stream)
                             : source64<gpu_f16>(kept, source, by, place, spans, stream);
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
    int64_t stride = map->q_stride > map->k_stride ? map->q_stride : map->k_stride;
    return launch(act, kept, source, by_attention{*map}, stride, scratch, spans, stream);
}

bool atedm_cuda_is_cosine64(atedm_dtype act, const void *x, int64_t c)
{
    return act != ATEDM_F32 && c % TILE == 0 && tile_rows_align(&x, &c, 1);
}

cudaError_t atedm_cuda_launch_source_cosine64(atedm_dtype act, const int32_t *kept, int32_t *source,
                                              const atedm_cuda_cosine *cosine, void *scratch,
                                              const atedm_cuda_prune_spans *spans,
                                              cudaStream_t stream)
{
    return launch(act, kept, source, by_cosine{*cosine}, cosine->c, scratch, spans, stream);
}
