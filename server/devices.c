// The daemon's devices: see devices.h.
#include "server/devices.h"

#include "server/dispatch.h"

#include <math.h>

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

// An empty text means "not known": null.
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

void atedm_devices_tell(atedm_metrics *metrics, const char *device,
                        const atedm_device_figures *figures)
{
    static const atedm_metric gauges[ATEDM_FIGURE_COUNT] = {
        [ATEDM_FIGURE_MEMORY_FREE] = ATEDM_METRIC_DEVICE_MEMORY_FREE,
        [ATEDM_FIGURE_MEMORY_TOTAL] = ATEDM_METRIC_DEVICE_MEMORY_TOTAL,
        [ATEDM_FIGURE_MEMORY_USED] = ATEDM_METRIC_DEVICE_MEMORY_USED,
        [ATEDM_FIGURE_UTILIZATION] = ATEDM_METRIC_DEVICE_UTILIZATION,
        [ATEDM_FIGURE_POWER] = ATEDM_METRIC_DEVICE_POWER,
        [ATEDM_FIGURE_TEMPERATURE] = ATEDM_METRIC_DEVICE_TEMPERATURE,
        [ATEDM_FIGURE_SM_CLOCK] = ATEDM_METRIC_DEVICE_SM_CLOCK,
        [ATEDM_FIGURE_MEMORY_CLOCK] = ATEDM_METRIC_DEVICE_MEMORY_CLOCK,
    };
    for (int i = 0; i < ATEDM_FIGURE_COUNT; i++) {
        if (figures && !isnan(figures->value[i]))
            atedm_metrics_set(metrics, gauges[i], figures->value[i], ATEDM_LABELS(device));
        else
            atedm_metrics_remove(metrics, gauges[i], ATEDM_LABELS(device));
    }
}
