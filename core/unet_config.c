// Reads and checks a UNet's config.json: see unet.h. Options that would change the numbers and are
// not implemented are refused by name.
#include "core/json_read.h"
#include "core/unet.h"
#include "core/vae.h"

#include <stdio.h>
#include <string.h>

// Options that may be absent, and else must have this value.
static const struct {
    const char *key, *value;
} fixed_strings[] = {
    {"act_fn", "silu"},
    {"addition_embed_type", "text_time"},
    {"attention_type", "default"},
    {"mid_block_type", "UNetMidBlock2DCrossAttn"},
    {"resnet_time_scale_shift", "default"},
    {"time_embedding_type", "positional"},
};
static const struct {
    const char *key;
    bool value;
} fixed_bools[] = {
    {"center_input_sample", false},
    {"class_embeddings_concat", false},
    {"dual_cross_attention", false},
    {"flip_sin_to_cos", true},
    {"mid_block_only_cross_attention", false},
    {"only_cross_attention", false},
    {"resnet_skip_time_act", false},
};
static const struct {
    const char *key;
    int64_t value;
} fixed_ints[] = {
    {"conv_in_kernel", 3}, {"conv_out_kernel", 3},        {"downsample_padding", 1},
    {"freq_shift", 0},     {"mid_block_scale_factor", 1},
};
static const char *const must_be_null[] = {
    "class_embed_type",      "cross_attention_norm",
    "encoder_hid_dim",       "encoder_hid_dim_type",
    "num_class_embeds",      "time_cond_proj_dim",
    "time_embedding_act_fn", "time_embedding_dim",
    "timestep_post_act",     "reverse_transformer_layers_per_block",
};

static atedm_status check_fixed(const json_t *object, const char *path, atedm_error *err)
{
    for (size_t i = 0; i < sizeof fixed_strings / sizeof *fixed_strings; i++) {
        const char *key = fixed_strings[i].key, *value = fixed_strings[i].value;
        // If the key is absent, diffusers' default applies; null means something else, such as "no
        // mid block".
        if (json_is_null(json_object_get(object, key)))
            return atedm_error_set(err, ATEDM_ERR_UNSUPPORTED, "%s: %s null is not supported", path,
                                   key);
        atedm_status status = atedm_json_string(object, path, key, true, &value, err);
        if (status)
            return status;
        if (strcmp(value, fixed_strings[i].value))
            return atedm_error_set(err, ATEDM_ERR_UNSUPPORTED, "%s: %s \"%.64s\" is not supported",
                                   path, key, value);
    }
    for (size_t i = 0; i < sizeof fixed_bools / sizeof *fixed_bools; i++) {
        bool value = fixed_bools[i].value;
        atedm_status status = atedm_json_bool(object, path, fixed_bools[i].key, true, &value, err);
        if (status)
            return status;
        if (value != fixed_bools[i].value)
            return atedm_error_set(err, ATEDM_ERR_UNSUPPORTED, "%s: %s %s is not supported", path,
                                   fixed_bools[i].key, value ? "true" : "false");
    }
    for (size_t i = 0; i < sizeof fixed_ints / sizeof *fixed_ints; i++) {
        double value = (double)fixed_ints[i].value;
        atedm_status status =
            atedm_json_real(object, path, fixed_ints[i].key, true, -1e9, 1e9, &value, err);
        if (status)
            return status;
        if (value != (double)fixed_ints[i].value)
            return atedm_error_set(err, ATEDM_ERR_UNSUPPORTED, "%s: %s %g is not supported", path,
                                   fixed_ints[i].key, value);
    }
    for (size_t i = 0; i < sizeof must_be_null / sizeof *must_be_null; i++) {
        const json_t *item = json_object_get(object, must_be_null[i]);
        if (item && !json_is_null(item))
            return atedm_error_set(err, ATEDM_ERR_UNSUPPORTED,
                                   "%s: %s is set, which is not supported", path, must_be_null[i]);
    }
    return ATEDM_OK;
}

// Reads the list `key` of stage types: ret_attention[i] tells whether stage i is of type
// `attention` and not `plain`.
static atedm_status read_stages(const json_t *object, const char *path, const char *key,
                                const char *plain, const char *attention, int levels,
                                bool *ret_attention, atedm_error *err)
{
    const json_t *list = json_object_get(object, key);
    if (!json_is_array(list) || json_array_size(list) != (size_t)levels)
        return atedm_error_set(err, ATEDM_ERR_FORMAT, "%s: \"%s\" is not an array of %d names",
                               path, key, levels);
    for (int i = 0; i < levels; i++) {
        const char *name = json_string_value(json_array_get(list, (size_t)i));
        if (name && !strcmp(name, attention))
            ret_attention[i] = true;
        else if (name && !strcmp(name, plain))
            ret_attention[i] = false;
        else
            return atedm_error_set(err, ATEDM_ERR_UNSUPPORTED,
                                   "%s: \"%s\" holds %.64s, not %s or %s", path, key,
                                   name ? name : "a value that is not a string", plain, attention);
    }
    return ATEDM_OK;
}

