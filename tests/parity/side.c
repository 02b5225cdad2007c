// A case set up on one device: see parity.h.
#include "tests/parity/parity.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

// Bytes of the guard zones before and after every array: a multiple of the alignment that fast code
// prefers.
#define GUARD 256
#define GUARD_BYTE 0xa7

void parity_require(atedm_status status, const atedm_error *err, const char *what)
{
    if (!status)
        return;
    fprintf(stderr, "parity: %s: %s\n", what, err->message);
    exit(1);
}

size_t parity_element_size(parity_type type, atedm_dtype act)
{
    switch (type) {
    case PARITY_ACT:
        return atedm_dtype_size(act);
    case PARITY_F32:
    case PARITY_I32:
        return 4;
    case PARITY_U8:
        return 1;
    }
    return 0;
}

void parity_extent(const parity_side *side, const parity_case *c, size_t array, size_t *ret_first,
                   size_t *ret_bytes, size_t *ret_total)
{
    const parity_array *a = &c->arrays[array];
    size_t size = parity_element_size(a->type, side->act);
    *ret_first = GUARD + a->offset * size;
    *ret_bytes = a->count * size;
    *ret_total = *ret_first + *ret_bytes + GUARD;
}

// Fills in the initial values: inputs in the side's dtype, outputs with NaN, -1 or bytes of 255. An
// output element that keeps them was not written.
static void fill_image(const parity_side *side, const parity_array *a, unsigned char *to)
{
    size_t size = parity_element_size(a->type, side->act);
    if (a->role == PARITY_OUT) {
        memset(to, 0xff, a->count * size);
    } else if (a->type == PARITY_I32) {
        memcpy(to, a->ints, a->count * size);
    } else {
        atedm_dtype dtype = a->type == PARITY_ACT ? side->act : ATEDM_F32;
        for (size_t i = 0; i < a->count; i++) {
            float value = a->values[i];
            if (side->absolute && a->absolute)
                value = fabsf(value);
            _Alignas(float) char element[sizeof(float)];
            atedm_convert(&value, ATEDM_F32, element, dtype, 1);
            memcpy(to + i * size, element, size);
        }
    }
}

// A copy of `t` with absolute values, in f32.
static atedm_host_tensor absolute_tensor(const atedm_host_tensor *t)
{
    size_t count = (size_t)atedm_host_tensor_count(t), size = atedm_dtype_size(t->dtype);
    float *values = malloc(count * sizeof *values);
    for (size_t i = 0; values && i < count; i++) {
        _Alignas(float) char element[sizeof(float)];
        memcpy(element, (const char *)t->data + i * size, size);
        atedm_convert(element, t->dtype, &values[i], ATEDM_F32, 1);
        values[i] = fabsf(values[i]);
    }
    atedm_host_tensor result = *t;
    result.dtype = ATEDM_F32;
    result.data = values;
    return result;
}

static atedm_status create_weight(parity_side *side, const parity_weight *w,
                                  const atedm_host_tensor *matrix, const atedm_host_tensor *bias,
                                  atedm_weight **ret_weight, atedm_error *err)
{
    switch (w->kind) {
    case PARITY_LINEAR:
        return atedm_linear_weight_create(side->device, side->act, matrix,
                                          w->has_bias ? bias : NULL, w->n_parts, ret_weight, err);
    case PARITY_CONV:
        return atedm_conv_weight_create(side->device, side->act, matrix, w->has_bias ? bias : NULL,
                                        w->stride, ret_weight, err);
    case PARITY_NORM:
        return atedm_norm_weight_create(side->device, matrix, bias, ret_weight, err);
    case PARITY_TABLE:
        return atedm_table_weight_create(side->device, side->act, matrix, ret_weight, err);
    }
    return ATEDM_ERR_INVALID;
}

static void make_weight(parity_side *side, const parity_weight *w, atedm_weight **ret_weight)
{
    atedm_error err = {{0}};
    if (!side->absolute) {
        parity_require(create_weight(side, w, w->matrix, w->bias, ret_weight, &err), &err,
                       "creating a weight");
        return;
    }
    atedm_host_tensor matrix[PARITY_MAX_PARTS], bias[PARITY_MAX_PARTS];
    for (size_t i = 0; i < w->n_parts; i++) {
        matrix[i] = absolute_tensor(&w->matrix[i]);
        bias[i] = w->has_bias ? absolute_tensor(&w->bias[i]) : (atedm_host_tensor){0};
    }
    parity_require(create_weight(side, w, matrix, bias, ret_weight, &err), &err,
                   "creating a weight of absolute values");
    for (size_t i = 0; i < w->n_parts; i++) {
        free((void *)matrix[i].data);
        free((void *)bias[i].data);
    }
}

