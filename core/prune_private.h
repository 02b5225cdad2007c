// Shared by the files of pruning; no other file includes it.
#ifndef ATEDM_PRUNE_PRIVATE_H
#define ATEDM_PRUNE_PRIVATE_H

#include "core/prune.h"

// The sample whose choice of tokens sample i follows; i itself if it chooses for itself.
static inline int64_t atedm_prune_mask_of(const atedm_prune_state *state, int64_t i)
{
    return i + state->run->args->samples[i].mask_from;
}

// Whether the layer has to choose tokens for sample i.
static inline bool atedm_prune_chooses(const atedm_prune_state *state,
                                       const atedm_pruned_layer *layer, int64_t i)
{
    return layer->pruned[i] && atedm_prune_mask_of(state, i) == i;
}

// ---- prune.c

// Number of tokens of sample i after layer `index`; its present number if it is not pruned there.
int64_t atedm_prune_kept_after(const atedm_prune_state *state, int64_t i, int index);
// Gathers the kept rows of all samples from x, [before.rows] of `row_bytes` each, into y,
// [after.rows]. Both are on the device.
void atedm_prune_gather_kept(const atedm_prune_state *state, const atedm_pruned_layer *layer,
                             const void *x, void *y, size_t row_bytes);

// ---- prune_choose.c

// Copies stored scores of earlier steps into the layer, for the samples that reuse them; or, with
// `back`, stores the layer's scores, for the samples that have ranked. Not to be called aside.
void atedm_prune_move_scores(const atedm_prune_state *state, const atedm_pruned_layer *layer,
                             bool back);

// ---- prune_trace.c

// Reports every pruned sample of the block to run->args->trace.
void atedm_prune_trace_layers(const atedm_prune_state *state);

#endif
