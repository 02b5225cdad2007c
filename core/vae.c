// The decoder of SDXL's autoencoder: see vae.h.
#include "core/vae.h"

#include "core/json_read.h"
#include "core/loader.h"
#include "core/resnet.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define NORM_EPSILON 1e-6f // the constant of diffusers' AutoencoderKL
#define MAX_RESNETS (ATEDM_VAE_MAX_RESNETS + 1)

typedef struct vae_attention {
    const atedm_weight *norm, *qkv, *out;
} vae_attention;

typedef struct vae_stage {
    atedm_resnet resnets[MAX_RESNETS];
    const atedm_weight *upsample; // NULL in the last stage
} vae_stage;

struct atedm_vae {
    atedm_vae_config config;
    const atedm_weight *post_quant, *conv_in, *norm_out, *conv_out;
    atedm_resnet mid[2];
    vae_attention attention;
    vae_stage up[ATEDM_VAE_MAX_LEVELS];
    atedm_weight_list owned;
};

// ---- config
// ----------------------------------------------------------------------------------------

static atedm_status check_kinds(const json_t *object, const char *path, int levels,
                                atedm_error *err)
{
    const char *act = "silu";
    atedm_status status = atedm_json_string(object, path, "act_fn", true, &act, err);
    if (status)
        return status;
    if (strcmp(act, "silu"))
        return atedm_error_set(err, ATEDM_ERR_UNSUPPORTED, "%s: act_fn \"%.64s\" is not supported",
                               path, act);
    const json_t *list = json_object_get(object, "up_block_types");
    if (!json_is_array(list) || json_array_size(list) != (size_t)levels)
        return atedm_error_set(err, ATEDM_ERR_FORMAT,
                               "%s: \"up_block_types\" is not an array of %d names", path, levels);
    for (int i = 0; i < levels; i++) {
        const char *name = json_string_value(json_array_get(list, (size_t)i));
        if (!name || strcmp(name, "UpDecoderBlock2D"))
            return atedm_error_set(
                err, ATEDM_ERR_UNSUPPORTED,
                "%s: \"up_block_types\" holds something else than UpDecoderBlock2D", path);
    }
    static const char *const unsupported[] = {"latents_mean", "latents_std", "shift_factor"};
    for (size_t i = 0; i < sizeof unsupported / sizeof *unsupported; i++) {
        const json_t *item = json_object_get(object, unsupported[i]);
        if (item && !json_is_null(item))
            return atedm_error_set(err, ATEDM_ERR_UNSUPPORTED,
                                   "%s: %s is set, which is not supported", path, unsupported[i]);
    }
    return ATEDM_OK;
}

atedm_status atedm_vae_config_read(const char *path, atedm_vae_config *ret_config, atedm_error *err)
{
    json_t *object = NULL;
    atedm_vae_config c = {.latent_channels = 4,
                          .out_channels = 3,
                          .scaling_factor = 0.18215,
                          .post_quant_conv = true,
                          .mid_attention = true};
    int64_t layers = 1, groups = 32;
    size_t levels = 0;
    atedm_status status = atedm_json_load(path, &object, err);
    if (status)
        return status;
    if ((status = atedm_json_ints(object, path, "block_out_channels", 1, ATEDM_VAE_MAX_LEVELS, 1,
                                  ATEDM_VAE_MAX_CHANNELS, c.channels, &levels, err)) ||
        (status = atedm_json_int(object, path, "latent_channels", true, 1,
                                 ATEDM_VAE_MAX_LATENT_CHANNELS, &c.latent_channels, err)) ||
        (status = atedm_json_int(object, path, "out_channels", true, 3, 3, &c.out_channels, err)) ||
        (status = atedm_json_int(object, path, "layers_per_block", true, 1, ATEDM_VAE_MAX_RESNETS,
                                 &layers, err)) ||
        (status = atedm_json_int(object, path, "norm_num_groups", true, 1, ATEDM_VAE_MAX_CHANNELS,
                                 &groups, err)) ||
        (status = atedm_json_real(object, path, "scaling_factor", true, 1e-6, 1e6,
                                  &c.scaling_factor, err)) ||
        (status =
             atedm_json_bool(object, path, "use_post_quant_conv", true, &c.post_quant_conv, err)) ||
        (status = atedm_json_bool(object, path, "mid_block_add_attention", true, &c.mid_attention,
                                  err)) ||
        (status = check_kinds(object, path, (int)levels, err)))
        goto fail;
    c.levels = (int)levels;
    c.layers_per_block = (int)layers;
    c.norm_groups = (int)groups;
    for (int i = 0; i < c.levels; i++)
        if (c.channels[i] % groups) {
            status = atedm_error_set(
                err, ATEDM_ERR_FORMAT,
                "%s: block_out_channels %lld is not a multiple of norm_num_groups %lld", path,
                (long long)c.channels[i], (long long)groups);
            goto fail;
        }
    *ret_config = c;
fail:
    json_decref(object);
    return status;
}