void parity_side_init(parity_side *side, const parity_case *c, atedm_stream *stream, bool absolute)
{
    atedm_error err = {{0}};
    *side = (parity_side){.device = atedm_stream_device(stream),
                          .stream = stream,
                          .act = atedm_stream_dtype(stream),
                          .absolute = absolute};
    for (size_t i = 0; i < c->n_weights; i++)
        make_weight(side, &c->weights[i], &side->weights[i]);
    for (size_t i = 0; i < c->n_arrays; i++) {
        size_t first, bytes, total;
        parity_extent(side, c, i, &first, &bytes, &total);
        side->before[i] = malloc(total);
        side->after[i] = malloc(total);
        if (!side->before[i] || !side->after[i]) {
            fprintf(stderr, "parity: no memory for a side\n");
            exit(1);
        }
        memset(side->before[i], GUARD_BYTE, total);
        fill_image(side, &c->arrays[i], side->before[i] + first);
        memcpy(side->after[i], side->before[i], total); // a dry device leaves it so
        parity_require(atedm_device_alloc(side->device, total, &side->memory[i], &err), &err,
                       "allocating");
        side->data[i] = (char *)side->memory[i] + first;
        atedm_upload(stream, side->before[i], side->memory[i], total);
    }
    parity_require(atedm_stream_sync(stream, &err), &err, "uploading");
    atedm_stream_reset_counts(stream);
}

void parity_side_finish(parity_side *side, const parity_case *c)
{
    for (size_t i = 0; i < c->n_arrays; i++) {
        atedm_device_free(side->device, side->memory[i]);
        free(side->before[i]);
        free(side->after[i]);
    }
    for (size_t i = 0; i < c->n_weights; i++)
        atedm_weight_destroy(side->weights[i]);
}

bool parity_side_fetch(parity_side *side, const parity_case *c, char *why, size_t size)
{
    atedm_error err = {{0}};
    for (size_t i = 0; i < c->n_arrays; i++) {
        size_t first, bytes, total;
        parity_extent(side, c, i, &first, &bytes, &total);
        atedm_download(side->stream, side->memory[i], side->after[i], total);
    }
    if (!atedm_stream_sync(side->stream, &err))
        return true;
    snprintf(why, size, "refused: %s", err.message);
    return false;
}

bool parity_side_intact(const parity_side *side, const parity_case *c, char *why, size_t size)
{
    for (size_t i = 0; i < c->n_arrays; i++) {
        const parity_array *a = &c->arrays[i];
        size_t first, bytes, total, element = parity_element_size(a->type, side->act);
        parity_extent(side, c, i, &first, &bytes, &total);
        for (size_t b = 0; b < total; b++) {
            if (side->before[i][b] == side->after[i][b])
                continue;
            if (b < first || b >= first + bytes) {
                snprintf(why, size, "wrote %zu bytes %s %s",
                         b < first ? first - b : b - first - bytes + 1,
                         b < first ? "before" : "behind", a->name);
                return false;
            }
            size_t at = (b - first) / element;
            if (a->role == PARITY_IN || (a->written && !a->written[at])) {
                snprintf(why, size, "wrote element %zu of %s, which is not its to write", at,
                         a->name);
                return false;
            }
        }
    }
    return true;
}

void *parity_at(const parity_side *side, const parity_case *c, size_t array, int64_t i)
{
    return (char *)side->data[array] +
           (size_t)i * parity_element_size(c->arrays[array].type, side->act);
}

double parity_value(const parity_side *side, const parity_case *c, size_t array, size_t i)
{
    const parity_array *a = &c->arrays[array];
    size_t first, bytes, total, element = parity_element_size(a->type, side->act);
    parity_extent(side, c, array, &first, &bytes, &total);
    const unsigned char *at = side->after[array] + first + i * element;
    if (a->type == PARITY_U8)
        return *at;
    if (a->type == PARITY_I32) {
        int32_t value;
        memcpy(&value, at, sizeof value);
        return value;
    }
    _Alignas(float) char aligned[sizeof(float)];
    float value;
    memcpy(aligned, at, element);
    atedm_convert(aligned, a->type == PARITY_ACT ? side->act : ATEDM_F32, &value, ATEDM_F32, 1);
    return (double)value;
}
