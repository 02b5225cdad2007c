// Jobs: requests that outlive the connection which sent them. Each is in the store (store.h) before
// its sender hears that it is accepted, runs like any request (dispatch.h), and is told to be at
// its end when the store has its result. What a daemon had when it ended is run by the next one.
//
// A run that begins is written down there too, so that a job which ends its daemon each time it is
// run (its container goes with it, for want of memory say) is not run for ever.
//
// A job is live from its submission until the store has its end; whoever is interested watches it
// for as long.
#ifndef ATEDM_JOBS_H
#define ATEDM_JOBS_H

#include "server/accounts.h"
#include "server/dispatch.h"
#include "server/index.h"
#include "server/log.h"
#include "server/store.h"

#include <uv.h>

// A job that was being run when this many daemons ended, and none of them by a signal that it
// heeds, is given up.
#define ATEDM_MAX_TRIES 3

// Bytes of results that the store could not take: they stay in memory, and no further jobs are
// taken beside so many.
#define ATEDM_UNWRITTEN_MAX ((size_t)4 << 20)

typedef struct atedm_jobs atedm_jobs;
typedef struct atedm_live atedm_live;

typedef enum atedm_job_event {
    ATEDM_JOB_ACCEPTED, // the store has it
    ATEDM_JOB_MOVED,    // it was started, did a step, or waits again; or nothing, for a while
    // The last one is one of these; the job is gone when the call returns.
    ATEDM_JOB_ENDED,   // the store has its end
    ATEDM_JOB_REFUSED, // the store does not take it
    ATEDM_JOB_LEFT,    // the daemon ends first
} atedm_job_event;

// Put into what watches; its owner keeps the memory.
typedef struct atedm_job_watcher {
    void (*call)(void *user, atedm_live *live, atedm_job_event event);
    void *user;
    bool previews;    // there are to be some, and MOVED tells of them too
    atedm_live *live; // that it watches; NULL: none (any more)
    struct atedm_job_watcher *before, *after;
} atedm_job_watcher;

struct atedm_live {
    atedm_store_job record;     // state, answer and number of images come with the end
    atedm_worker_image *images; // with the end
    atedm_job *job;             // NULL: at its end
    atedm_worker_image preview; // the latest; png NULL: none
    int preview_step;
    size_t answered; // clients that waited for its end, for whoever answers them
    char *told_end;  // the last of its events, where it was told to somebody; for free()

    // The module's own.
    atedm_jobs *jobs;
    bool added;       // the store was asked to take it
    bool stored;      // the store has accepted it
    bool ending;      // the store is asked to take the end
    bool left;        // to the next daemon, when the store has answered
    size_t unwritten; // bytes of its end, where the store could not take it
    atedm_job_watcher *watchers;
    size_t previewers; // of them
    struct atedm_live *before, *after;
    atedm_index_node by_id, by_key;
};

typedef struct atedm_jobs_options {
    uv_loop_t *loop;
    const atedm_log *log;
    atedm_dispatch *dispatch;
    atedm_metrics *metrics;
    atedm_store_options store;
    // Makes a job of a stored request. ATEDM_ERR_INVALID where that cannot be done any more; behind
    // any other failure it is tried again.
    atedm_status (*revive)(void *user, const char *request, atedm_job **ret_job, atedm_error *err);
    void *user;
} atedm_jobs_options;

// The metrics of jobs are there from the start, at 0.
void atedm_jobs_start_metrics(atedm_metrics *metrics);
// Opens the store and hands over what it has pending.
ATEDM_MUST_CHECK atedm_status atedm_jobs_create(const atedm_jobs_options *options,
                                                atedm_jobs **ret_jobs, atedm_error *err);
// The daemon ends: what has not begun is left to the next one.
void atedm_jobs_drain(atedm_jobs *jobs);
// After that, where it cannot go on: so is what runs.
void atedm_jobs_leave(atedm_jobs *jobs);
// All that is still live is left to the next daemon. The loop closes the handles afterwards, then
// destroy.
void atedm_jobs_close(atedm_jobs *jobs);   // NULL allowed
void atedm_jobs_destroy(atedm_jobs *jobs); // NULL allowed

atedm_store *atedm_jobs_store(const atedm_jobs *jobs);

// Hands the job to the dispatch and to the store. `record`: id, owner, key, sent, request; copied.
// Fails as atedm_dispatch_submit, or with ATEDM_ERR_IO where results that the store could not take
// wait already; takes the job unless it fails. The watcher may be called from
// inside with ATEDM_JOB_REFUSED.
ATEDM_MUST_CHECK atedm_status atedm_jobs_submit(atedm_jobs *jobs, atedm_job *take_job,
                                                const atedm_store_job *record,
                                                atedm_job_watcher *watcher);
// NULL: not live (any more).
atedm_live *atedm_jobs_find(const atedm_jobs *jobs, const char *id);
// By the Idempotency-Key of an owner; also one that the store has not accepted yet.
atedm_live *atedm_jobs_find_key(const atedm_jobs *jobs, const char *owner, const char *key);
void atedm_live_watch(atedm_live *live, atedm_job_watcher *watcher);
void atedm_live_unwatch(atedm_job_watcher *watcher); // one that does not watch is allowed
// Ends it as canceled, unless it is at its end already. `why`: as it is counted.
void atedm_live_cancel(atedm_live *live, atedm_rejection why);

#endif
