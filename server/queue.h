// A queue of jobs, ordered by priority, then by deadline, then by arrival. Its functions never
// visit all items, however many there are. The dispatch uses one for waiting jobs and one for each
// worker's jobs.
#ifndef ATEDM_QUEUE_H
#define ATEDM_QUEUE_H

#include "core/request.h"
#include "server/heap.h"

#include <stddef.h>
#include <stdint.h>
#include <sys/queue.h>

#define ATEDM_QUEUE_CLASSES (2 * ATEDM_PRIORITY_MAX + 1)

// Embedded in a job; the job's owner keeps the memory.
typedef struct atedm_queue_item {
    int priority;     // the larger goes first
    double deadline;  // the earlier goes first; INFINITY: none
    uint64_t arrival; // the smaller goes first
    double since;     // arrival time, on the monotonic clock
    uint64_t flops;   // FLOPs of the job

    // The members below belong to the queue.
    atedm_heap_node order, age;
    LIST_ENTRY(atedm_queue_item) place;
} atedm_queue_item;

// The items of one priority.
typedef struct atedm_queue_class {
    atedm_heap order; // by deadline, then by arrival
    uint64_t flops;
} atedm_queue_class;

typedef struct atedm_queue {
    atedm_queue_class classes[ATEDM_QUEUE_CLASSES]; // the highest priority first
    atedm_heap age;
    LIST_HEAD(atedm_queue_items, atedm_queue_item) items; // all items, in no order
    size_t depth, limit;
    uint64_t flops; // of all items
} atedm_queue;

// Empties the queue. The queue only stores `limit`; its user enforces it.
void atedm_queue_init(atedm_queue *queue, size_t limit);
// Adds an item. The caller has checked that the queue is not full.
void atedm_queue_push(atedm_queue *queue, atedm_queue_item *item);
void atedm_queue_remove(atedm_queue *queue, atedm_queue_item *item);
// The item that goes next; NULL: the queue is empty.
atedm_queue_item *atedm_queue_first(const atedm_queue *queue);
// The item with the nearest deadline, among equals the first to arrive; NULL: the queue is empty.
atedm_queue_item *atedm_queue_most_urgent(const atedm_queue *queue);
// The item that arrived first, by `since`; NULL: the queue is empty.
const atedm_queue_item *atedm_queue_oldest(const atedm_queue *queue);
// FLOPs of all items that go before a new item of this priority without a deadline.
uint64_t atedm_queue_flops_ahead(const atedm_queue *queue, int priority);

#endif
