// What the files of pruning share; nobody else includes it.
#ifndef ATEDM_PRUNE_PRIVATE_H
#define ATEDM_PRUNE_PRIVATE_H

#include "core/prune.h"

// The sample whose choice of tokens sample i follows.
static inline int64_t atedm_prune_mask_of(const atedm_prune_state *state, int64_t i)
{
    return i + state->run->args->samples[i].mask_from;
}

// Whether a choice has to be made for sample i of this layer.
static inline bool atedm_prune_chooses(const atedm_prune_state *state,
                                       const atedm_pruned_layer *layer, int64_t i)
{
    return layer->pruned[i] && atedm_prune_mask_of(state, i) == i;
}

// ---- prune.c

// Tokens of sample i that stay after layer `index`; all of them where it is not pruned there.
int64_t atedm_prune_kept_after(const atedm_prune_state *state, int64_t i, int index);
// All samples' kept rows of what has `row_bytes` a token.
void atedm_prune_gather_kept(const atedm_prune_state *state, const atedm_pruned_layer *layer,
                             const void *x, void *y, size_t row_bytes);

// ---- prune_choose.c

// Scores from where they are kept to the layer of those samples that reuse them, or `back` of those
// that have ranked. Not aside.
void atedm_prune_move_scores(const atedm_prune_state *state, const atedm_pruned_layer *layer,
                             bool back);

// ---- prune_trace.c

// Reports every pruned sample of the block to run->args->trace.
void atedm_prune_trace_layers(const atedm_prune_state *state);

#endif
