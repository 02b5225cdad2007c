// Writes the config files of a made model: see mkmodel_files.h.
#include "core/mkmodel_files.h"

#include <errno.h>
#include <jansson.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define DIFFUSERS_VERSION "0.35.2" // the versions whose files these imitate
#define TRANSFORMERS_VERSION "4.57.6"

// Writes the object and takes ownership of it. NULL means that making it ran out of memory.
static atedm_status write_json(json_t *object, const char *dir, const char *name, atedm_error *err)
{
    char path[PATH_MAX];
    atedm_status status = ATEDM_OK;
    FILE *file = NULL;
    char *text = object
                     ? json_dumps(object, JSON_INDENT(2) | JSON_SORT_KEYS | JSON_REAL_PRECISION(15))
                     : NULL;
    json_decref(object);
    if (!text)
        return atedm_error_set(err, ATEDM_ERR_NOMEM, "%s/%s: no memory", dir, name);
    if (snprintf(path, sizeof path, "%s/%s", dir, name) >= (int)sizeof path) {
        status = atedm_error_set(err, ATEDM_ERR_LIMIT, "%.200s: path too long", dir);
        goto end;
    }
    file = fopen(path, "w");
    bool written = file && fprintf(file, "%s\n", text) > 0;
    if ((file && fclose(file) != 0) || !written)
        status = atedm_error_set(err, ATEDM_ERR_IO, "%s: %s", path, strerror(errno));
end:
    free(text);
    return status;
}

static json_t *index_json(const atedm_model_config *c)
{
    return json_pack(
        "{s:s, s:s, s:b, s:[s, s], s:[s, s], s:[s, s], s:[s, s], s:[s, s], s:[s, s], "
        "s:[s, s]}",
        "_class_name", "StableDiffusionXLPipeline", "_diffusers_version", DIFFUSERS_VERSION,
        "force_zeros_for_empty_prompt", c->force_zeros_for_empty_prompt, "scheduler", "diffusers",
        "EulerDiscreteScheduler", "text_encoder", "transformers", "CLIPTextModel", "text_encoder_2",
        "transformers", "CLIPTextModelWithProjection", "tokenizer", "transformers", "CLIPTokenizer",
        "tokenizer_2", "transformers", "CLIPTokenizer", "unet", "diffusers", "UNet2DConditionModel",
        "vae", "diffusers", "AutoencoderKL");
}

// Every made model has SDXL's schedule (model_arch.c).
static json_t *scheduler_json(const atedm_scheduler_config *c)
{
    static const char *const betas[] = {"linear", "scaled_linear", "squaredcos_cap_v2"};
    static const char *const predictions[] = {"epsilon", "v_prediction", "sample"};
    static const char *const spacings[] = {"leading", "trailing", "linspace"};
    return json_pack("{s:s, s:s, s:f, s:s, s:f, s:s, s:s, s:i, s:s, s:b, s:i, s:s, s:s, s:n, s:b}",
                     "_class_name", "EulerDiscreteScheduler", "_diffusers_version",
                     DIFFUSERS_VERSION, "beta_end", c->beta_end, "beta_schedule", betas[c->betas],
                     "beta_start", c->beta_start, "final_sigmas_type",
                     c->final_sigma_min ? "sigma_min" : "zero", "interpolation_type",
                     c->interpolation_log_linear ? "log_linear" : "linear", "num_train_timesteps",
                     c->train_timesteps, "prediction_type", predictions[c->prediction],
                     "rescale_betas_zero_snr", c->rescale_zero_snr, "steps_offset", c->steps_offset,
                     "timestep_spacing", spacings[c->spacing], "timestep_type", "discrete",
                     "trained_betas", "use_karras_sigmas", c->karras_sigmas);
}

static const char *torch_dtype(atedm_dtype dtype)
{
    switch (dtype) {
    case ATEDM_F16:
        return "float16";
    case ATEDM_BF16:
        return "bfloat16";
    default:
        return "float32";
    }
}

static json_t *clip_json(const atedm_clip_config *c, atedm_dtype dtype)
{
    return json_pack(
        "{s:[s], s:f, s:i, s:i, s:I, s:s, s:I, s:f, s:f, s:I, s:f, s:I, s:s, s:i, s:i, s:i, s:I, "
        "s:s, s:s, s:I}",
        "architectures", c->has_projection ? "CLIPTextModelWithProjection" : "CLIPTextModel",
        "attention_dropout", 0.0, "bos_token_id", 0, "pad_token_id", 1, "eos_token_id",
        (json_int_t)c->eos, "hidden_act", c->activation == ATEDM_ACT_GELU ? "gelu" : "quick_gelu",
        "hidden_size", (json_int_t)c->width, "initializer_factor", 1.0, "initializer_range", 0.02,
        "intermediate_size", (json_int_t)c->mlp_width, "layer_norm_eps", 1e-5,
        "max_position_embeddings", (json_int_t)c->positions, "model_type", "clip_text_model",
        "num_attention_heads", c->heads, "num_hidden_layers", c->layers, "dropout", 0,
        "projection_dim", (json_int_t)c->projection, "torch_dtype", torch_dtype(dtype),
        "transformers_version", TRANSFORMERS_VERSION, "vocab_size", (json_int_t)c->vocab);
}

