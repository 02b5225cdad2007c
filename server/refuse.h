// Answers to what is not taken: requests that are wrong before their body is read, and those that
// cannot be admitted now.
#ifndef ATEDM_REFUSE_H
#define ATEDM_REFUSE_H

#include "server/daemon.h"

// As atedm_http_options wants it; `app` is the daemon.
atedm_response atedm_refuse_exchange(void *app, const atedm_exchange *exchange,
                                     atedm_refusal refusal);

// While requests cannot be admitted: 503 with Retry-After.
atedm_response atedm_refuse_storage(atedm_daemon *daemon, const char *id);
atedm_response atedm_refuse_busy(atedm_daemon *daemon, const char *id, bool queue_full);

// Where atedm_dispatch_submit failed; counts it.
atedm_response atedm_refuse_submission(atedm_daemon *daemon, const atedm_exchange *exchange,
                                       const atedm_job *job, atedm_status status);
void atedm_count_rejected(const atedm_daemon *daemon, const char *reason);

#endif
