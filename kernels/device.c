// Devices and their memory. What their names mean is in device_names.c.
#include "kernels/backend.h"
#include "kernels/device_names.h"

#include <math.h>

atedm_status atedm_device_create(const char *name, atedm_device **ret_device, atedm_error *err)
{
    const atedm_backend *backend = NULL;
    atedm_device_facts facts;
    atedm_device *device = NULL;
    atedm_status status = atedm_devices_find(name, &backend, &facts, err);
    if (!status)
        status = backend->device_create(facts.index, &device, err);
    if (status)
        return status;
    device->backend = backend;
    device->facts = facts;
    *ret_device = device;
    return ATEDM_OK;
}

void atedm_device_destroy(atedm_device *device)
{
    if (device)
        device->backend->device_destroy(device);
}

const char *atedm_device_backend(const atedm_device *device)
{
    return device->backend->name;
}

const atedm_device_facts *atedm_device_describe(const atedm_device *device)
{
    return &device->facts;
}

bool atedm_device_measure(atedm_device *device, atedm_device_figures *ret_figures)
{
    if (!device->backend->measure)
        return false;
    for (int i = 0; i < ATEDM_FIGURE_COUNT; i++)
        ret_figures->value[i] = NAN;
    device->backend->measure(device, ret_figures);
    return true;
}

bool atedm_device_is_dry(const atedm_device *device)
{
    // By its name: a device that is profiled has a table of its own.
    return device->backend->name == atedm_backend_dry.name;
}

bool atedm_device_supports(const atedm_device *device, atedm_dtype dtype)
{
    return device->backend->supports(device, dtype);
}

atedm_dtype atedm_device_best_dtype(const atedm_device *device)
{
    return device->backend->best_dtype(device);
}

atedm_status atedm_device_alloc(atedm_device *device, size_t bytes, void **ret_memory,
                                atedm_error *err)
{
    if (bytes > ATEDM_MAX_DEVICE_BYTES)
        return atedm_error_set(err, ATEDM_ERR_NOMEM,
                               "no memory for %zu bytes: more than the limit of %zu", bytes,
                               ATEDM_MAX_DEVICE_BYTES);
    return device->backend->alloc(device, bytes, ret_memory, err);
}

void atedm_device_free(atedm_device *device, void *memory)
{
    if (memory)
        device->backend->free(device, memory);
}
