// One attention block of the UNet (diffusers: Transformer2DModel, of BasicTransformerBlocks). Runs
// on the packed tokens of a batch, with AT-EDM pruning between its layers (prune.h).
#ifndef ATEDM_TRANSFORMER_H
#define ATEDM_TRANSFORMER_H

#include "core/arena.h"
#include "core/loader.h"
#include "core/unet.h"

typedef struct atedm_transformer_layer {
    const atedm_weight *norm1, *qkv, *out1;     // self-attention
    const atedm_weight *norm2, *q2, *out2;      // cross-attention
    const atedm_weight *norm3, *ff_in, *ff_out; // GEGLU feed-forward
} atedm_transformer_layer;

typedef struct atedm_transformer {
    atedm_block_info info;
    int64_t channels, context_dim;
    int heads, norm_groups;
    bool linear_projection;
    const atedm_weight *norm, *proj_in, *proj_out;
    // One matrix with the rows of all layers: keys, values of layer 0, keys, values of layer 1, ...
    const atedm_weight *text_kv;
    atedm_transformer_layer layers[ATEDM_UNET_MAX_LAYERS]; // info.layers of them
} atedm_transformer;

// Loads the weights; the caller has filled in the other fields. prefix: such as
// "down_blocks.1.attentions.0".
void atedm_transformer_load(atedm_loader *l, atedm_transformer *block, const char *prefix);

// The evaluation that a block is part of: samples of one size, their text, the scratch memory.
typedef struct atedm_transformer_run {
    atedm_stream *s;
    atedm_arena *arena;
    const atedm_unet_args *args;
    const uint64_t *draws; // [device] [n]: the samples' keys for random numbers in pruning
    int64_t h, w;          // of the block's grid
    int block;             // index of the block in execution order, as in a sample's rho
    float *scores; // [device] args->scores from this block on; sample i's at i * score_stride
    int64_t score_stride;
} atedm_transformer_run;

// y = x + block(x), both [device] act [n, h, w, channels]; y may be x.
void atedm_transformer_forward(const atedm_transformer *block, const atedm_transformer_run *run,
                               const void *x, void *y);

#endif
