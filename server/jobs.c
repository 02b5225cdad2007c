// Jobs that outlive their connection: see jobs.h.
#include "server/jobs.h"

#include "core/base/clock.h"
#include "server/answer.h"
#include "server/problem.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

// Seconds until the store is asked again to take the ends that it could not take.
#define RETRY_S 1
// Seconds between two looks for what is older than the retention allows.
#define EXPIRE_S 60
// Seconds between two times that watchers are told that nothing moved.
#define TICK_S 15

struct atedm_jobs {
    atedm_jobs_options options;
    atedm_store *store;
    atedm_live *first;
    uv_timer_t retry;
    uv_timer_t expire;
    uv_timer_t tick;
    bool draining; // runs that do not come to their end are no fault of theirs
    bool closed;
};

// ---- live jobs

static atedm_live *add_live(atedm_jobs *jobs, const atedm_store_job *record)
{
    atedm_live *live = calloc(1, sizeof *live);
    if (!live)
        return NULL;
    if (atedm_store_job_copy(record, &live->record)) {
        free(live);
        return NULL;
    }
    live->jobs = jobs;
    live->next = jobs->first;
    jobs->first = live;
    return live;
}

static void drop_images(atedm_live *live)
{
    for (size_t i = 0; live->images && i < live->record.n_images; i++)
        free(live->images[i].png);
    free(live->images);
    live->images = NULL;
}

static void tell(atedm_live *live, atedm_job_event event)
{
    atedm_job_watcher *next;
    for (atedm_job_watcher *w = live->watchers; w; w = next) {
        next = w->next;
        if (event >= ATEDM_JOB_ENDED)
            w->live = NULL; // the call may free it
        w->call(w->user, live, event);
    }
}

// The last that is heard of it.
static void leave(atedm_live *live, atedm_job_event event)
{
    tell(live, event);
    atedm_live **place = &live->jobs->first;
    while (*place != live)
        place = &(*place)->next;
    *place = live->next;
    drop_images(live);
    free(live->preview.png);
    atedm_store_job_finish(&live->record);
    free(live);
}

// To the next daemon. The store may still be asked to take the job, and calls back.
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

static void retry_later(atedm_live *live)
{
    uv_timer_t *timer = &live->jobs->retry;
    live->ending = false;
    if (!uv_is_active((uv_handle_t *)timer) && !live->jobs->closed)
        uv_timer_start(timer, on_retry, RETRY_S * 1000, 0);
}

// Asks the store to take the end, once it has the job.
static void store_end(atedm_live *live)
{
    const atedm_store_job *record = &live->record;
    if (!live->stored || live->ending || record->state == ATEDM_STORE_PENDING)
        return;
    live->ending = true;
    if (atedm_store_end(live->jobs->store, record->id, record->state, record->answer, live->images,
                        record->n_images, on_end_stored, live))
        retry_later(live);
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
        retry_later(live);
    }
}

// Also at the start, for what cannot be done any more.
static void store_ends(atedm_jobs *jobs)
{
    for (atedm_live *live = jobs->first; live; live = live->next)
        store_end(live);
}

static void on_retry(uv_timer_t *timer)
{
    store_ends(timer->data);
}

// Sets the end; takes `answer`. False where there is no memory for it.
static bool set_end(atedm_live *live, atedm_store_state state, json_t *take_answer)
{
    live->record.answer = atedm_json_text(take_answer);
    live->record.ended = atedm_clock_unix();
    if (live->record.answer)
        live->record.state = state;
    return live->record.answer;
}

// Without memory the job stays pending, and is run again by the next daemon.
static void end(atedm_live *live, atedm_store_state state, json_t *take_answer)
{
    if (set_end(live, state, take_answer)) {
        store_end(live);
    } else {
        log_failure(live, "no memory for the end of a job", &(atedm_error){""});
        leave_behind(live);
    }
}

// ---- what the dispatch tells

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
    tell(live, ATEDM_JOB_MOVED);
}

static void on_preview(void *user, const atedm_job *job, int step, const atedm_worker_image *image)
{
    (void)job;
    atedm_live *live = user;
    char *png = malloc(image->size);
    if (!png)
        return; // one less
    memcpy(png, image->png, image->size);
    free(live->preview.png);
    live->preview = (atedm_worker_image){.png = png, .size = image->size};
    live->preview_step = step;
    tell(live, ATEDM_JOB_MOVED);
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
        tell(live, ATEDM_JOB_ACCEPTED);
        if (live->left)
            leave(live, ATEDM_JOB_LEFT);
        else
            store_end(live); // where it is that fast
    }
}

atedm_status atedm_jobs_submit(atedm_jobs *jobs, atedm_job *take_job, const atedm_store_job *record,
                               atedm_job_watcher *watcher)
{
    atedm_live *live = add_live(jobs, record);
    if (!live)
        return ATEDM_ERR_NOMEM;
    live->record.created = atedm_clock_unix();
    connect_job(live, take_job);
    atedm_status status = atedm_dispatch_submit(jobs->options.dispatch, take_job);
    if (status) {
        leave(live, ATEDM_JOB_REFUSED); // nobody watches yet
        return status;
    }
    atedm_live_watch(live, watcher);
    live->added = !atedm_store_add(jobs->store, &live->record, on_added, live);
    if (live->added)
        return ATEDM_OK;
    // The dispatch has taken the job: it goes, and the caller must not see it again.
    give_up(live);
    leave(live, ATEDM_JOB_REFUSED);
    return ATEDM_OK;
}

// ---- watching

