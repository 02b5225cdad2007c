// What a pruning layer chooses: scores, kept tokens, each pruned token's source, and the weights of
// kept tokens. See prune.h.
#include "core/prune_private.h"

// [device] F32 [tokens]: the scores of sample i that later steps use; NULL: every step ranks.
static float *kept_scores(const atedm_prune_state *state, int64_t i)
{
    const atedm_transformer_run *run = state->run;
    bool kept = run->scores && run->args->samples[i].prune->score_interval > 1;
    return kept ? run->scores + i * run->score_stride : NULL;
}

// Whether sample i, which chooses for itself, uses the scores of an earlier step.
static bool reuses_scores(const atedm_prune_state *state, int64_t i)
{
    const bool *ranks = state->run->args->samples[i].ranks;
    return ranks && !ranks[state->run->block];
}

void atedm_prune_move_scores(const atedm_prune_state *state, const atedm_pruned_layer *layer,
                             bool back)
{
    for (int64_t i = 0; i < layer->before.n; i++) {
        float *kept = atedm_prune_chooses(state, layer, i) ? kept_scores(state, i) : NULL;
        if (!kept || back == reuses_scores(state, i))
            continue;
        float *here = layer->scores + layer->before.first[i];
        atedm_copy(state->run->s, back ? here : kept, back ? kept : here,
                   (size_t)layer->before.count[i] * sizeof *here);
    }
}

// Fills in the packing after the layer, and takes memory for the choice.
static atedm_pruned_layer *begin_layer(atedm_prune_state *state, int index)
{
    const atedm_transformer_run *run = state->run;
    atedm_pruned_layer *layer = &state->layers[state->n_layers++];
    layer->aside = false;
    layer->before = state->packing;
    layer->after.n = layer->before.n;
    layer->after.rows = 0;
    for (int64_t i = 0; i < layer->before.n; i++) {
        layer->after.first[i] = layer->after.rows;
        layer->after.count[i] = atedm_prune_kept_after(state, i, index);
        layer->after.rows += layer->after.count[i];
        layer->pruned[i] = layer->after.count[i] < layer->before.count[i];
    }
    size_t before = (size_t)layer->before.rows, after = (size_t)layer->after.rows;
    layer->kept = atedm_arena_take(run->arena, run->s, after * sizeof *layer->kept);
    layer->source = atedm_arena_take(run->arena, run->s, before * sizeof *layer->source);
    layer->scores = atedm_arena_take(run->arena, run->s, before * sizeof *layer->scores);
    return layer;
}

static void rank_by_map(const atedm_prune_state *state, const atedm_pruned_layer *layer,
                        const atedm_layer_maps *maps, atedm_score_map which)
{
    bool cross = which == ATEDM_SCORE_CROSS;
    const atedm_transformer_run *run = state->run;
    atedm_span spans[ATEDM_UNET_MAX_SAMPLES];
    atedm_rank_params params[ATEDM_UNET_MAX_SAMPLES];
    int64_t n = 0;
    for (int64_t i = 0; i < layer->before.n; i++) {
        const atedm_prune_spec *spec = run->args->samples[i].prune;
        if (!atedm_prune_chooses(state, layer, i) || spec->score_map != which ||
            reuses_scores(state, i))
            continue;
        int64_t first = layer->before.first[i], count = layer->before.count[i];
        int64_t text = run->args->context_tokens;
        spans[n] = cross ? (atedm_span){first, count, i * text, text}
                         : (atedm_span){first, count, first, count};
        params[n++] = spec->rank;
    }
    const atedm_source_map *map = cross ? &maps->cross : &maps->self;
    if (n)
        atedm_rank_tokens(run->s, &(atedm_rank_args){
                                      .q = map->q,
                                      .k = map->k,
                                      .q_stride = map->q_stride,
                                      .k_stride = map->k_stride,
                                      .lse = map->lse,
                                      .lse_stride = map->lse_stride,
                                      .scores = layer->scores,
                                      .spans = spans,
                                      .params = params,
                                      .n_spans = n,
                                      .heads = map->heads,
                                      .head_dim = map->head_dim,
                                      .cross = cross,
                                  });
}

// Whether the kept tokens of sample i are drawn at random with chances by score.
static bool is_sampled(const atedm_prune_state *state, const atedm_pruned_layer *layer, int64_t i)
{
    const atedm_prune_spec *spec = state->run->args->samples[i].prune;
    return atedm_prune_chooses(state, layer, i) && spec->score_map != ATEDM_SCORE_RANDOM &&
           spec->selection == ATEDM_SELECT_SAMPLED;
}

