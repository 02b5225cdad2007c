// Carries a job from its admission to its end: the job waits in the queue, goes to a worker and is
// ended if it misses its deadline. A worker has several jobs at a time. The dispatch reports the
// end of each job once.
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
    ATEDM_JOB_DONE,      // `result`
    ATEDM_JOB_DEADLINE,  // the deadline has passed, or cannot be met
    ATEDM_JOB_NO_MEMORY, // `error`: the device has not the memory for it, not even for it alone
    ATEDM_JOB_FAILED,    // `error`
    ATEDM_JOB_CUT_OFF,   // the daemon ends before the job does
} atedm_job_end;

// An admitted request. The submitter fills in the first part and sets the rest to zero.
struct atedm_job {
    atedm_request request;           // its texts stay allocated until the end, for warnings
    const atedm_model_config *model; // borrowed
    atedm_plan *plan;                // NULL: no pruning
    atedm_request_cost cost;
    atedm_pick pick; // set if the daemon chose the plan
    double arrived;  // monotonic clock
    int tries;       // earlier runs of this job during which the daemon ended
    // The client against whose limits the job counts; the job's end, of whatever kind, gives its
    // share back. clients NULL: the job counts against no client.
    atedm_clients *clients; // borrowed
    char client[ATEDM_CLIENT_NAME_MAX + 1];
    // Called when the job ends, unless atedm_dispatch_give_up came first. The job is freed when the
    // call returns. The worker's result is lent; the callee may take its images and must then leave
    // none in it.
    void (*ended)(void *user, const atedm_job *job, atedm_job_end end, atedm_worker_result *result,
                  const atedm_error *error);
    // The two functions below may be NULL. They must not give the job up.
    // progress: the job was started (also from inside atedm_dispatch_submit), finished a step, or
    // waits again.
    void (*progress)(void *user, const atedm_job *job);
    // A preview of the job's first image after `step` steps; only while the job is watched. The
    // image is lent.
    void (*preview)(void *user, const atedm_job *job, int step, const atedm_worker_image *image);
    void *user;

    // The members below belong to the dispatch.
    atedm_queue_item place;  // in the queue or in its worker's list; `arrival` is the job's id
    struct atedm_seat *seat; // NULL: the job waits in the queue
    double started;          // monotonic clock, the first time
    double handed_over;      // monotonic clock, the last time
    bool watched;
    bool told_watched; // the value of `watched` that its worker has
    int wishes;        // watch frames sent since the worker last reported on the job
    int steps_done;
    int strikes; // workers that ended while they had the job
};

// A job fails after this many strikes.
#define ATEDM_MAX_STRIKES 2
// Most canceled jobs of one worker whose cancellation it has not confirmed. A silent worker with
// this many gets no further jobs, since every frame for it stays in memory until it reads it.
#define ATEDM_MAX_UNHEARD 64
// Most frames about watching one job that the dispatch sends its worker before the worker reports
// on that job.
#define ATEDM_MAX_WISHES 16

#define ATEDM_MAX_WORKERS 64
#define ATEDM_DEVICE_LABEL_MAX 32

typedef struct atedm_dispatch_options {
    uv_loop_t *loop;
    atedm_metrics *metrics;
    size_t max_queue;
    const atedm_device_facts *devices; // borrowed until atedm_dispatch_create returns
    size_t n_devices;
    size_t workers; // worker processes for each device, 1 or more; at most ATEDM_MAX_WORKERS in all
    double worker_timeout_s;     // a worker that has jobs and is silent for this long is killed
    atedm_worker_options worker; // `backend` names no device
    void *user;
    // `device` is the worker's label: the name of its device, with ":1", ":2" appended for further
    // workers on that device. ready: the worker takes jobs, for the first time or after a restart.
    // lost: the worker ended, and the dispatch restarts it.
    void (*ready)(void *user, const char *device, const atedm_worker_facts *facts);
    void (*lost)(void *user, const char *device, const atedm_error *error);
    void (*failed)(void *user, const atedm_error *error); // a worker fails its first start for good
    // New figures of a device, by the device's own name; NULL: its figures are no longer known. The
    // function may be NULL.
    void (*figures)(void *user, const char *device, const atedm_device_figures *figures);
    void (*idle)(void *user); // no job waits or runs any more
} atedm_dispatch_options;

