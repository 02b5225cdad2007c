// Architectures without a model's folder: see model.h. "sdxl-base" is built in. Others are JSON
// files with the numbers in which models of SDXL's topology differ, named as in diffusers' configs:
//
//   {"vocab_size": 2048,
//    "text_encoder":   {"hidden_size", "intermediate_size", "num_hidden_layers",
//                       "num_attention_heads", "hidden_act": "quick_gelu" or "gelu"},
//    "text_encoder_2": {the same, and "projection_dim"},
//    "unet": {"block_out_channels": [...], "attention": [true where a level has attention],
//             "transformer_layers_per_block": [...], "attention_heads": [...],
//             "layers_per_block", "norm_num_groups", "addition_time_embed_dim",
//             "sample_size": native height and width in latents},
//    "vae":  {"block_out_channels": [...], "layers_per_block", "norm_num_groups"}}
//
// Every field is required; unknown fields are refused. The other numbers follow: the UNet's
// cross_attention_dim is the sum of both encoders' widths; projection_class_embeddings_input_dim
// follows from projection_dim and addition_time_embed_dim; latents have 4 channels; schedule and
// scaling factor are SDXL's. config/arch-tiny.json is an example.
#include "core/model.h"

#include "core/json_read.h"

#include <stdio.h>
#include <string.h>

#define MIN_VOCAB 514 // symbols of 256 bytes, inside and at the end of a word, and two specials
#define LATENT_CHANNELS 4

static const atedm_scheduler_config sdxl_scheduler = {
    .train_timesteps = 1000,
    .beta_start = 0.00085,
    .beta_end = 0.012,
    .betas = ATEDM_BETAS_SCALED_LINEAR,
    .prediction = ATEDM_PREDICT_EPSILON,
    .spacing = ATEDM_SPACING_LEADING,
    .steps_offset = 1,
};

// What all architectures share. SDXL's own configs have the old value 2 for eos (clip_text.h).
static const atedm_clip_config common_clip = {
    .positions = 77, .layer_norm_epsilon = 1e-5F, .activation = ATEDM_ACT_QUICK_GELU, .eos = 2};
static const atedm_unet_config common_unet = {.in_channels = LATENT_CHANNELS,
                                              .out_channels = LATENT_CHANNELS,
                                              .norm_epsilon = 1e-5F,
                                              .linear_projection = true};
static const atedm_vae_config common_vae = {.latent_channels = LATENT_CHANNELS,
                                            .out_channels = 3,
                                            .scaling_factor = 0.13025,
                                            .post_quant_conv = true,
                                            .mid_attention = true};

// ---- sdxl-base

// The public configs of stabilityai/stable-diffusion-xl-base-1.0.
static atedm_model_config sdxl_base(void)
{
    atedm_clip_config first = common_clip;
    first.vocab = 49408;
    first.width = 768;
    first.mlp_width = 3072;
    first.projection = 768;
    first.layers = 12;
    first.heads = 12;

    atedm_clip_config second = common_clip;
    second.vocab = 49408;
    second.width = 1280;
    second.mlp_width = 5120;
    second.projection = 1280;
    second.layers = 32;
    second.heads = 20;
    second.activation = ATEDM_ACT_GELU;
    second.has_projection = true;

    atedm_unet_config unet = common_unet;
    unet.levels = 3;
    memcpy(unet.channels, (int64_t[]){320, 640, 1280}, 3 * sizeof unet.channels[0]);
    memcpy(unet.attention, (bool[]){false, true, true}, 3 * sizeof unet.attention[0]);
    memcpy(unet.transformer_layers, (int[]){1, 2, 10}, 3 * sizeof unet.transformer_layers[0]);
    memcpy(unet.heads, (int[]){5, 10, 20}, 3 * sizeof unet.heads[0]);
    unet.layers_per_block = 2;
    unet.cross_attention_dim = 2048;
    unet.norm_groups = 32;
    unet.addition_time_embed_dim = 256;
    unet.projection_input_dim = 2816;
    unet.sample_size = 128;

    atedm_vae_config vae = common_vae;
    vae.levels = 4;
    memcpy(vae.channels, (int64_t[]){128, 256, 512, 512}, 4 * sizeof vae.channels[0]);
    vae.layers_per_block = 2;
    vae.norm_groups = 32;

    return (atedm_model_config){.name = "sdxl-base",
                                .parts = {.clip = {first, second}, .unet = unet, .vae = vae},
                                .scheduler = sdxl_scheduler,
                                .force_zeros_for_empty_prompt = true};
}

