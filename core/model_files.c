// Finds the files of a model: see model_files.h. model.c and weights.c read their contents.
#include "core/model_files.h"

#include "core/safetensors.h"

#include <stdio.h>
#include <string.h>

#define LEFTOVERS 3

// Where a component's files are in the folder. `leftovers`: prefixes of parameters that its files,
// and checkpoints, may have although nothing uses them.
static const struct {
    const char *dir, *base;
    const char *leftovers[LEFTOVERS]; // NULL-terminated
} components[] = {
    [ATEDM_TEXT_ENCODER] = {"text_encoder", "model", {"text_model.embeddings.position_ids"}},
    [ATEDM_TEXT_ENCODER_2] = {"text_encoder_2",
                              "model",
                              {"text_model.embeddings.position_ids", "logit_scale"}},
    [ATEDM_UNET] = {"unet", "diffusion_pytorch_model", {NULL}},
    [ATEDM_VAE] = {"vae", "diffusion_pytorch_model", {"encoder.", "quant_conv."}},
};

// Signs of checkpoints of other kinds: the name of one of their tensors begins with the prefix.
static const struct {
    const char *prefix, *kind;
} others[] = {
    {"cond_stage_model.", "Stable Diffusion 1 or 2"},
    {"conditioner.embedders.0.model.", "SDXL's refiner"},
    {"edm_vpred.", "an EDM schedule (CosXL)"},
    {"edm_mean", "an EDM schedule (Playground 2.5)"},
};

atedm_status atedm_model_files_find(const char *path, atedm_model_files *ret_files,
                                    atedm_error *err)
{
    static const char suffix[] = ".safetensors";
    size_t end = strlen(path);
    if (end >= PATH_MAX)
        return atedm_error_set(err, ATEDM_ERR_LIMIT, "%s: path too long", path);
    atedm_model_files files = {.checkpoint = ""};
    memcpy(files.folder, path, end + 1);
    while (end > 1 && path[end - 1] == '/')
        end--;
    size_t start = end;
    while (start > 0 && path[start - 1] != '/')
        start--;
    if (end - start > sizeof suffix - 1 && strcmp(path + end - (sizeof suffix - 1), suffix) == 0) {
        memcpy(files.checkpoint, path, end + 1);
        snprintf(files.folder, sizeof files.folder, "%.*s", (int)(start > 1 ? start - 1 : 1),
                 start ? path : ".");
        end -= sizeof suffix - 1;
    }
    snprintf(files.name, sizeof files.name, "%.*s", (int)(end - start), path + start);
    *ret_files = files;
    return ATEDM_OK;
}

atedm_status atedm_model_files_path(const atedm_model_files *files, const char *name,
                                    char ret_path[PATH_MAX], atedm_error *err)
{
    int length = snprintf(ret_path, PATH_MAX, "%s/%s", files->folder, name);
    if (length < 0 || length >= PATH_MAX)
        return atedm_error_set(err, ATEDM_ERR_LIMIT, "%s/%s: path too long", files->folder, name);
    return ATEDM_OK;
}

static bool has(const atedm_safetensors *file, const char *prefix)
{
    for (size_t i = 0; i < atedm_safetensors_count(file); i++)
        if (strncmp(atedm_safetensors_name(file, i), prefix, strlen(prefix)) == 0)
            return true;
    return false;
}

static atedm_status check_kind(const char *path, const atedm_safetensors *file, atedm_error *err)
{
    for (size_t i = 0; i < sizeof others / sizeof *others; i++)
        if (has(file, others[i].prefix))
            return atedm_error_set(err, ATEDM_ERR_UNSUPPORTED,
                                   "%s: a checkpoint of %s, not of SDXL base (it has \"%s...\")",
                                   path, others[i].kind, others[i].prefix);
    if (!has(file, ATEDM_CHECKPOINT_UNET))
        return atedm_error_set(
            err, ATEDM_ERR_UNSUPPORTED,
            "%s: not a checkpoint: no tensor's name begins with \"" ATEDM_CHECKPOINT_UNET "\"",
            path);
    return ATEDM_OK;
}

atedm_status atedm_model_files_check(const atedm_model_files *files,
                                     atedm_scheduler_config *scheduler, atedm_error *err)
{
    const char *path = files->checkpoint;
    atedm_safetensors *file = NULL;
    if (!path[0])
        return ATEDM_OK;
    atedm_status status = atedm_safetensors_open(path, &file, err);
    if (status)
        return status;
    status = check_kind(path, file, err);
    if (!status && atedm_safetensors_find(file, "v_pred")) {
        scheduler->prediction = ATEDM_PREDICT_V;
        if (atedm_safetensors_find(file, "ztsnr"))
            scheduler->rescale_zero_snr = true;
    }
    atedm_safetensors_close(file);
    return status;
}

static atedm_status open_in_folder(const atedm_model_files *files, atedm_component component,
                                   atedm_weights **ret_weights, atedm_error *err)
{
    char path[PATH_MAX];
    atedm_status status = atedm_model_files_path(files, components[component].dir, path, err);
    return status ? status : atedm_weights_open(path, components[component].base, ret_weights, err);
}

atedm_status atedm_model_files_open(const atedm_model_files *files,
                                    const atedm_model_configs *configs, atedm_component component,
                                    atedm_weights **ret_weights, atedm_error *err)
{
    if (!files->checkpoint[0])
        return open_in_folder(files, component, ret_weights, err);
    atedm_renaming renaming = atedm_checkpoint_renaming(configs, component);
    atedm_weights *weights = NULL;
    atedm_status status = atedm_weights_open_renamed(files->checkpoint, renaming, &weights, err);
    if (status)
        return status;
    if (atedm_weights_count(weights)) {
        *ret_weights = weights;
        return ATEDM_OK;
    }
    atedm_weights_close(weights);
    status = open_in_folder(files, component, ret_weights, err);
    return atedm_error_context(err, status, "%s has nothing under \"%s\"", files->checkpoint,
                               renaming.prefix);
}

atedm_status atedm_model_files_check_all_used(atedm_component component, atedm_weights *weights,
                                              atedm_error *err)
{
    return atedm_weights_check_all_used(weights, components[component].leftovers, err);
}

const char *atedm_component_name(atedm_component component)
{
    return components[component].dir;
}
