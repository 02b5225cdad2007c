// What is told of a job: GET /jobs/{id}, lists, events.
#ifndef ATEDM_JOB_JSON_H
#define ATEDM_JOB_JSON_H

#include "server/dispatch.h"
#include "server/store.h"

#include <jansson.h>

// The name of a state: "queued", "running", "done", "failed", "canceled". `job`: NULL for one that
// is at its end.
const char *atedm_job_state_name(const atedm_store_job *record, const atedm_job *job);

// The job with its progress, or its result or error. NULL where there is no memory.
json_t *atedm_job_json(const atedm_store_job *record, const atedm_job *job);
// Step, steps, images a second; null where it has not begun.
json_t *atedm_job_progress_json(const atedm_job *job);

#endif
