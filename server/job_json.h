// Describes a job as JSON, for GET /jobs/{id}, lists and events.
#ifndef ATEDM_JOB_JSON_H
#define ATEDM_JOB_JSON_H

#include "server/jobs.h"

#include <jansson.h>

// Both functions take the job as it is in the store, and the live job of the same id; NULL: the job
// is not live. A live job counts as waiting or running, because clients learn of an end only when
// it is on disk.
//
// atedm_job_state_name returns the name of a state: "queued", "running", "done", "failed" or
// "canceled".
const char *atedm_job_state_name(const atedm_store_job *record, const atedm_live *live);
// The job with its progress, or with its result or error. NULL: out of memory.
json_t *atedm_job_json(const atedm_store_job *record, const atedm_live *live);
// Step, number of steps, and images a second, which is null before the first step's end.
json_t *atedm_job_progress_json(const atedm_job *job);

#endif
