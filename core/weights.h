// The source of the parameters of a module (text encoder, UNet, VAE). A module asks for each
// parameter by its diffusers name and the shape that its config implies. So only the modules'
// loaders know the names, and one interface serves four purposes: reading a model, counting its
// parameters (atedm inspect), making a random model (atedm mkmodel), and dry runs at full size.
// A file with other names is read through a renaming.
#ifndef ATEDM_WEIGHTS_H
#define ATEDM_WEIGHTS_H

#include "core/base/status.h"
#include "core/base/tensor.h"

#include <stdbool.h>

// Size of the longest parameter name, including the terminator.
#define ATEDM_PARAMETER_NAME_MAX 160

typedef struct atedm_weights atedm_weights;

struct atedm_weights {
    // Finds the parameter `name`, which must have the given shape. The data is [host], aligned for
    // its dtype, and valid until `done` or close. A missing parameter is an error,
    // ATEDM_ERR_FORMAT; if `optional`, *ret_tensor gets ndim -1 instead.
    atedm_status (*get)(atedm_weights *weights, const char *name, int ndim, const int64_t *shape,
                        bool optional, atedm_host_tensor *ret_tensor, atedm_error *err);
    // The caller does not need this tensor's data any more. The pointer may be NULL.
    void (*done)(atedm_weights *weights, const atedm_host_tensor *tensor);
};

// The most files of a sharded component.
#define ATEDM_WEIGHTS_MAX_SHARDS 1024

// Opens the files of one component, such as DIR/unet. base_name is "diffusion_pytorch_model", or
// "model" for text encoders. Takes the first of these that exists:
//   BASE.safetensors, BASE.safetensors.index.json,
//   BASE.fp16.safetensors, BASE.safetensors.index.fp16.json, BASE.safetensors.fp16.index.json
// (older versions of diffusers used the last spelling). Checks name, shape and dtype (F32, F16,
// BF16) of every parameter that is asked for. ATEDM_ERR_NOT_FOUND: none of the files exists. The
// functions below accept only weights from this function and atedm_weights_open_renamed.
ATEDM_MUST_CHECK atedm_status atedm_weights_open(const char *component_dir, const char *base_name,
                                                 atedm_weights **ret_weights, atedm_error *err);

// How a file with other names stores a parameter.
typedef enum atedm_stored_form {
    ATEDM_STORED_AS_ASKED,
    ATEDM_STORED_FIRST_THIRD, // in the first third of the rows of a tensor with three parameters
    ATEDM_STORED_SECOND_THIRD,
    ATEDM_STORED_LAST_THIRD,
    ATEDM_STORED_TRANSPOSED, // as [in, out]
    ATEDM_STORED_POINTWISE,  // as asked, or as a 1x1 convolution, [out, in, 1, 1]
} atedm_stored_form;
typedef struct atedm_stored {
    char name[ATEDM_PARAMETER_NAME_MAX]; // without the prefix
    atedm_stored_form form;
} atedm_stored;

// Where such a file stores a component's parameters. `find` translates any name, whether or not the
// file has that parameter; NULL: the names after the prefix are diffusers' names. *ret_stored is
// all zeros before the call.
typedef struct atedm_renaming {
    const char *prefix; // begins all of the component's names in the file, and no other names
    void (*find)(const void *user, const char *name, atedm_stored *ret_stored);
    const void *user; // borrowed until the weights are closed
} atedm_renaming;

// Opens the parameters of one component in a file with several. The file may have none of them; see
// atedm_weights_count.
ATEDM_MUST_CHECK atedm_status atedm_weights_open_renamed(const char *path, atedm_renaming renaming,
                                                         atedm_weights **ret_weights,
                                                         atedm_error *err);

size_t atedm_weights_count(const atedm_weights *weights); // number of parameters in the files
// Call it after loading. ATEDM_ERR_FORMAT if the files have parameters that nobody asked for; the
// message names some. Parameters that begin with one of `ignore_prefixes` (ends with NULL; NULL
// allowed), such as the VAE's "encoder.", may remain.
ATEDM_MUST_CHECK atedm_status atedm_weights_check_all_used(atedm_weights *weights,
                                                           const char *const *ignore_prefixes,
                                                           atedm_error *err);
// Bytes of all parameters in the files.
size_t atedm_weights_bytes(const atedm_weights *weights);
// Storage dtype of the parameter whose name sorts first.
atedm_dtype atedm_weights_dtype(const atedm_weights *weights);
void atedm_weights_close(atedm_weights *weights); // NULL allowed

// A source that records which parameters are asked for, and returns tensors without data, for the
// dry backend.
typedef struct atedm_recorder atedm_recorder;
typedef struct atedm_recorded {
    char *name;
    int ndim;
    int64_t shape[ATEDM_MAX_DIMS];
} atedm_recorded;
ATEDM_MUST_CHECK atedm_status atedm_recorder_create(atedm_recorder **ret_recorder);
atedm_weights *atedm_recorder_weights(atedm_recorder *recorder); // borrowed
// The recorded parameters in the order in which they were asked for; borrowed.
const atedm_recorded *atedm_recorder_entries(const atedm_recorder *recorder, size_t *ret_count);
void atedm_recorder_destroy(atedm_recorder *recorder); // NULL allowed

#endif
