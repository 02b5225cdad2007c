// Sizes that cannot overflow unnoticed, and a growing byte buffer with a maximum.
#ifndef ATEDM_BASE_MEMORY_H
#define ATEDM_BASE_MEMORY_H

#include "core/base/status.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

// True (and *ret_product untouched) when a * b does not fit.
static inline bool atedm_mul_overflows(size_t a, size_t b, size_t *ret_product)
{
    size_t product;
    if (__builtin_mul_overflow(a, b, &product))
        return true;
    *ret_product = product;
    return false;
}

// A byte buffer that grows up to `max` bytes; always NUL-terminated past `size` once it holds
// anything.
typedef struct atedm_buffer {
    char *data;
    size_t size;
    size_t capacity;
    size_t max;
} atedm_buffer;

void atedm_buffer_init(atedm_buffer *buffer, size_t max);
void atedm_buffer_finish(atedm_buffer *buffer); // NULL is allowed
// ATEDM_ERR_LIMIT past `max`, ATEDM_ERR_NOMEM; the buffer stays as it was on failure.
ATEDM_MUST_CHECK atedm_status atedm_buffer_append(atedm_buffer *buffer, const void *data,
                                                  size_t size);
ATEDM_MUST_CHECK atedm_status atedm_buffer_printf(atedm_buffer *buffer, const char *format, ...)
    ATEDM_PRINTF(2, 3);

#endif