// Spans of the samples that `wanted` picks, for drawing random numbers. A number depends only on
// the sample's image and step, the block, the layer, and the token's position in its sample.
static int64_t random_spans(const atedm_prune_state *state, const atedm_pruned_layer *layer,
                            int index, const bool *wanted, atedm_random_span *ret_spans)
{
    int64_t n = 0;
    for (int64_t i = 0; i < layer->before.n; i++)
        if (wanted[i])
            ret_spans[n++] = (atedm_random_span){
                .first = layer->before.first[i],
                .n = layer->before.count[i],
                .draw = i,
                .salt = (uint64_t)(state->run->block * ATEDM_UNET_MAX_LAYERS + index)};
    return n;
}

static void rank_at_random(const atedm_prune_state *state, const atedm_pruned_layer *layer,
                           int index)
{
    const atedm_transformer_run *run = state->run;
    bool wanted[ATEDM_UNET_MAX_SAMPLES];
    atedm_random_span spans[ATEDM_UNET_MAX_SAMPLES];
    for (int64_t i = 0; i < layer->before.n; i++)
        wanted[i] = atedm_prune_chooses(state, layer, i) &&
                    run->args->samples[i].prune->score_map == ATEDM_SCORE_RANDOM;
    int64_t n = random_spans(state, layer, index, wanted, spans);
    atedm_random_scores(run->s, run->draws, NULL, layer->scores, spans, n);
}

// Spans of the samples that `wanted` picks. Returns their number.
static int64_t prune_spans(const atedm_pruned_layer *layer, const bool *wanted,
                           atedm_prune_span *ret_spans)
{
    int64_t n = 0;
    for (int64_t i = 0; i < layer->before.n; i++)
        if (wanted[i])
            ret_spans[n++] = (atedm_prune_span){layer->before.first[i], layer->before.count[i],
                                                layer->after.first[i], layer->after.count[i]};
    return n;
}

// Selects tokens of the samples that draw them. The chances go into a buffer of their own, because
// traces and later steps need the scores.
static void sample_tokens(const atedm_prune_state *state, const atedm_pruned_layer *layer,
                          int index, const bool *sampled)
{
    const atedm_transformer_run *run = state->run;
    atedm_random_span random[ATEDM_UNET_MAX_SAMPLES];
    atedm_prune_span spans[ATEDM_UNET_MAX_SAMPLES];
    int64_t n = random_spans(state, layer, index, sampled, random);
    if (n == 0)
        return;
    float *chances =
        atedm_arena_take(run->arena, run->s, (size_t)layer->before.rows * sizeof *chances);
    atedm_random_scores(run->s, run->draws, layer->scores, chances, random, n);
    atedm_select_tokens(run->s, chances, layer->kept, spans, prune_spans(layer, sampled, spans));
}

// Selects tokens of all samples that choose for themselves. Those that are not pruned by this layer
// keep all tokens, in order.
static void select_tokens(const atedm_prune_state *state, const atedm_pruned_layer *layer,
                          int index)
{
    bool sampled[ATEDM_UNET_MAX_SAMPLES], top[ATEDM_UNET_MAX_SAMPLES];
    atedm_prune_span spans[ATEDM_UNET_MAX_SAMPLES];
    for (int64_t i = 0; i < layer->before.n; i++) {
        sampled[i] = is_sampled(state, layer, i);
        top[i] = atedm_prune_mask_of(state, i) == i && !sampled[i];
    }
    sample_tokens(state, layer, index, sampled);
    atedm_select_tokens(state->run->s, layer->scores, layer->kept, spans,
                        prune_spans(layer, top, spans));
}

static bool needs_places(const atedm_prune_state *state)
{
    const atedm_unet_args *args = state->run->args;
    bool needed = args->traced || args->mixed;
    for (int64_t i = 0; i < args->n; i++)
        needed |=
            args->samples[i].prune && args->samples[i].prune->recovery == ATEDM_RECOVER_NEAREST;
    return needed;
}

static void find_places(const atedm_prune_state *state, atedm_pruned_layer *layer)
{
    const atedm_transformer_run *run = state->run;
    layer->places = NULL;
    if (!needs_places(state))
        return;
    size_t rows = (size_t)layer->before.rows;
    layer->places = atedm_arena_take(run->arena, run->s, rows * sizeof *layer->places);
    if (layer > state->layers) {
        const atedm_pruned_layer *last = layer - 1;
        atedm_prune_gather_kept(state, last, last->places, layer->places, sizeof *layer->places);
        return;
    }
    atedm_prune_span spans[ATEDM_UNET_MAX_SAMPLES];
    for (int64_t i = 0; i < layer->before.n; i++)
        spans[i] = (atedm_prune_span){layer->before.first[i], layer->before.count[i],
                                      layer->before.first[i], layer->before.count[i]};
    atedm_select_tokens(run->s, layer->scores, layer->places, spans, layer->before.n);
}

