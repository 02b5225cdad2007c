// Reports what pruning did, for dumps: each sample's kept tokens, sources and scores, as indexes
// into the grid. See atedm_prune_trace in unet.h.
#include "core/prune_private.h"

#include <stdlib.h>

// Host buffers for what the pruning layers of one sample did, [tokens] each.
typedef struct trace_buffers {
    int32_t *kept, *source, *slots, *places;
    float *scores;
} trace_buffers;

// Follows the sources of sample i through the pruning layers: source[t] becomes the grid index of
// the token that grid token t is recovered from. False if a download failed.
static bool compose_sources(const atedm_prune_state *state, int64_t i, const trace_buffers *b)
{
    const atedm_transformer_run *run = state->run;
    int64_t tokens = state->layers[0].before.count[i];
    for (int64_t t = 0; t < tokens; t++)
        b->source[t] = (int32_t)t; // index, in the current layer, of the token that t follows
    for (size_t k = 0; k < state->n_layers; k++) {
        const atedm_pruned_layer *layer = &state->layers[k];
        atedm_download(run->s, layer->source + layer->before.first[i], b->slots,
                       (size_t)layer->before.count[i] * sizeof *b->slots);
        atedm_download(run->s, layer->places + layer->before.first[i], b->places,
                       (size_t)layer->before.count[i] * sizeof *b->places);
        atedm_download(run->s, layer->kept + layer->after.first[i], b->kept,
                       (size_t)layer->after.count[i] * sizeof *b->kept);
        if (!atedm_stream_wait(run->s))
            return false;
        for (int64_t t = 0; t < tokens; t++)
            if (b->source[t] >= 0)
                b->source[t] = b->slots[b->source[t]];
        for (int64_t slot = 0; slot < layer->after.count[i]; slot++)
            b->kept[slot] = b->places[b->kept[slot]];
    }
    for (int64_t t = 0; t < tokens; t++)
        if (b->source[t] >= 0)
            b->source[t] = b->kept[b->source[t]];
    return true;
}

static void trace_sample(const atedm_prune_state *state, int64_t i, const trace_buffers *b)
{
    const atedm_transformer_run *run = state->run;
    int64_t mask = atedm_prune_mask_of(state, i);
    const atedm_pruned_layer *first = NULL, *last = &state->layers[state->n_layers - 1];
    for (size_t k = 0; k < state->n_layers && !first; k++)
        if (state->layers[k].pruned[i])
            first = &state->layers[k];
    if (!first)
        return;
    atedm_download(run->s, first->scores + first->before.first[mask], b->scores,
                   (size_t)first->before.count[i] * sizeof *b->scores);
    if (compose_sources(state, mask, b))
        run->args->trace(run->args->trace_user, &(atedm_prune_trace){
                                                    .sample = i,
                                                    .block = state->block->info.name,
                                                    .tokens = first->before.count[i],
                                                    .n_kept = last->after.count[i],
                                                    .kept = b->kept,
                                                    .source = b->source,
                                                    .scores = b->scores,
                                                });
}

void atedm_prune_trace_layers(const atedm_prune_state *state)
{
    size_t tokens = (size_t)(state->run->h * state->run->w);
    int32_t *memory = malloc(5 * tokens * sizeof *memory);
    if (!memory) {
        atedm_stream_fail(state->run->s, ATEDM_ERR_NOMEM, "no memory for a pruning trace");
        return;
    }
    trace_buffers buffers = {memory, memory + tokens, memory + 2 * tokens, memory + 3 * tokens,
                             (float *)(memory + 4 * tokens)};
    for (int64_t i = 0; i < state->packing.n; i++)
        trace_sample(state, i, &buffers);
    free(memory);
}
