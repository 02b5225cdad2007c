// AT-EDM inside an attention block: see prune.h.
#include "core/prune.h"

#include <stdlib.h>
#include <string.h>

void atedm_packing_init(atedm_packing *packing, int64_t n, int64_t count)
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
    state->n_levels = 0;
    atedm_packing_init(&state->packing, run->args->n, run->h * run->w);
}

// Tokens of sample i that stay after layer `index`; all of them where it is not pruned there.
static int64_t kept_after(const atedm_prune_state *state, int64_t i, int index)
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

// The sample whose choice of tokens sample i follows.
static int64_t mask_of(const atedm_prune_state *state, int64_t i)
{
    return i + state->run->args->samples[i].mask_from;
}

// Whether a choice has to be made for sample i of this level.
static bool chooses(const atedm_prune_state *state, const atedm_prune_level *level, int64_t i)
{
    return level->pruned[i] && mask_of(state, i) == i;
}

atedm_prune_wants atedm_prune_layer_wants(const atedm_prune_state *state, int index)
{
    atedm_prune_wants wants = {0};
    bool late = false;
    for (int64_t i = 0; i < state->packing.n; i++) {
        if (kept_after(state, i, index) == state->packing.count[i])
            continue;
        const atedm_prune_spec *spec = state->run->args->samples[i].prune;
        wants.any = true;
        wants.self |=
            spec->score_map == ATEDM_SCORE_SELF || spec->recovery == ATEDM_RECOVER_ATTENTION;
        wants.cross |= spec->score_map == ATEDM_SCORE_CROSS;
        late |= spec->recovery == ATEDM_RECOVER_COSINE; // compares what the layer gives
    }
    if (state->run->args->mixed && index == 0)
        wants.any = wants.self = wants.cross = true;
    wants.aside = wants.any && !wants.cross && !late;
    return wants;
}

// The scores of sample i that are kept from step to step; NULL where each step has its own.
static float *kept_scores(const atedm_prune_state *state, int64_t i)
{
    const atedm_transformer_run *run = state->run;
    bool kept = run->scores && run->args->samples[i].prune->score_interval > 1;
    return kept ? run->scores + i * run->score_stride : NULL;
}

// Whether sample i, which chooses here, takes the scores of an earlier step.
static bool reuses_scores(const atedm_prune_state *state, int64_t i)
{
    const bool *ranks = state->run->args->samples[i].ranks;
    return ranks && !ranks[state->run->block];
}

// Fills in the packing after the layer and takes memory for what has to be remembered.
static atedm_prune_level *begin_level(atedm_prune_state *state, int index)
{
    const atedm_transformer_run *run = state->run;
    atedm_prune_level *level = &state->levels[state->n_levels++];
    level->aside = false;
    level->before = state->packing;
    level->after.n = level->before.n;
    level->after.rows = 0;
    for (int64_t i = 0; i < level->before.n; i++) {
        level->after.first[i] = level->after.rows;
        level->after.count[i] = kept_after(state, i, index);
        level->after.rows += level->after.count[i];
        level->pruned[i] = level->after.count[i] < level->before.count[i];
    }
    size_t before = (size_t)level->before.rows, after = (size_t)level->after.rows;
    level->kept = atedm_arena_take(run->arena, run->s, after * sizeof *level->kept);
    level->source = atedm_arena_take(run->arena, run->s, before * sizeof *level->source);
    level->scores = atedm_arena_take(run->arena, run->s, before * sizeof *level->scores);
    return level;
}

static void rank_by_map(const atedm_prune_state *state, const atedm_prune_level *level,
                        const atedm_layer_maps *maps, atedm_score_map which)
{
    bool cross = which == ATEDM_SCORE_CROSS;
    const atedm_transformer_run *run = state->run;
    atedm_span spans[ATEDM_UNET_MAX_SAMPLES];
    atedm_rank_params params[ATEDM_UNET_MAX_SAMPLES];
    int64_t n = 0;
    for (int64_t i = 0; i < level->before.n; i++) {
        const atedm_prune_spec *spec = run->args->samples[i].prune;
        if (!chooses(state, level, i) || spec->score_map != which || reuses_scores(state, i))
            continue;
        int64_t first = level->before.first[i], count = level->before.count[i];
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
                                      .scores = level->scores,
                                      .spans = spans,
                                      .params = params,
                                      .n_spans = n,
                                      .heads = map->heads,
                                      .head_dim = map->head_dim,
                                      .cross = cross,
                                  });
}

// Whether what sample i keeps is drawn by its scores.
static bool is_sampled(const atedm_prune_state *state, const atedm_prune_level *level, int64_t i)
{
    const atedm_prune_spec *spec = state->run->args->samples[i].prune;
    return chooses(state, level, i) && spec->score_map != ATEDM_SCORE_RANDOM &&
           spec->selection == ATEDM_SELECT_SAMPLED;
}

