// A worker: takes requests, makes images, one device. It is a process of its own (worker_main.c),
// so that a fault of a driver or a kill for memory costs a worker and not the service; it knows
// nothing of HTTP, of queues or of who waits. Here is the daemon's end: it starts the process,
// talks to it in frames (frames.h), and starts another when it ends.
#ifndef ATEDM_WORKER_H
#define ATEDM_WORKER_H

#include "core/request.h"
#include "server/worker_message.h"

#include <stdbool.h>
#include <stdint.h>
#include <uv.h>

typedef struct atedm_worker atedm_worker;

// Starts a worker; `receive` is called on the loop's thread with each message, in order, never from
// inside a call.
ATEDM_MUST_CHECK atedm_status
atedm_worker_create(const atedm_worker_options *options, uv_loop_t *loop,
                    void (*receive)(void *user, atedm_worker_message *message), void *user,
                    atedm_worker **ret_worker, atedm_error *err);

// Only while the worker is ready. Each job gets one DONE or ERROR, or goes with a LOST, unless it
// is canceled.
ATEDM_MUST_CHECK atedm_status atedm_worker_submit(atedm_worker *worker, uint64_t job,
                                                  const atedm_request *request);
// The job ends behind what the worker is just doing; what is on its way may still come. True where
// one CANCELED will be the last of it, or it goes with a LOST; false where there is no process, or
// no memory to tell it.
bool atedm_worker_cancel(atedm_worker *worker, uint64_t job);

// Whether there are to be previews of the job, from now on and until it ends. Nothing happens where
// there is no process.
void atedm_worker_watch(atedm_worker *worker, uint64_t job, bool on);

// When the last frame came, on the monotonic clock.
double atedm_worker_last_heard(const atedm_worker *worker);
// Ends a process that has been silent for so long: LOST follows, and says so.
void atedm_worker_kill(atedm_worker *worker, double silent_s);

// Ends the process. Messages that are on their way are lost. The memory goes when the loop has
// closed the handles.
void atedm_worker_destroy(atedm_worker *worker); // NULL allowed

#endif
