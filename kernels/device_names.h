// Backends and devices by their names, for device.c.
#ifndef ATEDM_KERNELS_DEVICE_NAMES_H
#define ATEDM_KERNELS_DEVICE_NAMES_H

#include "kernels/backend.h"

// What atedm_device_create takes: a backend's name, or that and one of its devices.
ATEDM_MUST_CHECK atedm_status atedm_devices_find(const char *name,
                                                 const atedm_backend **ret_backend,
                                                 atedm_device_facts *ret_facts, atedm_error *err);

#endif
