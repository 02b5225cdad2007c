// Jobs: requests that outlive the connection that sent them. The store (store.h) has a job before
// its client learns that it is accepted. A job runs like any other request (dispatch.h). Clients
// learn of its end when the store has its result. If the daemon ends first, the next daemon runs
// the job.
//
// The store also records when a run begins. This bounds the runs of a job that ends its daemon each
// time, for example because the daemon's container is killed for want of memory.
//
// A job is live from its submission until the store has its end. A watcher gets the events of a
// live job.
#ifndef ATEDM_JOBS_H
#define ATEDM_JOBS_H

#include "server/accounts.h"
#include "server/dispatch.h"
#include "server/index.h"
#include "server/log.h"
#include "server/store.h"

#include <sys/queue.h>
#include <uv.h>

// A job fails without another run if this many daemons ended while they ran it, not counting those
// that drained on a signal.
#define ATEDM_MAX_TRIES 3

// Bytes of results that the store could not take and that stay in memory. Beyond this the daemon
// accepts no further jobs.
#define ATEDM_UNWRITTEN_MAX ((size_t)4 << 20)

typedef struct atedm_jobs atedm_jobs;
typedef struct atedm_live atedm_live;

typedef enum atedm_job_event {
    ATEDM_JOB_ACCEPTED, // the store has the job
    ATEDM_JOB_MOVED,    // it was started, finished a step or waits again; also sent every 15 s
    // The last event is one of the following. The job is freed when the call returns.
    ATEDM_JOB_ENDED,   // the store has its end
    ATEDM_JOB_REFUSED, // the store did not take the job
    ATEDM_JOB_LEFT,    // the job is left to the next daemon
} atedm_job_event;

// Embedded in whatever watches a job; its owner keeps the memory.
typedef struct atedm_job_watcher {
    void (*call)(void *user, atedm_live *live, atedm_job_event event);
    void *user;
    bool previews;                       // this watcher wants previews; MOVED reports them too
    atedm_live *live;                    // the job that it watches; NULL: none, or no longer any
    LIST_ENTRY(atedm_job_watcher) place; // in the job's list
} atedm_job_watcher;

struct atedm_live {
    atedm_store_job record;     // state, answer and number of images are set at the job's end
    atedm_worker_image *images; // set at the job's end
    atedm_job *job;             // NULL: the job has ended
    atedm_worker_image preview; // the latest one; png NULL: none
    int preview_step;
    size_t answered; // clients that were answered at the job's end (submit.c)
    char *told_end;  // text of the final event once a stream has needed it; free() it

    // The members below belong to jobs.c and live.c.
    atedm_jobs *jobs;
    bool added;       // atedm_store_add was called
    bool stored;      // the store has taken the job
    bool ending;      // atedm_store_end was called, and its result is pending
    bool left;        // leave the job to the next daemon as soon as the store has taken it
    size_t unwritten; // bytes of its images, if the store could not take its end
    LIST_HEAD(atedm_job_watchers, atedm_job_watcher) watchers;
    size_t previewers;            // watchers that want previews
    LIST_ENTRY(atedm_live) place; // in the list of all
    atedm_index_node by_id, by_key;
};

typedef struct atedm_jobs_options {
    uv_loop_t *loop;
    const atedm_log *log;
    atedm_dispatch *dispatch;
    atedm_metrics *metrics;
    atedm_store_options store;
    // Makes a job from a stored request. ATEDM_ERR_INVALID: the request is no longer possible.
    // After any other failure the module tries again later.
    atedm_status (*revive)(void *user, const char *request, atedm_job **ret_job, atedm_error *err);
    void *user;
} atedm_jobs_options;

// Creates the series of the job metrics with the value 0.
void atedm_jobs_start_metrics(atedm_metrics *metrics);
// Opens the store, and submits its pending jobs to the dispatch.
ATEDM_MUST_CHECK atedm_status atedm_jobs_create(const atedm_jobs_options *options,
                                                atedm_jobs **ret_jobs, atedm_error *err);
// Call it when the daemon begins to drain: leaves jobs that have not begun to the next daemon.
void atedm_jobs_drain(atedm_jobs *jobs);
// Call it after atedm_jobs_drain if the daemon cannot go on: leaves running jobs to the next daemon
// too.
void atedm_jobs_leave(atedm_jobs *jobs);
// Leaves all live jobs to the next daemon and closes the store. Call atedm_jobs_destroy after the
// loop has closed the handles.
void atedm_jobs_close(atedm_jobs *jobs);   // NULL allowed
void atedm_jobs_destroy(atedm_jobs *jobs); // NULL allowed

// The store; borrowed.
atedm_store *atedm_jobs_store(const atedm_jobs *jobs);

// Submits the job to the dispatch and to the store. `record`: its id, owner, key, sent and request
// are copied. Fails like atedm_dispatch_submit, or with ATEDM_ERR_IO if more than
// ATEDM_UNWRITTEN_MAX bytes of results wait for the store. Takes the job unless it fails. May call
// the watcher from inside with ATEDM_JOB_REFUSED.
ATEDM_MUST_CHECK atedm_status atedm_jobs_submit(atedm_jobs *jobs, atedm_job *take_job,
                                                const atedm_store_job *record,
                                                atedm_job_watcher *watcher);
// Finds a live job that the store has; NULL: there is none.
atedm_live *atedm_jobs_find(const atedm_jobs *jobs, const char *id);
// Finds a live job by its owner and Idempotency-Key, even if the store has not taken it yet.
atedm_live *atedm_jobs_find_key(const atedm_jobs *jobs, const char *owner, const char *key);
// Attaches the watcher, which then gets the job's events until its last one or atedm_live_unwatch.
void atedm_live_watch(atedm_live *live, atedm_job_watcher *watcher);
void atedm_live_unwatch(atedm_job_watcher *watcher); // a watcher that watches nothing is allowed
// Cancels the job unless it has ended already. `why`: the reason under which this is counted.
void atedm_live_cancel(atedm_live *live, atedm_rejection why);

#endif
