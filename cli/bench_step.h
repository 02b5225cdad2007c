// Times the stages of a model one after the other: a component is loaded, timed and let go.
#ifndef ATEDM_CLI_BENCH_STEP_H
#define ATEDM_CLI_BENCH_STEP_H

#include "cli/bench_report.h"
#include "core/base/status.h"

// Fills `ret_report`'s load_s, rows and rate. `report` comes with what stands before them.
ATEDM_MUST_CHECK atedm_status atedm_bench_step_run(atedm_bench_report *report, atedm_device *device,
                                                   atedm_error *err);

#endif
