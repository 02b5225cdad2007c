// Runs the load of `atedm bench serve`: see load_run.h.
#include "cli/load_run.h"

#include "cli/load_client.h"
#include "cli/load_draw.h"
#include "cli/progress.h"
#include "core/base/clock.h"

#include <errno.h>
#include <math.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/signalfd.h>
#include <sys/timerfd.h>
#include <unistd.h>

#define PROGRESS_S 0.1      // between two updates of the progress bar
#define FIRST_CAPACITY 1024 // samples
#define ANSWERS_AT_ONCE 16  // answers to read before the next look at the clock

const char *const atedm_load_error_names[ATEDM_LOAD_N_ERRORS] = {
    "answered", "no connection",        "timeout",     "connection broken",
    "not HTTP", "not the API's answer", "given up on",
};

typedef struct run {
    const atedm_load_plan *plan;
    atedm_load_clients *clients;
    atedm_load_record *record;
    size_t capacity;     // of the record's samples
    size_t next;         // the first sample that was not sent
    int64_t n_counted;   // samples that are not warm-up
    double next_due_s;   // open loop
    double not_before_s; // closed loop: the end of a pause
    bool sending;        // requests still become due
    double give_up_s;    // when waiting ends; INFINITY: never
    size_t n_done, n_failed;
    double start;       // monotonic clock
    int timer, signals; // descriptors
    atedm_progress progress;
    double progress_due_s;
} run;

void atedm_load_record_finish(atedm_load_record *record)
{
    if (!record)
        return;
    free(record->samples);
    record->samples = NULL;
    record->n = 0;
}

// ---- requests that are due

static double now_s(const run *r)
{
    return atedm_clock_monotonic() - r->start;
}

static void stop_sending(run *r, double now)
{
    r->sending = false;
    r->record->end_s = now;
}

static atedm_status add_sample(run *r, double due_s, atedm_error *err)
{
    atedm_load_record *record = r->record;
    if (record->n == r->capacity) {
        size_t capacity = r->capacity ? 2 * r->capacity : FIRST_CAPACITY;
        atedm_load_sample *samples = realloc(record->samples, capacity * sizeof *samples);
        if (!samples)
            return atedm_error_set(err, ATEDM_ERR_NOMEM, "no memory for %zu requests", capacity);
        record->samples = samples;
        r->capacity = capacity;
    }
    bool warm_up = due_s < r->plan->warm_up_s;
    record->samples[record->n] = (atedm_load_sample){
        .due_s = due_s,
        .sent_s = NAN,
        .done_s = NAN,
        .entry = atedm_load_mix_choose(r->plan->mix, r->plan->seed, record->n),
        .warm_up = warm_up,
    };
    record->n++;
    r->n_counted += !warm_up;
    return ATEDM_OK;
}

// Adds the open loop's arrivals until now.
static atedm_status arrive_open(run *r, double now, atedm_error *err)
{
    const atedm_load_plan *plan = r->plan;
    while (r->sending && r->next_due_s <= now) {
        double due = r->next_due_s;
        r->record->full = r->record->n == plan->limit;
        if (due >= plan->warm_up_s + plan->duration_s || r->record->full) {
            stop_sending(r, fmin(due, plan->warm_up_s + plan->duration_s));
            return ATEDM_OK;
        }
        atedm_status status = add_sample(r, due, err);
        if (status)
            return status;
        r->next_due_s = due + atedm_load_draw_gap(plan->seed, r->record->n, plan->rate);
        if (r->n_counted == plan->requests)
            stop_sending(r, due);
    }
    return ATEDM_OK;
}

// Adds a request for each idle client of the closed loop.
static atedm_status arrive_closed(run *r, double now, atedm_error *err)
{
    const atedm_load_plan *plan = r->plan;
    r->record->full = r->record->n == plan->limit;
    if (now >= plan->warm_up_s + plan->duration_s || r->record->full ||
        r->n_counted == plan->requests)
        stop_sending(r, fmin(now, plan->warm_up_s + plan->duration_s));
    if (!r->sending || r->next < r->record->n || !atedm_load_clients_idle(r->clients) ||
        now < r->not_before_s)
        return ATEDM_OK;
    return add_sample(r, now, err);
}

static atedm_status send_due(run *r, atedm_error *err)
{
    atedm_status status = ATEDM_OK;
    bool more = true;
    while (more && !status) {
        double now = now_s(r);
        if (r->sending)
            status = r->plan->rate > 0 ? arrive_open(r, now, err) : arrive_closed(r, now, err);
        more = !status && r->next < r->record->n && atedm_load_clients_idle(r->clients);
        if (more) {
            char *body = atedm_load_mix_body(r->plan->mix, r->plan->seed, r->next);
            status = atedm_load_clients_send(r->clients, r->next, body, err);
        }
        if (more && !status)
            r->record->samples[r->next++].sent_s = now_s(r);
    }
    return status;
}

// ---- answers

static void take_answers(run *r)
{
    size_t i;
    for (int n = 0; n < ANSWERS_AT_ONCE; n++) {
        if (!atedm_load_clients_next(r->clients, r->record->samples, &i))
            return;
        atedm_load_sample *s = &r->record->samples[i];
        s->done_s = now_s(r);
        r->n_done++;
        r->n_failed += !s->ok;
        if (s->error == ATEDM_LOAD_CONNECT || s->error == ATEDM_LOAD_BROKEN)
            r->not_before_s = s->done_s + ATEDM_LOAD_PAUSE_S;
    }
}