static atedm_status read_levels(const json_t *object, const char *path, atedm_unet_config *c,
                                atedm_error *err)
{
    int64_t values[ATEDM_UNET_MAX_LEVELS];
    size_t levels = 0, count = 0;
    atedm_status status =
        atedm_json_ints(object, path, "block_out_channels", 1, ATEDM_UNET_MAX_LEVELS, 1,
                        ATEDM_UNET_MAX_CHANNELS, c->channels, &levels, err);
    if (status)
        return status;
    c->levels = (int)levels;

    status = atedm_json_ints(object, path, "transformer_layers_per_block", levels, levels, 1,
                             ATEDM_UNET_MAX_LAYERS, values, &count, err);
    if (status)
        return status;
    for (size_t i = 0; i < levels; i++)
        c->transformer_layers[i] = (int)values[i];

    // diffusers' "attention_head_dim" is the number of heads, unless num_attention_heads is given.
    const char *key = json_is_null(json_object_get(object, "num_attention_heads")) ||
                              !json_object_get(object, "num_attention_heads")
                          ? "attention_head_dim"
                          : "num_attention_heads";
    status = atedm_json_ints(object, path, key, levels, levels, 1, ATEDM_UNET_MAX_CHANNELS, values,
                             &count, err);
    if (status)
        return status;
    for (size_t i = 0; i < levels; i++)
        c->heads[i] = (int)values[i];
    return ATEDM_OK;
}

static atedm_status read_stage_types(const json_t *object, const char *path, atedm_unet_config *c,
                                     atedm_error *err)
{
    bool up[ATEDM_UNET_MAX_LEVELS] = {false};
    atedm_status status = read_stages(object, path, "down_block_types", "DownBlock2D",
                                      "CrossAttnDownBlock2D", c->levels, c->attention, err);
    if (!status)
        status = read_stages(object, path, "up_block_types", "UpBlock2D", "CrossAttnUpBlock2D",
                             c->levels, up, err);
    if (status)
        return status;
    for (int i = 0; i < c->levels; i++)
        if (up[i] != c->attention[c->levels - 1 - i])
            return atedm_error_set(err, ATEDM_ERR_UNSUPPORTED,
                                   "%s: up_block_types do not mirror down_block_types", path);
    return ATEDM_OK;
}

static atedm_status read_scalars(const json_t *object, const char *path, atedm_unet_config *c,
                                 atedm_error *err)
{
    int64_t layers = 2, groups = 32;
    double epsilon = 1e-5;
    atedm_status status;
    const int64_t wide = ATEDM_UNET_MAX_CHANNELS;
    if ((status = atedm_json_int(object, path, "in_channels", true, 1,
                                 ATEDM_VAE_MAX_LATENT_CHANNELS, &c->in_channels, err)) ||
        (status = atedm_json_int(object, path, "out_channels", true, 1,
                                 ATEDM_VAE_MAX_LATENT_CHANNELS, &c->out_channels, err)) ||
        (status = atedm_json_int(object, path, "layers_per_block", true, 1, ATEDM_UNET_MAX_RESNETS,
                                 &layers, err)) ||
        (status = atedm_json_int(object, path, "cross_attention_dim", false, 1, wide,
                                 &c->cross_attention_dim, err)) ||
        (status = atedm_json_int(object, path, "norm_num_groups", true, 1, wide, &groups, err)) ||
        (status = atedm_json_int(object, path, "addition_time_embed_dim", false, 2, wide,
                                 &c->addition_time_embed_dim, err)) ||
        (status = atedm_json_int(object, path, "projection_class_embeddings_input_dim", false, 1,
                                 wide, &c->projection_input_dim, err)) ||
        (status = atedm_json_real(object, path, "norm_eps", true, 0, 1, &epsilon, err)) ||
        (status = atedm_json_real(object, path, "sample_size", false, 1, ATEDM_UNET_MAX_SAMPLE_SIZE,
                                  &c->sample_size, err)) ||
        (status = atedm_json_bool(object, path, "use_linear_projection", true,
                                  &c->linear_projection, err)))
        return status;
    c->layers_per_block = (int)layers;
    c->norm_groups = (int)groups;
    c->norm_epsilon = (float)epsilon;
    return ATEDM_OK;
}

