// Attention block of the UNet: see transformer.h.
#include "core/transformer.h"

#include "core/prune.h"

#include <stdio.h>

#define GROUP_NORM_EPSILON 1e-6f // fixed in Transformer2DModel; the config's norm_eps is not used
#define LAYER_NORM_EPSILON 1e-5f

_Static_assert(2 * ATEDM_UNET_MAX_LAYERS <= ATEDM_LOADER_MAX_PARTS,
               "keys and values of each layer");

static void load_layer(atedm_loader *l, atedm_transformer *block, const char *prefix, int i,
                       atedm_parts *text_kv)
{
    static const char *const qkv[] = {"attn1.to_q", "attn1.to_k", "attn1.to_v"};
    atedm_transformer_layer *layer = &block->layers[i];
    int64_t c = block->channels;
    char p[ATEDM_PARAMETER_NAME_MAX];
    snprintf(p, sizeof p, "%s.transformer_blocks.%d.", prefix, i);
    layer->norm1 = atedm_load_norm(l, c, "%snorm1", p);
    layer->qkv = atedm_load_fused(l, c, c, false, p, qkv, 3);
    layer->out1 = atedm_load_linear(l, c, c, true, "%sattn1.to_out.0", p);
    layer->norm2 = atedm_load_norm(l, c, "%snorm2", p);
    layer->q2 = atedm_load_linear(l, c, c, false, "%sattn2.to_q", p);
    atedm_load_part(l, text_kv, c, block->context_dim, "%sattn2.to_k", p);
    atedm_load_part(l, text_kv, c, block->context_dim, "%sattn2.to_v", p);
    layer->out2 = atedm_load_linear(l, c, c, true, "%sattn2.to_out.0", p);
    layer->norm3 = atedm_load_norm(l, c, "%snorm3", p);
    layer->ff_in = atedm_load_linear(l, 8 * c, c, true, "%sff.net.0.proj", p);
    layer->ff_out = atedm_load_linear(l, c, 4 * c, true, "%sff.net.2", p);
}

void atedm_transformer_load(atedm_loader *l, atedm_transformer *block, const char *prefix)
{
    int64_t c = block->channels;
    block->norm = atedm_load_norm(l, c, "%s.norm", prefix);
    if (block->linear_projection)
        block->proj_in = atedm_load_linear(l, c, c, true, "%s.proj_in", prefix);
    else
        block->proj_in = atedm_load_conv(l, c, c, 1, 1, "%s.proj_in", prefix);
    atedm_parts text_kv = {0};
    for (int i = 0; i < block->info.layers; i++)
        load_layer(l, block, prefix, i, &text_kv);
    block->text_kv = atedm_load_parts(l, &text_kv);
    if (block->linear_projection)
        block->proj_out = atedm_load_linear(l, c, c, true, "%s.proj_out", prefix);
    else
        block->proj_out = atedm_load_conv(l, c, c, 1, 1, "%s.proj_out", prefix);
}

typedef struct layer_run {
    const atedm_transformer *block;
    const atedm_transformer_layer *layer;
    const atedm_transformer_run *run;
    atedm_prune_state *pruning;
    const atedm_packing *packing; // the pruning's present packing of the tokens
    int index;                    // of the layer
    const char *text_kv;          // the layer's columns of the block's text_kv product
    size_t element;
} layer_run;

static void *take(const layer_run *r, int64_t rows, int64_t columns)
{
    return atedm_arena_take(r->run->arena, r->run->s, (size_t)(rows * columns) * r->element);
}

static float *take_lse(const layer_run *r)
{
    size_t count = (size_t)r->packing->rows * (size_t)r->block->heads;
    return atedm_arena_take(r->run->arena, r->run->s, count * sizeof(float));
}

static void *layer_norm(const layer_run *r, const atedm_weight *weight, const void *x)
{
    void *y = take(r, r->packing->rows, r->block->channels);
    atedm_layer_norm(r->run->s, &(atedm_layer_norm_args){.weight = weight,
                                                         .x = x,
                                                         .y = y,
                                                         .rows = r->packing->rows,
                                                         .epsilon = LAYER_NORM_EPSILON});
    return y;
}

