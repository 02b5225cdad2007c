// Metrics of the daemon as a whole.
#ifndef ATEDM_GAUGES_H
#define ATEDM_GAUGES_H

#include "server/daemon.h"

// Those that are there from the start, so that a first look finds them.
void atedm_gauges_start(atedm_daemon *daemon);
// Brings gauges up to date.
void atedm_gauges_measure(atedm_daemon *daemon);

#endif
