// Requests that become jobs: `Prefer: respond-async`, an Idempotency-Key, or results by URL.
#ifndef ATEDM_SUBMIT_H
#define ATEDM_SUBMIT_H

#include "server/daemon.h"

#include <jansson.h>

#define ATEDM_IDEMPOTENCY_KEY_MAX 255 // bytes

bool atedm_has_idempotency_key(const atedm_exchange *exchange);
// Answers with the job that has the exchange's Idempotency-Key, waiting, running or ended, or by
// the conflict of the two bodies: no limit counts, neither the client's nor what requests may ask
// for by now. So the request may be one that is not admitted any more, `take_job` NULL with
// `take_refusal` in its place. Where there is no such job, answers with that, or counts the request
// against the limits (admit.h) and goes on as atedm_submit_stored.
void atedm_submit_keyed(atedm_daemon *daemon, atedm_exchange *exchange, atedm_job *take_job,
                        atedm_response take_refusal, json_t *body);
// Of those without a key.
bool atedm_is_for_store(const atedm_exchange *exchange, const atedm_request *request);
// Makes the request a job and answers: at once where that is asked for, else at its end. Takes the
// job; `body` is what came, and gets what was chosen for it.
void atedm_submit_stored(atedm_daemon *daemon, atedm_exchange *exchange, atedm_job *take_job,
                         json_t *body);

#endif
