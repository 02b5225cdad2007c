// Shared by the files of the reference backend. It is plain C with double accumulation: the
// readable definition of every operation, with which the other backends are compared.
#ifndef ATEDM_KERNELS_REF_H
#define ATEDM_KERNELS_REF_H

#include "kernels/backend.h"

// Weights are F32 copies of the host's values, rounded to act first, so that they equal what a
// backend in that dtype uses.
typedef struct ref_weight {
    atedm_weight head;
    float *values; // linear [out, in]; conv [out, k, k, in]; norm: scale [c]; table [entries, c]
    float *bias;   // linear, conv: [out] or NULL; norm: shift [c]
} ref_weight;

// Element i of an act tensor.
float ref_load(atedm_dtype dtype, const void *data, int64_t i);
void ref_store(atedm_dtype dtype, void *data, int64_t i, double value);
// `count` elements from element `first` on, as f32.
void ref_load_row(atedm_dtype dtype, const void *data, int64_t first, float *row, int64_t count);

double ref_dot(const float *a, const float *b, int64_t n);

// Scratch memory of the host. On failure it fails the stream and returns NULL.
void *ref_scratch(atedm_stream *s, size_t count, size_t size);

double ref_activate_value(atedm_activation activation, double x);

// weights.c
atedm_status ref_linear_weight_create(const atedm_weight *head, const atedm_host_tensor *parts,
                                      const atedm_host_tensor *biases, size_t n_parts,
                                      atedm_weight **ret_weight, atedm_error *err);
atedm_status ref_conv_weight_create(const atedm_weight *head, const atedm_host_tensor *weight,
                                    const atedm_host_tensor *bias, atedm_weight **ret_weight,
                                    atedm_error *err);
atedm_status ref_norm_weight_create(const atedm_weight *head, const atedm_host_tensor *scale,
                                    const atedm_host_tensor *shift, atedm_weight **ret_weight,
                                    atedm_error *err);
atedm_status ref_table_weight_create(const atedm_weight *head, const atedm_host_tensor *table,
                                     atedm_weight **ret_weight, atedm_error *err);
void ref_weight_destroy(atedm_weight *weight);

// dense.c, elementwise.c, attention.c, prune.c: ref_linear and so on.
#define X(op, parameters, arguments, bytes) void ref_##op parameters;
ATEDM_OPERATIONS(X)
#undef X

#endif
