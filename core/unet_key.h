// Keys of UNet evaluations for atedm_stream_repeat. A key holds everything between the time
// embedding and the prediction that decides which operations run on which addresses: equal keys,
// equal operations. Values in device memory are not part of it. A new input of the evaluation must
// be added here.
#ifndef ATEDM_UNET_KEY_H
#define ATEDM_UNET_KEY_H

#include "core/unet.h"

// Fields are multiples of 8 bytes, so that there is no padding, whose bytes would be compared too.
typedef struct atedm_unet_key_head {
    const atedm_unet *unet; // identifies the weights
    const void *x, *context, *embedding, *draws, *y, *scratch, *scores;
    int64_t context_tokens, n, h, w, traced, mixed;
} atedm_unet_key_head;

typedef struct atedm_unet_key_sample {
    int64_t mask_from;
    int64_t pruned; // 0: no spec, and all fields below are 0
    int64_t enabled, score_map, selection, recovery, copy, proportional_attention;
    int64_t prune_after[ATEDM_MAX_PRUNE_LAYERS], n_prune_after;
    int64_t heads, max_iterations, score_interval;
    double tolerance;
    uint64_t reuses;             // bit b: block b uses the scores of an earlier step
    float rho[ATEDM_MAX_BLOCKS]; // 0 after the last block
} atedm_unet_key_sample;

// Only the first `n` samples are part of the key.
typedef struct atedm_unet_key {
    atedm_unet_key_head head;
    atedm_unet_key_sample samples[ATEDM_UNET_MAX_SAMPLES];
} atedm_unet_key;

// Fills the key and returns how many of its bytes count. embedding: [device] act [n,
// embedding_dim], the residual blocks' input. draws: [device] [n], the samples' draws. arena: as it
// is before the evaluation takes memory.
size_t atedm_unet_key_make(const atedm_unet *unet, int n_blocks, const atedm_unet_args *args,
                           const void *embedding, const uint64_t *draws, const atedm_arena *arena,
                           atedm_unet_key *ret_key);

#endif
