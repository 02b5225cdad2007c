// A queue of jobs: see queue.h.
#include "server/queue.h"

#include <stdbool.h>

static atedm_queue_item *by_order(const atedm_heap_node *node)
{
    return (atedm_queue_item *)((char *)(uintptr_t)node - offsetof(atedm_queue_item, order));
}

static atedm_queue_item *by_age(const atedm_heap_node *node)
{
    return (atedm_queue_item *)((char *)(uintptr_t)node - offsetof(atedm_queue_item, age));
}

static bool goes_before(const atedm_heap_node *a, const atedm_heap_node *b)
{
    const atedm_queue_item *x = by_order(a), *y = by_order(b);
    if (x->deadline < y->deadline || x->deadline > y->deadline)
        return x->deadline < y->deadline;
    return x->arrival < y->arrival;
}

static bool came_before(const atedm_heap_node *a, const atedm_heap_node *b)
{
    return by_age(a)->since < by_age(b)->since;
}

void atedm_queue_init(atedm_queue *queue, size_t limit)
{
    *queue = (atedm_queue){.limit = limit, .age.goes_before = came_before};
    for (size_t i = 0; i < ATEDM_QUEUE_CLASSES; i++)
        queue->classes[i].order.goes_before = goes_before;
}

static atedm_queue_class *class_of(atedm_queue *queue, const atedm_queue_item *item)
{
    return &queue->classes[ATEDM_PRIORITY_MAX - item->priority];
}

void atedm_queue_push(atedm_queue *queue, atedm_queue_item *item)
{
    atedm_queue_class *class = class_of(queue, item);
    atedm_heap_push(&class->order, &item->order);
    atedm_heap_push(&queue->age, &item->age);
    class->flops += item->flops;
    LIST_INSERT_HEAD(&queue->items, item, place);
    queue->depth++;
    queue->flops += item->flops;
}

void atedm_queue_remove(atedm_queue *queue, atedm_queue_item *item)
{
    atedm_queue_class *class = class_of(queue, item);
    atedm_heap_remove(&class->order, &item->order);
    atedm_heap_remove(&queue->age, &item->age);
    class->flops -= item->flops;
    LIST_REMOVE(item, place);
    queue->depth--;
    queue->flops -= item->flops;
}

atedm_queue_item *atedm_queue_first(const atedm_queue *queue)
{
    for (size_t i = 0; i < ATEDM_QUEUE_CLASSES; i++) {
        if (queue->classes[i].order.top)
            return by_order(queue->classes[i].order.top);
    }
    return NULL;
}

atedm_queue_item *atedm_queue_most_urgent(const atedm_queue *queue)
{
    const atedm_heap_node *nearest = NULL;
    for (size_t i = 0; i < ATEDM_QUEUE_CLASSES; i++) {
        const atedm_heap_node *top = queue->classes[i].order.top;
        if (top && (!nearest || goes_before(top, nearest)))
            nearest = top;
    }
    return nearest ? by_order(nearest) : NULL;
}

const atedm_queue_item *atedm_queue_oldest(const atedm_queue *queue)
{
    return queue->age.top ? by_age(queue->age.top) : NULL;
}

uint64_t atedm_queue_flops_ahead(const atedm_queue *queue, int priority)
{
    uint64_t flops = 0;
    for (int p = ATEDM_PRIORITY_MAX; p >= priority; p--)
        flops += queue->classes[ATEDM_PRIORITY_MAX - p].flops;
    return flops;
}
