// The devices that the daemon computes on: which ones the configuration selects, and their facts
// and figures for clients.
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

// Finds the devices of the options "backend" and "devices", and checks "workers" against their
// number. Messages name the option. ATEDM_ERR_UNSUPPORTED: the backend is missing; ATEDM_ERR_LIMIT:
// there would be too many workers; or another error of atedm_devices_select.
ATEDM_MUST_CHECK atedm_status atedm_devices_read(const atedm_config *config,
                                                 atedm_devices *ret_devices, atedm_error *err);

// The devices as in the answer of GET /v1/models, for the caller to release. Facts that are not
// known are null.
json_t *atedm_devices_json(const atedm_devices *devices);

// Sets the gauges of the device with this label. A figure that the device does not report (NAN) has
// no series. `figures` NULL removes all of its series.
void atedm_devices_tell(atedm_metrics *metrics, const char *device,
                        const atedm_device_figures *figures);

#endif
