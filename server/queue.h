// The daemon's queue of generations: higher priority first, then arrival.
#ifndef ATEDM_SERVER_QUEUE_H
#define ATEDM_SERVER_QUEUE_H

#include "core/request.h"

#include <stdint.h>

// One generation from acceptance to answer. `waiter` is whoever wants the outcome; NULL once it has
// gone.
typedef struct atedm_job {
    struct atedm_job *next;
    uint64_t id;
    atedm_request request;    // until it is submitted
    uint64_t flops;           // what it will cost
    double accepted, started; // monotonic seconds
    double deadline;          // monotonic seconds; INFINITY: none
    int priority;
    void *waiter;
} atedm_job;

void atedm_job_destroy(atedm_job *job); // NULL allowed

typedef struct atedm_queue {
    atedm_job *first;
    size_t depth;
    uint64_t flops; // of all that wait
} atedm_queue;

void atedm_queue_push(atedm_queue *queue, atedm_job *take_job);
// The job that is next, taken out; NULL when there is none.
atedm_job *atedm_queue_pop(atedm_queue *queue);
// Takes out this job; false when it does not wait here.
bool atedm_queue_remove(atedm_queue *queue, const atedm_job *job);

#endif