static void *linear(const layer_run *r, const atedm_weight *weight, const void *x, int64_t rows)
{
    void *y = take(r, rows, atedm_weight_out(weight));
    atedm_linear(r->run->s, &(atedm_linear_args){.weight = weight, .x = x, .y = y, .rows = rows});
    return y;
}

static void add_linear(const layer_run *r, const atedm_weight *weight, const void *x, void *t)
{
    atedm_linear(r->run->s,
                 &(atedm_linear_args){
                     .weight = weight, .x = x, .residual = t, .y = t, .rows = r->packing->rows});
}

// The operands of one attention of a layer.
typedef struct attention {
    atedm_source_map map; // queries and keys; lse only if pruning needs it
    const void *v;        // same row stride as k
    float *lse;           // the map's lse, writable
    void *o;
    bool cross; // attends to the text, else to the sample's own tokens
} attention;

// Attention of the samples whose keys `key_bias` weighs; if it is NULL, of all other samples.
static void attend_some(const layer_run *r, const attention *a, const float *key_bias,
                        const bool *weighted)
{
    const atedm_source_map *map = &a->map;
    atedm_span spans[ATEDM_UNET_MAX_SAMPLES];
    int64_t text = r->run->args->context_tokens, n = 0;
    for (int64_t i = 0; i < r->packing->n; i++) {
        int64_t first = r->packing->first[i], count = r->packing->count[i];
        if (weighted[i] == (key_bias != NULL))
            spans[n++] = a->cross ? (atedm_span){first, count, i * text, text}
                                  : (atedm_span){first, count, first, count};
    }
    atedm_attention(r->run->s, &(atedm_attention_args){
                                   .q = map->q,
                                   .k = map->k,
                                   .v = a->v,
                                   .q_stride = map->q_stride,
                                   .k_stride = map->k_stride,
                                   .v_stride = map->k_stride,
                                   .key_bias = key_bias,
                                   .o = a->o,
                                   .lse = a->lse,
                                   .lse_stride = map->lse_stride,
                                   .spans = spans,
                                   .n_spans = n,
                                   .heads = map->heads,
                                   .head_dim = map->head_dim,
                               });
}

static void attend(const layer_run *r, const attention *a)
{
    bool weighted[ATEDM_UNET_MAX_SAMPLES] = {false};
    const float *weights = a->cross ? NULL : atedm_prune_weights(r->pruning, r->index, weighted);
    attend_some(r, a, NULL, weighted);
    if (weights)
        attend_some(r, a, weights, weighted);
}

// The operands except queries, keys and values.
static attention make_attention(const layer_run *r, bool cross, bool with_lse, void *o)
{
    float *lse = with_lse ? take_lse(r) : NULL;
    return (attention){
        .map = {.lse = lse,
                .lse_stride = r->packing->rows,
                .heads = r->block->heads,
                .head_dim = (int)(r->block->channels / r->block->heads)},
        .lse = lse,
        .o = o,
        .cross = cross,
    };
}

// Runs a layer on the tokens t, [device] act [rows, channels], in place. The attention operands
// stay on the arena, for pruning.
static void run_layer(const layer_run *r, void *t, atedm_prune_wants wants,
                      atedm_layer_maps *ret_maps)
{
    const atedm_transformer_layer *layer = r->layer;
    int64_t c = r->block->channels, rows = r->packing->rows;
    size_t column = (size_t)c * r->element;
    void *o = take(r, rows, c);

    attention self = make_attention(r, false, wants.self, o);
    const char *qkv = linear(r, layer->qkv, layer_norm(r, layer->norm1, t), rows);
    self.map.q = qkv;
    self.map.k = qkv + column;
    self.v = qkv + 2 * column;
    self.map.q_stride = self.map.k_stride = 3 * c;
    attend(r, &self);
    if (wants.aside)
        atedm_prune_choose_aside(r->pruning, r->index, &self.map);
    add_linear(r, layer->out1, o, t);

    attention cross = make_attention(r, true, wants.cross, o);
    cross.map.q = linear(r, layer->q2, layer_norm(r, layer->norm2, t), rows);
    cross.map.k = r->text_kv;
    cross.v = r->text_kv + column;
    cross.map.q_stride = c;
    cross.map.k_stride = atedm_weight_out(r->block->text_kv);
    attend(r, &cross);
    add_linear(r, layer->out2, o, t);

    size_t mark = atedm_arena_mark(r->run->arena);
    void *gated = take(r, rows, 4 * c);
    void *wide = linear(r, layer->ff_in, layer_norm(r, layer->norm3, t), rows);
    atedm_geglu(r->run->s, wide, gated, rows, 4 * c);
    add_linear(r, layer->ff_out, gated, t);
    atedm_arena_release(r->run->arena, mark);

    *ret_maps = (atedm_layer_maps){.self = self.map, .cross = cross.map};
}

