// CLIP text encoder: see clip_text.h. tokenizer.h makes the tokens; pipeline_encode.c concatenates
// the two encoders' outputs.
#include "core/clip_text.h"

#include "core/json_read.h"
#include "core/loader.h"
#include "core/tokenizer.h"

#include <stdio.h>

#include <stdlib.h>
#include <string.h>

typedef struct clip_layer {
    const atedm_weight *norm1, *qkv, *out, *norm2, *fc1, *fc2;
} clip_layer;

struct atedm_clip {
    atedm_clip_config config;
    int layers_run; // all layers; without a pooled output all but the last
    const atedm_weight *tokens, *positions, *final_norm, *projection;
    clip_layer layers[ATEDM_CLIP_MAX_LAYERS];
    atedm_weight_list owned;
};

static atedm_status read_activation(const json_t *object, const char *path, atedm_activation *ret,
                                    atedm_error *err)
{
    const char *name = "quick_gelu";
    atedm_status status = atedm_json_string(object, path, "hidden_act", true, &name, err);
    if (status)
        return status;
    if (!strcmp(name, "quick_gelu"))
        *ret = ATEDM_ACT_QUICK_GELU;
    else if (!strcmp(name, "gelu"))
        *ret = ATEDM_ACT_GELU;
    else
        return atedm_error_set(err, ATEDM_ERR_UNSUPPORTED,
                               "%s: hidden_act \"%.64s\" is not supported", path, name);
    return ATEDM_OK;
}

static atedm_status read_architecture(const json_t *object, const char *path, bool *ret_projection,
                                      atedm_error *err)
{
    const json_t *list = json_object_get(object, "architectures");
    const char *name = json_string_value(json_array_get(list, 0));
    if (name && !strcmp(name, "CLIPTextModelWithProjection"))
        *ret_projection = true;
    else if (name && !strcmp(name, "CLIPTextModel"))
        *ret_projection = false;
    else
        return atedm_error_set(err, ATEDM_ERR_UNSUPPORTED,
                               "%s: \"architectures\" names %.64s, not CLIPTextModel or "
                               "CLIPTextModelWithProjection",
                               path, name ? name : "nothing");
    return ATEDM_OK;
}

atedm_status atedm_clip_config_read(const char *path, atedm_clip_config *ret_config,
                                    atedm_error *err)
{
    json_t *object = NULL;
    atedm_clip_config c = {.vocab = 49408, .positions = 77, .eos = 2, .projection = 512};
    int64_t layers = 0, heads = 0;
    double epsilon = 1e-5;
    atedm_status status = atedm_json_load(path, &object, err);
    if (status)
        return status;
    const int64_t wide = ATEDM_CLIP_MAX_WIDTH;
    if ((status = atedm_json_int(object, path, "vocab_size", true, 3, ATEDM_TOKENIZER_MAX_VOCAB,
                                 &c.vocab, err)) ||
        (status = atedm_json_int(object, path, "max_position_embeddings", true, 2,
                                 ATEDM_TOKENIZER_MAX_LENGTH, &c.positions, err)) ||
        (status = atedm_json_int(object, path, "hidden_size", false, 1, wide, &c.width, err)) ||
        (status = atedm_json_int(object, path, "intermediate_size", false, 1, 4 * wide,
                                 &c.mlp_width, err)) ||
        (status =
             atedm_json_int(object, path, "projection_dim", true, 1, wide, &c.projection, err)) ||
        (status = atedm_json_int(object, path, "num_hidden_layers", false, 2, ATEDM_CLIP_MAX_LAYERS,
                                 &layers, err)) ||
        (status = atedm_json_int(object, path, "num_attention_heads", false, 1,
                                 ATEDM_CLIP_MAX_HEADS, &heads, err)) ||
        (status = atedm_json_int(object, path, "eos_token_id", true, 0, ATEDM_TOKENIZER_MAX_VOCAB,
                                 &c.eos, err)) ||
        (status = atedm_json_real(object, path, "layer_norm_eps", true, 0, 1, &epsilon, err)) ||
        (status = read_activation(object, path, &c.activation, err)) ||
        (status = read_architecture(object, path, &c.has_projection, err)))
        goto fail;
    if (c.width % heads) {
        status =
            atedm_error_set(err, ATEDM_ERR_FORMAT,
                            "%s: hidden_size %lld is not a multiple of num_attention_heads %lld",
                            path, (long long)c.width, (long long)heads);
        goto fail;
    }
    c.layers = (int)layers;
    c.heads = (int)heads;
    c.layer_norm_epsilon = (float)epsilon;
    *ret_config = c;
fail:
    json_decref(object);
    return status;
}

