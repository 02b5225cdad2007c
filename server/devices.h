// The devices that the daemon works on: which the configuration means, and what is said of them.
#ifndef ATEDM_SERVER_DEVICES_H
#define ATEDM_SERVER_DEVICES_H

#include "config/config.h"
#include "kernels/kernels.h"
#include "server/metrics.h"

#include <jansson.h>

typedef struct atedm_devices {
    atedm_device_facts items[ATEDM_MAX_DEVICES];
    size_t count;
} atedm_devices;

// Messages name the option.
ATEDM_MUST_CHECK atedm_status atedm_devices_read(const atedm_config *config,
                                                 atedm_devices *ret_devices, atedm_error *err);

// The list of GET /v1/models.
json_t *atedm_devices_json(const atedm_devices *devices);

// Sets the device's gauges: what it does not say has no series. NULL: it says nothing any more.
void atedm_devices_tell(atedm_metrics *metrics, const char *device,
                        const atedm_device_figures *figures);

#endif
