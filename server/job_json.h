// What is told of a job: GET /jobs/{id}, lists, events.
#ifndef ATEDM_JOB_JSON_H
#define ATEDM_JOB_JSON_H

#include "server/jobs.h"

#include <jansson.h>

// Both take the job as the store has it, and the live one of the same id; NULL: there is none. What
// is live waits or runs: an end that is not on disk is not told.
//
// The name of a state: "queued", "running", "done", "failed", "canceled".
const char *atedm_job_state_name(const atedm_store_job *record, const atedm_live *live);
// The job with its progress, or its result or error. NULL where there is no memory.
json_t *atedm_job_json(const atedm_store_job *record, const atedm_live *live);
// Step, steps, images a second; null where it has not begun.
json_t *atedm_job_progress_json(const atedm_job *job);

#endif
