// Which tokens are kept: random scores, and the selection of the largest scores. Both are exact and
// the same on every backend, except for random scores with weights.
//
// A block selects for one span. It finds the score of the worst kept token by a radix search, eight
// bits at a time, with histograms in shared memory. Then it writes the kept tokens in order.
#include "kernels/cuda/gpu.cuh"

namespace
{

constexpr int THREADS = 256, BINS = 256;
constexpr int SELECT_THREADS = 1024, WARPS = SELECT_THREADS / 32; // one block for each span

// Output i of SplitMix64 started at key: see kernels.h.
GPU_FN uint64_t split_mix(uint64_t key, uint64_t i)
{
    uint64_t z = key + (i + 1) * 0x9e3779b97f4a7c15u;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
}

__global__ void __launch_bounds__(THREADS)
    random_kernel(const uint64_t *draws, const float *weights, float *scores,
                  const __grid_constant__ atedm_cuda_random_spans spans)
{
    const atedm_random_span &span = spans.span[blockIdx.y];
    int64_t i = (int64_t)blockIdx.x * THREADS + threadIdx.x;
    if (i >= span.n)
        return;
    uint64_t v = split_mix(split_mix(draws[span.draw], span.salt), (uint64_t)i);
    float u = ((float)(v >> 41) + 0.5f) * 0x1p-23f; // exact
    scores[span.first + i] = weights ? weights[span.first + i] / -logf(u) : u;
}

// A number in the order of the scores: larger is better, NaN is the smallest, and both zeros are
// equal.
GPU_FN uint32_t sort_key(float score)
{
    if (score != score)
        return 0;
    uint32_t bits = score == 0.0f ? 0 : __float_as_uint(score);
    return bits & 0x80000000u ? ~bits : bits | 0x80000000u;
}

struct selection {
    uint32_t bins[BINS];
    uint32_t key;          // of the worst token that is kept
    uint32_t equals;       // how many tokens with that key are kept: the first ones
    uint32_t warps[WARPS]; // a count of each warp
};

// Finds the bin of the worst kept token, and subtracts the tokens in higher bins from the number
// still to be kept. Thread i looks at the i-th bin from the top.
GPU_FN void pick_bin(selection &s, int shift)
{
    unsigned lane = threadIdx.x & 31, warp = threadIdx.x >> 5, bin = BINS - 1 - threadIdx.x;
    uint32_t left = s.equals, mine = threadIdx.x < BINS ? s.bins[bin] : 0, sum = mine;
#pragma unroll
    for (unsigned by = 1; by < 32; by *= 2) {
        uint32_t before = __shfl_up_sync(0xffffffffu, sum, by);
        sum += lane < by ? 0 : before;
    }
    if (lane == 31)
        s.warps[warp] = sum;
    __syncthreads();
    if (threadIdx.x >= BINS)
        return;
    for (unsigned w = 0; w < warp; w++)
        sum += s.warps[w];
    if (sum - mine < left && left <= sum) {
        s.key |= bin << shift;
        s.equals = left - (sum - mine);
    }
}

// Finds the key of the worst of the `keep` best tokens, eight bits at a time from the top.
GPU_FN void find_key(const float *scores, int64_t n, int64_t keep, selection &s)
{
    uint32_t known = 0;
    if (threadIdx.x == 0) {
        s.key = 0;
        s.equals = (uint32_t)keep;
    }
    for (int shift = 24; shift >= 0; shift -= 8) {
        if (threadIdx.x < BINS)
            s.bins[threadIdx.x] = 0;
        __syncthreads();
        uint32_t key = s.key;
        for (int64_t i = threadIdx.x; i < n; i += SELECT_THREADS) {
            uint32_t mine = sort_key(scores[i]);
            if ((mine & known) == key)
                atomicAdd(&s.bins[mine >> shift & (BINS - 1)], 1u);
        }
        __syncthreads();
        pick_bin(s, shift);
        __syncthreads();
        known |= (uint32_t)(BINS - 1) << shift;
    }
}

// Returns how many threads before this one have the flag, and in *ret_all how many have it in all.
GPU_FN uint32_t rank_of_flag(bool flag, selection &s, uint32_t *ret_all)
{
    unsigned lane = threadIdx.x & 31, warp = threadIdx.x >> 5;
    unsigned mask = __ballot_sync(0xffffffffu, flag);
    __syncthreads(); // all threads have read the previous call's counts
    if (lane == 0)
        s.warps[warp] = (uint32_t)__popc(mask);
    __syncthreads();
    uint32_t before = (uint32_t)__popc(mask & ((1u << lane) - 1)), all = 0;
    for (unsigned w = 0; w < WARPS; w++) {
        before += w < warp ? s.warps[w] : 0;
        all += s.warps[w];
    }
    *ret_all = all;
    return before;
}

// A block selects for one span.
__global__ void __launch_bounds__(SELECT_THREADS)
    select_kernel(const float *scores, int32_t *kept,
                  const __grid_constant__ atedm_cuda_prune_spans spans)
{
    const atedm_prune_span &span = spans.span[blockIdx.x];
    scores += span.first;
    kept += span.kept_first;
    if (span.keep == span.n) { // no score is read: they may be anything
        for (int64_t i = threadIdx.x; i < span.n; i += SELECT_THREADS)
            kept[i] = (int32_t)i;
        return;
    }
    selection &s = *gpu_shared<selection>();
    find_key(scores, span.n, span.keep, s);
    uint32_t equals = 0, stay = 0;
    for (int64_t first = 0; first < span.n; first += SELECT_THREADS) {
        int64_t i = first + threadIdx.x;
        uint32_t key = i < span.n ? sort_key(scores[i]) : 0, all;
        bool is_equal = i < span.n && key == s.key;
        uint32_t equal = equals + rank_of_flag(is_equal, s, &all);
        equals += all;
        bool stays = i < span.n && (key > s.key || (is_equal && equal < s.equals));
        uint32_t slot = stay + rank_of_flag(stays, s, &all);
        stay += all;
        if (stays)
            kept[slot] = (int32_t)i;
    }
}

} // namespace

cudaError_t atedm_cuda_launch_random(const uint64_t *draws, const float *weights, float *scores,
                                     const atedm_cuda_random_spans *spans, cudaStream_t stream)
{
    int64_t most = 1;
    for (int32_t i = 0; i < spans->n; i++)
        most = spans->span[i].n > most ? spans->span[i].n : most;
    return GPU_LAUNCH(random_kernel, dim3(gpu_blocks(most, THREADS), (unsigned)spans->n),
                      dim3(THREADS), 0, stream, draws, weights, scores, *spans);
}

cudaError_t atedm_cuda_launch_select(const float *scores, int32_t *kept,
                                     const atedm_cuda_prune_spans *spans, cudaStream_t stream)
{
    return GPU_LAUNCH(select_kernel, dim3((unsigned)spans->n), dim3(SELECT_THREADS),
                      sizeof(selection), stream, scores, kept, *spans);
}