static json_t *int64_list(const int64_t *values, int count)
{
    json_t *list = json_array();
    for (int i = 0; i < count; i++) {
        if (json_array_append_new(list, json_integer(values[i])) != 0) {
            json_decref(list);
            return NULL;
        }
    }
    return list;
}

static json_t *int_list(const int *values, int count)
{
    int64_t wide[ATEDM_UNET_MAX_LEVELS];
    for (int i = 0; i < count; i++)
        wide[i] = values[i];
    return int64_list(wide, count);
}

// A UNet's stage types: `plain` or `attention` for each level, from the first level or the last.
static json_t *stage_list(const atedm_unet_config *c, const char *plain, const char *attention,
                          bool from_last)
{
    json_t *list = json_array();
    for (int i = 0; i < c->levels; i++) {
        int level = from_last ? c->levels - 1 - i : i;
        if (json_array_append_new(list, json_string(c->attention[level] ? attention : plain)) !=
            0) {
            json_decref(list);
            return NULL;
        }
    }
    return list;
}

static json_t *unet_json(const atedm_unet_config *c)
{
    return json_pack(
        "{s:s, s:s, s:s, s:s, s:I, s:o, s:o, s:I, s:o, s:b, s:i, s:I, s:i, s:s, s:f, s:i, s:I, "
        "s:I, s:i, s:o, s:o, s:b, s:s}",
        "_class_name", "UNet2DConditionModel", "_diffusers_version", DIFFUSERS_VERSION, "act_fn",
        "silu", "addition_embed_type", "text_time", "addition_time_embed_dim",
        (json_int_t)c->addition_time_embed_dim, "attention_head_dim", int_list(c->heads, c->levels),
        "block_out_channels", int64_list(c->channels, c->levels), "cross_attention_dim",
        (json_int_t)c->cross_attention_dim, "down_block_types",
        stage_list(c, "DownBlock2D", "CrossAttnDownBlock2D", false), "flip_sin_to_cos", 1,
        "freq_shift", 0, "in_channels", (json_int_t)c->in_channels, "layers_per_block",
        c->layers_per_block, "mid_block_type", "UNetMidBlock2DCrossAttn", "norm_eps", 1e-5,
        "norm_num_groups", c->norm_groups, "out_channels", (json_int_t)c->out_channels,
        "projection_class_embeddings_input_dim", (json_int_t)c->projection_input_dim, "sample_size",
        (int)c->sample_size, "transformer_layers_per_block",
        int_list(c->transformer_layers, c->levels), "up_block_types",
        stage_list(c, "UpBlock2D", "CrossAttnUpBlock2D", true), "use_linear_projection",
        c->linear_projection, "resnet_time_scale_shift", "default");
}

static json_t *name_list(const char *name, int count)
{
    json_t *list = json_array();
    for (int i = 0; i < count; i++) {
        if (json_array_append_new(list, json_string(name)) != 0) {
            json_decref(list);
            return NULL;
        }
    }
    return list;
}

static json_t *vae_json(const atedm_vae_config *c, int64_t native_size)
{
    return json_pack("{s:s, s:s, s:s, s:o, s:o, s:b, s:i, s:I, s:i, s:b, s:i, s:I, s:I, s:f, s:o, "
                     "s:b, s:b}",
                     "_class_name", "AutoencoderKL", "_diffusers_version", DIFFUSERS_VERSION,
                     "act_fn", "silu", "block_out_channels", int64_list(c->channels, c->levels),
                     "down_block_types", name_list("DownEncoderBlock2D", c->levels), "force_upcast",
                     1, "in_channels", 3, "latent_channels", (json_int_t)c->latent_channels,
                     "layers_per_block", c->layers_per_block, "mid_block_add_attention",
                     c->mid_attention, "norm_num_groups", c->norm_groups, "out_channels",
                     (json_int_t)c->out_channels, "sample_size", (json_int_t)native_size,
                     "scaling_factor", c->scaling_factor, "up_block_types",
                     name_list("UpDecoderBlock2D", c->levels), "use_post_quant_conv",
                     c->post_quant_conv, "use_quant_conv", c->post_quant_conv);
}

atedm_status atedm_mkmodel_write_configs(const atedm_model_config *config, atedm_dtype dtype,
                                         const char *dir, atedm_error *err)
{
    const atedm_model_configs *parts = &config->parts;
    int64_t native = atedm_model_config_native_size(config);
    atedm_status status = write_json(index_json(config), dir, "model_index.json", err);
    if (!status)
        status = write_json(scheduler_json(&config->scheduler), dir,
                            "scheduler/scheduler_config.json", err);
    if (!status)
        status =
            write_json(clip_json(&parts->clip[0], dtype), dir, "text_encoder/config.json", err);
    if (!status)
        status =
            write_json(clip_json(&parts->clip[1], dtype), dir, "text_encoder_2/config.json", err);
    if (!status)
        status = write_json(unet_json(&parts->unet), dir, "unet/config.json", err);
    if (!status)
        status = write_json(vae_json(&parts->vae, native), dir, "vae/config.json", err);
    return status;
}