static void load_layer(atedm_loader *l, const atedm_clip_config *c, int i, clip_layer *ret_layer)
{
    static const char *const qkv[] = {"q_proj", "k_proj", "v_proj"};
    char attention[ATEDM_PARAMETER_NAME_MAX];
    snprintf(attention, sizeof attention, "text_model.encoder.layers.%d.self_attn.", i);
    ret_layer->norm1 = atedm_load_norm(l, c->width, "text_model.encoder.layers.%d.layer_norm1", i);
    ret_layer->qkv = atedm_load_fused(l, c->width, c->width, true, attention, qkv, 3);
    ret_layer->out = atedm_load_linear(l, c->width, c->width, true, "%sout_proj", attention);
    ret_layer->norm2 = atedm_load_norm(l, c->width, "text_model.encoder.layers.%d.layer_norm2", i);
    ret_layer->fc1 = atedm_load_linear(l, c->mlp_width, c->width, true,
                                       "text_model.encoder.layers.%d.mlp.fc1", i);
    ret_layer->fc2 = atedm_load_linear(l, c->width, c->mlp_width, true,
                                       "text_model.encoder.layers.%d.mlp.fc2", i);
}

// Accounts for the parameters of an encoder's last layer that never runs: files have them.
static void skip_layer(atedm_loader *l, const atedm_clip_config *c, int i)
{
    static const char *const norms[] = {"layer_norm1", "layer_norm2"};
    static const char *const projections[] = {"q_proj", "k_proj", "v_proj", "out_proj"};
    for (size_t k = 0; k < 2; k++) {
        atedm_load_skip(l, c->width, 0, "text_model.encoder.layers.%d.%s.weight", i, norms[k]);
        atedm_load_skip(l, c->width, 0, "text_model.encoder.layers.%d.%s.bias", i, norms[k]);
    }
    for (size_t k = 0; k < 4; k++) {
        const char *name = projections[k];
        atedm_load_skip(l, c->width, c->width, "text_model.encoder.layers.%d.self_attn.%s.weight",
                        i, name);
        atedm_load_skip(l, c->width, 0, "text_model.encoder.layers.%d.self_attn.%s.bias", i, name);
    }
    atedm_load_skip(l, c->mlp_width, c->width, "text_model.encoder.layers.%d.mlp.fc1.weight", i);
    atedm_load_skip(l, c->mlp_width, 0, "text_model.encoder.layers.%d.mlp.fc1.bias", i);
    atedm_load_skip(l, c->width, c->mlp_width, "text_model.encoder.layers.%d.mlp.fc2.weight", i);
    atedm_load_skip(l, c->width, 0, "text_model.encoder.layers.%d.mlp.fc2.bias", i);
}

static void load_all(atedm_loader *l, atedm_clip *clip)
{
    const atedm_clip_config *c = &clip->config;
    clip->tokens = atedm_load_table(l, c->vocab, c->width, "text_model.embeddings.token_embedding");
    clip->positions =
        atedm_load_table(l, c->positions, c->width, "text_model.embeddings.position_embedding");
    for (int i = 0; i < clip->layers_run; i++)
        load_layer(l, c, i, &clip->layers[i]);
    if (c->has_projection) {
        clip->final_norm = atedm_load_norm(l, c->width, "text_model.final_layer_norm");
        clip->projection = atedm_load_linear(l, c->projection, c->width, false, "text_projection");
    } else {
        skip_layer(l, c, c->layers - 1);
        atedm_load_skip(l, c->width, 0, "text_model.final_layer_norm.weight");
        atedm_load_skip(l, c->width, 0, "text_model.final_layer_norm.bias");
    }
}

atedm_status atedm_clip_create(atedm_device *device, atedm_dtype act,
                               const atedm_clip_config *config, atedm_weights *weights,
                               atedm_clip **ret_clip, atedm_error *err)
{
    atedm_clip *clip = calloc(1, sizeof *clip);
    if (!clip)
        return atedm_error_set(err, ATEDM_ERR_NOMEM, "no memory for a text encoder");
    clip->config = *config;
    clip->layers_run = config->has_projection ? config->layers : config->layers - 1;
    atedm_loader loader = {
        .device = device, .act = act, .weights = weights, .list = &clip->owned, .err = err};
    load_all(&loader, clip);
    if (loader.status) {
        atedm_clip_destroy(clip);
        return loader.status;
    }
    *ret_clip = clip;
    return ATEDM_OK;
}

void atedm_clip_destroy(atedm_clip *clip)
{
    if (!clip)
        return;
    atedm_weight_list_finish(&clip->owned);
    free(clip);
}

size_t atedm_clip_bytes(const atedm_clip *clip)
{
    return atedm_weight_list_bytes(&clip->owned);
}

typedef struct clip_run {
    const atedm_clip *clip;
    atedm_stream *s;
    int64_t n, tokens, rows;
    size_t element;
    atedm_span *spans;                // [host] [n]
    void *x, *normed, *qkv, *o, *mlp; // [device] act [rows, c], c = width, width, 3 width, width,
                                      // mlp_width
} clip_run;