atedm_live *atedm_jobs_find(const atedm_jobs *jobs, const char *id)
{
    atedm_live *live = jobs->first;
    while (live && (!live->stored || strcmp(live->record.id, id) != 0))
        live = live->next;
    return live;
}

static bool has_key(const atedm_live *live, const char *owner, const char *key)
{
    const atedm_store_job *record = &live->record;
    return record->key && strcmp(record->key, key) == 0 && strcmp(record->owner, owner) == 0;
}

atedm_live *atedm_jobs_find_key(const atedm_jobs *jobs, const char *owner, const char *key)
{
    atedm_live *live = jobs->first;
    while (live && !has_key(live, owner, key))
        live = live->next;
    return live;
}

// Previews are made as long as somebody wants them.
static void update_previews(atedm_live *live)
{
    bool wanted = false;
    for (const atedm_job_watcher *w = live->watchers; w; w = w->next)
        wanted |= w->previews;
    if (live->job)
        atedm_dispatch_watch(live->jobs->options.dispatch, live->job, wanted);
}

void atedm_live_watch(atedm_live *live, atedm_job_watcher *watcher)
{
    watcher->live = live;
    watcher->next = live->watchers;
    live->watchers = watcher;
    update_previews(live);
}

void atedm_live_unwatch(atedm_job_watcher *watcher)
{
    if (!watcher->live)
        return;
    atedm_live *live = watcher->live;
    atedm_job_watcher **place = &live->watchers;
    while (*place != watcher)
        place = &(*place)->next;
    *place = watcher->next;
    watcher->live = NULL;
    update_previews(live);
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

// ---- life

// NULL: not any more, and that is its end; the store is told as soon as there is one.
static atedm_job *revive(atedm_live *live)
{
    const atedm_jobs_options *options = &live->jobs->options;
    const atedm_store_job *record = &live->record;
    atedm_error error = {""};
    if (record->tries >= ATEDM_MAX_TRIES) {
        atedm_error_set(&error, ATEDM_ERR_LIMIT, "%d daemons ended while they ran it",
                        record->tries);
        log_failure(live, "a job is not tried again", &error);
        set_end(live, ATEDM_STORE_FAILED,
                atedm_problem_json(ATEDM_PROBLEM_INTERNAL, record->id, "%s", error.message));
        return NULL;
    }
    atedm_job *job = options->revive(options->user, record->request, &error);
    if (job) {
        job->tries = record->tries;
        return job;
    }
    log_failure(live, "a stored request cannot be done any more", &error);
    set_end(
        live, ATEDM_STORE_FAILED,
        atedm_problem_json(ATEDM_PROBLEM_INVALID, record->id, "not any more: %s", error.message));
    return NULL;
}

// A job that another daemon left. Its time counts from when it was accepted.
static void on_pending(void *user, const atedm_store_job *record)
{
    atedm_jobs *jobs = user;
    atedm_live *live = add_live(jobs, record);
    if (!live)
        return; // it stays pending
    live->added = live->stored = true;
    atedm_job *job = revive(live);
    if (!job)
        return;
    if (job->tries)
        ATEDM_LOG(jobs->options.log, ATEDM_LOG_WARNING,
                  "a daemon ended while it ran a job, which is tried again, alone",
                  atedm_log_text("id", record->id), atedm_log_integer("tries", job->tries));
    // None comes from the future, whatever was done to the clock meanwhile.
    job->arrived =
        atedm_clock_monotonic() - fmax(0, (double)(atedm_clock_unix() - record->created));
    connect_job(live, job);
    atedm_dispatch_restore(jobs->options.dispatch, job);
}

// Whoever watches has something to do now and then: to see whether its client is still there.
static void on_tick(uv_timer_t *timer)
{
    const atedm_jobs *jobs = timer->data;
    for (atedm_live *live = jobs->first; live; live = live->next)
        tell(live, ATEDM_JOB_MOVED);
}

static void on_expired(void *user, atedm_store_result *result)
{
    const atedm_jobs *jobs = user;
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
        return; // no memory: next time
}

atedm_status atedm_jobs_create(const atedm_jobs_options *options, atedm_jobs **ret_jobs,
                               atedm_error *err)
{
    atedm_jobs *jobs = calloc(1, sizeof *jobs);
    if (!jobs)
        return atedm_error_set(err, ATEDM_ERR_NOMEM, "no memory for jobs");
    jobs->options = *options;
    uv_timer_init(options->loop, &jobs->retry); // these cannot fail
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
    uv_timer_start(&jobs->expire, on_expire, EXPIRE_S * 1000, EXPIRE_S * 1000);
    uv_timer_start(&jobs->tick, on_tick, TICK_S * 1000, TICK_S * 1000);
    return ATEDM_OK;
}

void atedm_jobs_drain(atedm_jobs *jobs)
{
    jobs->draining = true;
    atedm_live *next;
    for (atedm_live *live = jobs->first; live; live = next) {
        next = live->next;
        if (live->job && live->job->seat)
            note_run(live, live->job, false);
        if (!live->stored || !live->job || live->job->seat)
            continue;
        give_up(live);
        leave(live, ATEDM_JOB_LEFT);
    }
}

void atedm_jobs_leave(atedm_jobs *jobs)
{
    atedm_live *next;
    for (atedm_live *live = jobs->first; live; live = next) {
        next = live->next;
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
    for (atedm_live *live = jobs->first; live; live = live->next) {
        if (live->job)
            note_run(live, live->job, false);
        give_up(live);
    }
    atedm_store_close(jobs->store); // calls back for all that it was handed
    jobs->store = NULL;
    atedm_live *next;
    for (atedm_live *live = jobs->first; live; live = next) {
        next = live->next;
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