// The spans of samples in which chance has a part: it is a function of the sample's image and step,
// the block, the layer and the token's position in its sample, and of nothing else.
static int64_t random_spans(const atedm_prune_state *state, const atedm_prune_level *level,
                            int index, const bool *wanted, atedm_random_span *ret_spans)
{
    int64_t n = 0;
    for (int64_t i = 0; i < level->before.n; i++)
        if (wanted[i])
            ret_spans[n++] = (atedm_random_span){
                .first = level->before.first[i],
                .n = level->before.count[i],
                .draw = i,
                .salt = (uint64_t)(state->run->block * ATEDM_UNET_MAX_LAYERS + index)};
    return n;
}

static void rank_at_random(const atedm_prune_state *state, const atedm_prune_level *level,
                           int index)
{
    const atedm_transformer_run *run = state->run;
    bool wanted[ATEDM_UNET_MAX_SAMPLES];
    atedm_random_span spans[ATEDM_UNET_MAX_SAMPLES];
    for (int64_t i = 0; i < level->before.n; i++)
        wanted[i] = chooses(state, level, i) &&
                    run->args->samples[i].prune->score_map == ATEDM_SCORE_RANDOM;
    int64_t n = random_spans(state, level, index, wanted, spans);
    atedm_random_scores(run->s, run->draws, NULL, level->scores, spans, n);
}

// The spans of the samples that `wanted` picks.
static int64_t prune_spans(const atedm_prune_level *level, const bool *wanted,
                           atedm_prune_span *ret_spans)
{
    int64_t n = 0;
    for (int64_t i = 0; i < level->before.n; i++)
        if (wanted[i])
            ret_spans[n++] = (atedm_prune_span){level->before.first[i], level->before.count[i],
                                                level->after.first[i], level->after.count[i]};
    return n;
}

// Of samples whose kept tokens are drawn: the scores stay as they are, for whoever wants to see
// them.
static void sample_tokens(const atedm_prune_state *state, const atedm_prune_level *level, int index,
                          const bool *sampled)
{
    const atedm_transformer_run *run = state->run;
    atedm_random_span random[ATEDM_UNET_MAX_SAMPLES];
    atedm_prune_span spans[ATEDM_UNET_MAX_SAMPLES];
    int64_t n = random_spans(state, level, index, sampled, random);
    if (n == 0)
        return;
    float *chances =
        atedm_arena_take(run->arena, run->s, (size_t)level->before.rows * sizeof *chances);
    atedm_random_scores(run->s, run->draws, level->scores, chances, random, n);
    atedm_select_tokens(run->s, chances, level->kept, spans, prune_spans(level, sampled, spans));
}

// All samples with a mask of their own: those that are not pruned here keep everything, in order.
static void select_tokens(const atedm_prune_state *state, const atedm_prune_level *level, int index)
{
    bool sampled[ATEDM_UNET_MAX_SAMPLES], top[ATEDM_UNET_MAX_SAMPLES];
    atedm_prune_span spans[ATEDM_UNET_MAX_SAMPLES];
    for (int64_t i = 0; i < level->before.n; i++) {
        sampled[i] = is_sampled(state, level, i);
        top[i] = mask_of(state, i) == i && !sampled[i];
    }
    sample_tokens(state, level, index, sampled);
    atedm_select_tokens(state->run->s, level->scores, level->kept, spans,
                        prune_spans(level, top, spans));
}

// Which rows go where when `to` gets its rows from `from` by an index list that has as many rows as
// `to`; of the samples that `wanted` picks.
static int64_t gather_spans(const atedm_prune_state *state, const atedm_packing *from,
                            const atedm_packing *to, const bool *wanted,
                            atedm_gather_span *ret_spans)
{
    int64_t n = 0;
    for (int64_t i = 0; i < to->n; i++)
        if (wanted[i])
            ret_spans[n++] = (atedm_gather_span){from->first[i], to->first[mask_of(state, i)],
                                                 to->first[i], to->count[i]};
    return n;
}