// Finds sources with one call for each kind of recovery. A sample not pruned here uses "zero",
// which like every kind makes a kept token its own source; here all its tokens are kept. A sample
// that follows another one's mask uses that one's sources.
static void find_sources(const atedm_prune_state *state, const atedm_pruned_layer *layer,
                         const atedm_layer_maps *maps, const void *x)
{
    const atedm_transformer_run *run = state->run;
    for (int recovery = ATEDM_RECOVER_ATTENTION; recovery <= ATEDM_RECOVER_ZERO; recovery++) {
        bool wanted[ATEDM_UNET_MAX_SAMPLES];
        atedm_prune_span spans[ATEDM_UNET_MAX_SAMPLES];
        for (int64_t i = 0; i < layer->before.n; i++)
            wanted[i] = atedm_prune_mask_of(state, i) == i &&
                        (int)(layer->pruned[i] ? run->args->samples[i].prune->recovery
                                               : ATEDM_RECOVER_ZERO) == recovery;
        atedm_source_args args = {.kept = layer->kept,
                                  .source = layer->source,
                                  .spans = spans,
                                  .n_spans = prune_spans(layer, wanted, spans)};
        if (args.n_spans == 0)
            continue;
        switch ((atedm_recovery)recovery) {
        case ATEDM_RECOVER_ATTENTION:
            atedm_source_attention(run->s, &args, &maps->self);
            break;
        case ATEDM_RECOVER_COSINE:
            atedm_source_cosine(run->s, &args, x, state->block->channels);
            break;
        case ATEDM_RECOVER_NEAREST:
            atedm_source_nearest(run->s, &args, layer->places, run->w);
            break;
        case ATEDM_RECOVER_ZERO:
            atedm_source_zero(run->s, &args);
            break;
        }
    }
}

static bool needs_weights(const atedm_prune_state *state)
{
    bool needed = state->run->args->mixed;
    for (int64_t i = 0; i < state->run->args->n; i++) {
        const atedm_prune_spec *spec = state->run->args->samples[i].prune;
        needed |= spec && spec->enabled && spec->proportional_attention;
    }
    return needed;
}

// Computes the kept tokens' weights for every sample. Samples not pruned here keep their weights.
static void weigh(const atedm_prune_state *state, atedm_pruned_layer *layer)
{
    const atedm_transformer_run *run = state->run;
    layer->weights = NULL;
    if (!needs_weights(state))
        return;
    layer->weights =
        atedm_arena_take(run->arena, run->s, (size_t)layer->after.rows * sizeof *layer->weights);
    atedm_prune_span spans[ATEDM_UNET_MAX_SAMPLES];
    for (int64_t i = 0; i < layer->before.n; i++)
        spans[i] = (atedm_prune_span){layer->before.first[atedm_prune_mask_of(state, i)],
                                      layer->before.count[i], layer->after.first[i],
                                      layer->after.count[i]};
    const float *before = layer > state->layers ? (layer - 1)->weights : NULL;
    atedm_source_weights(run->s, layer->source, before, layer->weights, spans, layer->before.n);
}

static void choose(const atedm_prune_state *state, atedm_pruned_layer *layer, int index,
                   const atedm_layer_maps *maps, const void *x)
{
    rank_by_map(state, layer, maps, ATEDM_SCORE_SELF);
    rank_by_map(state, layer, maps, ATEDM_SCORE_CROSS);
    rank_at_random(state, layer, index);
    select_tokens(state, layer, index);
    find_places(state, layer);
    find_sources(state, layer, maps, x);
    weigh(state, layer);
}

void atedm_prune_choose(atedm_prune_state *state, int index, const atedm_layer_maps *maps,
                        const void *x)
{
    atedm_pruned_layer *layer = begin_layer(state, index);
    atedm_prune_move_scores(state, layer, false);
    choose(state, layer, index, maps, x);
}

void atedm_prune_choose_aside(atedm_prune_state *state, int index, const atedm_source_map *self)
{
    atedm_stream *s = state->run->s;
    atedm_pruned_layer *layer = begin_layer(state, index);
    atedm_prune_move_scores(state, layer, false);
    atedm_stream_begin_aside(s);
    choose(state, layer, index, &(atedm_layer_maps){.self = *self}, NULL);
    atedm_stream_end_aside(s);
    layer->aside = true;
}
