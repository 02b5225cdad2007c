// A model, read and put on a device. Its path is a folder in diffusers layout, or a checkpoint,
// FILE.safetensors, in such a folder (model_files.h).
#ifndef ATEDM_MODEL_H
#define ATEDM_MODEL_H

#include "core/base/status.h"
#include "core/clip_text.h"
#include "core/flops.h"
#include "core/sampler.h"
#include "core/tokenizer.h"
#include "core/unet.h"
#include "core/vae.h"
#include "kernels/kernels.h"

// What the configs say, without weights.
typedef struct atedm_model_config {
    char name[128];            // last component of its path, without ".safetensors"
    atedm_model_configs parts; // text encoders, UNet, VAE
    atedm_scheduler_config scheduler;
    bool force_zeros_for_empty_prompt;
} atedm_model_config;

// Reads and cross-checks every config: widths that have to agree between components do.
ATEDM_MUST_CHECK atedm_status atedm_model_config_read(const char *path,
                                                      atedm_model_config *ret_config,
                                                      atedm_error *err);
// The architecture of stabilityai/stable-diffusion-xl-base-1.0 ("sdxl-base"), or a JSON file that
// gives the same numbers (see `atedm mkmodel`). Without a directory.
ATEDM_MUST_CHECK atedm_status atedm_model_config_from_arch(const char *arch,
                                                           atedm_model_config *ret_config,
                                                           atedm_error *err);

// Pixels a latent: 8 for SDXL. Width and height of a picture are multiples of it.
int64_t atedm_model_config_scale(const atedm_model_config *config);
// Pixels of a side that the model was made for.
int64_t atedm_model_config_native_size(const atedm_model_config *config);

typedef struct atedm_model {
    atedm_model_config config;
    atedm_device *device; // borrowed
    atedm_dtype dtype;    // activation dtype of text encoders and UNet
    atedm_dtype vae_dtype;
    atedm_dtype storage_dtype; // of the UNet's file
    atedm_tokenizer *tokenizer[2];
    atedm_clip *clip[2];
    atedm_unet *unet;
    atedm_vae *vae;
    int64_t context_tokens; // 77
    uint64_t parameters;
    size_t file_bytes;
    size_t weight_bytes; // on the device
    // The same modules without weights on a dry device of its own, for measuring; NULL in such a
    // one.
    struct atedm_model *dry;
} atedm_model;

// Modules without weights (and without tokenizers) on a dry device that the model owns: counts
// parameters, and runs in no time to count operations and scratch memory.
ATEDM_MUST_CHECK atedm_status atedm_model_open_dry(const atedm_model_config *config,
                                                   atedm_dtype dtype, atedm_dtype vae_dtype,
                                                   atedm_model **ret_model, atedm_error *err);

// Loads it onto the device for activations of `dtype` (F32, BF16 or F16; the VAE falls back to F32
// where dtype is F16).
ATEDM_MUST_CHECK atedm_status atedm_model_open(const char *path, atedm_device *device,
                                               atedm_dtype dtype, atedm_model **ret_model,
                                               atedm_error *err);
void atedm_model_close(atedm_model *model); // NULL allowed

#endif