static void project(const atedm_transformer *block, const atedm_transformer_run *run,
                    const atedm_weight *weight, const void *x, const void *residual, void *y)
{
    int64_t n = run->args->n;
    if (block->linear_projection)
        atedm_linear(run->s, &(atedm_linear_args){.weight = weight,
                                                  .x = x,
                                                  .residual = residual,
                                                  .y = y,
                                                  .rows = n * run->h * run->w});
    else
        atedm_conv(run->s, &(atedm_conv_args){.weight = weight,
                                              .x = x,
                                              .residual = residual,
                                              .y = y,
                                              .n = n,
                                              .h = run->h,
                                              .w = run->w});
}

// Runs the layers on the tokens t. After a layer that prunes, its scratch memory stays until the
// block ends, because recovery needs what the layer has left there.
static void *run_layers(const atedm_transformer *block, const atedm_transformer_run *run, void *t)
{
    atedm_prune_state state;
    atedm_prune_begin(&state, block, run);
    layer_run r = {.block = block,
                   .run = run,
                   .pruning = &state,
                   .packing = &state.packing,
                   .element = atedm_dtype_size(atedm_stream_dtype(run->s))};
    // One product for all layers: the text is the same for each of them, and it has so few rows
    // that only many columns keep a device busy.
    const char *text_kv =
        linear(&r, block->text_kv, run->args->context, run->args->n * run->args->context_tokens);
    for (int i = 0; i < block->info.layers; i++) {
        r.layer = &block->layers[i];
        r.index = i;
        r.text_kv = text_kv + (size_t)i * 2 * (size_t)block->channels * r.element;
        atedm_prune_wants wants = atedm_prune_layer_wants(&state, i);
        size_t mark = atedm_arena_mark(run->arena);
        atedm_layer_maps maps;
        run_layer(&r, t, wants, &maps);
        if (!wants.any) {
            atedm_arena_release(run->arena, mark);
            continue;
        }
        if (!wants.aside)
            atedm_prune_choose(&state, i, &maps, t);
        t = atedm_prune_drop(&state, t);
    }
    return atedm_prune_recover(&state, t);
}

void atedm_transformer_forward(const atedm_transformer *block, const atedm_transformer_run *run,
                               const void *x, void *y)
{
    size_t mark = atedm_arena_mark(run->arena);
    int64_t n = run->args->n, hw = run->h * run->w;
    size_t bytes =
        (size_t)(n * hw * block->channels) * atedm_dtype_size(atedm_stream_dtype(run->s));
    void *t = atedm_arena_take(run->arena, run->s, bytes);
    size_t normed_mark = atedm_arena_mark(run->arena);
    void *normed = atedm_arena_take(run->arena, run->s, bytes);
    atedm_group_norm(run->s, &(atedm_group_norm_args){.weight = block->norm,
                                                      .x = x,
                                                      .y = normed,
                                                      .n = n,
                                                      .hw = hw,
                                                      .groups = block->norm_groups,
                                                      .epsilon = GROUP_NORM_EPSILON});
    project(block, run, block->proj_in, normed, NULL, t);
    atedm_arena_release(run->arena, normed_mark);
    t = run_layers(block, run, t);
    project(block, run, block->proj_out, t, x, y);
    atedm_arena_release(run->arena, mark);
}
