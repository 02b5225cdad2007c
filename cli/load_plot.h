// A picture of a run of `atedm bench serve`: SVG, written by hand.
#ifndef ATEDM_CLI_LOAD_PLOT_H
#define ATEDM_CLI_LOAD_PLOT_H

#include "cli/load_run.h"
#include "cli/load_stats.h"
#include "core/base/status.h"

#define ATEDM_LOAD_MAX_DOTS 5000 // with more requests, only every n-th is drawn

// Draws each request's latency over its arrival; the numbers of requests open and in the daemon's
// queue over time; and the distribution of the latencies.
ATEDM_MUST_CHECK atedm_status atedm_load_plot_write(const char *path, const atedm_load_plan *plan,
                                                    const atedm_load_record *record,
                                                    const atedm_load_stats *stats,
                                                    atedm_error *err);

#endif
