// Devices of the daemon: see devices.h.
#include "server/devices.h"

#include "server/dispatch.h"

atedm_status atedm_devices_read(const atedm_config *config, atedm_devices *ret_devices,
                                atedm_error *err)
{
    const char *backend = atedm_backend_of(config->backend);
    atedm_status status = atedm_devices_select(backend, config->devices, ret_devices->items,
                                               &ret_devices->count, err);
    if (!status && (size_t)config->workers * ret_devices->count > ATEDM_MAX_WORKERS)
        return atedm_error_set(err, ATEDM_ERR_LIMIT,
                               "workers: %d on each of %zu devices are more than %d",
                               (int)config->workers, ret_devices->count, ATEDM_MAX_WORKERS);
    return atedm_error_context(err, status,
                               status == ATEDM_ERR_UNSUPPORTED ? "backend" : "devices");
}

// What is not known is null.
static json_t *text_json(const char *text)
{
    return *text ? json_string(text) : json_null();
}

json_t *atedm_devices_json(const atedm_devices *devices)
{
    json_t *list = json_array();
    for (size_t i = 0; i < devices->count; i++) {
        const atedm_device_facts *d = &devices->items[i];
        json_t *memory = d->memory ? json_integer((json_int_t)d->memory) : json_null();
        json_array_append_new(list, json_pack("{s:s, s:o, s:o, s:o}", "device", d->name, "name",
                                              text_json(d->model), "uuid", text_json(d->uuid),
                                              "memory_bytes", memory));
    }
    return list;
}