// ---- files

// An object that is being read. `name`: the file's path and the object's key, for messages.
typedef struct section {
    const json_t *object;
    char name[512];
    atedm_error *err;
} section;

static atedm_status refuse_unknown(const char *name, json_t *object, const char *const *fields,
                                   size_t n_fields, atedm_error *err)
{
    const char *field = NULL;
    json_t *value = NULL;
    json_object_foreach(object, field, value)
    {
        size_t i = 0;
        while (i < n_fields && strcmp(field, fields[i]) != 0)
            i++;
        if (i == n_fields)
            return atedm_error_set(err, ATEDM_ERR_FORMAT, "%s: \"%.60s\" is not a known field",
                                   name, field);
    }
    return ATEDM_OK;
}

static atedm_status open_section(const json_t *root, const char *path, const char *key,
                                 const char *const *fields, size_t n_fields, section *ret_section,
                                 atedm_error *err)
{
    json_t *object = json_object_get(root, key);
    if (!json_is_object(object))
        return atedm_error_set(err, ATEDM_ERR_FORMAT, "%s: \"%s\" is missing or not an object",
                               path, key);
    ret_section->object = object;
    ret_section->err = err;
    snprintf(ret_section->name, sizeof ret_section->name, "%s: \"%s\"", path, key);
    return refuse_unknown(ret_section->name, object, fields, n_fields, err);
}

#define N_FIELDS(list) (sizeof(list) / sizeof(list)[0])

static atedm_status get_int(const section *s, const char *key, int64_t min, int64_t max,
                            int64_t *ret_value)
{
    return atedm_json_int(s->object, s->name, key, false, min, max, ret_value, s->err);
}

// Reads an array of exactly `count` integers.
static atedm_status get_ints(const section *s, const char *key, size_t count, int64_t min,
                             int64_t max, int64_t *ret_values)
{
    size_t got = 0;
    return atedm_json_ints(s->object, s->name, key, count, count, min, max, ret_values, &got,
                           s->err);
}

static atedm_status read_clip(const json_t *root, const char *path, bool second, int64_t vocab,
                              atedm_clip_config *ret_clip, atedm_error *err)
{
    static const char *const fields[] = {"hidden_size",       "intermediate_size",
                                         "num_hidden_layers", "num_attention_heads",
                                         "hidden_act",        "projection_dim"};
    section s = {.err = err};
    atedm_clip_config c = common_clip;
    int64_t layers = 0, heads = 0;
    const char *act = NULL;
    const int64_t wide = ATEDM_CLIP_MAX_WIDTH;
    atedm_status status =
        open_section(root, path, second ? "text_encoder_2" : "text_encoder", fields,
                     N_FIELDS(fields) - !second, &s, err); // only the second has "projection_dim"
    if (status || (status = get_int(&s, "hidden_size", 1, wide, &c.width)) ||
        (status = get_int(&s, "intermediate_size", 1, 4 * wide, &c.mlp_width)) ||
        (status = get_int(&s, "num_hidden_layers", 2, ATEDM_CLIP_MAX_LAYERS, &layers)) ||
        (status = get_int(&s, "num_attention_heads", 1, ATEDM_CLIP_MAX_HEADS, &heads)) ||
        (status = atedm_json_string(s.object, s.name, "hidden_act", false, &act, err)))
        return status;
    c.projection = c.width;
    if (second && (status = get_int(&s, "projection_dim", 1, wide, &c.projection)))
        return status;
    if (c.width % heads)
        return atedm_error_set(err, ATEDM_ERR_FORMAT,
                               "%s: \"hidden_size\" is not a multiple of \"num_attention_heads\"",
                               s.name);
    if (strcmp(act, "gelu") != 0 && strcmp(act, "quick_gelu") != 0)
        return atedm_error_set(err, ATEDM_ERR_UNSUPPORTED,
                               "%s: \"hidden_act\" is \"%.40s\", not quick_gelu or gelu", s.name,
                               act);
    c.vocab = vocab;
    c.layers = (int)layers;
    c.heads = (int)heads;
    c.activation = strcmp(act, "gelu") == 0 ? ATEDM_ACT_GELU : ATEDM_ACT_QUICK_GELU;
    c.has_projection = second;
    *ret_clip = c;
    return ATEDM_OK;
}

