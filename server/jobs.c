// Jobs that outlive their connection: see jobs.h.
#include "server/jobs.h"

#include "core/base/clock.h"
#include "server/answer.h"
#include "server/live.h"
#include "server/problem.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

// Seconds until the next attempt to store ends that the store did not take, and to take over jobs
// for which there was no memory.
#define RETRY_S 1
// Most seconds that a draining daemon waits until the store has recorded that its end is not the
// fault of the running jobs.
#define SETTLE_S 1
// Seconds between two removals of jobs that exceed the retention.
#define EXPIRE_S 60
// Milliseconds until the next removal, if one removal could not take everything.
#define EXPIRE_MORE_MS 50
// Seconds between two MOVED events that watchers get even if nothing happens.
#define TICK_S 15

struct atedm_jobs {
    atedm_jobs_options options;
    atedm_store *store;
    atedm_lives lives;
    uv_timer_t retry;
    uv_timer_t expire;
    uv_timer_t tick;
    size_t unwritten; // bytes of images whose jobs' ends the store could not take
    bool missed;      // the store has pending jobs that are not live here
    bool draining;    // running jobs are no longer counted as tries
    bool closed;
};

// ---- live jobs

static atedm_live *add_live(atedm_jobs *jobs, const atedm_store_job *record)
{
    atedm_live *live = atedm_lives_add(&jobs->lives, record);
    if (live)
        live->jobs = jobs;
    return live;
}

// Sends the job's last event and frees the live job.
static void leave(atedm_live *live, atedm_job_event event)
{
    live->jobs->unwritten -= live->unwritten;
    atedm_live_tell(live, event);
    atedm_lives_remove(&live->jobs->lives, live);
}

// Leaves the job to the next daemon. If the store has yet to answer atedm_store_add, this happens
// when it does.
static void leave_behind(atedm_live *live)
{
    live->left = live->added && !live->stored;
    if (!live->left)
        leave(live, ATEDM_JOB_LEFT);
}

static void give_up(atedm_live *live)
{
    if (live->job)
        atedm_dispatch_give_up(live->jobs->options.dispatch, live->job);
    live->job = NULL;
}

static void log_failure(const atedm_live *live, const char *what, const atedm_error *error)
{
    ATEDM_LOG(live->jobs->options.log, ATEDM_LOG_ERROR, what, atedm_log_text("id", live->record.id),
              atedm_log_text("error", error->message));
}

// ---- metrics

static const char *const ended_names[] = {[ATEDM_STORE_DONE] = "done",
                                          [ATEDM_STORE_FAILED] = "failed",
                                          [ATEDM_STORE_CANCELED] = "canceled"};

void atedm_jobs_start_metrics(atedm_metrics *metrics)
{
    for (int state = ATEDM_STORE_DONE; state <= ATEDM_STORE_CANCELED; state++)
        atedm_metrics_count(metrics, ATEDM_METRIC_JOBS, 0, ATEDM_LABELS(ended_names[state]));
    const char *const operations[] = {"add", "end", "expire"};
    for (size_t i = 0; i < sizeof operations / sizeof *operations; i++)
        atedm_metrics_count(metrics, ATEDM_METRIC_STORE_ERRORS, 0, ATEDM_LABELS(operations[i]));
}

static void count_ended(const atedm_live *live)
{
    atedm_metrics_count(live->jobs->options.metrics, ATEDM_METRIC_JOBS, 1,
                        ATEDM_LABELS(ended_names[live->record.state]));
}

static void count_store_error(const atedm_jobs *jobs, const char *operation)
{
    atedm_metrics_count(jobs->options.metrics, ATEDM_METRIC_STORE_ERRORS, 1,
                        ATEDM_LABELS(operation));
}

// ---- runs

static void note_run(atedm_live *live, const atedm_job *job, bool runs)
{
    int tries = job->tries + runs;
    if (tries == live->record.tries)
        return;
    live->record.tries = tries;
    if (live->added)
        atedm_store_set_tries(live->jobs->store, live->record.id, tries);
}

