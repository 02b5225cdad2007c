// Shared by dispatch.c (which job is where) and dispatch_figures.c (how many jobs, how long).
#ifndef ATEDM_DISPATCH_PRIVATE_H
#define ATEDM_DISPATCH_PRIVATE_H

#include "server/dispatch.h"

#include <stddef.h>

// A worker and the jobs that it has.
typedef struct atedm_seat {
    atedm_dispatch *dispatch;
    atedm_worker *worker;
    char device[ATEDM_DEVICE_LABEL_MAX]; // the worker's label
    char home[ATEDM_DEVICE_LABEL_MAX];   // the device's name
    bool ready;
    atedm_queue active;
    size_t unheard;         // canceled jobs whose cancellation the worker has not confirmed
    double rate, best_rate; // FLOPs a second; NAN: not measured yet
    // Both on the monotonic clock, for measuring the worker's silence. busy: since when the worker
    // has had work without a break. listened: silence before this time does not count, because the
    // daemon itself stood still.
    double busy, listened;
    size_t device_memory;
} atedm_seat;

struct atedm_dispatch {
    atedm_dispatch_options options;
    atedm_seat seats[ATEDM_MAX_WORKERS];
    size_t n_seats;
    atedm_queue queue;
    uint64_t last_id;
    double valve_multiple; // see valve.h
    uv_timer_t deadline;   // goes off at the nearest deadline
    bool behind;           // more jobs are overdue than one round of the loop may end
    uv_timer_t watch;      // looks for workers that hang
    double watched;        // time of the last look for workers that hang, on the monotonic clock
};

static inline atedm_job *atedm_job_of(const atedm_queue_item *place)
{
    return (atedm_job *)((char *)(uintptr_t)place - offsetof(atedm_job, place));
}

// Whether the worker has anything that it will report on.
static inline bool atedm_seat_is_busy(const atedm_seat *seat)
{
    return seat->active.depth || seat->unheard;
}

// Seconds until the worker has finished the jobs that it has. `measured` false: the FLOPs of these
// jobs instead, since a comparison needs one unit and not every worker has a measured rate.
double atedm_seat_seconds_left(const atedm_seat *seat, bool measured);
// Seconds for which a worker with work has been silent; 0: it has no work.
double atedm_seat_silence(const atedm_seat *seat, double now);
// Excludes this many seconds from the worker's silence, because the daemon itself stood still.
void atedm_seat_forgive(atedm_seat *seat, double seconds);

#endif
