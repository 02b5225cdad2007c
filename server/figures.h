// Asks a device every now and then how it is doing. On a thread of its own, since that may take
// milliseconds, in which a step would have to wait. Only the worker has one.
#ifndef ATEDM_FIGURES_H
#define ATEDM_FIGURES_H

#include "core/base/status.h"
#include "kernels/kernels.h"

#include <stdbool.h>

#define ATEDM_FIGURES_PERIOD_S 2

typedef struct atedm_figures atedm_figures;

// `wake` is called on that thread where there are new ones. *ret_figures is NULL, which is fine for
// the other calls, where the device says nothing.
ATEDM_MUST_CHECK atedm_status atedm_figures_start(atedm_device *device, void (*wake)(void *user),
                                                  void *user, atedm_figures **ret_figures,
                                                  atedm_error *err);
// Before the device is destroyed. NULL allowed.
void atedm_figures_stop(atedm_figures *figures);

// The latest; false where they were taken already.
bool atedm_figures_take(atedm_figures *figures, atedm_device_figures *ret_figures);

#endif