// ---- the end

static void on_end_stored(void *user, atedm_store_result *result);
static void on_retry(uv_timer_t *timer);

static void retry_later(atedm_jobs *jobs)
{
    uv_timer_t *timer = &jobs->retry;
    if (!uv_is_active((uv_handle_t *)timer) && !jobs->closed)
        uv_timer_start(timer, on_retry, RETRY_S * 1000, 0);
}

// Asks the store to take the job's end, if the store has the job and the end is set.
static void store_end(atedm_live *live)
{
    const atedm_store_job *record = &live->record;
    if (!live->stored || live->ending || record->state == ATEDM_STORE_PENDING)
        return;
    live->ending = !atedm_store_end(live->jobs->store, record->id, record->state, record->answer,
                                    live->images, record->n_images, on_end_stored, live);
    if (!live->ending)
        retry_later(live->jobs);
}

static void count_unwritten(atedm_live *live)
{
    if (live->unwritten)
        return;
    for (size_t i = 0; i < live->record.n_images; i++)
        live->unwritten += live->images[i].size;
    live->jobs->unwritten += live->unwritten;
}

static void on_end_stored(void *user, atedm_store_result *result)
{
    atedm_live *live = user;
    if (result->status)
        count_store_error(live->jobs, "end");
    if (!result->status) {
        count_ended(live);
        leave(live, ATEDM_JOB_ENDED);
    } else if (live->jobs->closed) {
        leave(live, ATEDM_JOB_LEFT);
    } else {
        log_failure(live, "the end of a job cannot be stored, and is kept", &result->error);
        live->ending = false;
        count_unwritten(live);
        retry_later(live->jobs);
    }
}

// Asks the store to take all ends. At the start these are the ends of jobs that are no longer
// possible.
static void store_ends(atedm_jobs *jobs)
{
    for (atedm_live *live = LIST_FIRST(&jobs->lives.all); live; live = LIST_NEXT(live, place))
        store_end(live);
}

// Sets the job's end. Takes `answer`. False: out of memory.
static bool set_end(atedm_live *live, atedm_store_state state, json_t *take_answer)
{
    live->record.answer = atedm_json_text(take_answer);
    live->record.ended = atedm_clock_unix();
    if (live->record.answer)
        live->record.state = state;
    return live->record.answer;
}

// Ends the job. If there is no memory for the end, the job stays pending in the store and runs
// again.
static void end(atedm_live *live, atedm_store_state state, json_t *take_answer)
{
    if (set_end(live, state, take_answer)) {
        store_end(live);
    } else {
        atedm_jobs *jobs = live->jobs;
        log_failure(live, "no memory for the end of a job", &(atedm_error){""});
        leave_behind(live);
        jobs->missed = true;
        retry_later(jobs);
    }
}

// ---- callbacks of the dispatch

static json_t *done_json(const atedm_live *live, const atedm_job *job,
                         const atedm_worker_result *result)
{
    json_t *answer = atedm_answer_json(live->record.id, job, result);
    if (answer && !atedm_answer_add_urls(answer, live->record.id)) {
        json_decref(answer);
        answer = NULL;
    }
    return answer;
}

static void on_ended(void *user, const atedm_job *job, atedm_job_end how,
                     atedm_worker_result *result, const atedm_error *error)
{
    atedm_live *live = user;
    const char *id = live->record.id;
    atedm_metrics *metrics = live->jobs->options.metrics;
    live->job = NULL;
    switch (how) {
    case ATEDM_JOB_DONE:
        live->images = result->images;
        live->record.n_images = result->n_images;
        result->images = NULL;
        result->n_images = 0;
        end(live, ATEDM_STORE_DONE, done_json(live, job, result));
        return;
    case ATEDM_JOB_DEADLINE:
        atedm_account_rejected(metrics, ATEDM_REJECTED_DEADLINE);
        end(live, ATEDM_STORE_FAILED,
            atedm_problem_json(ATEDM_PROBLEM_DEADLINE, id, "not done within %g s",
                               job->request.deadline_s));
        return;
    case ATEDM_JOB_CUT_OFF:
        note_run(live, job, false);
        leave_behind(live);
        return;
    case ATEDM_JOB_NO_MEMORY:
        log_failure(live, "request failed", error);
        end(live, ATEDM_STORE_FAILED,
            atedm_problem_json(ATEDM_PROBLEM_NO_MEMORY, id, "%s", error->message));
        return;
    case ATEDM_JOB_FAILED:
        log_failure(live, "request failed", error);
        end(live, ATEDM_STORE_FAILED,
            atedm_problem_json(ATEDM_PROBLEM_INTERNAL, id, "the log says more under this id"));
        return;
    }
}

