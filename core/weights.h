// Where the modules (text encoders, UNet, VAE) get their parameters from. A module asks for each
// parameter by its diffusers name and the shape that its config implies, so the loaders are the one
// place that knows the names: reading a model, counting its parameters (atedm inspect), making a
// random one (atedm mkmodel) and dry runs at full size are four sources behind the same questions.
// Files that have other names are read through a renaming.
#ifndef ATEDM_WEIGHTS_H
#define ATEDM_WEIGHTS_H

#include "core/base/status.h"
#include "core/base/tensor.h"

#include <stdbool.h>

// Longest parameter name, terminator included.
#define ATEDM_PARAMETER_NAME_MAX 160

typedef struct atedm_weights atedm_weights;

struct atedm_weights {
    // Finds the parameter `name`. A missing one is an error unless `optional`, then *ret_tensor
    // gets ndim -1. The data is aligned for its dtype and stays until `done` or close.
    atedm_status (*get)(atedm_weights *weights, const char *name, int ndim, const int64_t *shape,
                        bool optional, atedm_host_tensor *ret_tensor, atedm_error *err);
    // The caller is done with this tensor's data. NULL: nothing to do.
    void (*done)(atedm_weights *weights, const atedm_host_tensor *tensor);
};

// Limits of a sharded model.
#define ATEDM_WEIGHTS_MAX_SHARDS 1024

// Files of one component, e.g. DIR/unet: `diffusion_pytorch_model.safetensors`, its `.fp16`
// variant, or a sharded index of either; for text encoders `model...`. The first of
//   BASE.safetensors, BASE.safetensors.index.json,
//   BASE.fp16.safetensors, BASE.safetensors.index.fp16.json, BASE.safetensors.fp16.index.json
// that exists is taken (the last is how older diffusers spells the one before). Checks name, shape
// and dtype (F32, F16, BF16) of every parameter asked for. The functions below are for such a
// source only.
ATEDM_MUST_CHECK atedm_status atedm_weights_open(const char *component_dir, const char *base_name,
                                                 atedm_weights **ret_weights, atedm_error *err);

// How a file that names its parameters otherwise keeps one of them.
typedef enum atedm_stored_form {
    ATEDM_STORED_AS_ASKED,
    ATEDM_STORED_FIRST_THIRD, // of the rows of a tensor that three share
    ATEDM_STORED_SECOND_THIRD,
    ATEDM_STORED_LAST_THIRD,
    ATEDM_STORED_TRANSPOSED, // [in, out]
    ATEDM_STORED_POINTWISE,  // as asked, or with two dimensions of 1 more
} atedm_stored_form;
typedef struct atedm_stored {
    char name[ATEDM_PARAMETER_NAME_MAX]; // behind the prefix
    atedm_stored_form form;
} atedm_stored;

// Where a component's parameters lie in such a file. `find` (NULL: names are the same behind the
// prefix) says it for any name; whether there is such a parameter is for the file to say.
// *ret_stored is all zeros before.
typedef struct atedm_renaming {
    const char *prefix; // of all of the component's names in the file, and of no others
    void (*find)(const void *user, const char *name, atedm_stored *ret_stored);
    const void *user; // borrowed until the weights are closed
} atedm_renaming;

// The parameters of one component in a file of several. There may be none: atedm_weights_count.
ATEDM_MUST_CHECK atedm_status atedm_weights_open_renamed(const char *path, atedm_renaming renaming,
                                                         atedm_weights **ret_weights,
                                                         atedm_error *err);

size_t atedm_weights_count(const atedm_weights *weights); // parameters in the files
// After loading: fails, naming up to a few, where the files hold parameters that nobody asked for.
// `ignore_prefixes` (NULL-terminated) may be left over, e.g. the VAE's "encoder.".
ATEDM_MUST_CHECK atedm_status atedm_weights_check_all_used(atedm_weights *weights,
                                                           const char *const *ignore_prefixes,
                                                           atedm_error *err);
// Sum of bytes of these parameters, and the storage dtype of the first of them by name.
size_t atedm_weights_bytes(const atedm_weights *weights);
atedm_dtype atedm_weights_dtype(const atedm_weights *weights);
void atedm_weights_close(atedm_weights *weights); // NULL allowed

// Records what is asked for and hands out shape-only tensors (for the dry backend).
typedef struct atedm_recorder atedm_recorder;
typedef struct atedm_recorded {
    char *name;
    int ndim;
    int64_t shape[ATEDM_MAX_DIMS];
} atedm_recorded;
ATEDM_MUST_CHECK atedm_status atedm_recorder_create(atedm_recorder **ret_recorder);
atedm_weights *atedm_recorder_weights(atedm_recorder *recorder); // borrowed
const atedm_recorded *atedm_recorder_entries(const atedm_recorder *recorder, size_t *ret_count);
void atedm_recorder_destroy(atedm_recorder *recorder); // NULL allowed

#endif