int64_t atedm_vae_config_scale(const atedm_vae_config *config)
{
    return (int64_t)1 << (config->levels - 1);
}

// ---- loading
// ---------------------------------------------------------------------------------------

static void load_resnet(atedm_loader *l, const atedm_vae *vae, atedm_resnet *resnet, int64_t in,
                        int64_t out, const char *prefix)
{
    *resnet = (atedm_resnet){
        .in = in, .out = out, .norm_groups = vae->config.norm_groups, .norm_epsilon = NORM_EPSILON};
    atedm_resnet_load(l, resnet, 0, prefix);
}

static void load_mid(atedm_loader *l, atedm_vae *vae, int64_t channels)
{
    static const char *const qkv[] = {"to_q", "to_k", "to_v"};
    load_resnet(l, vae, &vae->mid[0], channels, channels, "decoder.mid_block.resnets.0");
    load_resnet(l, vae, &vae->mid[1], channels, channels, "decoder.mid_block.resnets.1");
    if (!vae->config.mid_attention)
        return;
    vae->attention.norm = atedm_load_norm(l, channels, "decoder.mid_block.attentions.0.group_norm");
    vae->attention.qkv =
        atedm_load_fused(l, channels, channels, true, "decoder.mid_block.attentions.0.", qkv, 3);
    vae->attention.out =
        atedm_load_linear(l, channels, channels, true, "decoder.mid_block.attentions.0.to_out.0");
}

static void load_all(atedm_loader *l, atedm_vae *vae)
{
    const atedm_vae_config *c = &vae->config;
    int64_t channels = c->channels[c->levels - 1];
    if (c->post_quant_conv)
        vae->post_quant =
            atedm_load_conv(l, c->latent_channels, c->latent_channels, 1, 1, "post_quant_conv");
    vae->conv_in = atedm_load_conv(l, channels, c->latent_channels, 3, 1, "decoder.conv_in");
    load_mid(l, vae, channels);
    for (int i = 0; i < c->levels; i++) {
        int64_t out = c->channels[c->levels - 1 - i];
        for (int k = 0; k <= c->layers_per_block; k++) {
            char prefix[ATEDM_PARAMETER_NAME_MAX];
            snprintf(prefix, sizeof prefix, "decoder.up_blocks.%d.resnets.%d", i, k);
            load_resnet(l, vae, &vae->up[i].resnets[k], channels, out, prefix);
            channels = out;
        }
        if (i < c->levels - 1)
            vae->up[i].upsample =
                atedm_load_conv(l, out, out, 3, 1, "decoder.up_blocks.%d.upsamplers.0.conv", i);
    }
    vae->norm_out = atedm_load_norm(l, channels, "decoder.conv_norm_out");
    vae->conv_out = atedm_load_conv(l, c->out_channels, channels, 3, 1, "decoder.conv_out");
}

