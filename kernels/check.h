// Checks of the operations' arguments, for ops.c and ops_tokens.c. Where something is wrong each of
// these makes the stream fail, with a message that names the operation `op` and the argument
// `name`, and returns false. Outputs (ret_...) are then untouched.
#ifndef ATEDM_KERNELS_CHECK_H
#define ATEDM_KERNELS_CHECK_H

#include "kernels/backend.h"

// The device memory of one argument.
typedef struct atedm_region {
    const char *name;
    const void *data;
    uint64_t bytes;
} atedm_region;

// The parameters `dims` and `n_dims` of the functions below: a list of dimensions and its length.
#define ATEDM_DIMS(...)                                                                            \
    (const int64_t[]){__VA_ARGS__}, sizeof((const int64_t[]){__VA_ARGS__}) / sizeof(int64_t)

// Makes the stream fail with "op: ..."; returns false, for use as the last term of a check.
bool atedm_check_fail(atedm_stream *s, atedm_status status, const char *op, const char *format, ...)
    ATEDM_PRINTF(4, 5);

// For operations that cannot be work aside: the stream has not failed, and this is not between
// begin_aside and end_aside.
bool atedm_check_ahead(atedm_stream *s, const char *op);

// Every dimension is at least 1, and the tensor has at most ATEDM_MAX_ELEMENTS elements.
bool atedm_check_size(atedm_stream *s, const char *op, const char *name, const int64_t *dims,
                      size_t n_dims, int64_t *ret_elements);
// That, and `data` is not NULL. `element`: bytes of one element.
bool atedm_check_tensor(atedm_stream *s, const char *op, const char *name, const void *data,
                        size_t element, const int64_t *dims, size_t n_dims,
                        atedm_region *ret_region);
// The same for a tensor in the stream's activation dtype.
bool atedm_check_act(atedm_stream *s, const char *op, const char *name, const void *data,
                     const int64_t *dims, size_t n_dims, atedm_region *ret_region);
// The two regions share no byte; for the second function they may also be the same region.
bool atedm_check_apart(atedm_stream *s, const char *op, const atedm_region *a,
                       const atedm_region *b);
bool atedm_check_same_or_apart(atedm_stream *s, const char *op, const atedm_region *a,
                               const atedm_region *b);

// A weight of this kind, of the stream's device and activation dtype (norms have no dtype).
bool atedm_check_weight(atedm_stream *s, const char *op, const atedm_weight *weight,
                        atedm_weight_kind kind);
bool atedm_check_activation(atedm_stream *s, const char *op, atedm_activation activation);
bool atedm_check_epsilon(atedm_stream *s, const char *op, float epsilon); // at least 0

// Adds the product of the factors, none of them negative, to *count (multiply-accumulates), unless
// that overflows.
bool atedm_check_count(atedm_stream *s, const char *op, const int64_t *factors, size_t n_factors,
                       uint64_t *count);

#endif
