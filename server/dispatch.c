// Carries jobs from admission to end: see dispatch.h. If a job is canceled while a worker has it,
// it leaves its place at once. The dispatch tells the worker to cancel, and ignores what the worker
// still reports on the job.
#include "server/dispatch.h"

#include "core/base/clock.h"
#include "server/accounts.h"
#include "server/dispatch_private.h"

#include <math.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

// The measured rate is an average over about this many seconds of the device's work.
#define RATE_WINDOW_S 10
// Milliseconds between two looks for workers that hang. If more than STALL_MS pass between two
// looks, the daemon itself stood still.
#define WATCH_MS 250
#define STALL_MS 1000
// Most overdue jobs that are ended before the loop does something else.
#define OVERDUE_AT_ONCE 256

void atedm_job_destroy(atedm_job *job)
{
    if (!job)
        return;
    if (job->clients)
        atedm_clients_release(job->clients, job->client);
    atedm_request_finish(&job->request);
    atedm_plan_destroy(job->plan);
    free(job);
}

// ---- ends

static void watch_deadlines(atedm_dispatch *d);
static void start_next(atedm_dispatch *d);

// Reports the end and frees the job, which has left the queue and its worker.
static void end(atedm_job *job, atedm_job_end how, atedm_worker_result *result,
                const atedm_error *error)
{
    job->ended(job->user, job, how, result, error);
    atedm_job_destroy(job);
}

// Removes the job from the queue, or from its worker, which is told to cancel it.
static void leave(atedm_dispatch *d, atedm_job *job)
{
    atedm_seat *s = job->seat;
    atedm_queue_remove(s ? &s->active : &d->queue, &job->place);
    if (s)
        s->unheard += atedm_worker_cancel(s->worker, job->place.arrival);
    watch_deadlines(d);
}

static void check_idle(const atedm_dispatch *d)
{
    atedm_dispatch_state state = atedm_dispatch_get_state(d);
    if (state.depth == 0 && state.active == 0)
        d->options.idle(d->options.user);
}

void atedm_dispatch_give_up(atedm_dispatch *d, atedm_job *job)
{
    leave(d, job);
    atedm_job_destroy(job);
    start_next(d);
}

static size_t end_queue(atedm_dispatch *d, const atedm_queue *queue, atedm_job_end how,
                        const atedm_error *error)
{
    size_t count = 0;
    for (; !LIST_EMPTY(&queue->items); count++) {
        atedm_job *job = atedm_job_of(LIST_FIRST(&queue->items));
        leave(d, job);
        end(job, how, NULL, error);
    }
    return count;
}

size_t atedm_dispatch_end_all(atedm_dispatch *d, atedm_job_end how, const atedm_error *error)
{
    size_t count = end_queue(d, &d->queue, how, error);
    for (size_t i = 0; i < d->n_seats; i++)
        count += end_queue(d, &d->seats[i].active, how, error);
    return count;
}

void atedm_dispatch_configure(atedm_dispatch *d, size_t max_queue, double worker_timeout_s)
{
    d->queue.limit = max_queue;
    d->options.worker_timeout_s = worker_timeout_s;
}

static void tell_progress(const atedm_job *job)
{
    if (job->progress)
        job->progress(job->user, job);
}

// ---- deadlines

static double best_rate(const atedm_dispatch *d)
{
    double best = NAN;
    for (size_t i = 0; i < d->n_seats; i++)
        best = fmax(best, d->seats[i].best_rate); // fmax ignores NAN
    return best;
}

// Whether the job would miss its deadline even if it started now, alone, at the best rate measured
// of any worker.
static bool is_hopeless(const atedm_dispatch *d, const atedm_job *job)
{
    if (isinf(job->place.deadline))
        return false;
    double left = job->place.deadline - atedm_clock_monotonic(), rate = best_rate(d);
    return left <= (isnan(rate) ? 0 : (double)job->cost.executed / rate);
}

