// Element types and tensors in host memory.
#ifndef ATEDM_BASE_TENSOR_H
#define ATEDM_BASE_TENSOR_H

#include "core/base/status.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef enum atedm_dtype {
    ATEDM_F32,
    ATEDM_BF16,
    ATEDM_F16,
    ATEDM_I64,
    ATEDM_I32,
    ATEDM_U8,
} atedm_dtype;

#define ATEDM_MAX_DIMS 4

// A dense row-major tensor in host memory; `data` is borrowed. data == NULL means "shape only": the
// dry backend and the parameter recorder work on such tensors.
typedef struct atedm_host_tensor {
    const void *data;
    atedm_dtype dtype;
    int ndim; // 0..ATEDM_MAX_DIMS
    int64_t shape[ATEDM_MAX_DIMS];
} atedm_host_tensor;

size_t atedm_dtype_size(atedm_dtype dtype);      // bytes an element
const char *atedm_dtype_name(atedm_dtype dtype); // "f32", "bf16", ...

// Number of elements; the caller knows that the shape is valid (safetensors checks it on reading).
int64_t atedm_host_tensor_count(const atedm_host_tensor *t);

// True when ndim and all dims are equal.
bool atedm_host_tensor_has_shape(const atedm_host_tensor *t, int ndim, const int64_t *shape);

// Writes "[2, 3]" into `buffer` and returns it.
const char *atedm_shape_text(int ndim, const int64_t *shape, char *buffer, size_t size);

// IEEE 754 half and bfloat16, rounding to nearest even; NaN stays NaN.
float atedm_f16_to_f32(uint16_t bits);
uint16_t atedm_f32_to_f16(float value);
float atedm_bf16_to_f32(uint16_t bits);
uint16_t atedm_f32_to_bf16(float value);

// Converts `count` elements between F32, BF16 and F16 (any pair). Both buffers are aligned to their
// elements, and do not overlap.
void atedm_convert(const void *from, atedm_dtype from_dtype, void *to, atedm_dtype to_dtype,
                   size_t count);
// The same for elements first .. first + count - 1 of a tensor, whose data may be unaligned, as
// that of files is.
void atedm_host_tensor_convert(const atedm_host_tensor *from, size_t first, size_t count, void *to,
                               atedm_dtype to_dtype);

#endif
