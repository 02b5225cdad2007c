// AT-EDM inside an attention block (Wang et al., CVPR 2024, sections 3.1 and 3.2). After a pruning
// layer: scores the tokens (G-WPR; or random scores, as a baseline), keeps some of them, and
// remembers for each other token which kept token it will be recovered from. At the end of the
// block: recovers the pruned tokens. Each sample of a batch is pruned by its own plan; the
// remaining tokens of all samples stay packed in one matrix.
#ifndef ATEDM_PRUNE_H
#define ATEDM_PRUNE_H

#include "core/arena.h"
#include "core/plan.h"
#include "core/transformer.h"

// Which rows of the packed token matrix [rows, c] each of n samples has.
typedef struct atedm_packing {
    int64_t n, rows;
    int64_t first[ATEDM_UNET_MAX_SAMPLES], count[ATEDM_UNET_MAX_SAMPLES];
} atedm_packing;

// What a pruning layer did; kept for recovery.
typedef struct atedm_pruned_layer {
    atedm_packing before, after; // the rows before and after the layer dropped tokens
    bool pruned[ATEDM_UNET_MAX_SAMPLES];
    int32_t *kept;   // [device] [after.rows]: index of the token within its sample before
    int32_t *source; // [device] [before.rows]: index among the sample's kept tokens; -1: none
    float *scores;   // [device] [before.rows]; set for samples that choose their own tokens
    int32_t *places; // [device] [before.rows]: index of the token in the grid; NULL: not needed
    float *weights;  // [device] [after.rows]: log of the number of grid tokens that the kept token
                     // stands for; NULL: not needed
    bool aside;      // the choice runs aside, and has not been joined yet
    // [device] act [before.rows, c]: the tokens as the layer gave them. In samples that copy
    // updates each token's source has been subtracted.
    void *tokens;
} atedm_pruned_layer;

typedef struct atedm_prune_state {
    const atedm_transformer *block;
    const atedm_transformer_run *run;
    atedm_packing packing; // the tokens that are left now
    size_t n_layers;
    atedm_pruned_layer layers[ATEDM_UNET_MAX_LAYERS];
} atedm_prune_state;

// Starts a block: all samples have all tokens of the grid.
void atedm_prune_begin(atedm_prune_state *state, const atedm_transformer *block,
                       const atedm_transformer_run *run);

// What pruning after layer `index` needs from that layer.
typedef struct atedm_prune_wants {
    bool any;   // some sample loses tokens after this layer
    bool self;  // some such sample ranks or recovers by the self-attention map: needs its lse
    bool cross; // some such sample ranks by the cross-attention map: needs its lse
    bool aside; // the choice needs only self-attention, so it can run beside the rest of the layer
} atedm_prune_wants;
atedm_prune_wants atedm_prune_layer_wants(const atedm_prune_state *state, int index);

// Decides which samples have proportional self-attention in layer `index`: those with tokens
// pruned by an earlier layer, if their spec asks for it, unless they are pruned after this layer
// too: they rank by the plain map. ret_weighted: [host] [n]. Returns the logarithms of the weights,
// [device] F32 [rows]; NULL if no sample has any.
const float *atedm_prune_weights(const atedm_prune_state *state, int index, bool *ret_weighted);

// The attention operands of the layer that has just run. Spans and rows follow the packing.
typedef struct atedm_layer_maps {
    atedm_source_map self;
    atedm_source_map cross; // q rows as in `self`; k rows: sample i's text begins at
                            // i * context_tokens
} atedm_layer_maps;

// The next two functions choose which tokens layer `index` loses and which kept token each of them
// will be recovered from. Call one of them only if atedm_prune_layer_wants asks for it. Both take
// scratch memory that must stay until the block ends.
// atedm_prune_choose runs after the layer. x: [device] act [rows, c], the layer's output.
void atedm_prune_choose(atedm_prune_state *state, int index, const atedm_layer_maps *maps,
                        const void *x);
// atedm_prune_choose_aside runs after the layer's self-attention, beside the rest of the layer, if
// `aside` is wanted. The operands in `self` must not change until the layer ends.
void atedm_prune_choose_aside(atedm_prune_state *state, int index, const atedm_source_map *self);
// Drops the tokens that are not kept: returns the kept rows of x, [device] act [rows, c], packed
// anew, and updates state->packing. x must stay until it is recovered.
void *atedm_prune_drop(atedm_prune_state *state, void *x);

// Recovers the tokens that all pruning layers dropped, the last layer first. x: [device] act
// [rows, c]. Returns the buffer with the whole grid of every sample: x itself if nothing was
// pruned. Reports to run->args->trace first.
void *atedm_prune_recover(atedm_prune_state *state, void *x);

#endif
