// Where a checkpoint stores each parameter. A checkpoint is one safetensors file with all
// components of a model, named as in Stability AI's own code (generative-models; OpenCLIP for the
// second text encoder). Most models that were fine-tuned from SDXL are distributed in this form.
// Source of the names: diffusers' conversion (diffusers.loaders.single_file_utils), with which the
// tests' golden files are made.
#ifndef ATEDM_CHECKPOINT_NAMES_H
#define ATEDM_CHECKPOINT_NAMES_H

#include "core/flops.h"
#include "core/weights.h"

typedef enum atedm_component {
    ATEDM_TEXT_ENCODER,
    ATEDM_TEXT_ENCODER_2,
    ATEDM_UNET,
    ATEDM_VAE
} atedm_component;

// Prefix of the names of all of the UNet's parameters.
#define ATEDM_CHECKPOINT_UNET "model.diffusion_model."

// The renaming for a component of a model with these configs. `configs` is borrowed as long as the
// renaming is used.
atedm_renaming atedm_checkpoint_renaming(const atedm_model_configs *configs,
                                         atedm_component component);

#endif
