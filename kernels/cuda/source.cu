// Where each pruned token will take its value from: the own slots of kept tokens, and for pruned
// ones the nearest kept token in the grid, or the most similar one by attention or cosine.
// source64.cu has the fast paths.
//
// The attention map is not stored. A block sums it over the heads for a tile of pruned and kept
// tokens, and keeps the largest entry of each pruned token.
#include "kernels/cuda/plain_tile.cuh"
#include "kernels/cuda/pruned.cuh"

namespace
{

constexpr int THREADS = 128;

__global__ void __launch_bounds__(THREADS)
    own_kernel(const int32_t *kept, int32_t *source,
               const __grid_constant__ atedm_cuda_prune_spans spans)
{
    const atedm_prune_span &span = spans.span[blockIdx.y];
    int64_t i = (int64_t)blockIdx.x * THREADS + threadIdx.x;
    if (i < span.n)
        source[span.first + i] = kept_slot(kept + span.kept_first, span.keep, i);
}

__global__ void __launch_bounds__(THREADS)
    nearest_kernel(const int32_t *kept, int32_t *source, const int32_t *place, int64_t width,
                   const __grid_constant__ atedm_cuda_prune_spans spans)
{
    const atedm_prune_span &span = spans.span[blockIdx.y];
    int64_t number = (int64_t)blockIdx.x * THREADS + threadIdx.x;
    if (number >= span.n - span.keep)
        return;
    kept += span.kept_first;
    place += span.first;
    int64_t i = pruned_position(kept, span.keep, number), least = INT64_MAX;
    int32_t nearest = 0;
    for (int64_t slot = 0; slot < span.keep; slot++) {
        int64_t dy = place[i] / width - place[kept[slot]] / width;
        int64_t dx = place[i] % width - place[kept[slot]] % width;
        if (dy * dy + dx * dx < least) {
            least = dy * dy + dx * dx;
            nearest = (int32_t)slot;
        }
    }
    source[span.first + i] = nearest;
}

// Names the rows of the pruned tokens from number `first` on.
GPU_FN void name_pruned(plain_tiles &tiles, const int32_t *kept, const atedm_prune_span &span,
                        int64_t first)
{
    for (int i = threadIdx.x; i < PLAIN_ROWS; i += PLAIN_THREADS)
        tiles.row[i] = first + i < span.n - span.keep
                           ? span.first + pruned_position(kept, span.keep, first + i)
                           : -1;
}

// Names the rows of the kept tokens from slot `first` on.
GPU_FN void name_kept(plain_tiles &tiles, const int32_t *kept, const atedm_prune_span &span,
                      int64_t first)
{
    for (int i = threadIdx.x; i < PLAIN_COLUMNS; i += PLAIN_THREADS)
        tiles.column[i] = first + i < span.keep ? span.first + kept[first + i] : -1;
}

// Writes the best slots. If nothing was comparable (NaN, for instance), the first slot is used.
GPU_FN void store_best(plain_tiles &tiles, best_slot best, int32_t *source)
{
    best_merge(best, 8);
    int64_t row = tiles.row[threadIdx.x / 8];
    if (threadIdx.x % 8 == 0 && row >= 0)
        source[row] = best.slot < 0 ? 0 : best.slot;
}

// A block searches for 16 pruned tokens of a span.
template <class T>
__global__ void __launch_bounds__(PLAIN_THREADS, PLAIN_BLOCKS)
    attention_kernel(const int32_t *kept, int32_t *source,
                     const __grid_constant__ atedm_source_map map,
                     const __grid_constant__ atedm_cuda_prune_spans spans)
{
    const atedm_prune_span &span = spans.span[blockIdx.y];
    int64_t first = (int64_t)blockIdx.x * PLAIN_ROWS;
    if (first >= span.n - span.keep)
        return;
    kept += span.kept_first;
    plain_tiles &tiles = *gpu_shared<plain_tiles>();
    float scale = 1.0f / sqrtf((float)map.head_dim);
    best_slot best = {-INFINITY, -1};
    name_pruned(tiles, kept, span, first);
    for (int64_t slot0 = 0; slot0 < span.keep; slot0 += PLAIN_COLUMNS) {
        float sums[4] = {};
        __syncthreads();
        name_kept(tiles, kept, span, slot0);
        for (int head = 0; head < map.heads; head++) {
            int64_t column = (int64_t)head * map.head_dim;
            float s[4];
            plain_scores(tiles,
                         plain_matrix<T>{static_cast<const T *>(map.q) + column, map.q_stride},
                         plain_matrix<T>{static_cast<const T *>(map.k) + column, map.k_stride},
                         map.head_dim, s);
            int64_t row = tiles.row[threadIdx.x / 8];
            float lse = row >= 0 ? map.lse[head * map.lse_stride + row] : 0.0f;
#pragma unroll
            for (int j = 0; j < 4; j++)
                sums[j] += expf(s[j] * scale - lse);
        }
#pragma unroll
        for (int j = 0; j < 4; j++) {
            int64_t slot = slot0 + threadIdx.x % 8 + 8 * j;
            if (slot < span.keep)
                best_offer(best, sums[j], (int32_t)slot);
        }
    }
    store_best(tiles, best, source);
}

template <class T>
cudaError_t attention(const int32_t *kept, int32_t *source, const atedm_source_map *map,
                      const atedm_cuda_prune_spans *spans, int64_t most, cudaStream_t stream)
{
    return GPU_LAUNCH((attention_kernel<T>), dim3(gpu_blocks(most, PLAIN_ROWS), (unsigned)spans->n),
                      dim3(PLAIN_THREADS), sizeof(plain_tiles), stream, kept, source, *map, *spans);
}

// A warp computes 1 / length of a kept token's row, or 0 if the length is 0.
template <class T>
__global__ void __launch_bounds__(THREADS)
    norms_kernel(const int32_t *kept, const __grid_constant__ atedm_cuda_cosine cosine,
                 const __grid_constant__ atedm_cuda_prune_spans spans)
{
    const atedm_prune_span &span = spans.span[blockIdx.y];
    int64_t slot = (int64_t)blockIdx.x * (THREADS / 32) + threadIdx.x / 32;
    if (slot >= span.keep)
        return;
    const T *x =
        static_cast<const T *>(cosine.x) + (span.first + kept[span.kept_first + slot]) * cosine.c;
    float sum = 0;
    for (int64_t i = threadIdx.x % 32; i < cosine.c; i += 32)
        sum += gpu_load(x[i]) * gpu_load(x[i]);
    sum = gpu_warp_sum(sum);
    if (threadIdx.x % 32 == 0)
        cosine.norms[span.kept_first + slot - cosine.first_slot] =
            sum == 0.0f ? 0.0f : 1.0f / sqrtf(sum);
}

// A block searches for 16 pruned tokens of a span. The tokens' own lengths do not change which slot
// is the most similar, so they are left out.
template <class T>
__global__ void __launch_bounds__(PLAIN_THREADS, PLAIN_BLOCKS)
    cosine_kernel(const int32_t *kept, int32_t *source,
                  const __grid_constant__ atedm_cuda_cosine cosine,
                  const __grid_constant__ atedm_cuda_prune_spans spans)
{
    const atedm_prune_span &span = spans.span[blockIdx.y];
    int64_t first = (int64_t)blockIdx.x * PLAIN_ROWS;
    if (first >= span.n - span.keep)
        return;
    kept += span.kept_first;
    const float *norms = cosine.norms + (span.kept_first - cosine.first_slot);
    const plain_matrix<T> rows = {static_cast<const T *>(cosine.x), cosine.c};
    plain_tiles &tiles = *gpu_shared<plain_tiles>();
    best_slot best = {-INFINITY, -1};
    name_pruned(tiles, kept, span, first);
    for (int64_t slot0 = 0; slot0 < span.keep; slot0 += PLAIN_COLUMNS) {
        float s[4];
        __syncthreads();
        name_kept(tiles, kept, span, slot0);
        plain_scores(tiles, rows, rows, cosine.c, s);
#pragma unroll
        for (int j = 0; j < 4; j++) {
            int64_t slot = slot0 + threadIdx.x % 8 + 8 * j;
            if (slot < span.keep)
                best_offer(best, s[j] * norms[slot], (int32_t)slot);
        }
    }
    store_best(tiles, best, source);
}

template <class T>
cudaError_t norms(const int32_t *kept, const atedm_cuda_cosine *cosine,
                  const atedm_cuda_prune_spans *spans, cudaStream_t stream)
{
    return GPU_LAUNCH((norms_kernel<T>),
                      dim3(gpu_blocks(most_kept(spans), THREADS / 32), (unsigned)spans->n),
                      dim3(THREADS), 0, stream, kept, *cosine, *spans);
}

template <class T>
cudaError_t cosine(const int32_t *kept, int32_t *source, const atedm_cuda_cosine *cosine,
                   const atedm_cuda_prune_spans *spans, int64_t most, cudaStream_t stream)
{
    return GPU_LAUNCH((cosine_kernel<T>), dim3(gpu_blocks(most, PLAIN_ROWS), (unsigned)spans->n),
                      dim3(PLAIN_THREADS), sizeof(plain_tiles), stream, kept, source, *cosine,
                      *spans);
}

// Bit j of the result says whether token first + 32 j + lane belongs to the slot. All loads are in
// flight at once. To make that possible, those after the end read the last token.
constexpr int LOADS = 8;
GPU_FN unsigned tokens_of_slot(const int32_t *source, int32_t n, int32_t first, int32_t slot)
{
    int32_t of[LOADS], i = first + threadIdx.x % 32;
    unsigned mine = 0;
#pragma unroll
    for (int j = 0; j < LOADS; j++)
        of[j] = source[min(i + 32 * j, n - 1)];
#pragma unroll
    for (int j = 0; j < LOADS; j++)
        mine |= (unsigned)(of[j] == slot && i + 32 * j < n) << j;
    return mine;
}

// A warp adds up a slot's weight over the tokens, in their order. Few tokens belong to one slot, so
// most cost only the comparison.
__global__ void __launch_bounds__(THREADS)
    weights_kernel(const int32_t *source, const float *before, float *weights,
                   const __grid_constant__ atedm_cuda_prune_spans spans)
{
    const atedm_prune_span &span = spans.span[blockIdx.y];
    int32_t slot = blockIdx.x * (THREADS / 32) + threadIdx.x / 32, n = (int32_t)span.n;
    if (slot >= span.keep)
        return;
    float sum = 0;
    for (int32_t first = 0; first < n; first += 32 * LOADS) {
        unsigned mine = tokens_of_slot(source + span.first, n, first, slot);
        if (!__ballot_sync(0xffffffffu, mine != 0))
            continue;
#pragma unroll 1
        for (int j = 0; j < LOADS; j++)
            for (unsigned left = __ballot_sync(0xffffffffu, mine >> j & 1); left; left &= left - 1)
                sum += before ? expf(before[span.first + first + 32 * j + __ffs((int)left) - 1])
                              : 1.0f;
    }
    if (threadIdx.x % 32 == 0)
        weights[span.kept_first + slot] = logf(sum);
}

} // namespace