// Checks the conditions that relate several numbers.
static atedm_status check_consistency(const atedm_unet_config *c, const char *path,
                                      atedm_error *err)
{
    for (int i = 0; i < c->levels; i++) {
        if (c->channels[i] % c->norm_groups)
            return atedm_error_set(
                err, ATEDM_ERR_FORMAT,
                "%s: block_out_channels %lld is not a multiple of norm_num_groups %d", path,
                (long long)c->channels[i], c->norm_groups);
        // The mid block has attention at the last level, even if that level's stages have none.
        bool attends = c->attention[i] || i == c->levels - 1;
        if (attends && c->channels[i] % c->heads[i])
            return atedm_error_set(err, ATEDM_ERR_FORMAT,
                                   "%s: block_out_channels %lld is not a multiple of its %d heads "
                                   "(attention_head_dim or num_attention_heads)",
                                   path, (long long)c->channels[i], c->heads[i]);
    }
    if (c->channels[0] % 2 || c->addition_time_embed_dim % 2)
        return atedm_error_set(err, ATEDM_ERR_FORMAT,
                               "%s: block_out_channels begins with %lld and "
                               "addition_time_embed_dim is %lld, but both must be even",
                               path, (long long)c->channels[0],
                               (long long)c->addition_time_embed_dim);
    if (c->projection_input_dim <= ATEDM_UNET_TIME_IDS * c->addition_time_embed_dim)
        return atedm_error_set(err, ATEDM_ERR_FORMAT,
                               "%s: projection_class_embeddings_input_dim %lld leaves no room for "
                               "pooled text beside %d times addition_time_embed_dim %lld",
                               path, (long long)c->projection_input_dim, ATEDM_UNET_TIME_IDS,
                               (long long)c->addition_time_embed_dim);
    return ATEDM_OK;
}

static int count_blocks(const atedm_unet_config *c)
{
    int blocks = 1;
    for (int i = 0; i < c->levels; i++)
        if (c->attention[i])
            blocks += 2 * c->layers_per_block + 1;
    return blocks;
}

atedm_status atedm_unet_config_read(const char *path, atedm_unet_config *ret_config,
                                    atedm_error *err)
{
    json_t *object = NULL;
    atedm_unet_config c = {.in_channels = 4, .out_channels = 4};
    atedm_status status = atedm_json_load(path, &object, err);
    if (status)
        return status;
    if ((status = check_fixed(object, path, err)) ||
        (status = read_scalars(object, path, &c, err)) ||
        (status = read_levels(object, path, &c, err)) ||
        (status = read_stage_types(object, path, &c, err)) ||
        (status = check_consistency(&c, path, err)))
        goto fail;
    if (count_blocks(&c) > ATEDM_MAX_BLOCKS) {
        status = atedm_error_set(err, ATEDM_ERR_LIMIT,
                                 "%s: layers_per_block and down_block_types make %d attention "
                                 "blocks, more than the limit of %d",
                                 path, count_blocks(&c), ATEDM_MAX_BLOCKS);
        goto fail;
    }
    *ret_config = c;
fail:
    json_decref(object);
    return status;
}

int atedm_unet_config_blocks(const atedm_unet_config *c,
                             atedm_block_info ret_blocks[ATEDM_MAX_BLOCKS])
{
    int n = 0;
    for (int stage = 0; stage < c->levels; stage++)
        for (int i = 0; c->attention[stage] && i < c->layers_per_block; i++) {
            atedm_block_info *b = &ret_blocks[n++];
            *b = (atedm_block_info){
                .level = stage, .layers = c->transformer_layers[stage], .first_of_down = i == 0};
            snprintf(b->name, sizeof b->name, "down.%d.%d", stage, i);
        }
    int last = c->levels - 1;
    ret_blocks[n++] =
        (atedm_block_info){.name = "mid", .level = last, .layers = c->transformer_layers[last]};
    for (int stage = 0; stage < c->levels; stage++) {
        int level = last - stage;
        for (int i = 0; c->attention[level] && i <= c->layers_per_block; i++) {
            atedm_block_info *b = &ret_blocks[n++];
            *b = (atedm_block_info){.level = level,
                                    .layers = c->transformer_layers[level],
                                    .last_of_up = i == c->layers_per_block};
            snprintf(b->name, sizeof b->name, "up.%d.%d", stage, i);
        }
    }
    return n;
}
