// Requests between their admission and their end: waits in the queue, goes to the worker, is
// watched for its deadline. The worker has several at a time; whoever waits for the end gets called
// once.
#ifndef ATEDM_DISPATCH_H
#define ATEDM_DISPATCH_H

#include "core/flops.h"
#include "core/model.h"
#include "core/plan.h"
#include "core/request.h"
#include "kernels/kernels.h"
#include "server/clients.h"
#include "server/log.h"
#include "server/metrics.h"
#include "server/queue.h"
#include "server/valve.h"
#include "server/worker.h"

#include <stdbool.h>
#include <uv.h>

typedef struct atedm_dispatch atedm_dispatch;
typedef struct atedm_job atedm_job;

typedef enum atedm_job_end {
    ATEDM_JOB_DONE,     // `result`
    ATEDM_JOB_DEADLINE, // did not make it, or cannot
    ATEDM_JOB_FAILED,   // `error`
    ATEDM_JOB_CUT_OFF,  // the daemon ends before it
} atedm_job_end;

// A request that was admitted. The first part is the submitter's to fill (and zero the rest).
struct atedm_job {
    atedm_request request;           // its texts stay until the end, for warnings
    const atedm_model_config *model; // borrowed
    atedm_plan *plan;                // NULL: off
    atedm_request_cost cost;
    atedm_pick pick; // where the daemon chose the plan
    double arrived;  // monotonic clock
    int tries;       // earlier runs of it that ended with their daemon
    // Whose it is, where it counts against a client: the end of the job, whatever it is, gives that
    // back. clients NULL: counted nowhere.
    atedm_clients *clients; // borrowed
    char client[ATEDM_CLIENT_NAME_MAX + 1];
    // Called at the end, unless the job is given up before; the job is gone when it returns. The
    // worker's result is lent; its images may be taken, leaving none.
    void (*ended)(void *user, const atedm_job *job, atedm_job_end end, atedm_worker_result *result,
                  const atedm_error *error);
    // Each may be NULL. The job is not to be given up from inside.
    // It was started, also from inside atedm_dispatch_submit, did a step, or waits again.
    void (*progress)(void *user, const atedm_job *job);
    // How its first image looks behind `step` steps, while it is watched. The image is lent.
    void (*preview)(void *user, const atedm_job *job, int step, const atedm_worker_image *image);
    void *user;

    // Dispatch's own.
    atedm_queue_item place;  // in the queue, or among what its worker has; arrival is the job's id
    struct atedm_seat *seat; // NULL: it waits
    double started;          // monotonic clock, the first time
    double handed_over;      // monotonic clock, the last time
    bool watched;
    bool told_watched; // so its worker has been told
    int wishes;        // that it was told since it last said something of the job
    int steps_done;
    int strikes; // workers that ended while they had it
};

// A request that this many workers did not survive is given up.
#define ATEDM_MAX_STRIKES 2
// Requests that were given up, and of which their worker has not said that it heard so: one that is
// silent gets no further ones beside so many, since all that it is sent lies in memory until then.
#define ATEDM_MAX_UNHEARD 64
// Wishes to watch a job, or not to, that its worker is told before it says something of the job.
#define ATEDM_MAX_WISHES 16

#define ATEDM_MAX_WORKERS 64
#define ATEDM_DEVICE_LABEL_MAX 32

typedef struct atedm_dispatch_options {
    uv_loop_t *loop;
    atedm_metrics *metrics;
    size_t max_queue;
    const atedm_device_facts *devices; // borrowed while it is created
    size_t n_devices;
    size_t workers;              // of each device, 1 or more; at most ATEDM_MAX_WORKERS of all
    double worker_timeout_s;     // a worker that has requests and says nothing for so long is ended
    atedm_worker_options worker; // `backend` without a device
    void *user;
    // `device`: the worker's label, its device's name; ":1", ":2" is added for further ones on it.
    // ready: it takes requests, again where it was lost. lost: it ended, and is started again.
    void (*ready)(void *user, const char *device, const atedm_worker_facts *facts);
    void (*lost)(void *user, const char *device, const atedm_error *error);
    void (*failed)(void *user, const atedm_error *error); // a worker does not come up at all
    // How a device is doing, by its own name; NULL: it is not known any more. May be NULL.
    void (*figures)(void *user, const char *device, const atedm_device_figures *figures);
    void (*idle)(void *user); // nothing waits and nothing runs
} atedm_dispatch_options;

