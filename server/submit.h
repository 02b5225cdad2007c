// Turns requests into jobs: those with `Prefer: respond-async`, with an Idempotency-Key, or with
// results by URL.
#ifndef ATEDM_SUBMIT_H
#define ATEDM_SUBMIT_H

#include "server/daemon.h"

#include <jansson.h>

#define ATEDM_IDEMPOTENCY_KEY_MAX 255 // bytes

// Whether the request has the header Idempotency-Key, with any value.
bool atedm_has_idempotency_key(const atedm_exchange *exchange);
// Answers a request that has an Idempotency-Key. If a job has that key, whether it waits, runs or
// has ended, answers with that job, or with a conflict if the bodies differ. No limit applies then,
// neither the client's nor the present limits on requests. So the request may be one that is no
// longer admitted: `take_job` is then NULL and `take_refusal` is its refusal. If no job has the
// key, answers with the refusal, or charges the request to the client (admit.h) and continues as
// atedm_submit_stored.
void atedm_submit_keyed(atedm_daemon *daemon, atedm_exchange *exchange, atedm_job *take_job,
                        atedm_response take_refusal, json_t *body);
// Whether a request without a key becomes a job.
bool atedm_is_for_store(const atedm_exchange *exchange, const atedm_request *request);
// Makes the request a job. Answers at once if the client asked for that, else when the job ends.
// Takes the job. `body` is the request's body; it gets the values that the daemon chose.
void atedm_submit_stored(atedm_daemon *daemon, atedm_exchange *exchange, atedm_job *take_job,
                         json_t *body);

#endif
