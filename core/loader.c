// Creates device weights from named parameters: see loader.h.
#include "core/loader.h"

#include <stdio.h>
#include <stdlib.h>

void atedm_weight_list_finish(atedm_weight_list *list)
{
    for (size_t i = 0; i < list->count; i++)
        atedm_weight_destroy(list->items[i]);
    free(list->items);
    *list = (atedm_weight_list){0};
}

size_t atedm_weight_list_bytes(const atedm_weight_list *list)
{
    size_t bytes = 0;
    for (size_t i = 0; i < list->count; i++)
        bytes += atedm_weight_bytes(list->items[i]);
    return bytes;
}

// Makes room in the list before a weight is created, so that adding the weight cannot fail.
static bool reserve(atedm_loader *l)
{
    atedm_weight_list *list = l->list;
    if (list->count < list->capacity)
        return true;
    size_t capacity = list->capacity ? 2 * list->capacity : 64;
    atedm_weight **items = realloc(list->items, capacity * sizeof *items);
    if (!items) {
        l->status = atedm_error_set(l->err, ATEDM_ERR_NOMEM, "no memory for a list of weights");
        return false;
    }
    list->items = items;
    list->capacity = capacity;
    return true;
}

static void get(atedm_loader *l, const char *base, const char *suffix, int ndim,
                const int64_t *shape, atedm_host_tensor *ret_tensor)
{
    char name[ATEDM_PARAMETER_NAME_MAX + 8];
    snprintf(name, sizeof name, "%s%s", base, suffix);
    l->status = l->weights->get(l->weights, name, ndim, shape, false, ret_tensor, l->err);
}

static void done(atedm_loader *l, const atedm_host_tensor *tensor)
{
    if (l->weights->done)
        l->weights->done(l->weights, tensor);
}

static const atedm_weight *keep(atedm_loader *l, const char *name, atedm_weight *weight)
{
    if (l->status) {
        atedm_error_context(l->err, l->status, "%s", name);
        return NULL;
    }
    l->list->items[l->list->count++] = weight;
    return weight;
}

// Formats the function's arguments after its parameter `format` into the array `buffer`.
#define FORMAT_NAME(buffer, format)                                                                \
    do {                                                                                           \
        va_list args;                                                                              \
        va_start(args, format);                                                                    \
        vsnprintf((buffer), sizeof(buffer), format, args);                                         \
        va_end(args);                                                                              \
    } while (0)

static void add_part(atedm_loader *l, atedm_parts *parts, int64_t out, int64_t in, bool bias,
                     const char *name)
{
    size_t n = parts->n;
    if (l->status)
        return;
    if (n == ATEDM_LOADER_MAX_PARTS) {
        l->status = atedm_error_set(l->err, ATEDM_ERR_INVALID, "%s: too many parts", name);
        return;
    }
    if (n == 0)
        snprintf(parts->name, sizeof parts->name, "%s", name);
    parts->bias = bias;
    get(l, name, ".weight", 2, (int64_t[]){out, in}, &parts->weights[n]);
    if (!l->status) {
        parts->n++;
        if (bias)
            get(l, name, ".bias", 1, (int64_t[]){out}, &parts->biases[n]);
    }
}

const atedm_weight *atedm_load_parts(atedm_loader *l, const atedm_parts *parts)
{
    atedm_weight *weight = NULL;
    bool ready = !l->status && reserve(l);
    if (ready)
        l->status = atedm_linear_weight_create(l->device, l->act, parts->weights,
                                               parts->bias ? parts->biases : NULL, parts->n,
                                               &weight, l->err);
    for (size_t i = 0; i < parts->n; i++)
        done(l, &parts->weights[i]);
    return ready ? keep(l, parts->name, weight) : NULL;
}

void atedm_load_part(atedm_loader *l, atedm_parts *parts, int64_t out, int64_t in,
                     const char *format, ...)
{
    char name[ATEDM_PARAMETER_NAME_MAX];
    FORMAT_NAME(name, format);
    add_part(l, parts, out, in, false, name);
}

const atedm_weight *atedm_load_linear(atedm_loader *l, int64_t out, int64_t in, bool bias,
                                      const char *format, ...)
{
    atedm_parts parts = {0};
    char name[ATEDM_PARAMETER_NAME_MAX];
    FORMAT_NAME(name, format);
    add_part(l, &parts, out, in, bias, name);
    return atedm_load_parts(l, &parts);
}

const atedm_weight *atedm_load_fused(atedm_loader *l, int64_t out_each, int64_t in, bool bias,
                                     const char *prefix, const char *const *suffixes, size_t n)
{
    atedm_parts parts = {0};
    for (size_t i = 0; i < n; i++) {
        char name[ATEDM_PARAMETER_NAME_MAX];
        snprintf(name, sizeof name, "%s%s", prefix, suffixes[i]);
        add_part(l, &parts, out_each, in, bias, name);
    }
    return atedm_load_parts(l, &parts);
}

const atedm_weight *atedm_load_conv(atedm_loader *l, int64_t out, int64_t in, int kernel,
                                    int stride, const char *format, ...)
{
    char name[ATEDM_PARAMETER_NAME_MAX];
    FORMAT_NAME(name, format);
    if (l->status || !reserve(l))
        return NULL;
    atedm_host_tensor tensor, bias;
    get(l, name, ".weight", 4, (int64_t[]){out, in, kernel, kernel}, &tensor);
    if (!l->status)
        get(l, name, ".bias", 1, (int64_t[]){out}, &bias);
    if (l->status)
        return NULL;
    atedm_weight *weight = NULL;
    l->status =
        atedm_conv_weight_create(l->device, l->act, &tensor, &bias, stride, &weight, l->err);
    done(l, &tensor);
    return keep(l, name, weight);
}

const atedm_weight *atedm_load_norm(atedm_loader *l, int64_t channels, const char *format, ...)
{
    char name[ATEDM_PARAMETER_NAME_MAX];
    FORMAT_NAME(name, format);
    if (l->status || !reserve(l))
        return NULL;
    atedm_host_tensor scale, shift;
    get(l, name, ".weight", 1, &channels, &scale);
    if (!l->status)
        get(l, name, ".bias", 1, &channels, &shift);
    if (l->status)
        return NULL;
    atedm_weight *weight = NULL;
    l->status = atedm_norm_weight_create(l->device, &scale, &shift, &weight, l->err);
    return keep(l, name, weight);
}

const atedm_weight *atedm_load_table(atedm_loader *l, int64_t entries, int64_t channels,
                                     const char *format, ...)
{
    char name[ATEDM_PARAMETER_NAME_MAX];
    FORMAT_NAME(name, format);
    if (l->status || !reserve(l))
        return NULL;
    atedm_host_tensor table;
    get(l, name, ".weight", 2, (int64_t[]){entries, channels}, &table);
    if (l->status)
        return NULL;
    atedm_weight *weight = NULL;
    l->status = atedm_table_weight_create(l->device, l->act, &table, &weight, l->err);
    done(l, &table);
    return keep(l, name, weight);
}

void atedm_load_skip(atedm_loader *l, int64_t out, int64_t in, const char *format, ...)
{
    char name[ATEDM_PARAMETER_NAME_MAX];
    FORMAT_NAME(name, format);
    if (l->status)
        return;
    atedm_host_tensor tensor;
    get(l, name, "", in ? 2 : 1, (int64_t[]){out, in}, &tensor);
}
