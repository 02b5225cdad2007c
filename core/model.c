// Opens a model: see model.h. clip_text.c, unet_config.c, vae.c and sampler_config.c read the
// components' configs; model_files.c and weights.c find and read the files.
#include "core/model.h"

#include "core/json_read.h"
#include "core/model_files.h"
#include "core/request.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char *const tokenizer_dirs[2] = {"tokenizer", "tokenizer_2"};

static atedm_status read_index(const atedm_model_files *files, atedm_model_config *config,
                               atedm_error *err)
{
    char path[PATH_MAX];
    json_t *object = NULL;
    const char *class_name = "";
    atedm_status status = atedm_model_files_path(files, "model_index.json", path, err);
    if (!status)
        status = atedm_json_load(path, &object, err);
    if (status == ATEDM_ERR_NOT_FOUND && files->checkpoint[0])
        return atedm_error_context(err, status,
                                   "%s needs its model's configs and tokenizers in the same folder",
                                   files->checkpoint);
    if (status)
        return status;
    config->force_zeros_for_empty_prompt = true; // diffusers' default
    status = atedm_json_string(object, path, "_class_name", false, &class_name, err);
    if (!status && strcmp(class_name, "StableDiffusionXLPipeline"))
        status = atedm_error_set(err, ATEDM_ERR_UNSUPPORTED,
                                 "%s: _class_name is %.64s, not StableDiffusionXLPipeline", path,
                                 class_name);
    if (!status)
        status = atedm_json_bool(object, path, "force_zeros_for_empty_prompt", true,
                                 &config->force_zeros_for_empty_prompt, err);
    json_decref(object);
    return status;
}

// Checks the conditions that relate several components' configs.
static atedm_status check_agreement(const char *dir, const atedm_model_config *config,
                                    atedm_error *err)
{
    const atedm_clip_config *clip = config->parts.clip;
    const atedm_unet_config *unet = &config->parts.unet;
    const atedm_vae_config *vae = &config->parts.vae;
    if (clip[0].has_projection || !clip[1].has_projection)
        return atedm_error_set(err, ATEDM_ERR_FORMAT,
                               "%s: \"architectures\" must be CLIPTextModel in "
                               "text_encoder/config.json and CLIPTextModelWithProjection in "
                               "text_encoder_2/config.json",
                               dir);
    if (clip[0].width + clip[1].width != unet->cross_attention_dim)
        return atedm_error_set(err, ATEDM_ERR_FORMAT,
                               "%s: the text encoders' hidden_size %lld and %lld do not add up to "
                               "the UNet's cross_attention_dim %lld",
                               dir, (long long)clip[0].width, (long long)clip[1].width,
                               (long long)unet->cross_attention_dim);
    int64_t condition = clip[1].projection + ATEDM_UNET_TIME_IDS * unet->addition_time_embed_dim;
    if (condition != unet->projection_input_dim)
        return atedm_error_set(err, ATEDM_ERR_FORMAT,
                               "%s: text_encoder_2's projection_dim and %d times the UNet's "
                               "addition_time_embed_dim make %lld, but its "
                               "projection_class_embeddings_input_dim is %lld",
                               dir, ATEDM_UNET_TIME_IDS, (long long)condition,
                               (long long)unet->projection_input_dim);
    if (unet->in_channels != vae->latent_channels || unet->out_channels != vae->latent_channels)
        return atedm_error_set(err, ATEDM_ERR_FORMAT,
                               "%s: the UNet's in_channels %lld and out_channels %lld are not the "
                               "VAE's latent_channels %lld",
                               dir, (long long)unet->in_channels, (long long)unet->out_channels,
                               (long long)vae->latent_channels);
    int64_t native = atedm_model_config_native_size(config);
    if (native > ATEDM_SIZE_MAX)
        return atedm_error_set(err, ATEDM_ERR_LIMIT,
                               "%s: the UNet's sample_size makes a picture of %lld pixels a side, "
                               "more than the limit of %d",
                               dir, (long long)native, ATEDM_SIZE_MAX);
    return ATEDM_OK;
}

