// From a body to a job: what /generate and /v1/estimate do alike.
#ifndef ATEDM_ADMIT_H
#define ATEDM_ADMIT_H

#include "server/daemon.h"

#include <jansson.h>

// Reads the exchange's body into a job with its plan and cost. `png`: a body without a
// response_format asks for the picture itself. NULL: *ret_refusal is the answer that says what is
// wrong, and the caller's. *ret_body is the body as parsed, the caller's too; NULL where it is no
// JSON.
atedm_job *atedm_admit(atedm_daemon *daemon, const atedm_exchange *exchange, bool png,
                       json_t **ret_body, atedm_response *ret_refusal);
// Whether its headers prefer the picture itself.
bool atedm_admit_wants_png(const atedm_exchange *exchange);
// A job of a body that was admitted and stored before. ATEDM_ERR_INVALID where the model or the
// limits are such that it cannot be done any more; any other failure is not the body's.
ATEDM_MUST_CHECK atedm_status atedm_admit_stored(atedm_daemon *daemon, const char *body,
                                                 atedm_job **ret_job, atedm_error *err);

// Charges the job to the exchange's client, until the job is destroyed; or answers the exchange
// (429, 401 where the client's key is gone) and returns false, and the job stays the caller's.
bool atedm_admit_charge(atedm_daemon *daemon, atedm_exchange *exchange, atedm_job *job);

#endif
