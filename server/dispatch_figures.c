// Answers questions about the dispatch: depths, rates, expected waits. See dispatch.h.
#include "server/dispatch_private.h"

#include "core/base/clock.h"

#include <math.h>

// Seconds of Retry-After if no rate was measured yet, and the most seconds.
#define RETRY_AFTER_UNKNOWN_S 5
#define RETRY_AFTER_MAX_S 3600

static double job_flops_left(const atedm_job *job)
{
    double done = (double)job->steps_done / job->request.steps;
    return (double)job->cost.executed * (1 - done);
}

double atedm_seat_seconds_left(const atedm_seat *s, bool measured)
{
    double flops = 0;
    for (const atedm_queue_item *item = LIST_FIRST(&s->active.items); item;
         item = LIST_NEXT(item, place))
        flops += job_flops_left(atedm_job_of(item));
    return measured ? flops / s->rate : flops;
}

static double silent_since(const atedm_seat *s)
{
    return fmax(fmax(atedm_worker_last_heard(s->worker), s->busy), s->listened);
}

// A worker reports every evaluation and every cancellation. A worker without work is silent. So
// only the time counts in which it has work without a break, whichever jobs they are: clients of a
// hanging worker lose patience one by one, and each replacement must not restart the count.
double atedm_seat_silence(const atedm_seat *s, double now)
{
    return atedm_seat_is_busy(s) ? fmax(0, now - silent_since(s)) : 0;
}

void atedm_seat_forgive(atedm_seat *s, double seconds)
{
    s->listened = silent_since(s) + seconds;
}

// Workers that are starting count as having work if jobs wait and no worker is ready.
static double longest_silence(const atedm_dispatch *d, size_t ready)
{
    double now = atedm_clock_monotonic(), longest = 0;
    for (size_t i = 0; i < d->n_seats; i++) {
        const atedm_seat *s = &d->seats[i];
        longest = fmax(longest, atedm_seat_silence(s, now));
        if (d->queue.depth && !ready)
            longest = fmax(longest, now - atedm_worker_last_heard(s->worker));
    }
    return longest;
}

static size_t count_active(const atedm_dispatch *d)
{
    size_t active = 0;
    for (size_t i = 0; i < d->n_seats; i++)
        active += d->seats[i].active.depth;
    return active;
}

// Rate of the workers that are up. If none is up, the rate of all, since all will be. NAN: not
// measured yet.
static double total_rate(const atedm_dispatch *d)
{
    double up = 0, all = 0;
    for (size_t i = 0; i < d->n_seats; i++) {
        const atedm_seat *s = &d->seats[i];
        double rate = isnan(s->rate) ? 0 : s->rate;
        up += s->ready ? rate : 0;
        all += rate;
    }
    double total = up > 0 ? up : all;
    return total > 0 ? total : NAN;
}

atedm_dispatch_state atedm_dispatch_get_state(const atedm_dispatch *d)
{
    size_t ready = 0;
    for (size_t i = 0; i < d->n_seats; i++)
        ready += d->seats[i].ready;
    return (atedm_dispatch_state){
        .depth = d->queue.depth,
        .queue_flops = d->queue.flops,
        .active = count_active(d),
        .ready = ready,
        .rate = total_rate(d),
        .valve_multiple = d->valve_multiple,
        .silence_s = longest_silence(d, ready),
    };
}

double atedm_dispatch_oldest_wait(const atedm_dispatch *d)
{
    const atedm_queue_item *oldest = atedm_queue_oldest(&d->queue);
    return oldest ? fmax(0, atedm_clock_monotonic() - oldest->since) : 0;
}

bool atedm_dispatch_get_worker(const atedm_dispatch *d, size_t i, atedm_worker_state *ret_state)
{
    if (i >= d->n_seats)
        return false;
    const atedm_seat *s = &d->seats[i];
    *ret_state = (atedm_worker_state){.device = s->device, .device_memory = s->device_memory};
    return true;
}

// Seconds until the first of the worker's jobs ends, if all proceed at the same pace; 0: the worker
// has room.
static double seconds_until_room(const atedm_seat *s)
{
    if (s->active.depth < s->active.limit)
        return 0;
    double least = INFINITY;
    for (const atedm_queue_item *item = LIST_FIRST(&s->active.items); item;
         item = LIST_NEXT(item, place))
        least = fmin(least, job_flops_left(atedm_job_of(item)));
    return least * (double)s->active.depth / s->rate;
}

// Least seconds until a worker has room; NAN: no worker is up.
static double least_until_room(const atedm_dispatch *d)
{
    double least = NAN;
    for (size_t i = 0; i < d->n_seats; i++)
        if (d->seats[i].ready)
            least = fmin(least, seconds_until_room(&d->seats[i])); // fmin ignores NAN
    return least;
}

double atedm_dispatch_flops_ahead(const atedm_dispatch *d, int priority)
{
    double flops = (double)atedm_queue_flops_ahead(&d->queue, priority);
    for (size_t i = 0; i < d->n_seats; i++)
        flops += atedm_seat_seconds_left(&d->seats[i], false); // FLOPs
    return flops;
}

double atedm_dispatch_expected_wait(const atedm_dispatch *d, int priority)
{
    double ahead = (double)atedm_queue_flops_ahead(&d->queue, priority);
    double room = least_until_room(d);
    return (isnan(room) ? 0 : room) + ahead / total_rate(d);
}

int atedm_dispatch_retry_after(const atedm_dispatch *d)
{
    double seconds = least_until_room(d);
    if (isnan(seconds) || isnan(total_rate(d)))
        return RETRY_AFTER_UNKNOWN_S;
    return (int)fmin(fmax(1, ceil(seconds)), RETRY_AFTER_MAX_S);
}
