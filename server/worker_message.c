// Frees messages and results: see worker_message.h.
#include "server/worker_message.h"

#include <stdlib.h>

void atedm_worker_result_destroy(atedm_worker_result *result)
{
    if (!result)
        return;
    for (size_t i = 0; result->images && i < result->n_images; i++)
        free(result->images[i].png);
    free(result->images);
    free(result);
}

void atedm_worker_message_finish(atedm_worker_message *message)
{
    atedm_worker_result_destroy(message->result);
    free(message->image.png);
    message->result = NULL;
    message->image = (atedm_worker_image){0};
}
