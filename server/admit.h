// Turns a request's body into a job. /generate and /v1/estimate share this part.
#ifndef ATEDM_ADMIT_H
#define ATEDM_ADMIT_H

#include "server/daemon.h"

#include <jansson.h>

// Reads the exchange's body into a job with its plan and cost. `png`: if the body has no
// response_format, the client wants the picture itself. On failure returns NULL, and *ret_refusal
// is the answer that says what is wrong; the caller owns it. *ret_body is the parsed body, which
// the caller owns too; NULL if the body is not JSON.
atedm_job *atedm_admit(atedm_daemon *daemon, const atedm_exchange *exchange, bool png,
                       json_t **ret_body, atedm_response *ret_refusal);
// Whether the request's headers prefer a PNG to JSON.
bool atedm_admit_wants_png(const atedm_exchange *exchange);
// Makes a job from a body that an earlier daemon admitted and stored. ATEDM_ERR_INVALID: with the
// present model or limits the job is no longer possible. The body is not the cause of any other
// failure.
ATEDM_MUST_CHECK atedm_status atedm_admit_stored(atedm_daemon *daemon, const char *body,
                                                 atedm_job **ret_job, atedm_error *err);

// Charges the job to the exchange's client until the job is destroyed. If the client may not have
// the job (429) or its key no longer exists (401), answers the exchange and returns false; the
// caller then keeps the job.
bool atedm_admit_charge(atedm_daemon *daemon, atedm_exchange *exchange, atedm_job *job);

#endif
