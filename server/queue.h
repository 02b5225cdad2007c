// The requests that wait for a worker: by priority, then by deadline, then by arrival. However many
// there are, none of what is asked here looks at all of them. The same holds those that a worker
// has.
#ifndef ATEDM_QUEUE_H
#define ATEDM_QUEUE_H

#include "core/request.h"
#include "server/heap.h"

#include <stddef.h>
#include <stdint.h>

#define ATEDM_QUEUE_CLASSES (2 * ATEDM_PRIORITY_MAX + 1)

// Put into what waits; its owner keeps the memory.
typedef struct atedm_queue_item {
    int priority;     // the larger goes first
    double deadline;  // the earlier goes first; INFINITY: none
    uint64_t arrival; // the smaller goes first
    double since;     // when it came, on the monotonic clock
    uint64_t flops;   // what it will cost

    // The queue's own.
    atedm_heap_node order, age;
    struct atedm_queue_item *before, *after;
} atedm_queue_item;

// Those of one priority.
typedef struct atedm_queue_class {
    atedm_heap order; // by deadline, then by arrival
    uint64_t flops;
} atedm_queue_class;

typedef struct atedm_queue {
    atedm_queue_class classes[ATEDM_QUEUE_CLASSES]; // the highest priority first
    atedm_heap age;
    atedm_queue_item *items; // all, in no order, by `after`
    size_t depth, limit;
    uint64_t flops; // of all items
} atedm_queue;

void atedm_queue_init(atedm_queue *queue, size_t limit);
// The caller has checked that the queue is not full.
void atedm_queue_push(atedm_queue *queue, atedm_queue_item *item);
void atedm_queue_remove(atedm_queue *queue, atedm_queue_item *item);
// Who goes next; NULL: nobody waits.
atedm_queue_item *atedm_queue_first(const atedm_queue *queue);
// One whose deadline is the nearest, and who came first; NULL: nobody waits.
atedm_queue_item *atedm_queue_most_urgent(const atedm_queue *queue);
const atedm_queue_item *atedm_queue_oldest(const atedm_queue *queue);
// FLOPs of all that a newcomer of this priority, without a deadline, would wait for.
uint64_t atedm_queue_flops_ahead(const atedm_queue *queue, int priority);

#endif
