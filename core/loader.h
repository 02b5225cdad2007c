// Creates device weights from named parameters, for the modules' create functions. Errors stick:
// after the first one every call does nothing and returns NULL. So a module's loading reads as a
// plain list of parameters, with one check of `status` at the end.
#ifndef ATEDM_LOADER_H
#define ATEDM_LOADER_H

#include "core/base/status.h"
#include "core/weights.h"
#include "kernels/kernels.h"

#define ATEDM_LOADER_MAX_PARTS 64 // parts of one fused projection

// The weights that a module owns.
typedef struct atedm_weight_list {
    atedm_weight **items;
    size_t count, capacity;
} atedm_weight_list;

void atedm_weight_list_finish(atedm_weight_list *list);        // destroys the weights
size_t atedm_weight_list_bytes(const atedm_weight_list *list); // device bytes of the weights

typedef struct atedm_loader {
    atedm_device *device;
    atedm_dtype act;
    atedm_weights *weights;
    atedm_weight_list *list; // gets ownership of the weights
    atedm_status status;     // the first error, which is described in `err`
    atedm_error *err;
} atedm_loader;

// Projections of the same input that are loaded as one weight, whose outputs are theirs, one after
// the other. Starts as {0}.
typedef struct atedm_parts {
    size_t n;
    bool bias;
    char name[ATEDM_PARAMETER_NAME_MAX]; // of the first part
    atedm_host_tensor weights[ATEDM_LOADER_MAX_PARTS], biases[ATEDM_LOADER_MAX_PARTS];
} atedm_parts;

// The functions below take a printf format for the parameter's name without ".weight" or ".bias".
// The weights that they return belong to loader->list. Shapes are those of the parameters: [out,
// in] for a linear layer, [out, in, kernel, kernel] for a convolution, [channels] for a norm,
// [entries, channels] for a table.
const atedm_weight *atedm_load_linear(atedm_loader *l, int64_t out, int64_t in, bool bias,
                                      const char *name, ...) ATEDM_PRINTF(5, 6);
// Fuses `n` projections of one input, in this order. Their names are `prefix` followed by each of
// `suffixes`.
const atedm_weight *atedm_load_fused(atedm_loader *l, int64_t out_each, int64_t in, bool bias,
                                     const char *prefix, const char *const *suffixes, size_t n);
// The same in steps, so that other parameters can be loaded between the parts: add each part with
// atedm_load_part, then create the weight with atedm_load_parts. The parts have no bias.
void atedm_load_part(atedm_loader *l, atedm_parts *parts, int64_t out, int64_t in, const char *name,
                     ...) ATEDM_PRINTF(5, 6);
const atedm_weight *atedm_load_parts(atedm_loader *l, const atedm_parts *parts);
const atedm_weight *atedm_load_conv(atedm_loader *l, int64_t out, int64_t in, int kernel,
                                    int stride, const char *name, ...) ATEDM_PRINTF(6, 7);
const atedm_weight *atedm_load_norm(atedm_loader *l, int64_t channels, const char *name, ...)
    ATEDM_PRINTF(3, 4);
const atedm_weight *atedm_load_table(atedm_loader *l, int64_t entries, int64_t channels,
                                     const char *name, ...) ATEDM_PRINTF(4, 5);
// Checks that the parameter exists and has the shape [out, in], or [out] if in is 0, without
// creating a weight. `name` is the full name.
void atedm_load_skip(atedm_loader *l, int64_t out, int64_t in, const char *name, ...)
    ATEDM_PRINTF(4, 5);

#endif
