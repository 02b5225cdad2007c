// Reads the figures of a device every 2 seconds. It does so on a thread of its own, because a query
// may take milliseconds, and a step would have to wait for it. Only the worker uses this.
#ifndef ATEDM_FIGURES_H
#define ATEDM_FIGURES_H

#include "core/base/status.h"
#include "kernels/kernels.h"

#include <stdbool.h>

#define ATEDM_FIGURES_PERIOD_S 2

typedef struct atedm_figures atedm_figures;

// Starts the thread, which calls `wake` whenever it has new figures. If the device has no figures,
// *ret_figures is NULL, and the functions below accept NULL.
ATEDM_MUST_CHECK atedm_status atedm_figures_start(atedm_device *device, void (*wake)(void *user),
                                                  void *user, atedm_figures **ret_figures,
                                                  atedm_error *err);
// Stops the thread. Call it before the device is destroyed. NULL allowed.
void atedm_figures_stop(atedm_figures *figures);

// Gets the latest figures. False: the caller has already taken them.
bool atedm_figures_take(atedm_figures *figures, atedm_device_figures *ret_figures);

#endif
