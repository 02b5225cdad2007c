// What the operations' argument checks share: each of these makes the stream fail with a message
// that names the operation and the argument, and returns false, when something is wrong.
#ifndef ATEDM_KERNELS_CHECK_H
#define ATEDM_KERNELS_CHECK_H

#include "kernels/backend.h"

// An argument in device memory.
typedef struct atedm_region {
    const char *name;
    const void *data;
    uint64_t bytes;
} atedm_region;

// Dimensions of a tensor as two arguments: the list and its length.
#define ATEDM_DIMS(...)                                                                            \
    (const int64_t[]){__VA_ARGS__}, sizeof((const int64_t[]){__VA_ARGS__}) / sizeof(int64_t)

// Always false.
bool atedm_check_fail(atedm_stream *s, atedm_status status, const char *op, const char *format, ...)
    ATEDM_PRINTF(4, 5);

// The stream has not failed, and the operation is not called between begin_aside and end_aside.
bool atedm_check_ahead(atedm_stream *s, const char *op);

// Every dimension is at least 1 and the tensor has at most ATEDM_MAX_ELEMENTS of them.
bool atedm_check_size(atedm_stream *s, const char *op, const char *name, const int64_t *dims,
                      size_t n_dims, int64_t *ret_elements);
// That, and there is memory. `element` is the size of one in bytes.
bool atedm_check_tensor(atedm_stream *s, const char *op, const char *name, const void *data,
                        size_t element, const int64_t *dims, size_t n_dims,
                        atedm_region *ret_region);
// The same for a tensor of the stream's activation dtype.
bool atedm_check_act(atedm_stream *s, const char *op, const char *name, const void *data,
                     const int64_t *dims, size_t n_dims, atedm_region *ret_region);
// Two regions share no byte; or, for the second function, may also be one and the same.
bool atedm_check_apart(atedm_stream *s, const char *op, const atedm_region *a,
                       const atedm_region *b);
bool atedm_check_same_or_apart(atedm_stream *s, const char *op, const atedm_region *a,
                               const atedm_region *b);

bool atedm_check_weight(atedm_stream *s, const char *op, const atedm_weight *weight,
                        atedm_weight_kind kind);
bool atedm_check_activation(atedm_stream *s, const char *op, atedm_activation activation);
bool atedm_check_epsilon(atedm_stream *s, const char *op, float epsilon);

// Adds the product of factors to *count (multiply-accumulates), unless that overflows.
bool atedm_check_count(atedm_stream *s, const char *op, const int64_t *factors, size_t n_factors,
                       uint64_t *count);

#endif