// Ends the queue's overdue jobs, up to the limit for one round of the loop.
static void end_overdue(atedm_dispatch *d, const atedm_queue *queue, double now)
{
    atedm_queue_item *place;
    for (int i = 0; i < OVERDUE_AT_ONCE; i++) {
        if (!(place = atedm_queue_most_urgent(queue)) || place->deadline > now)
            return;
        atedm_job *job = atedm_job_of(place);
        leave(d, job);
        end(job, ATEDM_JOB_DEADLINE, NULL, NULL);
    }
}

static void on_deadline(uv_timer_t *timer)
{
    atedm_dispatch *d = timer->data;
    double now = atedm_clock_monotonic();
    end_overdue(d, &d->queue, now);
    for (size_t i = 0; i < d->n_seats; i++)
        end_overdue(d, &d->seats[i].active, now);
    start_next(d);
}

static double nearest_deadline(const atedm_queue *queue)
{
    const atedm_queue_item *place = atedm_queue_most_urgent(queue);
    return place ? place->deadline : INFINITY;
}

// Sets the timer to the nearest deadline, or to the next round of the loop if overdue jobs are
// left.
static void watch_deadlines(atedm_dispatch *d)
{
    double nearest = d->behind ? 0 : nearest_deadline(&d->queue);
    for (size_t i = 0; i < d->n_seats; i++)
        nearest = fmin(nearest, nearest_deadline(&d->seats[i].active));
    if (isinf(nearest)) {
        uv_timer_stop(&d->deadline);
        return;
    }
    double left = fmax(0, nearest - atedm_clock_monotonic());
    uv_update_time(d->options.loop);
    uv_timer_start(&d->deadline, on_deadline, (uint64_t)ceil(left * 1e3), 0);
}

// ---- starts

// Whether the worker takes the job. A job with a strike runs alone, so that a second end of a
// worker can be blamed on it for certain.
static bool takes(const atedm_seat *s, const atedm_job *job)
{
    if (!s->ready || s->active.depth >= s->active.limit ||
        s->active.depth + s->unheard >= s->active.limit + ATEDM_MAX_UNHEARD)
        return false;
    const atedm_queue_item *other = LIST_FIRST(&s->active.items);
    return !other || (!job->strikes && !atedm_job_of(other)->strikes);
}

// Whether the job must wait because of jobs that may have ended a daemon: while such a job runs, no
// worker has another one.
static bool is_barred(const atedm_dispatch *d, const atedm_job *job)
{
    for (size_t i = 0; i < d->n_seats; i++) {
        const atedm_queue_item *other = LIST_FIRST(&d->seats[i].active.items);
        if (other && (job->tries || atedm_job_of(other)->tries))
            return true;
    }
    return false;
}

// Returns the worker with the least work that takes the job; NULL: none has room.
static atedm_seat *choose_seat(atedm_dispatch *d, const atedm_job *job)
{
    if (is_barred(d, job))
        return NULL;
    bool measured = true;
    for (size_t i = 0; i < d->n_seats; i++)
        measured &= !isnan(d->seats[i].rate);
    atedm_seat *chosen = NULL;
    for (size_t i = 0; i < d->n_seats; i++) {
        atedm_seat *s = &d->seats[i];
        if (takes(s, job) && (!chosen || atedm_seat_seconds_left(s, measured) <
                                             atedm_seat_seconds_left(chosen, measured)))
            chosen = s;
    }
    return chosen;
}

// The daemon stood still (it was stopped, or the whole machine was), and has yet to read what the
// workers sent meanwhile. So that time does not count as their silence.
static void forgive(atedm_dispatch *d, double now)
{
    for (size_t i = 0; i < d->n_seats; i++)
        atedm_seat_forgive(&d->seats[i], now - d->watched);
}

