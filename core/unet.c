// SDXL's UNet: see unet.h. unet_config.c reads its config; resnet.c has the residual blocks,
// transformer.c the attention blocks, prune.c the pruning in them; unet_key.c tells whether two
// evaluations run the same operations.
#include "core/unet.h"

#include "core/loader.h"
#include "core/resnet.h"
#include "core/transformer.h"
#include "core/unet_key.h"

#include <stdio.h>
#include <stdlib.h>

#define MAX_STAGE_BLOCKS (ATEDM_UNET_MAX_RESNETS + 1)
#define MAX_SKIPS (ATEDM_UNET_MAX_LEVELS * (MAX_STAGE_BLOCKS + 1) + 1)

// A down, mid or up stage: residual blocks. In a stage with attention, an attention block follows
// each residual block.
typedef struct unet_stage {
    int level, n_resnets, n_attentions;
    atedm_resnet resnets[MAX_STAGE_BLOCKS];
    atedm_transformer *attentions[MAX_STAGE_BLOCKS];
    const atedm_weight *resample; // convolution of the down- or upsampler; NULL: no resampling
} unet_stage;

struct atedm_unet {
    atedm_unet_config config;
    const atedm_weight *conv_in, *conv_out, *norm_out;
    const atedm_weight *time1, *time2, *add1, *add2;
    unet_stage down[ATEDM_UNET_MAX_LEVELS], mid, up[ATEDM_UNET_MAX_LEVELS];
    int n_blocks;
    atedm_transformer *blocks; // [n_blocks] in execution order
    atedm_weight_list owned;
};

// ---- loading

static void init_resnet(const atedm_unet_config *c, atedm_resnet *resnet, int64_t in, int64_t out)
{
    *resnet = (atedm_resnet){
        .in = in, .out = out, .norm_groups = c->norm_groups, .norm_epsilon = c->norm_epsilon};
}

static void load_stage(atedm_loader *l, const atedm_unet *unet, unet_stage *stage,
                       const char *prefix)
{
    char name[ATEDM_PARAMETER_NAME_MAX];
    for (int i = 0; i < stage->n_resnets; i++) {
        snprintf(name, sizeof name, "%s.resnets.%d", prefix, i);
        atedm_resnet_load(l, &stage->resnets[i], atedm_unet_embedding_dim(unet), name);
    }
    for (int i = 0; i < stage->n_attentions; i++) {
        snprintf(name, sizeof name, "%s.attentions.%d", prefix, i);
        atedm_transformer_load(l, stage->attentions[i], name);
    }
}

// Assigns the next `count` attention blocks to the stage.
static void assign_blocks(atedm_unet *unet, unet_stage *stage, int count, int *next)
{
    stage->n_attentions = count;
    for (int i = 0; i < count; i++)
        stage->attentions[i] = &unet->blocks[(*next)++];
}

static void load_down(atedm_loader *l, atedm_unet *unet, int64_t *skips, int *n_skips, int *next)
{
    const atedm_unet_config *c = &unet->config;
    int64_t channels = c->channels[0];
    skips[(*n_skips)++] = channels;
    for (int level = 0; level < c->levels; level++) {
        unet_stage *stage = &unet->down[level];
        stage->level = level;
        stage->n_resnets = c->layers_per_block;
        for (int i = 0; i < c->layers_per_block; i++) {
            init_resnet(c, &stage->resnets[i], channels, c->channels[level]);
            channels = c->channels[level];
            skips[(*n_skips)++] = channels;
        }
        assign_blocks(unet, stage, c->attention[level] ? c->layers_per_block : 0, next);
        char prefix[ATEDM_PARAMETER_NAME_MAX];
        snprintf(prefix, sizeof prefix, "down_blocks.%d", level);
        load_stage(l, unet, stage, prefix);
        if (level < c->levels - 1) {
            stage->resample =
                atedm_load_conv(l, channels, channels, 3, 2, "%s.downsamplers.0.conv", prefix);
            skips[(*n_skips)++] = channels;
        }
    }
}

static void load_mid(atedm_loader *l, atedm_unet *unet, int *next)
{
    const atedm_unet_config *c = &unet->config;
    int64_t channels = c->channels[c->levels - 1];
    unet->mid.level = c->levels - 1;
    unet->mid.n_resnets = 2;
    init_resnet(c, &unet->mid.resnets[0], channels, channels);
    init_resnet(c, &unet->mid.resnets[1], channels, channels);
    assign_blocks(unet, &unet->mid, 1, next);
    load_stage(l, unet, &unet->mid, "mid_block");
}