// On failure *ret_dispatch has what was started, to be closed and destroyed too; or NULL.
ATEDM_MUST_CHECK atedm_status atedm_dispatch_create(const atedm_dispatch_options *options,
                                                    atedm_dispatch **ret_dispatch,
                                                    atedm_error *err);
// Nothing may wait or run. Ends the workers; the loop closes the handles afterwards, then destroy.
void atedm_dispatch_close(atedm_dispatch *dispatch);
void atedm_dispatch_destroy(atedm_dispatch *dispatch); // NULL allowed

// ATEDM_ERR_LIMIT: the queue is full. ATEDM_ERR_CANCELED: the deadline cannot be met even at the
// best rate that was measured. Takes the job unless it fails. `ended` is never called from inside.
ATEDM_MUST_CHECK atedm_status atedm_dispatch_submit(atedm_dispatch *dispatch, atedm_job *take_job);
// One that was accepted before: it is not refused. Nothing of it is called from inside as long as
// no worker is ready.
void atedm_dispatch_restore(atedm_dispatch *dispatch, atedm_job *take_job);
// Whether there are to be previews of the job, which has not ended: from now on, whichever worker
// has it then.
void atedm_dispatch_watch(atedm_job *job, bool on);
// Nobody waits for it any more; its place is free at once, the worker behind what it is computing.
void atedm_dispatch_give_up(atedm_dispatch *dispatch, atedm_job *job);
void atedm_job_destroy(atedm_job *job); // one that was never taken; NULL allowed

// Ends every job in this way (not ATEDM_JOB_DONE) and returns how many there were.
size_t atedm_dispatch_end_all(atedm_dispatch *dispatch, atedm_job_end how,
                              const atedm_error *error);

// What may change while it runs; what is over a smaller limit already stays.
void atedm_dispatch_configure(atedm_dispatch *dispatch, size_t max_queue, double worker_timeout_s);

typedef struct atedm_dispatch_state {
    size_t depth;          // requests that wait
    uint64_t queue_flops;  // theirs
    size_t active;         // requests that workers have
    size_t ready;          // workers that take requests
    double rate;           // FLOPs a second of all workers, measured lately; NAN: none yet
    double valve_multiple; // see valve.h
    double silence_s;      // of the worker that has said nothing for longest though it has to do
} atedm_dispatch_state;

atedm_dispatch_state atedm_dispatch_get_state(const atedm_dispatch *dispatch);
// Seconds since the arrival of the request that waits longest; 0: none waits.
double atedm_dispatch_oldest_wait(const atedm_dispatch *dispatch);
// Worker i: its label, and the device memory that it holds. False past the last.
typedef struct atedm_worker_state {
    const char *device;
    size_t device_memory;
} atedm_worker_state;
bool atedm_dispatch_get_worker(const atedm_dispatch *dispatch, size_t i,
                               atedm_worker_state *ret_state);
// FLOPs that are to be done before or beside a newcomer of this priority.
double atedm_dispatch_flops_ahead(const atedm_dispatch *dispatch, int priority);
// Seconds that a newcomer of this priority would wait; NAN where no rate was measured yet.
double atedm_dispatch_expected_wait(const atedm_dispatch *dispatch, int priority);
// Whole seconds after which a place is likely to be free: for Retry-After.
int atedm_dispatch_retry_after(const atedm_dispatch *dispatch);

#endif
