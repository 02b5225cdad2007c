// From a body to a job: what /generate and /v1/estimate do alike.
#ifndef ATEDM_ADMIT_H
#define ATEDM_ADMIT_H

#include "server/daemon.h"

// Reads the exchange's body into a job with its plan and cost, or answers the exchange with what is
// wrong and returns NULL.
atedm_job *atedm_admit(atedm_daemon *daemon, atedm_exchange *exchange);

#endif
