// Times the stages of a model one after the other. Each component is loaded, timed and destroyed
// before the next one.
#ifndef ATEDM_CLI_BENCH_STEP_H
#define ATEDM_CLI_BENCH_STEP_H

#include "cli/bench_report.h"
#include "core/base/status.h"

// Fills load_s, the rows and the rates of a report whose options, config, backend and dtypes are
// set.
ATEDM_MUST_CHECK atedm_status atedm_bench_step_run(atedm_bench_report *report, atedm_device *device,
                                                   atedm_error *err);

#endif