atedm_status atedm_vae_create(atedm_device *device, atedm_dtype act, const atedm_vae_config *config,
                              atedm_weights *weights, atedm_vae **ret_vae, atedm_error *err)
{
    atedm_vae *vae = calloc(1, sizeof *vae);
    if (!vae)
        return atedm_error_set(err, ATEDM_ERR_NOMEM, "no memory for a VAE");
    vae->config = *config;
    atedm_loader loader = {
        .device = device, .act = act, .weights = weights, .list = &vae->owned, .err = err};
    load_all(&loader, vae);
    if (loader.status) {
        atedm_vae_destroy(vae);
        return loader.status;
    }
    *ret_vae = vae;
    return ATEDM_OK;
}

void atedm_vae_destroy(atedm_vae *vae)
{
    if (!vae)
        return;
    atedm_weight_list_finish(&vae->owned);
    free(vae);
}

size_t atedm_vae_bytes(const atedm_vae *vae)
{
    return atedm_weight_list_bytes(&vae->owned);
}

// ---- decoding
// --------------------------------------------------------------------------------------

static void swap(atedm_vae_decoding *r)
{
    void *x = r->x;
    r->x = r->y;
    r->y = x;
}

static void conv(atedm_vae_decoding *r, const atedm_weight *weight)
{
    atedm_conv(r->s, &(atedm_conv_args){
                         .weight = weight, .x = r->x, .y = r->y, .n = 1, .h = r->h, .w = r->w});
    swap(r);
}

static void resnet(atedm_vae_decoding *r, const atedm_resnet *block)
{
    atedm_resnet_forward(block, r->s, r->arena, r->x, NULL, 1, r->h, r->w, r->y);
    swap(r);
}

// x += attention(group_norm(x)): one head over all pixels.
static void attention(atedm_vae_decoding *r)
{
    const vae_attention *a = &r->vae->attention;
    int64_t rows = r->h * r->w, c = atedm_weight_in(a->qkv);
    size_t element = atedm_dtype_size(atedm_stream_dtype(r->s));
    size_t mark = atedm_arena_mark(r->arena), bytes = (size_t)(rows * c) * element;
    char *qkv = atedm_arena_take(r->arena, r->s, 3 * bytes);
    void *o = atedm_arena_take(r->arena, r->s, bytes);
    size_t column = (size_t)c * element;
    atedm_group_norm(r->s, &(atedm_group_norm_args){.weight = a->norm,
                                                    .x = r->x,
                                                    .y = o,
                                                    .n = 1,
                                                    .hw = rows,
                                                    .groups = r->vae->config.norm_groups,
                                                    .epsilon = NORM_EPSILON});
    atedm_linear(r->s, &(atedm_linear_args){.weight = a->qkv, .x = o, .y = qkv, .rows = rows});
    atedm_attention(r->s, &(atedm_attention_args){
                              .q = qkv,
                              .k = qkv + column,
                              .v = qkv + 2 * column,
                              .q_stride = 3 * c,
                              .k_stride = 3 * c,
                              .v_stride = 3 * c,
                              .o = o,
                              .spans = &(atedm_span){0, rows, 0, rows},
                              .n_spans = 1,
                              .heads = 1,
                              .head_dim = (int)c,
                          });
    atedm_linear(r->s, &(atedm_linear_args){
                           .weight = a->out, .x = o, .residual = r->x, .y = r->x, .rows = rows});
    atedm_arena_release(r->arena, mark);
}

static void upsample(atedm_vae_decoding *r, const atedm_weight *weight)
{
    r->h *= 2;
    r->w *= 2;
    atedm_upsample2(r->s, r->x, r->y, 1, r->h, r->w, atedm_weight_in(weight));
    swap(r);
    conv(r, weight);
}

