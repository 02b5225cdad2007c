// The results of `atedm bench serve`, as a table for people and as JSON.
#ifndef ATEDM_CLI_LOAD_REPORT_H
#define ATEDM_CLI_LOAD_REPORT_H

#include "cli/load_run.h"
#include "cli/load_stats.h"

#include <jansson.h>

// Prints to standard output.
void atedm_load_report_table(const atedm_load_plan *plan, const atedm_load_record *record,
                             const atedm_load_stats *stats);
// NULL if memory is exhausted.
json_t *atedm_load_report_json(const atedm_load_plan *plan, const atedm_load_record *record,
                               const atedm_load_stats *stats);

#endif