static void load_up(atedm_loader *l, atedm_unet *unet, const int64_t *skips, int n_skips, int *next)
{
    const atedm_unet_config *c = &unet->config;
    int64_t channels = c->channels[c->levels - 1];
    for (int i = 0; i < c->levels; i++) {
        int level = c->levels - 1 - i;
        unet_stage *stage = &unet->up[i];
        stage->level = level;
        stage->n_resnets = c->layers_per_block + 1;
        for (int k = 0; k < stage->n_resnets; k++) {
            init_resnet(c, &stage->resnets[k], channels + skips[--n_skips], c->channels[level]);
            channels = c->channels[level];
        }
        assign_blocks(unet, stage, c->attention[level] ? stage->n_resnets : 0, next);
        char prefix[ATEDM_PARAMETER_NAME_MAX];
        snprintf(prefix, sizeof prefix, "up_blocks.%d", i);
        load_stage(l, unet, stage, prefix);
        if (level > 0)
            stage->resample =
                atedm_load_conv(l, channels, channels, 3, 1, "%s.upsamplers.0.conv", prefix);
    }
}

static void load_all(atedm_loader *l, atedm_unet *unet)
{
    const atedm_unet_config *c = &unet->config;
    int64_t base = c->channels[0], embedding = atedm_unet_embedding_dim(unet);
    int64_t skips[MAX_SKIPS] = {0};
    int n_skips = 0, next = 0;
    unet->conv_in = atedm_load_conv(l, base, c->in_channels, 3, 1, "conv_in");
    unet->time1 = atedm_load_linear(l, embedding, base, true, "time_embedding.linear_1");
    unet->time2 = atedm_load_linear(l, embedding, embedding, true, "time_embedding.linear_2");
    unet->add1 =
        atedm_load_linear(l, embedding, c->projection_input_dim, true, "add_embedding.linear_1");
    unet->add2 = atedm_load_linear(l, embedding, embedding, true, "add_embedding.linear_2");
    load_down(l, unet, skips, &n_skips, &next);
    load_mid(l, unet, &next);
    load_up(l, unet, skips, n_skips, &next);
    unet->norm_out = atedm_load_norm(l, base, "conv_norm_out");
    unet->conv_out = atedm_load_conv(l, c->out_channels, base, 3, 1, "conv_out");
}

atedm_status atedm_unet_create(atedm_device *device, atedm_dtype act,
                               const atedm_unet_config *config, atedm_weights *weights,
                               atedm_unet **ret_unet, atedm_error *err)
{
    atedm_block_info infos[ATEDM_MAX_BLOCKS];
    int n_blocks = atedm_unet_config_blocks(config, infos);
    atedm_unet *unet = calloc(1, sizeof *unet);
    if (!unet || !(unet->blocks = calloc((size_t)n_blocks, sizeof *unet->blocks))) {
        atedm_unet_destroy(unet);
        return atedm_error_set(err, ATEDM_ERR_NOMEM, "no memory for a UNet");
    }
    unet->config = *config;
    unet->n_blocks = n_blocks;
    for (int i = 0; i < n_blocks; i++)
        unet->blocks[i] = (atedm_transformer){
            .info = infos[i],
            .channels = config->channels[infos[i].level],
            .context_dim = config->cross_attention_dim,
            .heads = config->heads[infos[i].level],
            .norm_groups = config->norm_groups,
            .linear_projection = config->linear_projection,
        };
    atedm_loader loader = {
        .device = device, .act = act, .weights = weights, .list = &unet->owned, .err = err};
    load_all(&loader, unet);
    if (loader.status) {
        atedm_unet_destroy(unet);
        return loader.status;
    }
    *ret_unet = unet;
    return ATEDM_OK;
}

void atedm_unet_destroy(atedm_unet *unet)
{
    if (!unet)
        return;
    atedm_weight_list_finish(&unet->owned);
    free(unet->blocks);
    free(unet);
}

size_t atedm_unet_bytes(const atedm_unet *unet)
{
    return atedm_weight_list_bytes(&unet->owned);
}