// The timer runs only while a worker has work.
static void on_watch(uv_timer_t *timer)
{
    atedm_dispatch *d = timer->data;
    double now = atedm_clock_monotonic();
    bool active = false;
    if (now - d->watched > STALL_MS / 1e3)
        forgive(d, now);
    d->watched = now;
    for (size_t i = 0; i < d->n_seats; i++) {
        const atedm_seat *s = &d->seats[i];
        double silent_s = atedm_seat_silence(s, now);
        active |= atedm_seat_is_busy(s);
        if (silent_s > d->options.worker_timeout_s)
            atedm_worker_kill(s->worker, silent_s);
    }
    if (!active)
        uv_timer_stop(timer);
}

// Tells the worker whether the job is watched, but no more often than the worker reads
// (ATEDM_MAX_WISHES).
static void tell_wish(atedm_job *job)
{
    if (!job->seat || job->told_watched == job->watched || job->wishes == ATEDM_MAX_WISHES)
        return;
    atedm_worker_watch(job->seat->worker, job->place.arrival, job->watched);
    job->told_watched = job->watched;
    job->wishes++;
}

// The worker has reported on the job, or gets it now: tells it the current wish, if that has
// changed.
static void hear(atedm_job *job)
{
    job->wishes = 0;
    tell_wish(job);
}

// Sends the worker a copy of the request. The job keeps its own, for the answer and for another
// worker.
static atedm_status start(atedm_dispatch *d, atedm_seat *s, atedm_job *job)
{
    job->handed_over = atedm_clock_monotonic(); // the worker may start on it from here on
    atedm_status status = atedm_worker_submit(s->worker, job->place.arrival, &job->request);
    if (status)
        return status;
    if (!atedm_seat_is_busy(s))
        s->busy = job->handed_over;
    job->seat = s;
    job->steps_done = 0;
    atedm_queue_push(&s->active, &job->place);
    if (!uv_is_active((uv_handle_t *)&d->watch)) {
        d->watched = job->handed_over;
        uv_timer_start(&d->watch, on_watch, WATCH_MS, WATCH_MS);
    }
    if (job->strikes == 0) {
        job->started = job->handed_over;
        atedm_account_start(d->options.metrics, job->started - job->arrived);
    }
    job->told_watched = false;
    hear(job);
    tell_progress(job);
    return ATEDM_OK;
}

// Starts waiting jobs in the queue's order, as long as workers have room.
static void start_next(atedm_dispatch *d)
{
    atedm_queue_item *first;
    int overdue = 0;
    while (overdue < OVERDUE_AT_ONCE && (first = atedm_queue_first(&d->queue))) {
        atedm_job *job = atedm_job_of(first);
        atedm_seat *s = choose_seat(d, job);
        if (!s)
            break;
        atedm_queue_remove(&d->queue, &job->place);
        if (is_hopeless(d, job)) {
            end(job, ATEDM_JOB_DEADLINE, NULL, NULL);
            overdue++;
        } else if (start(d, s, job)) {
            end(job, ATEDM_JOB_FAILED, NULL, &(atedm_error){"the request cannot be started"});
        }
    }
    d->behind = overdue == OVERDUE_AT_ONCE;
    watch_deadlines(d);
    check_idle(d);
}

static void set_place(atedm_dispatch *d, atedm_job *job)
{
    double deadline_s = job->request.deadline_s;
    job->place = (atedm_queue_item){
        .priority = job->request.priority,
        .deadline = isnan(deadline_s) ? INFINITY : job->arrived + deadline_s,
        .arrival = ++d->last_id,
        .since = job->arrived,
        .flops = job->cost.executed,
    };
}

void atedm_dispatch_restore(atedm_dispatch *d, atedm_job *job)
{
    set_place(d, job);
    atedm_queue_push(&d->queue, &job->place);
    start_next(d);
}

