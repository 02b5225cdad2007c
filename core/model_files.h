// Finds the files of a model: a folder in diffusers layout, or a checkpoint (checkpoint_names.h) in
// such a folder, from which configs and tokenizers are taken.
#ifndef ATEDM_MODEL_FILES_H
#define ATEDM_MODEL_FILES_H

#include "core/base/status.h"
#include "core/checkpoint_names.h"
#include "core/sampler.h"
#include "core/weights.h"

#include <limits.h>

typedef struct atedm_model_files {
    char folder[PATH_MAX];
    char checkpoint[PATH_MAX]; // path of the checkpoint; "": none
    char name[128];            // last component of the path, without a checkpoint's ".safetensors"
} atedm_model_files;

// Interprets `path`: FILE.safetensors is a checkpoint, everything else a folder. Opens nothing.
// ATEDM_ERR_LIMIT: the path is too long.
ATEDM_MUST_CHECK atedm_status atedm_model_files_find(const char *path, atedm_model_files *ret_files,
                                                     atedm_error *err);
// Writes the path of file `name` in the folder. ATEDM_ERR_LIMIT: it is too long.
ATEDM_MUST_CHECK atedm_status atedm_model_files_path(const atedm_model_files *files,
                                                     const char *name, char ret_path[PATH_MAX],
                                                     atedm_error *err);

// Checks a checkpoint; does nothing without one. Refuses a checkpoint of another kind of model
// (ATEDM_ERR_UNSUPPORTED) and names the kind: SDXL's refiner, Stable Diffusion 1 and 2, EDM
// schedules. Sets in `scheduler` what the checkpoint says of its predictions: the tensor "v_pred"
// means v-prediction, and "ztsnr" beside it means betas rescaled to a terminal signal-to-noise
// ratio of zero. Source of these names: ComfyUI, which writes and reads them.
ATEDM_MUST_CHECK atedm_status atedm_model_files_check(const atedm_model_files *files,
                                                      atedm_scheduler_config *scheduler,
                                                      atedm_error *err);

// Opens a component's parameters: those in the checkpoint; if it has none of that component, or
// there is no checkpoint, those in the folder. `configs` is borrowed until the weights are closed.
ATEDM_MUST_CHECK atedm_status atedm_model_files_open(const atedm_model_files *files,
                                                     const atedm_model_configs *configs,
                                                     atedm_component component,
                                                     atedm_weights **ret_weights, atedm_error *err);

// Call it after loading. ATEDM_ERR_FORMAT if the files have parameters that nobody asked for,
// except those of `component` that generating pictures does not need, such as the VAE's encoder.
ATEDM_MUST_CHECK atedm_status atedm_model_files_check_all_used(atedm_component component,
                                                               atedm_weights *weights,
                                                               atedm_error *err);

// The name of the component's folder, "unet". Static storage.
const char *atedm_component_name(atedm_component component);

#endif
