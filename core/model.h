// A model, loaded onto a device. Its path is a folder in diffusers layout, or a checkpoint,
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

// The configs of a model, without weights.
typedef struct atedm_model_config {
    char name[128];            // last component of the path, without ".safetensors"
    atedm_model_configs parts; // text encoders, UNet, VAE
    atedm_scheduler_config scheduler;
    bool force_zeros_for_empty_prompt;
} atedm_model_config;

// Reads every config and checks that the components fit together. ATEDM_ERR_NOT_FOUND: a file is
// missing. ATEDM_ERR_FORMAT: malformed, or components that do not fit. ATEDM_ERR_UNSUPPORTED:
// another kind of model, or an option that is not implemented.
ATEDM_MUST_CHECK atedm_status atedm_model_config_read(const char *path,
                                                      atedm_model_config *ret_config,
                                                      atedm_error *err);
// The config of an architecture, without a model's folder: "sdxl-base" is that of
// stabilityai/stable-diffusion-xl-base-1.0; anything else is the path of a JSON file, whose format
// model_arch.c describes.
ATEDM_MUST_CHECK atedm_status atedm_model_config_from_arch(const char *arch,
                                                           atedm_model_config *ret_config,
                                                           atedm_error *err);

// Pixels of a side for each latent: 8 for SDXL. A picture's width and height are multiples of it.
int64_t atedm_model_config_scale(const atedm_model_config *config);
// Width and height, in pixels, for which the model was made.
int64_t atedm_model_config_native_size(const atedm_model_config *config);

typedef struct atedm_model {
    atedm_model_config config;
    atedm_device *device;      // borrowed; but a dry twin owns its device
    atedm_dtype dtype;         // activation dtype of text encoders and UNet
    atedm_dtype vae_dtype;     // activation dtype of the VAE
    atedm_dtype storage_dtype; // dtype of the UNet's parameters in the file
    atedm_tokenizer *tokenizer[2];
    atedm_clip *clip[2];
    atedm_unet *unet;
    atedm_vae *vae;
    int64_t context_tokens; // tokens of a prompt: 77 for SDXL
    uint64_t parameters;    // number of all components' parameters
    size_t file_bytes;      // bytes of all components' parameters in the files
    size_t weight_bytes;    // device bytes of the weights
    // The dry twin: the same modules without weights on a dry device, for measuring. Owned. NULL in
    // a dry twin.
    struct atedm_model *dry;
} atedm_model;

// Opens a model without weights and tokenizers, on a dry device of its own. It serves to count
// parameters, and runs without computing, to count operations and measure scratch memory.
ATEDM_MUST_CHECK atedm_status atedm_model_open_dry(const atedm_model_config *config,
                                                   atedm_dtype dtype, atedm_dtype vae_dtype,
                                                   atedm_model **ret_model, atedm_error *err);

// Loads the model onto `device`, which is borrowed until close. dtype: activation dtype, F32, BF16
// or F16. With F16 the VAE runs in F32, because SDXL's VAE overflows in F16. ATEDM_ERR_UNSUPPORTED:
// the backend cannot compute in this dtype. Other errors: as atedm_model_config_read.
ATEDM_MUST_CHECK atedm_status atedm_model_open(const char *path, atedm_device *device,
                                               atedm_dtype dtype, atedm_model **ret_model,
                                               atedm_error *err);
void atedm_model_close(atedm_model *model); // NULL allowed

#endif