static atedm_status read_config(const atedm_model_files *files, atedm_model_config *ret_config,
                                atedm_error *err)
{
    char path[PATH_MAX];
    atedm_model_config c = {0};
    memcpy(c.name, files->name, sizeof c.name);
    atedm_status status = read_index(files, &c, err);
    if ((status = status ? status
                         : atedm_model_files_path(files, "text_encoder/config.json", path, err)) ||
        (status = atedm_clip_config_read(path, &c.parts.clip[0], err)) ||
        (status = atedm_model_files_path(files, "text_encoder_2/config.json", path, err)) ||
        (status = atedm_clip_config_read(path, &c.parts.clip[1], err)) ||
        (status = atedm_model_files_path(files, "unet/config.json", path, err)) ||
        (status = atedm_unet_config_read(path, &c.parts.unet, err)) ||
        (status = atedm_model_files_path(files, "vae/config.json", path, err)) ||
        (status = atedm_vae_config_read(path, &c.parts.vae, err)) ||
        (status = atedm_model_files_path(files, "scheduler/scheduler_config.json", path, err)) ||
        (status = atedm_scheduler_config_read(path, &c.scheduler, err)) ||
        (status = atedm_model_files_check(files, &c.scheduler, err)) ||
        (status = check_agreement(files->folder, &c, err)))
        return status;
    *ret_config = c;
    return ATEDM_OK;
}

atedm_status atedm_model_config_read(const char *path, atedm_model_config *ret_config,
                                     atedm_error *err)
{
    atedm_model_files files;
    atedm_status status = atedm_model_files_find(path, &files, err);
    return status ? status : read_config(&files, ret_config, err);
}

int64_t atedm_model_config_scale(const atedm_model_config *config)
{
    return atedm_vae_config_scale(&config->parts.vae);
}

int64_t atedm_model_config_native_size(const atedm_model_config *config)
{
    return (int64_t)config->parts.unet.sample_size * atedm_model_config_scale(config);
}

// ---- loading

// Adds what a component's files hold to the model's sum.
static void account(atedm_model *model, const atedm_weights *weights)
{
    model->file_bytes += atedm_weights_bytes(weights);
}

static atedm_status load_clip(atedm_model *model, const atedm_model_files *files, int i,
                              atedm_error *err)
{
    static const atedm_component components[2] = {ATEDM_TEXT_ENCODER, ATEDM_TEXT_ENCODER_2};
    const atedm_clip_config *config = &model->config.parts.clip[i];
    atedm_weights *weights = NULL;
    char path[PATH_MAX];
    atedm_status status =
        atedm_model_files_open(files, &model->config.parts, components[i], &weights, err);
    if (!status)
        status =
            atedm_clip_create(model->device, model->dtype, config, weights, &model->clip[i], err);
    if (!status)
        status = atedm_model_files_check_all_used(components[i], weights, err);
    if (!status)
        account(model, weights);
    atedm_weights_close(weights);
    if (!status)
        status = atedm_model_files_path(files, tokenizer_dirs[i], path, err);
    if (!status)
        status = atedm_tokenizer_open(path, &model->tokenizer[i], err);
    if (status)
        return status;
    if (atedm_tokenizer_vocab_size(model->tokenizer[i]) > config->vocab ||
        atedm_tokenizer_length(model->tokenizer[i]) > config->positions)
        return atedm_error_set(err, ATEDM_ERR_FORMAT,
                               "%s: the tokenizer has %lld entries and length %lld, its encoder "
                               "only %lld and %lld",
                               path, (long long)atedm_tokenizer_vocab_size(model->tokenizer[i]),
                               (long long)atedm_tokenizer_length(model->tokenizer[i]),
                               (long long)config->vocab, (long long)config->positions);
    return ATEDM_OK;
}

static atedm_status load_unet(atedm_model *model, const atedm_model_files *files, atedm_error *err)
{
    atedm_weights *weights = NULL;
    atedm_status status =
        atedm_model_files_open(files, &model->config.parts, ATEDM_UNET, &weights, err);
    if (!status)
        status = atedm_unet_create(model->device, model->dtype, &model->config.parts.unet, weights,
                                   &model->unet, err);
    if (!status)
        status = atedm_model_files_check_all_used(ATEDM_UNET, weights, err);
    if (!status) {
        account(model, weights);
        model->storage_dtype = atedm_weights_dtype(weights);
    }
    atedm_weights_close(weights);
    return status;
}

static atedm_status load_vae(atedm_model *model, const atedm_model_files *files, atedm_error *err)
{
    atedm_weights *weights = NULL;
    atedm_status status =
        atedm_model_files_open(files, &model->config.parts, ATEDM_VAE, &weights, err);
    if (!status)
        status = atedm_vae_create(model->device, model->vae_dtype, &model->config.parts.vae,
                                  weights, &model->vae, err);
    if (!status)
        status = atedm_model_files_check_all_used(ATEDM_VAE, weights, err);
    if (!status)
        account(model, weights);
    atedm_weights_close(weights);
    return status;
}