cudaError_t atedm_cuda_launch_source_own(const int32_t *kept, int32_t *source,
                                         const atedm_cuda_prune_spans *spans, cudaStream_t stream)
{
    int64_t most = 1;
    for (int32_t i = 0; i < spans->n; i++)
        most = spans->span[i].n > most ? spans->span[i].n : most;
    return GPU_LAUNCH(own_kernel, dim3(gpu_blocks(most, THREADS), (unsigned)spans->n),
                      dim3(THREADS), 0, stream, kept, source, *spans);
}

cudaError_t atedm_cuda_launch_source_nearest(const int32_t *kept, int32_t *source,
                                             const int32_t *place, int64_t width,
                                             const atedm_cuda_prune_spans *spans,
                                             cudaStream_t stream)
{
    int64_t most = most_pruned(spans);
    if (!most)
        return cudaSuccess;
    return GPU_LAUNCH(nearest_kernel, dim3(gpu_blocks(most, THREADS), (unsigned)spans->n),
                      dim3(THREADS), 0, stream, kept, source, place, width, *spans);
}

cudaError_t atedm_cuda_launch_source_attention(atedm_dtype act, const int32_t *kept,
                                               int32_t *source, const atedm_source_map *map,
                                               const atedm_cuda_prune_spans *spans,
                                               cudaStream_t stream)
{
    int64_t most = most_pruned(spans);
    if (!most)
        return cudaSuccess;
    return GPU_FOR_ACT(act, attention, kept, source, map, spans, most, stream);
}

cudaError_t atedm_cuda_launch_source_norms(atedm_dtype act, const int32_t *kept,
                                           const atedm_cuda_cosine *cosine,
                                           const atedm_cuda_prune_spans *spans, cudaStream_t stream)
{
    return GPU_FOR_ACT(act, norms, kept, cosine, spans, stream);
}

cudaError_t atedm_cuda_launch_source_cosine(atedm_dtype act, const int32_t *kept, int32_t *source,
                                            const atedm_cuda_cosine *similarity,
                                            const atedm_cuda_prune_spans *spans,
                                            cudaStream_t stream)
{
    int64_t most = most_pruned(spans);
    if (!most)
        return cudaSuccess;
    return GPU_FOR_ACT(act, cosine, kept, source, similarity, spans, most, stream);
}

cudaError_t atedm_cuda_launch_source_weights(const int32_t *source, const float *before,
                                             float *weights, const atedm_cuda_prune_spans *spans,
                                             cudaStream_t stream)
{
    return GPU_LAUNCH(weights_kernel,
                      dim3(gpu_blocks(most_kept(spans), THREADS / 32), (unsigned)spans->n),
                      dim3(THREADS), 0, stream, source, before, weights, *spans);
}
