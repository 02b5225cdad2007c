// Collects and writes the intermediates of one generation: see dump.h.
#include "cli/dump.h"

#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

static size_t tensor_bytes(const atedm_host_tensor *tensor)
{
    return (size_t)atedm_host_tensor_count(tensor) * atedm_dtype_size(tensor->dtype);
}

static atedm_status reserve(atedm_dump *dump)
{
    if (dump->count < dump->capacity)
        return ATEDM_OK;
    size_t capacity = dump->capacity ? 2 * dump->capacity : 64;
    atedm_safetensors_entry *items = reallocarray(dump->items, capacity, sizeof *items);
    if (!items)
        return ATEDM_ERR_NOMEM;
    dump->items = items;
    dump->capacity = capacity;
    return ATEDM_OK;
}

void atedm_dump_add(void *user, const char *name, const atedm_host_tensor *tensor)
{
    atedm_dump *dump = user;
    if (dump->status)
        return;
    size_t bytes = tensor_bytes(tensor);
    char *own_name = strdup(name);
    void *data = malloc(bytes ? bytes : 1);
    if (!own_name || !data || reserve(dump)) {
        free(own_name);
        free(data);
        dump->status = ATEDM_ERR_NOMEM;
        return;
    }
    memcpy(data, tensor->data, bytes);
    dump->items[dump->count] = (atedm_safetensors_entry){.name = own_name, .tensor = *tensor};
    dump->items[dump->count].tensor.data = data;
    dump->count++;
}

atedm_status atedm_dump_write(const atedm_dump *dump, const char *dir, atedm_error *err)
{
    char path[PATH_MAX];
    if (dump->status)
        return atedm_error_set(err, dump->status, "no memory to keep the intermediates");
    if (snprintf(path, sizeof path, "%s/stages.safetensors", dir) >= (int)sizeof path)
        return atedm_error_set(err, ATEDM_ERR_INVALID, "--dump: the path is too long");
    if (mkdir(dir, 0777) && errno != EEXIST)
        return atedm_error_set(err, ATEDM_ERR_IO, "%s: %s", dir, strerror(errno));
    atedm_safetensors_writer *writer = NULL;
    atedm_status status =
        atedm_safetensors_writer_create(path, dump->items, dump->count, &writer, err);
    if (status)
        return status;
    for (size_t i = 0; i < dump->count; i++) {
        const atedm_host_tensor *tensor = &dump->items[i].tensor;
        status = atedm_safetensors_writer_put(writer, tensor->data, tensor_bytes(tensor), err);
        if (status) {
            atedm_safetensors_writer_abort(writer);
            return status;
        }
    }
    return atedm_safetensors_writer_finish(writer, err);
}

void atedm_dump_finish(atedm_dump *dump)
{
    for (size_t i = 0; i < dump->count; i++) {
        free((char *)dump->items[i].name);
        free((void *)dump->items[i].tensor.data);
    }
    free(dump->items);
    *dump = (atedm_dump){0};
}
