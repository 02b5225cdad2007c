// Answers to what is not taken: requests that are wrong before their body is read, those that
// cannot be admitted now, and those that fail.
#ifndef ATEDM_REFUSE_H
#define ATEDM_REFUSE_H

#include "server/daemon.h"

// As atedm_http_options wants it; `app` is the daemon.
atedm_response atedm_refuse_exchange(void *app, const atedm_exchange *exchange,
                                     atedm_refusal refusal);

// 500: it failed in the daemon. Logs why.
atedm_response atedm_refuse_failed(const atedm_daemon *daemon, const char *id,
                                   const atedm_error *why);
// While requests cannot be admitted: 503 with Retry-After. `why` is logged; NULL: it is already.
atedm_response atedm_refuse_storage(atedm_daemon *daemon, const char *id, const atedm_error *why);

// Why a request cannot be taken now.
typedef enum atedm_busy {
    ATEDM_BUSY_DRAINING,  // the answer to all requests while the daemon drains, whatever `why` says
    ATEDM_BUSY_FULL,      // the queue
    ATEDM_BUSY_NO_WORKER, // none is up
    ATEDM_BUSY_JOB_LEFT,  // the job is stored, but nothing of it is at work
} atedm_busy;
// 503 with Retry-After.
atedm_response atedm_refuse_busy(atedm_daemon *daemon, const char *id, atedm_busy why);

// Where atedm_dispatch_submit failed; counts it.
atedm_response atedm_refuse_submission(atedm_daemon *daemon, const atedm_exchange *exchange,
                                       const atedm_job *job, atedm_status status);

// Answers the exchange, which asks for what it can have later as well, where max_unread_bytes of
// others' answers lie in memory; else false.
bool atedm_refuse_unread(const atedm_daemon *daemon, atedm_exchange *exchange);

#endif