// On failure *ret_dispatch is NULL or holds the started part; the caller closes and destroys that
// too.
ATEDM_MUST_CHECK atedm_status atedm_dispatch_create(const atedm_dispatch_options *options,
                                                    atedm_dispatch **ret_dispatch,
                                                    atedm_error *err);
// Ends the workers. No job may wait or run. Call atedm_dispatch_destroy after the loop has closed
// the handles.
void atedm_dispatch_close(atedm_dispatch *dispatch);
void atedm_dispatch_destroy(atedm_dispatch *dispatch); // NULL allowed

// Submits the job. ATEDM_ERR_LIMIT: the queue is full. ATEDM_ERR_CANCELED: the job cannot meet its
// deadline even at the best measured rate. Takes the job unless it fails. Never calls `ended` from
// inside.
ATEDM_MUST_CHECK atedm_status atedm_dispatch_submit(atedm_dispatch *dispatch, atedm_job *take_job);
// Submits a job that an earlier daemon accepted; this cannot be refused. Calls none of the job's
// functions from inside while no worker is ready.
void atedm_dispatch_restore(atedm_dispatch *dispatch, atedm_job *take_job);
// Turns previews of the job on or off. The setting follows the job to whichever worker has it. The
// job must not have ended.
void atedm_dispatch_watch(atedm_job *job, bool on);
// Cancels the job because nobody waits for it. Its place is free at once; the worker is free when
// it has finished what it is just computing.
void atedm_dispatch_give_up(atedm_dispatch *dispatch, atedm_job *job);
void atedm_job_destroy(atedm_job *job); // a job that the dispatch never took; NULL allowed

// Ends every job with `how` (not ATEDM_JOB_DONE) and returns the number of jobs.
size_t atedm_dispatch_end_all(atedm_dispatch *dispatch, atedm_job_end how,
                              const atedm_error *error);

// Changes the options that may change at run time. If more jobs wait than the new limit allows,
// they stay.
void atedm_dispatch_configure(atedm_dispatch *dispatch, size_t max_queue, double worker_timeout_s);

typedef struct atedm_dispatch_state {
    size_t depth;          // jobs that wait
    uint64_t queue_flops;  // FLOPs of those jobs
    size_t active;         // jobs that workers have
    size_t ready;          // workers that take jobs
    double rate;           // recent FLOPs a second of all workers together; NAN: not measured yet
    double valve_multiple; // see valve.h
    double silence_s;      // longest silence of a worker that has work, in seconds
} atedm_dispatch_state;

// Gets the present state.
atedm_dispatch_state atedm_dispatch_get_state(const atedm_dispatch *dispatch);
// Seconds since the arrival of the oldest waiting job; 0: none waits.
double atedm_dispatch_oldest_wait(const atedm_dispatch *dispatch);
// Gets worker i: its label, and the bytes of device memory that it holds. False: there are not that
// many workers.
typedef struct atedm_worker_state {
    const char *device;
    size_t device_memory;
} atedm_worker_state;
bool atedm_dispatch_get_worker(const atedm_dispatch *dispatch, size_t i,
                               atedm_worker_state *ret_state);
// FLOPs that come before or run beside a new job of this priority.
double atedm_dispatch_flops_ahead(const atedm_dispatch *dispatch, int priority);
// Expected seconds in the queue for a new job of this priority; NAN: no rate was measured yet.
double atedm_dispatch_expected_wait(const atedm_dispatch *dispatch, int priority);
// Whole seconds, for Retry-After, until a worker probably has room.
int atedm_dispatch_retry_after(const atedm_dispatch *dispatch);

#endif
