// AT-EDM inside an attention block: after a pruning layer, rank the tokens (G-WPR; or at random, to
// have something to hold it against), keep some by their ranks, remember what the others will be
// recovered from; before the block ends, recover them (Wang et al., CVPR 2024, sections 3.1 and
// 3.2).
// Samples of a batch prune each by their own plan; tokens stay packed throughout.
#ifndef ATEDM_PRUNE_H
#define ATEDM_PRUNE_H

#include "core/arena.h"
#include "core/plan.h"
#include "core/transformer.h"

// Which rows of the packed token matrix each sample has.
typedef struct atedm_packing {
    int64_t n, rows;
    int64_t first[ATEDM_UNET_MAX_SAMPLES], count[ATEDM_UNET_MAX_SAMPLES];
} atedm_packing;

// What a pruning layer did, kept for recovery.
typedef struct atedm_pruned_layer {
    atedm_packing before, after;
    bool pruned[ATEDM_UNET_MAX_SAMPLES];
    int32_t *kept;   // [device] by row of `after`: position in the sample before
    int32_t *source; // [device] by row of `before`: slot among the kept, -1 for none
    float *scores;   // [device] by row of `before`, of the pruned samples
    int32_t *places; // [device] by row of `before`: place in the grid; NULL where nobody needs it
    float *weights; // [device] by row of `after`: logarithm of how many tokens of the grid the kept
                    // one stands for; NULL where nobody needs it
    bool aside;     // chosen aside, and not joined yet
    // [device] act, rows of `before`: the tokens; of samples that copy updates less the kept token
    // that each is recovered from.
    void *tokens;
} atedm_pruned_layer;

typedef struct atedm_prune_state {
    const atedm_transformer *block;
    const atedm_transformer_run *run;
    atedm_packing packing; // now
    size_t n_layers;
    atedm_pruned_layer layers[ATEDM_UNET_MAX_LAYERS];
} atedm_prune_state;

void atedm_prune_begin(atedm_prune_state *state, const atedm_transformer *block,
                       const atedm_transformer_run *run);

// What layer `index` has to provide for pruning after it.
typedef struct atedm_prune_wants {
    bool any;   // some sample loses tokens after this layer
    bool self;  // some of them ranks or recovers by the self-attention map: its lse is needed
    bool cross; // some of them ranks by the cross-attention map: its lse too
    bool aside; // the choice needs nothing that comes behind self-attention
} atedm_prune_wants;
atedm_prune_wants atedm_prune_layer_wants(const atedm_prune_state *state, int index);

// Fills in which samples' self-attention in layer `index` is proportional: those that were pruned
// before, if they ask for it; but where a layer's map ranks, it is the plain one. Returns the
// logarithms of the weights [device] by row; NULL where there are none.
const float *atedm_prune_weights(const atedm_prune_state *state, int index, bool *ret_weighted);

// The attention operands of the layer that just ran; spans and rows by the packing.
typedef struct atedm_layer_maps {
    atedm_source_map self;
    atedm_source_map cross; // q rows as self; k rows: sample i's text from i * context_tokens
} atedm_layer_maps;

// Chooses which tokens layer `index` loses, and what they will be recovered from. Only to be called
// when atedm_prune_layer_wants says so. Both take scratch memory that is needed until the block
// ends.
// Behind the layer: from its maps and the tokens x [rows, c].
void atedm_prune_choose(atedm_prune_state *state, int index, const atedm_layer_maps *maps,
                        const void *x);
// Behind its self-attention, beside the rest of it, where `aside` is wanted; the map's operands
// stay as they are until the layer ends.
void atedm_prune_choose_aside(atedm_prune_state *state, int index, const atedm_source_map *self);
// Drops the others: returns the kept ones of the tokens x [rows, c], packed anew, and updates the
// packing. x stays with the layer until it is recovered.
void *atedm_prune_drop(atedm_prune_state *state, void *x);

// Recovers what all pruned layers lost, last first, from the tokens x; returns the buffer that
// holds the whole grid of every sample, x where nothing was pruned. Reports to run->args->trace
// first.
void *atedm_prune_recover(atedm_prune_state *state, void *x);

#endif