static atedm_status read_attention(const section *s, atedm_unet_config *c)
{
    const json_t *list = json_object_get(s->object, "attention");
    if (!json_is_array(list) || json_array_size(list) != (size_t)c->levels)
        return atedm_error_set(s->err, ATEDM_ERR_FORMAT,
                               "%s: \"attention\" is missing or not an array of %d", s->name,
                               c->levels);
    for (int i = 0; i < c->levels; i++) {
        const json_t *item = json_array_get(list, (size_t)i);
        if (!json_is_boolean(item))
            return atedm_error_set(s->err, ATEDM_ERR_FORMAT,
                                   "%s: \"attention\" holds values other than true and false",
                                   s->name);
        c->attention[i] = json_is_true(item);
    }
    return ATEDM_OK;
}

// Checks the conditions that relate several numbers, as atedm_unet_config_read does.
static atedm_status check_unet(const section *s, const atedm_unet_config *c)
{
    int blocks = 1;
    for (int i = 0; i < c->levels; i++) {
        if (c->channels[i] % c->norm_groups)
            return atedm_error_set(s->err, ATEDM_ERR_FORMAT,
                                   "%s: \"block_out_channels\" are not multiples of "
                                   "\"norm_num_groups\"",
                                   s->name);
        if (c->channels[i] % c->heads[i])
            return atedm_error_set(s->err, ATEDM_ERR_FORMAT,
                                   "%s: \"block_out_channels\" are not multiples of "
                                   "\"attention_heads\"",
                                   s->name);
        blocks += c->attention[i] ? 2 * c->layers_per_block + 1 : 0;
    }
    if (c->channels[0] % 2 || c->addition_time_embed_dim % 2)
        return atedm_error_set(s->err, ATEDM_ERR_FORMAT,
                               "%s: sinusoidal embeddings need even widths", s->name);
    if (blocks > ATEDM_MAX_BLOCKS)
        return atedm_error_set(s->err, ATEDM_ERR_LIMIT,
                               "%s: %d attention blocks, more than the limit of %d", s->name,
                               blocks, ATEDM_MAX_BLOCKS);
    return ATEDM_OK;
}

static atedm_status read_unet(const json_t *root, const char *path, const atedm_clip_config *clip,
                              atedm_unet_config *ret_unet, atedm_error *err)
{
    static const char *const fields[] = {
        "block_out_channels", "attention",       "transformer_layers_per_block", "attention_heads",
        "layers_per_block",   "norm_num_groups", "addition_time_embed_dim",      "sample_size"};
    section s = {.err = err};
    atedm_unet_config c = common_unet;
    int64_t layers = 0, groups = 0, sample = 0;
    int64_t transformer[ATEDM_UNET_MAX_LEVELS], heads[ATEDM_UNET_MAX_LEVELS];
    const int64_t wide = ATEDM_UNET_MAX_CHANNELS;
    size_t levels = 0;
    atedm_status status = open_section(root, path, "unet", fields, N_FIELDS(fields), &s, err);
    if (status ||
        (status = atedm_json_ints(s.object, s.name, "block_out_channels", 1, ATEDM_UNET_MAX_LEVELS,
                                  1, wide, c.channels, &levels, err)) ||
        (status = get_ints(&s, "transformer_layers_per_block", levels, 1, ATEDM_UNET_MAX_LAYERS,
                           transformer)) ||
        (status = get_ints(&s, "attention_heads", levels, 1, wide, heads)) ||
        (status = get_int(&s, "layers_per_block", 1, ATEDM_UNET_MAX_RESNETS, &layers)) ||
        (status = get_int(&s, "norm_num_groups", 1, wide, &groups)) ||
        (status = get_int(&s, "addition_time_embed_dim", 2, wide, &c.addition_time_embed_dim)) ||
        (status = get_int(&s, "sample_size", 1, ATEDM_UNET_MAX_SAMPLE_SIZE, &sample)))
        return status;
    c.levels = (int)levels;
    for (size_t i = 0; i < levels; i++) {
        c.transformer_layers[i] = (int)transformer[i];
        c.heads[i] = (int)heads[i];
    }
    c.layers_per_block = (int)layers;
    c.norm_groups = (int)groups;
    c.sample_size = (double)sample;
    c.cross_attention_dim = clip[0].width + clip[1].width;
    c.projection_input_dim = clip[1].projection + ATEDM_UNET_TIME_IDS * c.addition_time_embed_dim;
    if ((status = read_attention(&s, &c)) || (status = check_unet(&s, &c)))
        return status;
    *ret_unet = c;
    return ATEDM_OK;
}