static void on_progress(void *user, const atedm_job *job)
{
    atedm_live *live = user;
    note_run(live, job, job->seat && !live->jobs->draining);
    atedm_live_tell(live, ATEDM_JOB_MOVED);
}

static void on_preview(void *user, const atedm_job *job, int step, const atedm_worker_image *image)
{
    (void)job;
    atedm_live *live = user;
    char *png = malloc(image->size);
    if (!png)
        return; // no memory: this preview is skipped
    memcpy(png, image->png, image->size);
    free(live->preview.png);
    live->preview = (atedm_worker_image){.png = png, .size = image->size};
    live->preview_step = step;
    atedm_live_tell(live, ATEDM_JOB_MOVED);
}

static void connect_job(atedm_live *live, atedm_job *job)
{
    live->job = job;
    job->ended = on_ended;
    job->progress = on_progress;
    job->preview = on_preview;
    job->user = live;
}

// ---- submitting

static void on_added(void *user, atedm_store_result *result)
{
    atedm_live *live = user;
    if (result->status) {
        count_store_error(live->jobs, "add");
        log_failure(live, "a job cannot be stored", &result->error);
        give_up(live);
        leave(live, ATEDM_JOB_REFUSED);
    } else {
        live->stored = true;
        atedm_live_tell(live, ATEDM_JOB_ACCEPTED);
        if (live->left)
            leave(live, ATEDM_JOB_LEFT);
        else
            store_end(live); // the job may have ended already
    }
}

atedm_status atedm_jobs_submit(atedm_jobs *jobs, atedm_job *take_job, const atedm_store_job *record,
                               atedm_job_watcher *watcher)
{
    if (jobs->unwritten > ATEDM_UNWRITTEN_MAX)
        return ATEDM_ERR_IO;
    atedm_live *live = add_live(jobs, record);
    if (!live)
        return ATEDM_ERR_NOMEM;
    live->record.created = atedm_clock_unix();
    connect_job(live, take_job);
    atedm_status status = atedm_dispatch_submit(jobs->options.dispatch, take_job);
    if (status) {
        leave(live, ATEDM_JOB_REFUSED); // no watcher is attached yet
        return status;
    }
    atedm_live_watch(live, watcher);
    live->added = !atedm_store_add(jobs->store, &live->record, on_added, live);
    if (live->added)
        return ATEDM_OK;
    // The dispatch owns the job, so the caller must not get it back: ends it here.
    give_up(live);
    leave(live, ATEDM_JOB_REFUSED);
    return ATEDM_OK;
}

// ---- finding and canceling

atedm_live *atedm_jobs_find(const atedm_jobs *jobs, const char *id)
{
    atedm_live *live = atedm_lives_find(&jobs->lives, id);
    return live && live->stored ? live : NULL;
}

atedm_live *atedm_jobs_find_key(const atedm_jobs *jobs, const char *owner, const char *key)
{
    return atedm_lives_find_key(&jobs->lives, owner, key);
}

void atedm_live_cancel(atedm_live *live, atedm_rejection why)
{
    if (!live->job)
        return;
    give_up(live);
    atedm_account_rejected(live->jobs->options.metrics, why);
    end(live, ATEDM_STORE_CANCELED,
        atedm_problem_json(ATEDM_PROBLEM_CANCELED, live->record.id, "it was canceled"));
}

