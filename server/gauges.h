// Sets the metrics that describe the daemon as a whole.
#ifndef ATEDM_GAUGES_H
#define ATEDM_GAUGES_H

#include "server/daemon.h"

// Creates the series that must exist from the start.
void atedm_gauges_start(atedm_daemon *daemon);
// Brings the gauges up to date; called before the metrics are read.
void atedm_gauges_measure(atedm_daemon *daemon);

#endif
