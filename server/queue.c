// Queue of generations: see queue.h.
#include "server/queue.h"

#include <stdlib.h>

void atedm_job_destroy(atedm_job *job)
{
    if (!job)
        return;
    atedm_request_finish(&job->request);
    free(job);
}

void atedm_queue_push(atedm_queue *queue, atedm_job *take_job)
{
    atedm_job **at = &queue->first;
    while (*at && (*at)->priority >= take_job->priority)
        at = &(*at)->next;
    take_job->next = *at;
    *at = take_job;
    queue->depth++;
    queue->flops += take_job->flops;
}

bool atedm_queue_remove(atedm_queue *queue, const atedm_job *job)
{
    for (atedm_job **at = &queue->first; *at; at = &(*at)->next) {
        if (*at != job)
            continue;
        *at = job->next;
        queue->depth--;
        queue->flops -= job->flops;
        return true;
    }
    return false;
}

atedm_job *atedm_queue_pop(atedm_queue *queue)
{
    atedm_job *job = queue->first;
    if (job)
        atedm_queue_remove(queue, job);
    return job;
}
