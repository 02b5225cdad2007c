// What dispatch.c (where jobs are) and dispatch_figures.c (how many, how long) share.
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
    size_t unheard;         // jobs that were given up, and it has not said that it heard so
    double rate, best_rate; // FLOPs a second; NAN: nothing was measured yet
    // Its silence, by the monotonic clock: since when it has had something to do without a break;
    // what counts at the earliest.
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
    uv_timer_t deadline;   // the nearest one
    bool behind;           // more have to be ended for their deadline than may be at once
    uv_timer_t watch;      // for workers that hang
    double watched;        // when it last looked
};

static inline atedm_job *atedm_job_of(const atedm_queue_item *place)
{
    return (atedm_job *)((char *)(uintptr_t)place - offsetof(atedm_job, place));
}

// Whether there is something that it will say.
static inline bool atedm_seat_is_busy(const atedm_seat *seat)
{
    return seat->active.depth || seat->unheard;
}

// Seconds until the worker is through with what it has; in FLOPs where it was not measured yet,
// which then goes for all.
double atedm_seat_seconds_left(const atedm_seat *seat, bool measured);
// Seconds for which a worker that has something to do has said nothing; 0: it has nothing.
double atedm_seat_silence(const atedm_seat *seat, double now);
// So many of them do not count: nobody listened.
void atedm_seat_forgive(atedm_seat *seat, double seconds);

#endif
