// Builds the answer to a finished request: JSON with or without pictures, or one picture itself.
#ifndef ATEDM_ANSWER_H
#define ATEDM_ANSWER_H

#include "core/request.h"
#include "server/dispatch.h"
#include "server/http.h"

#include <jansson.h>

// Builds the answer as in api.md. Each image has its seed, width and height, but not yet its pixels
// or URL. `id`: the request's id. NULL: out of memory.
json_t *atedm_answer_json(const char *id, const atedm_job *job, const atedm_worker_result *result);

// Adds to each image the "url" under which the daemon serves it as part of the job `id`. False: out
// of memory.
bool atedm_answer_add_urls(json_t *answer, const char *id);

// Builds the response in a format. Takes `answer`; NULL there means that there was no memory for
// it. `request_id` is the exchange's id. There are as many `images` as in the answer, or none if
// the format is ATEDM_RESPONSE_URL.
atedm_response atedm_answer_response(const char *request_id, json_t *take_answer,
                                     const atedm_worker_image *images, size_t n_images,
                                     atedm_response_format format);
// Builds the response that is one picture, as a PNG. `request_id` is the exchange's id.
atedm_response atedm_png_response(const char *request_id, const atedm_worker_image *image);

#endif