// Elements of the largest feature map: the latents, or the map at the start or end of a level.
static size_t largest_map(const atedm_vae_config *c, int64_t h, int64_t w)
{
    size_t largest = (size_t)(h * w * c->latent_channels);
    for (int i = 0; i < c->levels; i++) {
        int64_t out = c->channels[c->levels - 1 - i];
        int64_t in = i == 0 ? out : c->channels[c->levels - i];
        size_t size = (size_t)((h << i) * (w << i) * (in > out ? in : out));
        largest = size > largest ? size : largest;
    }
    return largest;
}

void atedm_vae_decoding_init(atedm_vae_decoding *r, const atedm_vae *vae, atedm_stream *s,
                             atedm_arena *arena, const float *latents, int64_t h, int64_t w)
{
    *r = (atedm_vae_decoding){.vae = vae,
                              .s = s,
                              .arena = arena,
                              .mark = atedm_arena_mark(arena),
                              .latents = latents,
                              .h = h,
                              .w = w};
    size_t bytes = largest_map(&vae->config, h, w) * atedm_dtype_size(atedm_stream_dtype(s));
    r->x = atedm_arena_take(arena, s, bytes);
    r->y = atedm_arena_take(arena, s, bytes);
}

static void enter(atedm_vae_decoding *r)
{
    const atedm_vae_config *c = &r->vae->config;
    double scale = 1 / c->scaling_factor;
    atedm_scale_input(r->s, r->latents, &scale, r->x, 1, r->h * r->w * c->latent_channels);
    if (r->vae->post_quant)
        conv(r, r->vae->post_quant);
    conv(r, r->vae->conv_in);
}

static void leave(atedm_vae_decoding *r, void *y)
{
    atedm_group_norm(r->s, &(atedm_group_norm_args){.weight = r->vae->norm_out,
                                                    .x = r->x,
                                                    .y = r->x,
                                                    .n = 1,
                                                    .hw = r->h * r->w,
                                                    .groups = r->vae->config.norm_groups,
                                                    .epsilon = NORM_EPSILON,
                                                    .silu = true});
    atedm_conv(r->s,
               &(atedm_conv_args){
                   .weight = r->vae->conv_out, .x = r->x, .y = y, .n = 1, .h = r->h, .w = r->w});
}

// Runs one piece of a level: one of its residual blocks, or its upsampling if it has one.
static void run_up(atedm_vae_decoding *r, int level, int piece)
{
    const vae_stage *up = &r->vae->up[level];
    if (piece <= r->vae->config.layers_per_block)
        resnet(r, &up->resnets[piece]);
    else if (up->upsample)
        upsample(r, up->upsample);
}

bool atedm_vae_decoding_advance(atedm_vae_decoding *r, void *y)
{
    enum { ENTER, MID_FIRST, MID_ATTENTION, MID_LAST, UP };
    const atedm_vae_config *c = &r->vae->config;
    int piece = r->piece++, pieces_a_level = c->layers_per_block + 2;
    int up = piece - UP, level = up / pieces_a_level;
    if (piece == ENTER)
        enter(r);
    else if (piece == MID_FIRST)
        resnet(r, &r->vae->mid[0]);
    else if (piece == MID_ATTENTION && c->mid_attention)
        attention(r);
    else if (piece == MID_LAST)
        resnet(r, &r->vae->mid[1]);
    else if (piece >= UP && level < c->levels)
        run_up(r, level, up % pieces_a_level);
    if (piece < UP || level < c->levels)
        return true;
    leave(r, y);
    atedm_arena_release(r->arena, r->mark);
    return false;
}

void atedm_vae_decode(const atedm_vae *vae, atedm_stream *s, atedm_arena *arena,
                      const float *latents, int64_t h, int64_t w, void *y)
{
    atedm_vae_decoding decoding;
    atedm_vae_decoding_init(&decoding, vae, s, arena, latents, h, w);
    while (atedm_vae_decoding_advance(&decoding, y))
        ;
}
