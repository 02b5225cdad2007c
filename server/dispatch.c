// Jobs from admission to end: see dispatch.h. A job that is given up while it runs leaves an empty
// place behind: the worker is told to cancel, and what it still says about that job is only
// accounted for.
#include "server/dispatch.h"

#include "core/base/clock.h"
#include "server/accounts.h"

#include <math.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

// Weight of the newest request in the measured rate.
#define RATE_WEIGHT 0.3
// Retry-After: where nothing was measured yet, and at most.
#define RETRY_AFTER_UNKNOWN_S 5
#define RETRY_AFTER_MAX_S 3600

struct atedm_dispatch {
    atedm_dispatch_options options;
    atedm_worker *worker;
    bool ready;
    atedm_queue queue;
    atedm_job *running; // NULL: nothing, or given up
    uint64_t busy;      // id of the job that the worker has; 0: none
    uint64_t last_id;
    uv_timer_t deadline; // the nearest one
    double rate, best_rate;
    size_t device_memory;
};

static atedm_job *job_of(atedm_queue_item *place)
{
    return (atedm_job *)((char *)place - offsetof(atedm_job, place));
}

void atedm_job_destroy(atedm_job *job)
{
    if (!job)
        return;
    atedm_request_finish(&job->request);
    atedm_plan_destroy(job->plan);
    free(job);
}

// ---- ends

static void watch_deadlines(atedm_dispatch *d);

// Tells who waits and frees the job, which is in no place any more.
static void end(atedm_job *job, atedm_job_end how, const atedm_worker_result *result,
                const atedm_error *error)
{
    job->ended(job->user, job, how, result, error);
    atedm_job_destroy(job);
}

// Takes the job out of its place.
static void leave(atedm_dispatch *d, atedm_job *job)
{
    if (job == d->running) {
        d->running = NULL;
        atedm_worker_cancel(d->worker, job->id);
    } else {
        atedm_queue_remove(&d->queue, &job->place);
    }
    watch_deadlines(d);
}

static void check_idle(const atedm_dispatch *d)
{
    if (d->queue.depth == 0 && !d->busy)
        d->options.idle(d->options.user);
}

void atedm_dispatch_give_up(atedm_dispatch *d, atedm_job *job)
{
    leave(d, job);
    atedm_job_destroy(job);
    check_idle(d);
}

void atedm_dispatch_fail_all(atedm_dispatch *d, const atedm_error *error)
{
    while (d->queue.first) {
        atedm_job *job = job_of(d->queue.first);
        leave(d, job);
        end(job, ATEDM_JOB_FAILED, NULL, error);
    }
    if (d->running) {
        atedm_job *job = d->running;
        leave(d, job);
        end(job, ATEDM_JOB_FAILED, NULL, error);
    }
}

// ---- deadlines

// Whether the job cannot be done in time, even if it starts now and runs as fast as any ever did.
static bool is_hopeless(const atedm_dispatch *d, const atedm_job *job)
{
    if (isinf(job->deadline))
        return false;
    double left = job->deadline - atedm_clock_monotonic();
    double least = isnan(d->best_rate) ? 0 : (double)job->cost.executed / d->best_rate;
    return left <= least;
}

static void on_deadline(uv_timer_t *timer)
{
    atedm_dispatch *d = timer->data;
    double now = atedm_clock_monotonic();
    atedm_queue_item *next;
    for (atedm_queue_item *place = d->queue.first; place; place = next) {
        atedm_job *job = job_of(place);
        next = place->after;
        if (job->deadline > now)
            continue;
        leave(d, job);
        end(job, ATEDM_JOB_DEADLINE, NULL, NULL);
    }
    if (d->running && d->running->deadline <= now) {
        atedm_job *job = d->running;
        leave(d, job);
        end(job, ATEDM_JOB_DEADLINE, NULL, NULL);
    }
    watch_deadlines(d);
    check_idle(d);
}

// Sets the timer to the nearest deadline.
static void watch_deadlines(atedm_dispatch *d)
{
    double nearest = d->running ? d->running->deadline : INFINITY;
    for (atedm_queue_item *place = d->queue.first; place; place = place->after)
        nearest = fmin(nearest, job_of(place)->deadline);
    if (isinf(nearest)) {
        uv_timer_stop(&d->deadline);
        return;
    }
    double left = fmax(0, nearest - atedm_clock_monotonic());
    uv_update_time(d->options.loop);
    uv_timer_start(&d->deadline, on_deadline, (uint64_t)ceil(left * 1e3), 0);
}

// ---- starts

// Gives the job to the worker, with a copy of the request: the job's own stays for the answer.
static atedm_status start(atedm_dispatch *d, atedm_job *job)
{
    atedm_request copy = job->request;
    copy.prompt = strdup(job->request.prompt);
    copy.negative_prompt =
        job->request.negative_prompt ? strdup(job->request.negative_prompt) : NULL;
    if (!copy.prompt || (!copy.negative_prompt && job->request.negative_prompt)) {
        atedm_request_finish(&copy);
        return ATEDM_ERR_NOMEM;
    }
    job->started = atedm_clock_monotonic(); // from here on the worker may be at it
    atedm_status status = atedm_worker_submit(d->worker, job->id, &copy);
    if (status)
        return status;
    d->busy = job->id;
    d->running = job;
    atedm_account_start(d->options.metrics, job->started - job->arrived);
    return ATEDM_OK;
}