atedm_status atedm_dispatch_submit(atedm_dispatch *d, atedm_job *job)
{
    set_place(d, job);
    if (is_hopeless(d, job))
        return ATEDM_ERR_CANCELED;
    atedm_seat *s = d->queue.depth ? NULL : choose_seat(d, job);
    if (s) {
        atedm_status status = start(d, s, job);
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

void atedm_dispatch_watch(atedm_job *job, bool on)
{
    job->watched = on;
    tell_wish(job);
}

// ---- messages from a worker

// Updates the rate with which the worker ran recent evaluations, including the texts and pixels
// between them.
static void measure_rate(atedm_seat *s, const atedm_worker_message *message)
{
    if (!(message->busy_s > 0))
        return;
    double rate = (double)message->flops / message->busy_s;
    double weight = -expm1(-message->busy_s / RATE_WINDOW_S);
    s->rate = isnan(s->rate) ? rate : s->rate + weight * (rate - s->rate);
    s->best_rate = fmax(s->best_rate, s->rate); // fmax ignores NAN
}

// Finds a job of the worker by its id; NULL: the job was canceled.
static atedm_job *find_active(const atedm_seat *s, uint64_t id)
{
    const atedm_queue_item *item = LIST_FIRST(&s->active.items);
    while (item && item->arrival != id)
        item = LIST_NEXT(item, place);
    return item ? atedm_job_of(item) : NULL;
}

static atedm_job_end how_it_ended(const atedm_worker_message *message)
{
    if (message->type == ATEDM_WORKER_DONE)
        return ATEDM_JOB_DONE;
    return message->status == ATEDM_ERR_NOMEM ? ATEDM_JOB_NO_MEMORY : ATEDM_JOB_FAILED;
}

// The worker has finished the job, with whatever result.
static void finish(atedm_dispatch *d, atedm_job *job, const atedm_worker_message *message)
{
    atedm_job_end how = how_it_ended(message);
    atedm_queue_remove(&job->seat->active, &job->place);
    if (how == ATEDM_JOB_DONE) {
        atedm_account_done(d->options.metrics, job, message->result);
        d->valve_multiple = atedm_valve_learn(d->valve_multiple, &job->pick,
                                              atedm_clock_monotonic() - job->arrived);
    }
    end(job, how, message->result, &message->error);
    start_next(d);
}

// Puts the job back into the queue, which may exceed its limit, since the job was accepted. The job
// starts again from its seed.
static void requeue(atedm_dispatch *d, atedm_job *job)
{
    atedm_queue_remove(&job->seat->active, &job->place);
    job->seat = NULL;
    job->steps_done = 0;
    if (++job->strikes < ATEDM_MAX_STRIKES) {
        atedm_queue_push(&d->queue, &job->place);
        tell_progress(job);
    } else {
        end(job, ATEDM_JOB_FAILED, NULL,
            &(atedm_error){"workers ended while they had the request, and it is not tried again"});
    }
}

static void tell_figures(const atedm_seat *s, const atedm_device_figures *figures)
{
    const atedm_dispatch_options *o = &s->dispatch->options;
    if (o->figures)
        o->figures(o->user, s->home, figures);
}

static void lose(atedm_seat *s, const atedm_error *error)
{
    atedm_dispatch *d = s->dispatch;
    tell_figures(s, NULL);
    s->ready = false;
    s->unheard = 0;
    s->device_memory = 0;
    for (atedm_queue_item *item = LIST_FIRST(&s->active.items), *next; item; item = next) {
        next = LIST_NEXT(item, place);
        requeue(d, atedm_job_of(item));
    }
    d->options.lost(d->options.user, s->device, error);
    start_next(d);
}

static void on_message(void *user, atedm_worker_message *message)
{
    atedm_seat *s = user;
    atedm_dispatch *d = s->dispatch;
    atedm_job *job = find_active(s, message->job);
    if (message->device_memory)
        s->device_memory = message->device_memory;
    switch (message->type) {
    case ATEDM_WORKER_READY:
        s->ready = true;
        d->options.ready(d->options.user, s->device, &message->facts);
        start_next(d);
        return;
    case ATEDM_WORKER_FAILED:
        d->options.failed(d->options.user, &message->error);
        return;
    case ATEDM_WORKER_LOST:
        lose(s, &message->error);
        return;
    case ATEDM_WORKER_EVALUATED:
        measure_rate(s, message);
        atedm_account_evaluation(d->options.metrics, s->device, message->images, message->seconds);
        return;
    case ATEDM_WORKER_FIGURES:
        tell_figures(s, &message->figures);
        return;
    case ATEDM_WORKER_ALIVE:
        return;
    case ATEDM_WORKER_CANCELED:
        s->unheard -= s->unheard > 0;
        start_next(d);
        return;
    case ATEDM_WORKER_STEPPED:
        if (job) {
            job->steps_done = message->step;
            hear(job);
            tell_progress(job);
        }
        return;
    case ATEDM_WORKER_PREVIEW:
        if (job && job->watched && job->preview)
            job->preview(job->user, job, message->step, &message->image);
        return;
    case ATEDM_WORKER_DONE:
    case ATEDM_WORKER_ERROR:
        if (job)
            finish(d, job, message);
        return;
    }
}

// ---- start and end

// Adds the `number`-th worker of a device. The worker gets the device's UUID, if it has one: if a
// device disappears, the numbers of the others may change.
static atedm_status add_seat(atedm_dispatch *d, const atedm_device_facts *device, size_t number,
                             atedm_error *err)
{
    atedm_seat *s = &d->seats[d->n_seats];
    *s = (atedm_seat){.dispatch = d, .rate = NAN, .best_rate = NAN};
    atedm_queue_init(&s->active, d->options.worker.max_requests);
    snprintf(s->home, sizeof s->home, "%s", device->name);
    snprintf(s->device, sizeof s->device, "%s", device->name);
    if (number)
        snprintf(s->device, sizeof s->device, "%s:%zu", device->name, number);
    char backend[ATEDM_DEVICE_LABEL_MAX + sizeof device->uuid];
    atedm_worker_options options = d->options.worker;
    if (*device->uuid) {
        snprintf(backend, sizeof backend, "%s:%s", options.backend, device->uuid);
        options.backend = backend;
    }
    atedm_status status =
        atedm_worker_create(&options, d->options.loop, on_message, s, &s->worker, err);
    if (!status)
        d->n_seats++;
    return status;
}

atedm_status atedm_dispatch_create(const atedm_dispatch_options *options,
                                   atedm_dispatch **ret_dispatch, atedm_error *err)
{
    atedm_dispatch *d = calloc(1, sizeof *d);
    if (!d)
        return atedm_error_set(err, ATEDM_ERR_NOMEM, "no memory for the queue");
    d->options = *options;
    d->valve_multiple = ATEDM_VALVE_FIRST;
    atedm_queue_init(&d->queue, options->max_queue);
    uv_timer_init(options->loop, &d->deadline); // uv_timer_init cannot fail
    uv_timer_init(options->loop, &d->watch);
    d->deadline.data = d;
    d->watch.data = d;
    *ret_dispatch = d;
    atedm_status status = ATEDM_OK;
    for (size_t number = 0; !status && number < options->workers; number++)
        for (size_t i = 0; !status && i < options->n_devices; i++)
            status = add_seat(d, &options->devices[i], number, err);
    return status;
}

void atedm_dispatch_close(atedm_dispatch *d)
{
    for (size_t i = 0; i < d->n_seats; i++)
        atedm_worker_destroy(d->seats[i].worker);
    d->n_seats = 0;
    uv_close((uv_handle_t *)&d->deadline, NULL);
    uv_close((uv_handle_t *)&d->watch, NULL);
}

void atedm_dispatch_destroy(atedm_dispatch *d)
{
    free(d);
}
