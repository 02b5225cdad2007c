// The parameters of a model's components, and the scratch memory of its stages. They are found by
// loading the modules on the dry backend, which computes nothing.
#ifndef ATEDM_CLI_INSPECT_MODEL_H
#define ATEDM_CLI_INSPECT_MODEL_H

#include "core/base/status.h"
#include "core/base/tensor.h"
#include "core/model.h"
#include "core/plan.h"

#define ATEDM_INSPECT_COMPONENTS 4
#define ATEDM_INSPECT_DTYPES 6 // of atedm_dtype

typedef struct atedm_inspect_component {
    const char *name; // its folder in a model's directory
    uint64_t parameters;
    uint64_t stored[ATEDM_INSPECT_DTYPES]; // parameters by storage dtype; zeros without files
    size_t stored_bytes;                   // 0 without files
} atedm_inspect_component;

// The parameters that the pipeline uses: text encoders, UNet, VAE decoder. If `dir` is NULL, there
// are no files, and parameters are only counted. With files, every name, shape and dtype is checked
// as when loading.
ATEDM_MUST_CHECK atedm_status atedm_inspect_components(
    const atedm_model_config *config, const char *dir,
    atedm_inspect_component ret_components[ATEDM_INSPECT_COMPONENTS], atedm_error *err);

// The most scratch bytes that each stage takes.
typedef struct atedm_inspect_scratch {
    size_t text_encoder, unet, vae;
} atedm_inspect_scratch;

// Measures with activations of `dtype`, `samples` prompts and UNet samples, latents h x w. plan
// NULL: off.
ATEDM_MUST_CHECK atedm_status atedm_inspect_scratch_measure(
    const atedm_model_config *config, atedm_dtype dtype, int samples, int64_t h, int64_t w,
    const atedm_plan *plan, atedm_inspect_scratch *ret_scratch, atedm_error *err);

#endif
