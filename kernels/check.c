// Argument checks of the operations: see check.h.
#include "kernels/check.h"

#include <inttypes.h>
#include <stdio.h>

bool atedm_check_fail(atedm_stream *s, atedm_status status, const char *op, const char *format, ...)
{
    char text[ATEDM_ERROR_MAX];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    atedm_stream_fail(s, status, "%s: %s", op, text);
    return false;
}

bool atedm_check_ahead(atedm_stream *s, const char *op)
{
    return !s->status && (s->aside != ATEDM_ASIDE_OPEN ||
                          atedm_check_fail(s, ATEDM_ERR_INVALID, op, "is not for work aside"));
}

bool atedm_check_size(atedm_stream *s, const char *op, const char *name, const int64_t *dims,
                      size_t n_dims, int64_t *ret_elements)
{
    int64_t elements = 1;
    for (size_t i = 0; i < n_dims; i++) {
        if (dims[i] < 1)
            return atedm_check_fail(s, ATEDM_ERR_INVALID, op,
                                    "dimension %zu of %s is %" PRId64 ", should be at least 1", i,
                                    name, dims[i]);
        if (__builtin_mul_overflow(elements, dims[i], &elements) || elements > ATEDM_MAX_ELEMENTS)
            return atedm_check_fail(s, ATEDM_ERR_LIMIT, op,
                                    "%s has more than the limit of %" PRId64 " elements", name,
                                    ATEDM_MAX_ELEMENTS);
    }
    *ret_elements = elements;
    return true;
}

bool atedm_check_tensor(atedm_stream *s, const char *op, const char *name, const void *data,
                        size_t element, const int64_t *dims, size_t n_dims,
                        atedm_region *ret_region)
{
    int64_t elements = 0;
    if (!atedm_check_size(s, op, name, dims, n_dims, &elements))
        return false;
    if (!data)
        return atedm_check_fail(s, ATEDM_ERR_INVALID, op, "%s is NULL", name);
    *ret_region = (atedm_region){name, data, (uint64_t)elements * element};
    return true;
}

bool atedm_check_act(atedm_stream *s, const char *op, const char *name, const void *data,
                     const int64_t *dims, size_t n_dims, atedm_region *ret_region)
{
    return atedm_check_tensor(s, op, name, data, atedm_dtype_size(s->act), dims, n_dims,
                              ret_region);
}

bool atedm_check_apart(atedm_stream *s, const char *op, const atedm_region *a,
                       const atedm_region *b)
{
    if (atedm_device_is_dry(s->device)) // where one address may stand for several operands
        return true;
    uintptr_t from_a = (uintptr_t)a->data, from_b = (uintptr_t)b->data;
    if (from_a < from_b ? from_b - from_a >= a->bytes : from_a - from_b >= b->bytes)
        return true;
    return atedm_check_fail(s, ATEDM_ERR_INVALID, op, "%s and %s overlap", a->name, b->name);
}

bool atedm_check_same_or_apart(atedm_stream *s, const char *op, const atedm_region *a,
                               const atedm_region *b)
{
    return (a->data == b->data && a->bytes == b->bytes) || atedm_check_apart(s, op, a, b);
}

bool atedm_check_weight(atedm_stream *s, const char *op, const atedm_weight *weight,
                        atedm_weight_kind kind)
{
    if (!weight)
        return atedm_check_fail(s, ATEDM_ERR_INVALID, op, "the weight is NULL");
    if (weight->kind != kind)
        return atedm_check_fail(s, ATEDM_ERR_INVALID, op, "the weight is one of another operation");
    if (weight->device != s->device)
        return atedm_check_fail(s, ATEDM_ERR_INVALID, op, "the weight is on another device");
    if (weight->act != s->act && kind != ATEDM_WEIGHT_NORM)
        return atedm_check_fail(s, ATEDM_ERR_INVALID, op, "the weight is for %s, the stream is %s",
                                atedm_dtype_name(weight->act), atedm_dtype_name(s->act));
    return true;
}

bool atedm_check_activation(atedm_stream *s, const char *op, atedm_activation activation)
{
    switch (activation) {
    case ATEDM_ACT_NONE:
    case ATEDM_ACT_SILU:
    case ATEDM_ACT_GELU:
    case ATEDM_ACT_QUICK_GELU:
        return true;
    }
    return atedm_check_fail(s, ATEDM_ERR_INVALID, op, "there is no activation %d", (int)activation);
}

bool atedm_check_epsilon(atedm_stream *s, const char *op, float epsilon)
{
    if (epsilon >= 0) // false for NaN
        return true;
    return atedm_check_fail(s, ATEDM_ERR_INVALID, op, "epsilon is %g, should be at least 0",
                            (double)epsilon);
}

bool atedm_check_count(atedm_stream *s, const char *op, const int64_t *factors, size_t n_factors,
                       uint64_t *count)
{
    uint64_t product = 1, sum = 0;
    bool overflows = false;
    for (size_t i = 0; i < n_factors; i++)
        overflows = overflows || __builtin_mul_overflow(product, (uint64_t)factors[i], &product);
    if (overflows || __builtin_add_overflow(*count, product, &sum))
        return atedm_check_fail(s, ATEDM_ERR_LIMIT, op,
                                "more multiply-accumulates than can be counted");
    *count = sum;
    return true;
}
