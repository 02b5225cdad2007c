// The requests that wait for a worker: by priority, then by deadline, then by arrival.
#ifndef ATEDM_QUEUE_H
#define ATEDM_QUEUE_H

#include <stddef.h>
#include <stdint.h>

// Put at the start of what waits; its owner keeps the memory.
typedef struct atedm_queue_item {
    int priority;     // the larger goes first
    double deadline;  // the earlier goes first; INFINITY: none
    uint64_t arrival; // the smaller goes first
    uint64_t flops;   // what it will cost
    struct atedm_queue_item *before, *after;
} atedm_queue_item;

typedef struct atedm_queue {
    atedm_queue_item *first, *last;
    size_t depth, limit;
    uint64_t flops; // of all items
} atedm_queue;

void atedm_queue_init(atedm_queue *queue, size_t limit);
// To its place. The caller has checked that the queue is not full.
void atedm_queue_push(atedm_queue *queue, atedm_queue_item *item);
void atedm_queue_remove(atedm_queue *queue, atedm_queue_item *item);
// FLOPs of all that a newcomer of this priority, without a deadline, would wait for.
uint64_t atedm_queue_flops_ahead(const atedm_queue *queue, int priority);

#endif
