// A worker computes the pictures of requests on one device. It is a process of its own
// (worker_main.c), so that a fault of a driver or a kill for want of memory ends a worker and not
// the service. It knows nothing of HTTP, queues or clients. This header is the daemon's end: it
// starts the process, exchanges frames (frames.h) with it, and starts another process when it ends.
#ifndef ATEDM_WORKER_H
#define ATEDM_WORKER_H

#include "core/request.h"
#include "server/worker_message.h"

#include <stdbool.h>
#include <stdint.h>
#include <uv.h>

typedef struct atedm_worker atedm_worker;

// Starts a worker. `receive` is called on the loop's thread with each message, in order, never from
// inside a call.
ATEDM_MUST_CHECK atedm_status
atedm_worker_create(const atedm_worker_options *options, uv_loop_t *loop,
                    void (*receive)(void *user, atedm_worker_message *message), void *user,
                    atedm_worker **ret_worker, atedm_error *err);

// Sends a request; only while the worker is ready. A job ends with one DONE or ERROR, or with a
// LOST, unless it is canceled.
ATEDM_MUST_CHECK atedm_status atedm_worker_submit(atedm_worker *worker, uint64_t job,
                                                  const atedm_request *request);
// Cancels a job. The worker first finishes what it is just computing, and messages on their way
// still arrive. True: one CANCELED will be the last message about the job, or a LOST comes instead.
// False: there is no process, or no memory for the frame.
bool atedm_worker_cancel(atedm_worker *worker, uint64_t job);

// Turns previews of a job on or off, until the job ends. Does nothing if there is no process.
void atedm_worker_watch(atedm_worker *worker, uint64_t job, bool on);

// The time at which the last frame arrived, on the monotonic clock.
double atedm_worker_last_heard(const atedm_worker *worker);
// Kills a process that has been silent for `silent_s`. A LOST follows, which says so.
void atedm_worker_kill(atedm_worker *worker, double silent_s);

// Ends the process. Messages on their way are lost. The memory is freed when the loop has closed
// the handles.
void atedm_worker_destroy(atedm_worker *worker); // NULL allowed

#endif