static void run_layer(const clip_run *r, const clip_layer *layer)
{
    const atedm_clip_config *c = &r->clip->config;
    const char *qkv = r->qkv;
    atedm_layer_norm(r->s, &(atedm_layer_norm_args){.weight = layer->norm1,
                                                    .x = r->x,
                                                    .y = r->normed,
                                                    .rows = r->rows,
                                                    .epsilon = c->layer_norm_epsilon});
    atedm_linear(r->s, &(atedm_linear_args){
                           .weight = layer->qkv, .x = r->normed, .y = r->qkv, .rows = r->rows});
    atedm_attention(r->s, &(atedm_attention_args){
                              .q = qkv,
                              .k = qkv + (size_t)c->width * r->element,
                              .v = qkv + 2 * (size_t)c->width * r->element,
                              .q_stride = 3 * c->width,
                              .k_stride = 3 * c->width,
                              .v_stride = 3 * c->width,
                              .o = r->o,
                              .spans = r->spans,
                              .n_spans = r->n,
                              .heads = c->heads,
                              .head_dim = (int)(c->width / c->heads),
                              .causal = true,
                          });
    atedm_linear(
        r->s, &(atedm_linear_args){
                  .weight = layer->out, .x = r->o, .residual = r->x, .y = r->x, .rows = r->rows});
    atedm_layer_norm(r->s, &(atedm_layer_norm_args){.weight = layer->norm2,
                                                    .x = r->x,
                                                    .y = r->normed,
                                                    .rows = r->rows,
                                                    .epsilon = c->layer_norm_epsilon});
    atedm_linear(r->s, &(atedm_linear_args){.weight = layer->fc1,
                                            .x = r->normed,
                                            .y = r->mlp,
                                            .rows = r->rows,
                                            .activation = c->activation});
    atedm_linear(
        r->s, &(atedm_linear_args){
                  .weight = layer->fc2, .x = r->mlp, .residual = r->x, .y = r->x, .rows = r->rows});
}

// The position whose output is pooled: that of the first end token; or, for the eos_token_id 2 of
// old configs, that of the largest id (as in transformers).
static int64_t end_position(const atedm_clip_config *c, const int64_t *ids, int64_t tokens)
{
    int64_t largest = 0;
    for (int64_t i = 0; i < tokens; i++) {
        if (c->eos != 2 && ids[i] == c->eos)
            return i;
        if (ids[i] > ids[largest])
            largest = i;
    }
    return c->eos == 2 ? largest : 0;
}

static void pool(const clip_run *r, const int64_t *ids, void *pooled)
{
    const atedm_clip_config *c = &r->clip->config;
    size_t row_bytes = (size_t)c->width * r->element;
    for (int64_t i = 0; i < r->n; i++) {
        int64_t row = i * r->tokens + end_position(c, ids + i * r->tokens, r->tokens);
        atedm_copy(r->s, (const char *)r->x + (size_t)row * row_bytes,
                   (char *)r->o + (size_t)i * row_bytes, row_bytes);
    }
    atedm_layer_norm(r->s, &(atedm_layer_norm_args){.weight = r->clip->final_norm,
                                                    .x = r->o,
                                                    .y = r->normed,
                                                    .rows = r->n,
                                                    .epsilon = c->layer_norm_epsilon});
    atedm_linear(r->s,
                 &(atedm_linear_args){
                     .weight = r->clip->projection, .x = r->normed, .y = pooled, .rows = r->n});
}

void atedm_clip_encode(const atedm_clip *clip, atedm_stream *s, atedm_arena *arena,
                       const int64_t *ids, int64_t n, int64_t tokens, void *hidden, void *pooled)
{
    const atedm_clip_config *c = &clip->config;
    atedm_span spans[ATEDM_CLIP_MAX_PROMPTS];
    if (n < 1 || n > ATEDM_CLIP_MAX_PROMPTS || tokens < 1 || tokens > c->positions ||
        (pooled && !c->has_projection)) {
        atedm_stream_fail(s, ATEDM_ERR_INVALID, "text encoder: %lld prompts of %lld tokens",
                          (long long)n, (long long)tokens);
        return;
    }
    size_t mark = atedm_arena_mark(arena);
    size_t element = atedm_dtype_size(atedm_stream_dtype(s));
    size_t bytes = (size_t)(n * tokens * c->width) * element;
    clip_run r = {.clip = clip,
                  .s = s,
                  .n = n,
                  .tokens = tokens,
                  .rows = n * tokens,
                  .element = element,
                  .spans = spans};
    for (int64_t i = 0; i < n; i++)
        spans[i] = (atedm_span){i * tokens, tokens, i * tokens, tokens};
    r.x = atedm_arena_take(arena, s, bytes);
    r.normed = atedm_arena_take(arena, s, bytes);
    r.qkv = atedm_arena_take(arena, s, 3 * bytes);
    r.o = atedm_arena_take(arena, s, bytes);
    r.mlp = atedm_arena_take(arena, s, (size_t)(n * tokens * c->mlp_width) * element);

    atedm_embed_tokens(s, clip->tokens, clip->positions, ids, r.rows, tokens, r.x);
    for (int i = 0; i < c->layers - 1; i++)
        run_layer(&r, &clip->layers[i]);
    atedm_copy(s, r.x, hidden, bytes);
    if (pooled) {
        run_layer(&r, &clip->layers[c->layers - 1]);
        pool(&r, ids, pooled);
    }
    atedm_arena_release(arena, mark);
}