// ---- start and end

static bool cannot_be_done(atedm_live *live, const char *what, const atedm_error *error,
                           json_t *take_problem)
{
    log_failure(live, what, error);
    return set_end(live, ATEDM_STORE_FAILED, take_problem);
}

// Makes a job from the stored request. *ret_job NULL with true: the job is no longer possible; its
// end is set and has yet to be stored. False: this cannot be decided now.
static bool revive(atedm_live *live, atedm_job **ret_job)
{
    const atedm_jobs_options *options = &live->jobs->options;
    const atedm_store_job *record = &live->record;
    atedm_error error = {""};
    *ret_job = NULL;
    if (record->tries >= ATEDM_MAX_TRIES) {
        atedm_error_set(&error, ATEDM_ERR_LIMIT, "%d daemons ended while they ran it",
                        record->tries);
        return cannot_be_done(
            live, "a job is not tried again", &error,
            atedm_problem_json(ATEDM_PROBLEM_INTERNAL, record->id, "%s", error.message));
    }
    atedm_status status = options->revive(options->user, record->request, ret_job, &error);
    if (status == ATEDM_ERR_INVALID)
        return cannot_be_done(live, "a stored request cannot be done any more", &error,
                              atedm_problem_json(ATEDM_PROBLEM_INVALID, record->id,
                                                 "not any more: %s", error.message));
    if (status)
        log_failure(live, "a stored request cannot be read back, and is tried again", &error);
    else
        (*ret_job)->tries = record->tries;
    return !status;
}

// Takes over a job that an earlier daemon left. Its waiting time counts from its acceptance. False:
// the job stays in the store for now.
static bool take_over(atedm_jobs *jobs, const atedm_store_job *record)
{
    if (atedm_lives_find(&jobs->lives, record->id))
        return true;
    atedm_live *live = add_live(jobs, record);
    if (!live)
        return false;
    live->added = live->stored = true;
    atedm_job *job;
    if (!revive(live, &job)) {
        atedm_lives_remove(&jobs->lives, live);
        return false;
    }
    if (!job)
        return true;
    if (job->tries)
        ATEDM_LOG(jobs->options.log, ATEDM_LOG_WARNING,
                  "a daemon ended while it ran a job, which is tried again, alone",
                  atedm_log_text("id", record->id), atedm_log_integer("tries", job->tries));
    // The clock may have been set back: a job cannot have been accepted in the future.
    job->arrived =
        atedm_clock_monotonic() - fmax(0, (double)(atedm_clock_unix() - record->created));
    connect_job(live, job);
    atedm_dispatch_restore(jobs->options.dispatch, job);
    return true;
}

static void on_pending(void *user, const atedm_store_job *record)
{
    atedm_jobs *jobs = user;
    jobs->missed |= !take_over(jobs, record);
}

static void on_pending_again(void *user, atedm_store_result *result)
{
    atedm_jobs *jobs = user;
    if (jobs->draining || jobs->closed)
        return;
    jobs->missed = result->status != ATEDM_OK;
    for (size_t i = 0; i < result->n_jobs && !result->status; i++)
        on_pending(jobs, &result->jobs[i]);
    store_ends(jobs);
    if (jobs->missed)
        retry_later(jobs);
}

static void on_retry(uv_timer_t *timer)
{
    atedm_jobs *jobs = timer->data;
    store_ends(jobs);
    if (jobs->missed && atedm_store_pending(jobs->store, on_pending_again, jobs))
        retry_later(jobs);
}

// Gives watchers something to send now and then, which shows whether their clients are still there.
static void on_tick(uv_timer_t *timer)
{
    const atedm_jobs *jobs = timer->data;
    for (atedm_live *live = LIST_FIRST(&jobs->lives.all); live; live = LIST_NEXT(live, place))
        atedm_live_tell(live, ATEDM_JOB_MOVED);
}

static void on_expire(uv_timer_t *timer);

static void expire_in(atedm_jobs *jobs, uint64_t ms)
{
    if (!jobs->closed)
        uv_timer_start(&jobs->expire, on_expire, ms, 0);
}