static atedm_status load_tokens(atedm_model *model, const char *dir, atedm_error *err)
{
    model->context_tokens = atedm_tokenizer_length(model->tokenizer[0]);
    if (atedm_tokenizer_length(model->tokenizer[1]) != model->context_tokens)
        return atedm_error_set(err, ATEDM_ERR_FORMAT,
                               "%s: model_max_length is %lld in tokenizer and %lld in tokenizer_2",
                               dir, (long long)model->context_tokens,
                               (long long)atedm_tokenizer_length(model->tokenizer[1]));
    return ATEDM_OK;
}

atedm_status atedm_model_open(const char *path, atedm_device *device, atedm_dtype dtype,
                              atedm_model **ret_model, atedm_error *err)
{
    atedm_model_files files;
    if (!atedm_device_supports(device, dtype))
        return atedm_error_set(err, ATEDM_ERR_UNSUPPORTED,
                               "the %s backend cannot compute in %s here",
                               atedm_device_backend(device), atedm_dtype_name(dtype));
    atedm_model *model = calloc(1, sizeof *model);
    if (!model)
        return atedm_error_set(err, ATEDM_ERR_NOMEM, "no memory for a model");
    model->device = device;
    model->dtype = dtype;
    model->vae_dtype = dtype == ATEDM_F16 ? ATEDM_F32 : dtype; // SDXL's VAE overflows in f16
    atedm_status status = atedm_model_files_find(path, &files, err);
    if (!status)
        status = read_config(&files, &model->config, err);
    for (int i = 0; i < 2 && !status; i++)
        status = load_clip(model, &files, i, err);
    if (!status)
        status = load_unet(model, &files, err);
    if (!status)
        status = load_vae(model, &files, err);
    if (!status)
        status = load_tokens(model, files.folder, err);
    if (!status)
        status = atedm_model_open_dry(&model->config, dtype, model->vae_dtype, &model->dry, err);
    if (status) {
        atedm_model_close(model);
        return status;
    }
    model->dry->context_tokens = model->context_tokens;
    model->parameters = model->dry->parameters;
    model->weight_bytes = atedm_clip_bytes(model->clip[0]) + atedm_clip_bytes(model->clip[1]) +
                          atedm_unet_bytes(model->unet) + atedm_vae_bytes(model->vae);
    *ret_model = model;
    return ATEDM_OK;
}

static uint64_t count_parameters(const atedm_recorder *recorder)
{
    size_t count = 0;
    uint64_t parameters = 0;
    const atedm_recorded *entries = atedm_recorder_entries(recorder, &count);
    for (size_t i = 0; i < count; i++) {
        uint64_t product = 1;
        for (int k = 0; k < entries[i].ndim; k++)
            product *= (uint64_t)entries[i].shape[k];
        parameters += product;
    }
    return parameters;
}

atedm_status atedm_model_open_dry(const atedm_model_config *config, atedm_dtype dtype,
                                  atedm_dtype vae_dtype, atedm_model **ret_model, atedm_error *err)
{
    atedm_model *model = calloc(1, sizeof *model);
    if (!model)
        return atedm_error_set(err, ATEDM_ERR_NOMEM, "no memory for a model");
    *model = (atedm_model){.config = *config,
                           .dtype = dtype,
                           .vae_dtype = vae_dtype,
                           .storage_dtype = dtype,
                           .context_tokens = config->parts.clip[0].positions};
    const atedm_model_configs *parts = &model->config.parts;
    atedm_status status = atedm_device_create("dry", &model->device, err);
    // One recorder for each component, because both text encoders use the same names.
    for (int i = 0; i < 4 && !status; i++) {
        atedm_recorder *recorder = NULL;
        status = atedm_recorder_create(&recorder);
        if (status)
            break;
        atedm_weights *weights = atedm_recorder_weights(recorder);
        if (i < 2)
            status = atedm_clip_create(model->device, dtype, &parts->clip[i], weights,
                                       &model->clip[i], err);
        else if (i == 2)
            status =
                atedm_unet_create(model->device, dtype, &parts->unet, weights, &model->unet, err);
        else
            status =
                atedm_vae_create(model->device, vae_dtype, &parts->vae, weights, &model->vae, err);
        model->parameters += count_parameters(recorder);
        atedm_recorder_destroy(recorder);
    }
    if (status) {
        atedm_model_close(model);
        return status;
    }
    *ret_model = model;
    return ATEDM_OK;
}

void atedm_model_close(atedm_model *model)
{
    if (!model)
        return;
    for (int i = 0; i < 2; i++) {
        atedm_tokenizer_close(model->tokenizer[i]);
        atedm_clip_destroy(model->clip[i]);
    }
    atedm_unet_destroy(model->unet);
    atedm_vae_destroy(model->vae);
    if (model->device && atedm_device_is_dry(model->device))
        atedm_device_destroy(model->device);
    atedm_model_close(model->dry);
    free(model);
}