int64_t atedm_unet_embedding_dim(const atedm_unet *unet)
{
    return 4 * unet->config.channels[0];
}

// ---- evaluating

// y = second(silu(first(x))), two linear layers (diffusers: TimestepEmbedding).
static void embed(const atedm_weight *first, const atedm_weight *second, atedm_stream *s,
                  atedm_arena *arena, const void *x, int64_t n, void *y)
{
    size_t mark = atedm_arena_mark(arena);
    size_t element = atedm_dtype_size(atedm_stream_dtype(s));
    void *hidden = atedm_arena_take(arena, s, (size_t)(n * atedm_weight_out(first)) * element);
    atedm_linear(
        s, &(atedm_linear_args){
               .weight = first, .x = x, .y = hidden, .rows = n, .activation = ATEDM_ACT_SILU});
    atedm_linear(s, &(atedm_linear_args){.weight = second, .x = hidden, .y = y, .rows = n});
    atedm_arena_release(arena, mark);
}

void atedm_unet_embed_condition(const atedm_unet *unet, atedm_stream *s, atedm_arena *arena,
                                const void *pooled, const double *time_ids, int64_t n, void *y)
{
    const atedm_unet_config *c = &unet->config;
    int64_t ids_width = ATEDM_UNET_TIME_IDS * c->addition_time_embed_dim;
    int64_t pooled_width = c->projection_input_dim - ids_width;
    size_t element = atedm_dtype_size(atedm_stream_dtype(s));
    size_t mark = atedm_arena_mark(arena);
    void *ids = atedm_arena_take(arena, s, (size_t)(n * ids_width) * element);
    void *x = atedm_arena_take(arena, s, (size_t)(n * c->projection_input_dim) * element);
    atedm_sinusoid(s, time_ids, n * ATEDM_UNET_TIME_IDS, c->addition_time_embed_dim, ids);
    atedm_concat(s, pooled, pooled_width, ids, ids_width, x, n);
    embed(unet->add1, unet->add2, s, arena, x, n, y);
    atedm_arena_release(arena, mark);
}

typedef struct unet_run {
    const atedm_unet *unet;
    atedm_stream *s;
    atedm_arena *arena;
    const atedm_unet_args *args;
    size_t element;
    const void *embedding; // [device] act [n, embedding_dim], SiLU applied
    const uint64_t *draws; // [device] [n]: the samples' draws
    // Feature maps of the way down, which the way up reads in reverse order, and their channels.
    void *skips[MAX_SKIPS];
    int64_t skip_channels[MAX_SKIPS];
    int n_skips;
} unet_run;

// Height or width of the feature maps at `level`: each downsampling rounds up.
static int64_t side(int64_t full, int level)
{
    return (full + ((int64_t)1 << level) - 1) >> level;
}

// Number of tokens in the first `n_blocks` attention blocks, for h x w latents.
static int64_t count_tokens(const atedm_unet *unet, int n_blocks, int64_t h, int64_t w)
{
    int64_t count = 0;
    for (int i = 0; i < n_blocks; i++) {
        int level = unet->blocks[i].info.level;
        count += side(h, level) * side(w, level);
    }
    return count;
}

int64_t atedm_unet_score_count(const atedm_unet *unet, int64_t h, int64_t w)
{
    return count_tokens(unet, unet->n_blocks, h, w);
}

// Takes scratch memory for a feature map, act [n, h, w, channels], at `level`.
static void *take_map(unet_run *r, int level, int64_t channels)
{
    int64_t h = side(r->args->h, level), w = side(r->args->w, level);
    return atedm_arena_take(r->arena, r->s, (size_t)(r->args->n * h * w * channels) * r->element);
}

static void push_skip(unet_run *r, void *map, int64_t channels)
{
    r->skips[r->n_skips] = map;
    r->skip_channels[r->n_skips++] = channels;
}

static void resnet(unet_run *r, const unet_stage *stage, int i, const void *x, void *y)
{
    atedm_resnet_forward(&stage->resnets[i], r->s, r->arena, x, r->embedding, r->args->n,
                         side(r->args->h, stage->level), side(r->args->w, stage->level), y);
}

