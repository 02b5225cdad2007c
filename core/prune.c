// AT-EDM inside an attention block: which samples lose tokens after which layer, dropping tokens,
// recovering them. See prune.h. prune_choose.c chooses the tokens.
#include "core/prune_private.h"

#include <string.h>

// Packs n samples of `count` tokens each.
static void packing_init(atedm_packing *packing, int64_t n, int64_t count)
{
    packing->n = n;
    packing->rows = n * count;
    for (int64_t i = 0; i < n; i++) {
        packing->first[i] = i * count;
        packing->count[i] = count;
    }
}

void atedm_prune_begin(atedm_prune_state *state, const atedm_transformer *block,
                       const atedm_transformer_run *run)
{
    state->block = block;
    state->run = run;
    state->n_layers = 0;
    packing_init(&state->packing, run->args->n, run->h * run->w);
}

int64_t atedm_prune_kept_after(const atedm_prune_state *state, int64_t i, int index)
{
    const atedm_unet_sample *sample = &state->run->args->samples[i];
    int64_t count = state->packing.count[i];
    if (!sample->prune || !sample->prune->enabled)
        return count;
    for (size_t k = 0; k < sample->prune->n_prune_after; k++)
        if (sample->prune->prune_after[k] == index)
            return atedm_prune_keep((double)sample->rho[state->run->block], count);
    return count;
}

atedm_prune_wants atedm_prune_layer_wants(const atedm_prune_state *state, int index)
{
    atedm_prune_wants wants = {0};
    bool late = false;
    for (int64_t i = 0; i < state->packing.n; i++) {
        if (atedm_prune_kept_after(state, i, index) == state->packing.count[i])
            continue;
        const atedm_prune_spec *spec = state->run->args->samples[i].prune;
        wants.any = true;
        wants.self |=
            spec->score_map == ATEDM_SCORE_SELF || spec->recovery == ATEDM_RECOVER_ATTENTION;
        wants.cross |= spec->score_map == ATEDM_SCORE_CROSS;
        late |= spec->recovery == ATEDM_RECOVER_COSINE; // compares the layer's outputs
    }
    if (state->run->args->mixed && index == 0)
        wants.any = wants.self = wants.cross = true;
    wants.aside = wants.any && !wants.cross && !late;
    return wants;
}

// Spans of the samples that `wanted` picks, for filling the rows of `to` from those of `from` by an
// index list with one entry for each row of `to`. A sample uses the entries of the sample whose
// mask it follows. Returns the number of spans.
static int64_t gather_spans(const atedm_prune_state *state, const atedm_packing *from,
                            const atedm_packing *to, const bool *wanted,
                            atedm_gather_span *ret_spans)
{
    int64_t n = 0;
    for (int64_t i = 0; i < to->n; i++)
        if (wanted[i])
            ret_spans[n++] =
                (atedm_gather_span){from->first[i], to->first[atedm_prune_mask_of(state, i)],
                                    to->first[i], to->count[i]};
    return n;
}

void atedm_prune_gather_kept(const atedm_prune_state *state, const atedm_pruned_layer *layer,
                             const void *x, void *y, size_t row_bytes)
{
    bool all[ATEDM_UNET_MAX_SAMPLES];
    atedm_gather_span spans[ATEDM_UNET_MAX_SAMPLES];
    memset(all, true, sizeof all);
    int64_t n = gather_spans(state, &layer->before, &layer->after, all, spans);
    atedm_gather_rows(state->run->s, x, layer->kept, y, row_bytes, spans, n);
}

const float *atedm_prune_weights(const atedm_prune_state *state, int index, bool *ret_weighted)
{
    const float *weights = state->n_layers ? state->layers[state->n_layers - 1].weights : NULL;
    bool any = false;
    for (int64_t i = 0; i < state->packing.n; i++) {
        int64_t count = state->packing.count[i];
        const atedm_prune_spec *spec = state->run->args->samples[i].prune;
        ret_weighted[i] = weights && count < state->layers[0].before.count[i] &&
                          spec->proportional_attention &&
                          atedm_prune_kept_after(state, i, index) == count;
        any |= ret_weighted[i];
    }
    return any ? weights : NULL;
}

static size_t token_bytes(const atedm_prune_state *state)
{
    return (size_t)state->block->channels * atedm_dtype_size(atedm_stream_dtype(state->run->s));
}

// Spans for recovering the tokens of a layer. `updates`: of the samples that copy updates; else of
// all others, which include those not pruned by the layer.
static int64_t recover_spans(const atedm_prune_state *state, const atedm_pruned_layer *layer,
                             bool updates, atedm_gather_span *ret_spans)
{
    bool wanted[ATEDM_UNET_MAX_SAMPLES] = {false};
    for (int64_t i = 0; i < layer->before.n; i++)
        wanted[i] = updates == (layer->pruned[i] &&
                                state->run->args->samples[i].prune->copy == ATEDM_COPY_UPDATE);
    return gather_spans(state, &layer->after, &layer->before, wanted, ret_spans);
}

// For samples that copy updates: adds factor * its source, a row of x, to each row of
// layer->tokens.
static void add_sources(const atedm_prune_state *state, const atedm_pruned_layer *layer,
                        const void *x, float factor)
{
    atedm_gather_span spans[ATEDM_UNET_MAX_SAMPLES];
    int64_t n = recover_spans(state, layer, true, spans);
    atedm_add_rows(state->run->s, x, layer->source, factor, layer->tokens, state->block->channels,
                   spans, n);
}

void *atedm_prune_drop(atedm_prune_state *state, void *x)
{
    atedm_pruned_layer *layer = &state->layers[state->n_layers - 1];
    if (layer->aside)
        atedm_stream_join_aside(state->run->s);
    layer->aside = false;
    atedm_prune_move_scores(state, layer, true);
    void *kept = atedm_arena_take(state->run->arena, state->run->s,
                                  (size_t)layer->after.rows * token_bytes(state));
    atedm_prune_gather_kept(state, layer, x, kept, token_bytes(state));
    layer->tokens = x;
    add_sources(state, layer, kept, -1);
    state->packing = layer->after;
    return kept;
}

void *atedm_prune_recover(atedm_prune_state *state, void *x)
{
    if (state->n_layers && state->run->args->trace)
        atedm_prune_trace_layers(state);
    while (state->n_layers) {
        const atedm_pruned_layer *layer = &state->layers[--state->n_layers];
        atedm_gather_span spans[ATEDM_UNET_MAX_SAMPLES];
        int64_t n = recover_spans(state, layer, false, spans);
        atedm_gather_rows(state->run->s, x, layer->source, layer->tokens, token_bytes(state), spans,
                          n);
        add_sources(state, layer, x, 1);
        x = layer->tokens;
        state->packing = layer->before;
    }
    return x;
}