static atedm_status read_vae(const json_t *root, const char *path, atedm_vae_config *ret_vae,
                             atedm_error *err)
{
    static const char *const fields[] = {"block_out_channels", "layers_per_block",
                                         "norm_num_groups"};
    section s = {.err = err};
    atedm_vae_config c = common_vae;
    int64_t layers = 0, groups = 0;
    size_t levels = 0;
    atedm_status status = open_section(root, path, "vae", fields, N_FIELDS(fields), &s, err);
    if (status ||
        (status = atedm_json_ints(s.object, s.name, "block_out_channels", 1, ATEDM_VAE_MAX_LEVELS,
                                  1, ATEDM_VAE_MAX_CHANNELS, c.channels, &levels, err)) ||
        (status = get_int(&s, "layers_per_block", 1, ATEDM_VAE_MAX_RESNETS, &layers)) ||
        (status = get_int(&s, "norm_num_groups", 1, ATEDM_VAE_MAX_CHANNELS, &groups)))
        return status;
    for (size_t i = 0; i < levels; i++)
        if (c.channels[i] % groups)
            return atedm_error_set(err, ATEDM_ERR_FORMAT,
                                   "%s: \"block_out_channels\" are not multiples of "
                                   "\"norm_num_groups\"",
                                   s.name);
    c.levels = (int)levels;
    c.layers_per_block = (int)layers;
    c.norm_groups = (int)groups;
    *ret_vae = c;
    return ATEDM_OK;
}

static atedm_status read_root(json_t *root, const char *path, atedm_model_config *c,
                              atedm_error *err)
{
    static const char *const fields[] = {"vocab_size", "text_encoder", "text_encoder_2", "unet",
                                         "vae"};
    int64_t vocab = 0;
    atedm_status status = refuse_unknown(path, root, fields, N_FIELDS(fields), err);
    if (status ||
        (status = atedm_json_int(root, path, "vocab_size", false, MIN_VOCAB,
                                 ATEDM_TOKENIZER_MAX_VOCAB, &vocab, err)) ||
        (status = read_clip(root, path, false, vocab, &c->parts.clip[0], err)) ||
        (status = read_clip(root, path, true, vocab, &c->parts.clip[1], err)) ||
        (status = read_unet(root, path, c->parts.clip, &c->parts.unet, err)))
        return status;
    return read_vae(root, path, &c->parts.vae, err);
}

// Sets the config's name: the file's name without folder and ".json".
static void set_name(atedm_model_config *config, const char *path)
{
    const char *slash = strrchr(path, '/');
    const char *base = slash ? slash + 1 : path;
    size_t length = strlen(base);
    if (length > 5 && strcmp(base + length - 5, ".json") == 0)
        length -= 5;
    snprintf(config->name, sizeof config->name, "%.*s", (int)length, base);
}

atedm_status atedm_model_config_from_arch(const char *arch, atedm_model_config *ret_config,
                                          atedm_error *err)
{
    if (strcmp(arch, "sdxl-base") == 0) {
        *ret_config = sdxl_base();
        return ATEDM_OK;
    }
    atedm_model_config config = {.scheduler = sdxl_scheduler, .force_zeros_for_empty_prompt = true};
    json_t *root = NULL;
    atedm_status status = atedm_json_load(arch, &root, err);
    if (status == ATEDM_ERR_NOT_FOUND)
        return atedm_error_set(err, status,
                               "architecture \"%.200s\" is neither \"sdxl-base\" nor a file", arch);
    if (status)
        return status;
    set_name(&config, arch);
    status = read_root(root, arch, &config, err);
    json_decref(root);
    if (status)
        return status;
    *ret_config = config;
    return ATEDM_OK;
}
