// A weights source that records what modules ask for: see weights.h.
#include "core/weights.h"

#include <stdlib.h>
#include <string.h>

struct atedm_recorder {
    atedm_weights base; // first: a recorder is an atedm_weights
    atedm_recorded *entries;
    size_t count, capacity;
};

static atedm_status append(atedm_recorder *r, const char *name, int ndim, const int64_t *shape)
{
    if (r->count == r->capacity) {
        size_t capacity = r->capacity ? 2 * r->capacity : 1024;
        atedm_recorded *entries = realloc(r->entries, capacity * sizeof *entries);
        if (!entries)
            return ATEDM_ERR_NOMEM;
        r->entries = entries;
        r->capacity = capacity;
    }
    atedm_recorded *entry = &r->entries[r->count];
    *entry = (atedm_recorded){.name = strdup(name), .ndim = ndim};
    if (!entry->name)
        return ATEDM_ERR_NOMEM;
    for (int i = 0; i < ndim; i++)
        entry->shape[i] = shape[i];
    r->count++;
    return ATEDM_OK;
}

static atedm_status record(atedm_weights *weights, const char *name, int ndim, const int64_t *shape,
                           bool optional, atedm_host_tensor *ret_tensor, atedm_error *err)
{
    // A module asks for an optional parameter if its architecture has that parameter, so it counts.
    (void)optional;
    atedm_status status = append((atedm_recorder *)weights, name, ndim, shape);
    if (status)
        return atedm_error_set(err, status, "no memory to record \"%.100s\"", name);
    *ret_tensor = (atedm_host_tensor){.dtype = ATEDM_F32, .ndim = ndim};
    for (int i = 0; i < ndim; i++)
        ret_tensor->shape[i] = shape[i];
    return ATEDM_OK;
}

atedm_status atedm_recorder_create(atedm_recorder **ret_recorder)
{
    atedm_recorder *recorder = calloc(1, sizeof *recorder);
    if (!recorder)
        return ATEDM_ERR_NOMEM;
    recorder->base.get = record;
    *ret_recorder = recorder;
    return ATEDM_OK;
}

atedm_weights *atedm_recorder_weights(atedm_recorder *recorder)
{
    return &recorder->base;
}

const atedm_recorded *atedm_recorder_entries(const atedm_recorder *recorder, size_t *ret_count)
{
    *ret_count = recorder->count;
    return recorder->entries;
}

void atedm_recorder_destroy(atedm_recorder *recorder)
{
    if (!recorder)
        return;
    for (size_t i = 0; i < recorder->count; i++)
        free(recorder->entries[i].name);
    free(recorder->entries);
    free(recorder);
}