static void attention(unet_run *r, const unet_stage *stage, int i, void *x)
{
    atedm_transformer_run run = {
        .s = r->s,
        .arena = r->arena,
        .args = r->args,
        .draws = r->draws,
        .h = side(r->args->h, stage->level),
        .w = side(r->args->w, stage->level),
        .block = (int)(stage->attentions[i] - r->unet->blocks),
    };
    if (r->args->scores) {
        run.score_stride = atedm_unet_score_count(r->unet, r->args->h, r->args->w);
        run.scores = r->args->scores + count_tokens(r->unet, run.block, r->args->h, r->args->w);
    }
    atedm_transformer_forward(stage->attentions[i], &run, x, x);
}

static void *run_down(unet_run *r, void *x)
{
    const atedm_unet_config *c = &r->unet->config;
    push_skip(r, x, c->channels[0]);
    for (int level = 0; level < c->levels; level++) {
        const unet_stage *stage = &r->unet->down[level];
        for (int i = 0; i < stage->n_resnets; i++) {
            void *y = take_map(r, level, c->channels[level]);
            resnet(r, stage, i, x, y);
            if (stage->n_attentions)
                attention(r, stage, i, y);
            push_skip(r, y, c->channels[level]);
            x = y;
        }
        if (stage->resample) {
            void *y = take_map(r, level + 1, c->channels[level]);
            atedm_conv(r->s, &(atedm_conv_args){.weight = stage->resample,
                                                .x = x,
                                                .y = y,
                                                .n = r->args->n,
                                                .h = side(r->args->h, level),
                                                .w = side(r->args->w, level)});
            push_skip(r, y, c->channels[level]);
            x = y;
        }
    }
    return x;
}

static void *run_mid(unet_run *r, void *x)
{
    const unet_stage *stage = &r->unet->mid;
    int64_t channels = stage->resnets[0].out;
    void *y = take_map(r, stage->level, channels);
    void *z = take_map(r, stage->level, channels);
    resnet(r, stage, 0, x, y);
    attention(r, stage, 0, y);
    resnet(r, stage, 1, y, z);
    return z;
}

// Concatenates x and the last skip, and runs a residual block and its attention block into y.
static void up_block(unet_run *r, const unet_stage *stage, int i, const void *x, int64_t x_channels,
                     void *y)
{
    size_t mark = atedm_arena_mark(r->arena);
    int64_t h = side(r->args->h, stage->level), w = side(r->args->w, stage->level);
    int64_t skip_channels = r->skip_channels[--r->n_skips];
    void *both = take_map(r, stage->level, x_channels + skip_channels);
    atedm_concat(r->s, x, x_channels, r->skips[r->n_skips], skip_channels, both,
                 r->args->n * h * w);
    resnet(r, stage, i, both, y);
    if (stage->n_attentions)
        attention(r, stage, i, y);
    atedm_arena_release(r->arena, mark);
}

// The blocks of an up stage alternate between two buffers; the upsampler then doubles the size.
static void *run_up(unet_run *r, void *x)
{
    const atedm_unet_config *c = &r->unet->config;
    int64_t channels = c->channels[c->levels - 1];
    for (int u = 0; u < c->levels; u++) {
        const unet_stage *stage = &r->unet->up[u];
        int64_t out = c->channels[stage->level];
        void *maps[2] = {take_map(r, stage->level, out), take_map(r, stage->level, out)};
        for (int i = 0; i < stage->n_resnets; i++) {
            up_block(r, stage, i, x, channels, maps[i % 2]);
            x = maps[i % 2];
            channels = out;
        }
        if (stage->resample) {
            int64_t h = side(r->args->h, stage->level - 1), w = side(r->args->w, stage->level - 1);
            void *y = take_map(r, stage->level - 1, out);
            size_t mark = atedm_arena_mark(r->arena);
            void *wide = take_map(r, stage->level - 1, out);
            atedm_upsample2(r->s, x, wide, r->args->n, h, w, out);
            atedm_conv(
                r->s,
                &(atedm_conv_args){
                    .weight = stage->resample, .x = wide, .y = y, .n = r->args->n, .h = h, .w = w});
            atedm_arena_release(r->arena, mark);
            x = y;
        }
    }
    return x;
}