static void take_signals(run *r, double now)
{
    struct signalfd_siginfo info;
    while (read(r->signals, &info, sizeof info) == (ssize_t)sizeof info) {
        r->give_up_s = r->record->interrupted ? now : now + r->plan->grace_s;
        r->record->interrupted = true;
        if (r->sending)
            stop_sending(r, now);
    }
}

// Ends the run: requests not sent by now never will be, and open ones have failed.
static void give_up(run *r, double now)
{
    for (size_t i = 0; i < r->next; i++) {
        atedm_load_sample *s = &r->record->samples[i];
        if (isnan(s->done_s)) {
            s->done_s = now;
            s->error = ATEDM_LOAD_GIVEN_UP;
        }
    }
}

// ---- waiting

static void show_progress(run *r, double now)
{
    const atedm_load_plan *plan = r->plan;
    size_t open = atedm_load_clients_open(r->clients);
    double whole = plan->warm_up_s + plan->duration_s, share = now / whole, left = whole - now;
    if (plan->requests != INT64_MAX) {
        share = (double)r->n_done / (double)plan->requests; // a guess during the warm-up
        left = now / share - now;
    }
    if (!r->sending) // at the speed of the run so far
        left = (double)(r->record->n - r->n_done) * now / (double)r->n_done;
    char eta[48] = "";
    if (isfinite(left))
        snprintf(eta, sizeof eta, ", %.0f s left", fmax(left, 0));
    atedm_progress_show(&r->progress, share, "%ssent %zu, done %zu, errors %zu, open %zu%s",
                        r->sending ? "" : "the last answers: ", r->next, r->n_done, r->n_failed,
                        open, eta);
    r->progress_due_s = now + PROGRESS_S;
}

// Sets the timer to the next time at which the run must act without an answer.
static void set_timer(const run *r, double now)
{
    double due = fmin(r->give_up_s, r->progress.visible ? r->progress_due_s : INFINITY);
    if (r->sending && r->plan->rate > 0)
        due = fmin(due, r->next_due_s);
    else if (r->sending)
        due = fmin(due, fmin(r->plan->warm_up_s + r->plan->duration_s,
                             r->not_before_s > now ? r->not_before_s : INFINITY));
    struct itimerspec at = {.it_value = {0, 0}}; // off
    if (isfinite(due)) {
        double whole = floor(due + r->start);
        at.it_value.tv_sec = (time_t)whole;
        at.it_value.tv_nsec = (long)((due + r->start - whole) * 1e9);
    }
    timerfd_settime(r->timer, TFD_TIMER_ABSTIME, &at, NULL);
}

static atedm_status loop(run *r, atedm_error *err)
{
    for (;;) {
        uint64_t ticks;
        double now = now_s(r);
        if (read(r->timer, &ticks, sizeof ticks) < 0 && errno != EAGAIN)
            return atedm_error_set(err, ATEDM_ERR_IO, "timer: %s", strerror(errno));
        take_signals(r, now);
        if (now >= r->give_up_s)
            return ATEDM_OK;
        size_t sent = r->next, done = r->n_done;
        atedm_status status = ATEDM_OK;
        if (!r->record->interrupted) // after an interrupt, due requests are no longer sent
            status = send_due(r, err);
        if (!status)
            status = atedm_load_clients_work(r->clients, err);
        if (status)
            return status;
        take_answers(r);
        bool waiting = !r->record->interrupted && (r->sending || r->next < r->record->n);
        if (!waiting && !atedm_load_clients_open(r->clients))
            return ATEDM_OK;
        if (r->progress.visible && now >= r->progress_due_s)
            show_progress(r, now);
        if (sent != r->next || done != r->n_done)
            continue; // there may be more answers
        set_timer(r, now);
        status = atedm_load_clients_wait(r->clients, r->timer, r->signals, err);
        if (status)
            return status;
    }
}

// ---- the whole

static atedm_status open_descriptors(run *r, atedm_error *err)
{
    sigset_t signals;
    sigemptyset(&signals);
    sigaddset(&signals, SIGINT);
    sigaddset(&signals, SIGTERM);
    sigset_t blocked = signals;
    sigaddset(&blocked, SIGPIPE); // TLS may write to a connection that the other end has closed
    r->timer = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC);
    r->signals = signalfd(-1, &signals, SFD_NONBLOCK | SFD_CLOEXEC);
    if (r->timer < 0 || r->signals < 0 || sigprocmask(SIG_BLOCK, &blocked, NULL))
        return atedm_error_set(err, ATEDM_ERR_IO, "timer and signals: %s", strerror(errno));
    return ATEDM_OK;
}

atedm_status atedm_load_run(const atedm_load_plan *plan, atedm_load_record *ret_record,
                            atedm_error *err)
{
    atedm_load_record record = {.samples = NULL};
    run r = {.plan = plan,
             .record = &record,
             .sending = true,
             .give_up_s = INFINITY,
             .timer = -1,
             .signals = -1};
    atedm_status status = open_descriptors(&r, err);
    if (!status)
        status = atedm_load_clients_create(plan, &r.clients, err);
    if (!status) {
        atedm_progress_init(&r.progress, NAN);
        r.start = atedm_clock_monotonic();
        r.next_due_s = plan->rate > 0 ? atedm_load_draw_gap(plan->seed, 0, plan->rate) : 0;
        status = loop(&r, err);
        give_up(&r, now_s(&r));
        atedm_progress_clear(&r.progress);
    }
    atedm_load_clients_destroy(r.clients);
    if (r.timer >= 0)
        close(r.timer);
    if (r.signals >= 0)
        close(r.signals);
    if (status)
        atedm_load_record_finish(&record);
    else
        *ret_record = record;
    return status;
}
