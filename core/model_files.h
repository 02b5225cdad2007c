// Which files a model is made of: a folder in diffusers layout, or one with a checkpoint in it
// (checkpoint_names.h), whose configs and tokenizers are the folder's.
#ifndef ATEDM_MODEL_FILES_H
#define ATEDM_MODEL_FILES_H

#include "core/base/status.h"
#include "core/checkpoint_names.h"
#include "core/sampler.h"
#include "core/weights.h"

#include <limits.h>

typedef struct atedm_model_files {
    char folder[PATH_MAX];
    char checkpoint[PATH_MAX]; // path of the file; "" without
    char name[128];            // last component of the path, of a checkpoint without ".safetensors"
} atedm_model_files;

// What `path` means: FILE.safetensors is a checkpoint, everything else a folder. Nothing is opened.
ATEDM_MUST_CHECK atedm_status atedm_model_files_find(const char *path, atedm_model_files *ret_files,
                                                     atedm_error *err);
// Path of `name` in the folder.
ATEDM_MUST_CHECK atedm_status atedm_model_files_path(const atedm_model_files *files,
                                                     const char *name, char ret_path[PATH_MAX],
                                                     atedm_error *err);

// Refuses a checkpoint of another kind of model by what it is (SDXL's refiner, Stable Diffusion 1
// and 2, EDM schedules), and takes from it what it says about its own predictions: tensors named
// "v_pred" and "ztsnr" stand for v-prediction and for betas whose last signal is zero. Source of
// these names: ComfyUI, which writes and reads them. Does nothing without a checkpoint.
ATEDM_MUST_CHECK atedm_status atedm_model_files_check(const atedm_model_files *files,
                                                      atedm_scheduler_config *scheduler,
                                                      atedm_error *err);

// A component's parameters: the checkpoint's, or the folder's where it has none of that component.
// `configs` are borrowed until the weights are closed.
ATEDM_MUST_CHECK atedm_status atedm_model_files_open(const atedm_model_files *files,
                                                     const atedm_model_configs *configs,
                                                     atedm_component component,
                                                     atedm_weights **ret_weights, atedm_error *err);

// After loading: refuses parameters that nobody asked for, but those of `component` that making
// pictures does not take (the VAE's encoder among them).
ATEDM_MUST_CHECK atedm_status atedm_model_files_check_all_used(atedm_component component,
                                                               atedm_weights *weights,
                                                               atedm_error *err);

#endif
