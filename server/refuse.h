// Makes the answers to requests that the daemon does not serve: those refused before their body is
// read, those that cannot be admitted now, and those that fail.
#ifndef ATEDM_REFUSE_H
#define ATEDM_REFUSE_H

#include "server/daemon.h"

// The `refuse` of atedm_http_options; `app` is the daemon.
atedm_response atedm_refuse_exchange(void *app, const atedm_exchange *exchange,
                                     atedm_refusal refusal);

// 500: the request failed in the daemon. Logs why.
atedm_response atedm_refuse_failed(const atedm_daemon *daemon, const char *id,
                                   const atedm_error *why);
// 422: the device has not the memory for the request, not even for it alone. Logs why.
atedm_response atedm_refuse_no_memory(const atedm_daemon *daemon, const char *id,
                                      const atedm_error *why);
// 503 with Retry-After: the job store does not work at present. Logs `why`; NULL: the log has it
// already.
atedm_response atedm_refuse_storage(atedm_daemon *daemon, const char *id, const atedm_error *why);

// Why the daemon cannot take a request now.
typedef enum atedm_busy {
    ATEDM_BUSY_DRAINING,  // the daemon drains; then this is the answer, whatever `why` says
    ATEDM_BUSY_FULL,      // the queue is full
    ATEDM_BUSY_NO_WORKER, // no worker is up
    ATEDM_BUSY_JOB_LEFT,  // the job is in the store, but this daemon does not run it
} atedm_busy;
// 503 with Retry-After. `why`: the reason.
atedm_response atedm_refuse_busy(atedm_daemon *daemon, const char *id, atedm_busy why);

// The answer if atedm_dispatch_submit failed with `status`. Counts the rejection.
atedm_response atedm_refuse_submission(atedm_daemon *daemon, const atedm_exchange *exchange,
                                       const atedm_job *job, atedm_status status);

// Call it before an answer that the client can also have later. If other answers hold
// max_unread_bytes in memory, refuses the exchange and returns true.
bool atedm_refuse_unread(const atedm_daemon *daemon, atedm_exchange *exchange);

#endif
