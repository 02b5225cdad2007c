// One attention block of the UNet (diffusers: Transformer2DModel over BasicTransformerBlocks), over
// the packed tokens of a batch, with AT-EDM pruning between its layers (prune.h).
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
    const atedm_weight *text_kv; // keys and values of the text for each layer, one after the other
    atedm_transformer_layer layers[ATEDM_UNET_MAX_LAYERS]; // info.layers of them
} atedm_transformer;

// `block` has everything but the weights filled in; `prefix` is e.g. "down_blocks.1.attentions.0".
void atedm_transformer_load(atedm_loader *l, atedm_transformer *block, const char *prefix);

// The evaluation that a block runs in: samples of one size, their text, the scratch memory.
typedef struct atedm_transformer_run {
    atedm_stream *s;
    atedm_arena *arena;
    const atedm_unet_args *args;
    const uint64_t *draws; // [device] [n]: what chance in pruning starts from
    int64_t h, w;          // of the block's grid
    int block;             // index in execution order: column of a sample's rho
    float *scores; // [device] of the block, sample i's at i * score_stride; as those of args
    int64_t score_stride;
} atedm_transformer_run;

// y = x + block(x), both [device] act [n, h, w, channels]; y may be x.
void atedm_transformer_forward(const atedm_transformer *block, const atedm_transformer_run *run,
                               const void *x, void *y);

#endif