// silu(time embedding + condition), [device] act [n, embedding_dim]. Residual blocks use neither
// embedding in any other form.
static void *embed_steps(unet_run *r)
{
    const atedm_unet *unet = r->unet;
    int64_t n = r->args->n, embedding = atedm_unet_embedding_dim(unet);
    double timesteps[ATEDM_UNET_MAX_SAMPLES];
    for (int64_t i = 0; i < n; i++)
        timesteps[i] = r->args->samples[i].timestep;
    void *y = atedm_arena_take(r->arena, r->s, (size_t)(n * embedding) * r->element);
    void *waves =
        atedm_arena_take(r->arena, r->s, (size_t)(n * unet->config.channels[0]) * r->element);
    atedm_sinusoid(r->s, timesteps, n, unet->config.channels[0], waves);
    embed(unet->time1, unet->time2, r->s, r->arena, waves, n, y);
    atedm_add(r->s, y, r->args->condition, y, n * embedding);
    atedm_activate(r->s, ATEDM_ACT_SILU, y, y, n * embedding);
    return y;
}

// Uploads the samples' draws. Operations read them from device memory, so that evaluations that
// differ only in their draws can replay the same recording (CUDA graph).
static const uint64_t *upload_draws(const unet_run *r)
{
    int64_t n = r->args->n;
    uint64_t draws[ATEDM_UNET_MAX_SAMPLES];
    bool wanted = false;
    for (int64_t i = 0; i < n; i++) {
        const atedm_unet_sample *sample = &r->args->samples[i];
        draws[i] = sample->draw;
        wanted |= sample->prune && sample->prune->enabled;
    }
    size_t bytes = (size_t)n * sizeof *draws;
    uint64_t *memory = atedm_arena_take(r->arena, r->s, bytes);
    if (wanted)
        atedm_upload(r->s, draws, memory, bytes);
    return memory;
}

// Computes the prediction from the scaled latents. unet_key.h lists everything that decides which
// operations this enqueues.
static void run_trunk(void *user)
{
    unet_run *r = user;
    const atedm_unet *unet = r->unet;
    const atedm_unet_config *c = &unet->config;
    const atedm_unet_args *args = r->args;
    size_t mark = atedm_arena_mark(r->arena);
    r->n_skips = 0;
    void *x = take_map(r, 0, c->channels[0]);
    atedm_conv(r->s, &(atedm_conv_args){.weight = unet->conv_in,
                                        .x = args->x,
                                        .y = x,
                                        .n = args->n,
                                        .h = args->h,
                                        .w = args->w});
    x = run_down(r, x);
    x = run_mid(r, x);
    x = run_up(r, x);
    atedm_group_norm(r->s, &(atedm_group_norm_args){.weight = unet->norm_out,
                                                    .x = x,
                                                    .y = x,
                                                    .n = args->n,
                                                    .hw = args->h * args->w,
                                                    .groups = c->norm_groups,
                                                    .epsilon = c->norm_epsilon,
                                                    .silu = true});
    atedm_conv(r->s, &(atedm_conv_args){.weight = unet->conv_out,
                                        .x = x,
                                        .y = args->y,
                                        .n = args->n,
                                        .h = args->h,
                                        .w = args->w});
    atedm_arena_release(r->arena, mark);
}

void atedm_unet_forward(const atedm_unet *unet, atedm_stream *s, atedm_arena *arena,
                        const atedm_unet_args *args)
{
    if (args->n < 1 || args->n > ATEDM_UNET_MAX_SAMPLES || args->h < 1 || args->w < 1) {
        atedm_stream_fail(s, ATEDM_ERR_INVALID, "UNet: %lld samples of %lld x %lld",
                          (long long)args->n, (long long)args->h, (long long)args->w);
        return;
    }
    size_t mark = atedm_arena_mark(arena);
    unet_run r = {.unet = unet,
                  .s = s,
                  .arena = arena,
                  .args = args,
                  .element = atedm_dtype_size(atedm_stream_dtype(s))};
    r.embedding = embed_steps(&r);
    r.draws = upload_draws(&r);
    if (args->trace) { // a trace downloads between operations, which a recording cannot
        run_trunk(&r);
    } else {
        atedm_unet_key key;
        size_t bytes =
            atedm_unet_key_make(unet, unet->n_blocks, args, r.embedding, r.draws, arena, &key);
        atedm_stream_repeat(s, &key, bytes, run_trunk, &r);
    }
    atedm_arena_release(arena, mark);
}
