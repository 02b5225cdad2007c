// The waiting requests: see queue.h.
#include "server/queue.h"

#include <stdbool.h>

void atedm_queue_init(atedm_queue *queue, size_t limit)
{
    *queue = (atedm_queue){.limit = limit};
}

static bool goes_before(const atedm_queue_item *a, const atedm_queue_item *b)
{
    if (a->priority != b->priority)
        return a->priority > b->priority;
    if (a->deadline < b->deadline || a->deadline > b->deadline)
        return a->deadline < b->deadline;
    return a->arrival < b->arrival;
}

void atedm_queue_push(atedm_queue *queue, atedm_queue_item *item)
{
    atedm_queue_item *before = queue->last;
    while (before && goes_before(item, before))
        before = before->before;
    item->before = before;
    item->after = before ? before->after : queue->first;
    if (item->before)
        item->before->after = item;
    else
        queue->first = item;
    if (item->after)
        item->after->before = item;
    else
        queue->last = item;
    queue->depth++;
    queue->flops += item->flops;
}

void atedm_queue_remove(atedm_queue *queue, atedm_queue_item *item)
{
    if (item->before)
        item->before->after = item->after;
    else
        queue->first = item->after;
    if (item->after)
        item->after->before = item->before;
    else
        queue->last = item->before;
    item->before = NULL;
    item->after = NULL;
    queue->depth--;
    queue->flops -= item->flops;
}

uint64_t atedm_queue_flops_ahead(const atedm_queue *queue, int priority)
{
    uint64_t flops = 0;
    for (const atedm_queue_item *i = queue->first; i && i->priority >= priority; i = i->after)
        flops += i->flops;
    return flops;
}