// Starts the first job that waits, where the worker is free.
static void start_next(atedm_dispatch *d)
{
    while (d->ready && !d->busy && d->queue.first) {
        atedm_job *job = job_of(d->queue.first);
        atedm_queue_remove(&d->queue, &job->place);
        if (is_hopeless(d, job))
            end(job, ATEDM_JOB_DEADLINE, NULL, NULL);
        else if (start(d, job))
            end(job, ATEDM_JOB_FAILED, NULL, &(atedm_error){"no memory to start the request"});
    }
    watch_deadlines(d);
    check_idle(d);
}

atedm_status atedm_dispatch_submit(atedm_dispatch *d, atedm_job *job)
{
    double deadline_s = job->request.deadline_s;
    job->deadline = isnan(deadline_s) ? INFINITY : job->arrived + deadline_s;
    if (is_hopeless(d, job))
        return ATEDM_ERR_CANCELED;
    job->id = ++d->last_id;
    job->place = (atedm_queue_item){.priority = job->request.priority, .flops = job->cost.executed};
    if (d->ready && !d->busy) {
        atedm_status status = start(d, job);
        if (status)
            return status;
    } else {
        if (d->queue.depth >= d->queue.limit)
            return ATEDM_ERR_LIMIT;
        atedm_queue_push(&d->queue, &job->place);
    }
    watch_deadlines(d);
    return ATEDM_OK;
}

// ---- what the worker says

static void measure_rate(atedm_dispatch *d, const atedm_worker_result *result)
{
    const atedm_timing *t = &result->timing;
    double seconds = t->text_encoder_s + t->denoise_s + t->vae_s + t->encode_s;
    double flops = 0;
    for (int i = 0; i < 3; i++)
        flops += (double)atedm_op_counts_flops(&result->counts[i]);
    if (!(seconds > 0))
        return;
    double rate = flops / seconds;
    d->rate = isnan(d->rate) ? rate : d->rate + RATE_WEIGHT * (rate - d->rate);
    d->best_rate = fmax(isnan(d->best_rate) ? 0 : d->best_rate, rate);
}

// The worker is done with its job, in whatever way.
static void finish(atedm_dispatch *d, const atedm_worker_message *message)
{
    atedm_job *job = d->running;
    d->running = NULL;
    d->busy = 0;
    d->device_memory = message->device_memory;
    if (message->type == ATEDM_WORKER_DONE) {
        measure_rate(d, message->result);
        if (job)
            atedm_account_done(d->options.metrics, d->options.device, job, message->result);
    }
    if (job) {
        bool done = message->type == ATEDM_WORKER_DONE;
        end(job, done ? ATEDM_JOB_DONE : ATEDM_JOB_FAILED, message->result, &message->error);
    }
    start_next(d);
}

static void on_message(void *user, atedm_worker_message *message)
{
    atedm_dispatch *d = user;
    switch (message->type) {
    case ATEDM_WORKER_READY:
        d->ready = true;
        d->device_memory = message->device_memory;
        d->options.ready(d->options.user, &message->facts);
        start_next(d);
        return;
    case ATEDM_WORKER_FAILED:
        d->options.failed(d->options.user, &message->error);
        return;
    case ATEDM_WORKER_PROGRESS:
        if (d->running)
            d->running->steps_done = message->step;
        atedm_account_step(d->options.metrics, d->options.device, message->step_s);
        return;
    case ATEDM_WORKER_DONE:
    case ATEDM_WORKER_ERROR:
        finish(d, message);
        return;
    }
}

// ---- life

atedm_status atedm_dispatch_create(const atedm_dispatch_options *options,
                                   atedm_dispatch **ret_dispatch, atedm_error *err)
{
    atedm_dispatch *d = calloc(1, sizeof *d);
    if (!d)
        return atedm_error_set(err, ATEDM_ERR_NOMEM, "no memory for the queue");
    d->options = *options;
    d->rate = NAN;
    d->best_rate = NAN;
    atedm_queue_init(&d->queue, options->max_queue);
    atedm_status status =
        atedm_worker_create(&options->worker, options->loop, on_message, d, &d->worker, err);
    if (status) {
        free(d);
        return status;
    }
    uv_timer_init(options->loop, &d->deadline); // cannot fail
    d->deadline.data = d;
    *ret_dispatch = d;
    return ATEDM_OK;
}

void atedm_dispatch_close(atedm_dispatch *d)
{
    atedm_worker_destroy(d->worker);
    d->worker = NULL;
    uv_close((uv_handle_t *)&d->deadline, NULL);
}

void atedm_dispatch_destroy(atedm_dispatch *d)
{
    free(d);
}

// ---- figures

atedm_dispatch_state atedm_dispatch_get_state(const atedm_dispatch *d)
{
    return (atedm_dispatch_state){
        .depth = d->queue.depth,
        .queue_flops = d->queue.flops,
        .active = d->busy != 0,
        .rate = d->rate,
        .device_memory = d->device_memory,
    };
}

// FLOPs that the running request still needs.
static double running_flops(const atedm_dispatch *d)
{
    if (!d->running)
        return 0;
    double done = (double)d->running->steps_done / d->running->request.steps;
    return (double)d->running->cost.executed * (1 - done);
}

double atedm_dispatch_expected_wait(const atedm_dispatch *d, int priority)
{
    double ahead = running_flops(d) + (double)atedm_queue_flops_ahead(&d->queue, priority);
    return ahead / d->rate;
}

int atedm_dispatch_retry_after(const atedm_dispatch *d)
{
    double seconds = running_flops(d) / d->rate;
    if (isnan(seconds))
        return RETRY_AFTER_UNKNOWN_S;
    return (int)fmin(fmax(1, ceil(seconds)), RETRY_AFTER_MAX_S);
}