static void on_expired(void *user, atedm_store_result *result)
{
    atedm_jobs *jobs = user;
    expire_in(jobs, !result->status && result->more ? EXPIRE_MORE_MS : EXPIRE_S * 1000);
    if (!result->status)
        return;
    count_store_error(jobs, "expire");
    ATEDM_LOG(jobs->options.log, ATEDM_LOG_ERROR, "old jobs cannot be removed",
              atedm_log_text("error", result->error.message));
}

static void on_expire(uv_timer_t *timer)
{
    atedm_jobs *jobs = timer->data;
    if (atedm_store_expire(jobs->store, on_expired, jobs))
        expire_in(jobs, EXPIRE_S * 1000);
}

atedm_status atedm_jobs_create(const atedm_jobs_options *options, atedm_jobs **ret_jobs,
                               atedm_error *err)
{
    atedm_jobs *jobs = calloc(1, sizeof *jobs);
    if (!jobs)
        return atedm_error_set(err, ATEDM_ERR_NOMEM, "no memory for jobs");
    jobs->options = *options;
    atedm_lives_init(&jobs->lives);
    uv_timer_init(options->loop, &jobs->retry); // uv_timer_init cannot fail
    uv_timer_init(options->loop, &jobs->expire);
    uv_timer_init(options->loop, &jobs->tick);
    jobs->retry.data = jobs;
    jobs->expire.data = jobs;
    jobs->tick.data = jobs;
    *ret_jobs = jobs;
    atedm_status status =
        atedm_store_open(&options->store, options->loop, on_pending, jobs, &jobs->store, err);
    if (status)
        return status;
    store_ends(jobs);
    if (jobs->missed)
        retry_later(jobs);
    expire_in(jobs, EXPIRE_S * 1000);
    uv_timer_start(&jobs->tick, on_tick, TICK_S * 1000, TICK_S * 1000);
    return ATEDM_OK;
}

void atedm_jobs_drain(atedm_jobs *jobs)
{
    jobs->draining = true;
    atedm_live *next;
    for (atedm_live *live = LIST_FIRST(&jobs->lives.all); live; live = next) {
        next = LIST_NEXT(live, place);
        if (live->job && live->job->seat)
            note_run(live, live->job, false);
        if (!live->stored || !live->job || live->job->seat)
            continue;
        give_up(live);
        leave(live, ATEDM_JOB_LEFT);
    }
    // Once this is written, a kill of this daemon is not blamed on its jobs either.
    atedm_store_settle(jobs->store, SETTLE_S);
}

void atedm_jobs_leave(atedm_jobs *jobs)
{
    atedm_live *next;
    for (atedm_live *live = LIST_FIRST(&jobs->lives.all); live; live = next) {
        next = LIST_NEXT(live, place);
        if (!live->job)
            continue;
        give_up(live);
        leave_behind(live);
    }
}

void atedm_jobs_close(atedm_jobs *jobs)
{
    if (!jobs)
        return;
    jobs->closed = true;
    for (atedm_live *live = LIST_FIRST(&jobs->lives.all); live; live = LIST_NEXT(live, place)) {
        if (live->job)
            note_run(live, live->job, false);
        give_up(live);
    }
    atedm_store_close(jobs->store); // calls back for all operations that it was given
    jobs->store = NULL;
    atedm_live *next;
    for (atedm_live *live = LIST_FIRST(&jobs->lives.all); live; live = next) {
        next = LIST_NEXT(live, place);
        leave(live, ATEDM_JOB_LEFT);
    }
    uv_close((uv_handle_t *)&jobs->retry, NULL);
    uv_close((uv_handle_t *)&jobs->expire, NULL);
    uv_close((uv_handle_t *)&jobs->tick, NULL);
}

void atedm_jobs_destroy(atedm_jobs *jobs)
{
    free(jobs);
}

atedm_store *atedm_jobs_store(const atedm_jobs *jobs)
{
    return jobs->store;
}
