// Shared by the similarity searches: finding kept and pruned tokens of a span in its kept list,
// which ascends, and the most similar slot so far.
#ifndef ATEDM_KERNELS_CUDA_PRUNED_CUH
#define ATEDM_KERNELS_CUDA_PRUNED_CUH

#include "kernels/cuda/gpu.cuh"

// Position of pruned token `number`, of n - keep. kept[slot] - slot pruned tokens stand before
// kept[slot], so pruned token `number` comes after every slot for which that is at most `number`.
GPU_FN int64_t pruned_position(const int32_t *kept, int64_t keep, int64_t number)
{
    int64_t low = 0, high = keep;
    while (low < high) {
        int64_t middle = (low + high) / 2;
        if (kept[middle] - middle <= number)
            low = middle + 1;
        else
            high = middle;
    }
    return number + low;
}

// The slot of the token at `position`, or -1.
GPU_FN int32_t kept_slot(const int32_t *kept, int64_t keep, int64_t position)
{
    int64_t low = 0, high = keep;
    while (low < high) {
        int64_t middle = (low + high) / 2;
        if (kept[middle] < position)
            low = middle + 1;
        else
            high = middle;
    }
    return low < keep && kept[low] == position ? (int32_t)low : -1;
}

// The most similar slot; ties go to the lower one. NaN is never more similar.
struct best_slot {
    float similarity;
    int32_t slot; // -1: none yet
};

GPU_FN void best_offer(best_slot &best, float similarity, int32_t slot)
{
    if (similarity > best.similarity || (similarity == best.similarity && slot < best.slot)) {
        best.similarity = similarity;
        best.slot = slot;
    }
}

// Merges over `lanes` neighbouring threads, a power of two.
GPU_FN void best_merge(best_slot &best, int lanes)
{
    for (int with = 1; with < lanes; with *= 2) {
        float similarity = __shfl_xor_sync(0xffffffffu, best.similarity, with);
        int32_t slot = __shfl_xor_sync(0xffffffffu, best.slot, with);
        if (slot >= 0 && (best.slot < 0 || similarity > best.similarity ||
                          (similarity == best.similarity && slot < best.slot))) {
            best.similarity = similarity;
            best.slot = slot;
        }
    }
}

inline int64_t most_pruned(const atedm_cuda_prune_spans *spans)
{
    int64_t most = 0;
    for (int32_t i = 0; i < spans->n; i++) {
        int64_t n = spans->span[i].n - spans->span[i].keep;
        most = n > most ? n : most;
    }
    return most;
}

inline int64_t most_kept(const atedm_cuda_prune_spans *spans)
{
    int64_t most = 0;
    for (int32_t i = 0; i < spans->n; i++)
        most = spans->span[i].keep > most ? spans->span[i].keep : most;
    return most;
}

#endif
