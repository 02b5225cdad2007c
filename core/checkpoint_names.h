// Where a checkpoint keeps each parameter. A checkpoint is one safetensors file with all components
// of a model under the names of Stability AI's own code (generative-models; OpenCLIP for the second
// text encoder), as most models fine-tuned from SDXL are handed around. Source of the names:
// diffusers' conversion from it (diffusers.loaders.single_file_utils), by which the goldens are
// made.
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

// What all names of the UNet's parameters begin with.
#define ATEDM_CHECKPOINT_UNET "model.diffusion_model."

// Of a component's parameters, in a model of these configs, which are borrowed.
atedm_renaming atedm_checkpoint_renaming(const atedm_model_configs *configs,
                                         atedm_component component);

#endif
