// The answer to a request that is done: JSON with or without its pictures, or a picture itself.
#ifndef ATEDM_ANSWER_H
#define ATEDM_ANSWER_H

#include "core/request.h"
#include "server/dispatch.h"
#include "server/http.h"

#include <jansson.h>

// The answer of api.md; its images have seed, width and height, but not yet what shows them. `id`:
// of the request. NULL where there is no memory.
json_t *atedm_answer_json(const char *id, const atedm_job *job, const atedm_worker_result *result);

// Gives each image the "url" at which the job `id` has it. False where there is no memory.
bool atedm_answer_add_urls(json_t *answer, const char *id);

// The response in a format; takes `answer` (NULL: no memory). `request_id` is the exchange's.
// `images` are as many as the answer has, or none where the format is ATEDM_RESPONSE_URL.
atedm_response atedm_answer_response(const char *request_id, json_t *take_answer,
                                     const atedm_worker_image *images, size_t n_images,
                                     atedm_response_format format);
// A picture's bytes.
atedm_response atedm_png_response(const char *request_id, const atedm_worker_image *image);

#endif
