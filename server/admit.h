// From a body to a job: what /generate and /v1/estimate do alike.
#ifndef ATEDM_ADMIT_H
#define ATEDM_ADMIT_H

#include "server/daemon.h"

// Reads the exchange's body into a job with its plan and cost, or answers the exchange with what is
// wrong and returns NULL.
atedm_job *atedm_admit(atedm_daemon *daemon, atedm_exchange *exchange);

// Counts the job against the exchange's client until the job is destroyed; or answers the exchange
// (429, 401 where the client's key is gone) and returns false, and the job stays the caller's.
bool atedm_admit_count(atedm_daemon *daemon, atedm_exchange *exchange, atedm_job *job);

#endif