// All samples' rows of what has `row_bytes` a token.
static void gather_kept(const atedm_prune_state *state, const atedm_prune_level *level,
                        const void *x, void *y, size_t row_bytes)
{
    bool all[ATEDM_UNET_MAX_SAMPLES];
    atedm_gather_span spans[ATEDM_UNET_MAX_SAMPLES];
    memset(all, true, sizeof all);
    int64_t n = gather_spans(state, &level->before, &level->after, all, spans);
    atedm_gather_rows(state->run->s, x, level->kept, y, row_bytes, spans, n);
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

static void find_places(const atedm_prune_state *state, atedm_prune_level *level)
{
    const atedm_transformer_run *run = state->run;
    level->places = NULL;
    if (!needs_places(state))
        return;
    size_t rows = (size_t)level->before.rows;
    level->places = atedm_arena_take(run->arena, run->s, rows * sizeof *level->places);
    if (level > state->levels) {
        const atedm_prune_level *last = level - 1;
        gather_kept(state, last, last->places, level->places, sizeof *level->places);
        return;
    }
    atedm_prune_span spans[ATEDM_UNET_MAX_SAMPLES];
    for (int64_t i = 0; i < level->before.n; i++)
        spans[i] = (atedm_prune_span){level->before.first[i], level->before.count[i],
                                      level->before.first[i], level->before.count[i]};
    atedm_select_tokens(run->s, level->scores, level->places, spans, level->before.n);
}

// One call a recovery; samples that are not pruned here map to themselves, which is what every kind
// says of kept tokens, and masks of others are looked up there.
static void find_sources(const atedm_prune_state *state, const atedm_prune_level *level,
                         const atedm_layer_maps *maps, const void *x)
{
    const atedm_transformer_run *run = state->run;
    for (int recovery = ATEDM_RECOVER_ATTENTION; recovery <= ATEDM_RECOVER_ZERO; recovery++) {
        bool wanted[ATEDM_UNET_MAX_SAMPLES];
        atedm_prune_span spans[ATEDM_UNET_MAX_SAMPLES];
        for (int64_t i = 0; i < level->before.n; i++)
            wanted[i] = mask_of(state, i) == i &&
                        (int)(level->pruned[i] ? run->args->samples[i].prune->recovery
                                               : ATEDM_RECOVER_ZERO) == recovery;
        atedm_source_args args = {.kept = level->kept,
                                  .source = level->source,
                                  .spans = spans,
                                  .n_spans = prune_spans(level, wanted, spans)};
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
            atedm_source_nearest(run->s, &args, level->places, run->w);
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

// Of every sample: who is not pruned here hands on what was.
static void weigh(const atedm_prune_state *state, atedm_prune_level *level)
{
    const atedm_transformer_run *run = state->run;
    level->weights = NULL;
    if (!needs_weights(state))
        return;
    level->weights =
        atedm_arena_take(run->arena, run->s, (size_t)level->after.rows * sizeof *level->weights);
    atedm_prune_span spans[ATEDM_UNET_MAX_SAMPLES];
    for (int64_t i = 0; i < level->before.n; i++)
        spans[i] =
            (atedm_prune_span){level->before.first[mask_of(state, i)], level->before.count[i],
                               level->after.first[i], level->after.count[i]};
    const float *before = level > state->levels ? (level - 1)->weights : NULL;
    atedm_source_weights(run->s, level->source, before, level->weights, spans, level->before.n);
}

const float *atedm_prune_weights(const atedm_prune_state *state, int index, bool *ret_weighted)
{
    const float *weights = state->n_levels ? state->levels[state->n_levels - 1].weights : NULL;
    bool any = false;
    for (int64_t i = 0; i < state->packing.n; i++) {
        int64_t count = state->packing.count[i];
        const atedm_prune_spec *spec = state->run->args->samples[i].prune;
        ret_weighted[i] = weights && count < state->levels[0].before.count[i] &&
                          spec->proportional_attention && kept_after(state, i, index) == count;
        any |= ret_weighted[i];
    }
    return any ? weights : NULL;
}

static size_t token_bytes(const atedm_prune_state *state)
{
    return (size_t)state->block->channels * atedm_dtype_size(atedm_stream_dtype(state->run->s));
}

// The samples of a level that copy updates, or those that do not: the ones that are not pruned here
// among them.
static int64_t recover_spans(const atedm_prune_state *state, const atedm_prune_level *level,
                             bool updates, atedm_gather_span *ret_spans)
{
    bool wanted[ATEDM_UNET_MAX_SAMPLES];
    for (int64_t i = 0; i < level->before.n; i++)
        wanted[i] = updates == (level->pruned[i] &&
                                state->run->args->samples[i].prune->copy == ATEDM_COPY_UPDATE);
    return gather_spans(state, &level->after, &level->before, wanted, ret_spans);
}

// level->tokens += factor * the kept tokens x that they are recovered from, where updates are
// copied.
static void add_sources(const atedm_prune_state *state, const atedm_prune_level *level,
                        const void *x, float factor)
{
    atedm_gather_span spans[ATEDM_UNET_MAX_SAMPLES];
    int64_t n = recover_spans(state, level, true, spans);
    atedm_add_rows(state->run->s, x, level->source, factor, level->tokens, state->block->channels,
                   spans, n);
}

// Scores from where they are kept to the level of those samples that reuse them, or `back` of those
// that have ranked. Not aside.
static void move_scores(const atedm_prune_state *state, const atedm_prune_level *level, bool back)
{
    for (int64_t i = 0; i < level->before.n; i++) {
        float *kept = chooses(state, level, i) ? kept_scores(state, i) : NULL;
        if (!kept || back == reuses_scores(state, i))
            continue;
        float *here = level->scores + level->before.first[i];
        atedm_copy(state->run->s, back ? here : kept, back ? kept : here,
                   (size_t)level->before.count[i] * sizeof *here);
    }
}

static void choose(const atedm_prune_state *state, atedm_prune_level *level, int index,
                   const atedm_layer_maps *maps, const void *x)
{
    rank_by_map(state, level, maps, ATEDM_SCORE_SELF);
    rank_by_map(state, level, maps, ATEDM_SCORE_CROSS);
    rank_at_random(state, level, index);
    select_tokens(state, level, index);
    find_places(state, level);
    find_sources(state, level, maps, x);
    weigh(state, level);
}

void atedm_prune_choose(atedm_prune_state *state, int index, const atedm_layer_maps *maps,
                        const void *x)
{
    atedm_prune_level *level = begin_level(state, index);
    move_scores(state, level, false);
    choose(state, level, index, maps, x);
}

void atedm_prune_choose_aside(atedm_prune_state *state, int index, const atedm_source_map *self)
{
    atedm_stream *s = state->run->s;
    atedm_prune_level *level = begin_level(state, index);
    move_scores(state, level, false);
    atedm_stream_begin_aside(s);
    choose(state, level, index, &(atedm_layer_maps){.self = *self}, NULL);
    atedm_stream_end_aside(s);
    level->aside = true;
}

void *atedm_prune_drop(atedm_prune_state *state, void *x)
{
    atedm_prune_level *level = &state->levels[state->n_levels - 1];
    if (level->aside)
        atedm_stream_join_aside(state->run->s);
    level->aside = false;
    move_scores(state, level, true);
    void *kept = atedm_arena_take(state->run->arena, state->run->s,
                                  (size_t)level->after.rows * token_bytes(state));
    gather_kept(state, level, x, kept, token_bytes(state));
    level->tokens = x;
    add_sources(state, level, kept, -1);
    state->packing = level->after;
    return kept;
}

// What one sample's levels add up to, on the host.
typedef struct trace_buffers {
    int32_t *kept, *source, *slots, *places;
    float *scores;
} trace_buffers;

// Follows the sources of sample i back through the levels: buffers->source gets grid places. False
// when a download failed.
static bool compose_sources(const atedm_prune_state *state, int64_t i, const trace_buffers *b)
{
    const atedm_transformer_run *run = state->run;
    int64_t tokens = state->levels[0].before.count[i];
    for (int64_t t = 0; t < tokens; t++)
        b->source[t] = (int32_t)t; // token of the current level that the grid token follows
    for (size_t k = 0; k < state->n_levels; k++) {
        const atedm_prune_level *level = &state->levels[k];
        atedm_download(run->s, level->source + level->before.first[i], b->slots,
                       (size_t)level->before.count[i] * sizeof *b->slots);
        atedm_download(run->s, level->places + level->before.first[i], b->places,
                       (size_t)level->before.count[i] * sizeof *b->places);
        atedm_download(run->s, level->kept + level->after.first[i], b->kept,
                       (size_t)level->after.count[i] * sizeof *b->kept);
        if (!atedm_stream_wait(run->s))
            return false;
        for (int64_t t = 0; t < tokens; t++)
            if (b->source[t] >= 0)
                b->source[t] = b->slots[b->source[t]];
        for (int64_t slot = 0; slot < level->after.count[i]; slot++)
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
    int64_t mask = mask_of(state, i);
    const atedm_prune_level *first = NULL, *last = &state->levels[state->n_levels - 1];
    for (size_t k = 0; k < state->n_levels && !first; k++)
        if (state->levels[k].pruned[i])
            first = &state->levels[k];
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

static void trace(const atedm_prune_state *state)
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

void *atedm_prune_recover(atedm_prune_state *state, void *x)
{
    if (state->n_levels && state->run->args->trace)
        trace(state);
    while (state->n_levels) {
        const atedm_prune_level *level = &state->levels[--state->n_levels];
        atedm_gather_span spans[ATEDM_UNET_MAX_SAMPLES];
        int64_t n = recover_spans(state, level, false, spans);
        atedm_gather_rows(state->run->s, x, level->source, level->tokens, token_bytes(state), spans,
                          n);
        add_sources(state, level, x, 1);
        x = level->tokens;
        state->packing = level->before;
    }
    return x;
}
