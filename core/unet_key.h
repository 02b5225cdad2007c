// What an evaluation of the UNet depends upon, between its time embedding and its prediction, as a
// key for atedm_stream_repeat: equal keys, equal operations. Values in device memory are not part
// of it. What is added to the evaluation's inputs has to be added here.
#ifndef ATEDM_UNET_KEY_H
#define ATEDM_UNET_KEY_H

#include "core/unet.h"

// Fields are 8 bytes each, so that there is no padding to compare.
typedef struct atedm_unet_key_head {
    const atedm_unet *unet; // its weights
    const void *x, *context, *embedding, *draws, *y, *scratch, *scores;
    int64_t context_tokens, n, h, w, traced, mixed;
} atedm_unet_key_head;

typedef struct atedm_unet_key_sample {
    int64_t mask_from;
    int64_t pruned; // 0: the following are 0 too
    int64_t enabled, score_map, selection, recovery, copy, proportional_attention;
    int64_t prune_after[ATEDM_MAX_PRUNE_LAYERS], n_prune_after;
    int64_t heads, max_iterations, score_interval;
    double tolerance;
    uint64_t reuses;             // bit b: block b takes scores of an earlier step
    float rho[ATEDM_MAX_BLOCKS]; // 0 behind the last block
} atedm_unet_key_sample;

// The first `n` samples count.
typedef struct atedm_unet_key {
    atedm_unet_key_head head;
    atedm_unet_key_sample samples[ATEDM_UNET_MAX_SAMPLES];
} atedm_unet_key;

// Returns the bytes that count. `embedding`: what the residual blocks are given, `draws`: what
// chance starts from, both [device]; `arena`: as it is before the evaluation takes anything.
size_t atedm_unet_key_make(const atedm_unet *unet, int n_blocks, const atedm_unet_args *args,
                           const void *embedding, const uint64_t *draws, const atedm_arena *arena,
                           atedm_unet_key *ret_key);

#endif
