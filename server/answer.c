// Builds the answer to a finished request: see answer.h.
#include "server/answer.h"

#include "core/base/clock.h"
#include "core/base/utf8.h"
#include "core/plan_json.h"
#include "server/accounts.h"
#include "server/pick_json.h"
#include "server/problem.h"
#include "server/text.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

// Most bytes that a warning quotes of the text that was cut off, and most bytes of the rest of the
// warning.
#define WARNING_QUOTE_MAX 200
#define WARNING_REST_MAX 100
_Static_assert(3 * WARNING_QUOTE_MAX + WARNING_REST_MAX < ATEDM_RESPONSE_VALUE_MAX,
               "a header holds a warning, each byte of the quotation encoded");

static json_t *warnings_json(const atedm_job *job, const atedm_worker_result *result)
{
    const char *const names[2] = {"prompt", "negative_prompt"};
    const char *const texts[2] = {job->request.prompt, job->request.negative_prompt};
    json_t *list = json_array();
    for (int which = 0; which < 2; which++) {
        size_t size = texts[which] ? strlen(texts[which]) : 0;
        size_t encoded = result->report.encoded[which];
        if (encoded >= size || (which == 1 && job->request.guidance_scale <= 1))
            continue;
        const char *cut = texts[which] + encoded;
        size_t quoted = atedm_utf8_cut(cut, size - encoded, WARNING_QUOTE_MAX);
        json_array_append_new(
            list, json_sprintf("%s is longer than the text encoders take; cut after byte %zu: "
                               "\"%.*s\"%s",
                               names[which], encoded, (int)quoted, cut,
                               quoted < size - encoded ? "..." : ""));
    }
    return list;
}

static json_t *latency_json(const atedm_job *job, const atedm_timing *t)
{
    json_t *steps = json_array();
    for (int i = 0; i < job->request.steps; i++)
        json_array_append_new(steps, json_real(t->steps_s[i]));
    return json_pack("{s:f, s:f, s:f, s:f, s:f, s:f, s:o}", "queue_s", job->started - job->arrived,
                     "text_encoder_s", t->text_encoder_s, "denoise_s", t->denoise_s, "vae_s",
                     t->vae_s, "encode_s", t->encode_s, "total_s",
                     atedm_clock_monotonic() - job->arrived, "steps_s", steps);
}

static json_t *batch_json(const atedm_engine_report *report)
{
    double mean = (double)report->batch_images / (double)report->evaluations;
    return json_pack("{s:f, s:I}", "mean_size", mean, "max_size", (json_int_t)report->max_batch);
}

static json_t *images_json(const atedm_request *request)
{
    json_t *list = json_array();
    for (int i = 0; i < request->num_images; i++)
        json_array_append_new(list, json_pack("{s:I, s:I, s:I}", "seed",
                                              (json_int_t)(request->seed + (uint64_t)i), "width",
                                              (json_int_t)request->width, "height",
                                              (json_int_t)request->height));
    return list;
}

json_t *atedm_answer_json(const char *id, const atedm_job *job, const atedm_worker_result *result)
{
    atedm_request_cost cost = atedm_account_cost(job, result);
    return json_pack("{s:s, s:I, s:s, s:o, s:o, s:o, s:o, s:o, s:o}", "id", id, "created",
                     (json_int_t)atedm_clock_unix(), "model", job->model->name, "pruning",
                     atedm_pruning_json(job->plan, &job->cost, &job->pick), "flops",
                     atedm_cost_json(&cost), "latency", latency_json(job, &result->report.timing),
                     "batch", batch_json(&result->report), "warnings", warnings_json(job, result),
                     "images", images_json(&job->request));
}

bool atedm_answer_add_urls(json_t *answer, const char *id)
{
    size_t i;
    json_t *image;
    bool good = true;
    json_array_foreach(json_object_get(answer, "images"), i, image)
    {
        json_t *url = json_sprintf("/jobs/%s/images/%zu", id, i);
        good &= json_object_set_new(image, "url", url) == 0;
    }
    return good;
}

// ---- formats

static json_int_t integer(const json_t *image, const char *name)
{
    return json_integer_value(json_object_get(image, name));
}

static atedm_status append_images(const json_t *list, const atedm_worker_image *images,
                                  size_t n_images, atedm_buffer *text)
{
    atedm_status status = atedm_buffer_printf(text, ",\"images\":[");
    for (size_t i = 0; i < n_images && !status; i++) {
        const json_t *image = json_array_get(list, i);
        status = atedm_buffer_printf(text, "%s{\"b64_json\":\"", i ? "," : "");
        if (!status)
            status = atedm_base64_append(images[i].png, images[i].size, text);
        if (!status)
            status = atedm_buffer_printf(
                text,
                "\",\"seed\":%" JSON_INTEGER_FORMAT ",\"width\":%" JSON_INTEGER_FORMAT
                ",\"height\":%" JSON_INTEGER_FORMAT "}",
                integer(image, "seed"), integer(image, "width"), integer(image, "height"));
    }
    return status ? status : atedm_buffer_printf(text, "]}");
}

// Images in base64 are megabytes of text that needs no escaping and no checking. So this function
// appends them to the serialized rest instead of passing them through jansson.
static atedm_response b64_response(const char *id, json_t *answer, const atedm_worker_image *images,
                                   size_t n_images)
{
    json_t *list = json_incref(json_object_get(answer, "images"));
    json_object_del(answer, "images");
    atedm_response response = atedm_json_response(200, id, answer);
    atedm_buffer text;
    atedm_buffer_init(&text, SIZE_MAX / 4);
    if (response.status == 200) {
        atedm_status status =
            atedm_buffer_append(&text, response.body, response.size - 1); // without the final "}"
        if (!status)
            status = append_images(list, images, n_images, &text);
        free(response.body);
        response.body = text.data;
        response.size = text.size;
        if (status) {
            atedm_buffer_finish(&text);
            response = atedm_problem_no_memory(id);
        }
    }
    json_decref(list);
    return response;
}

// A header's value cannot hold every text. So this function percent-encodes all bytes other than
// visible ASCII and spaces (RFC 3986, section 2.1).
static void add_warning(atedm_response *response, const char *warning)
{
    char text[ATEDM_RESPONSE_VALUE_MAX];
    size_t used = 0;
    for (const char *c = warning; *c && used + 3 < sizeof text; c++) {
        bool plain = *c >= ' ' && *c <= '~' && *c != '%';
        used += (size_t)snprintf(text + used, sizeof text - used, plain ? "%c" : "%%%02X",
                                 (unsigned char)*c);
    }
    text[used] = '\0';
    atedm_response_header(response, "X-Atedm-Warning", "%s", text);
}

static atedm_response png_response(const char *id, json_t *answer, const atedm_worker_image *image)
{
    const json_t *facts = json_array_get(json_object_get(answer, "images"), 0);
    size_t i;
    const json_t *warning;
    atedm_response response = atedm_png_response(id, image);
    if (response.status == 200)
        atedm_response_header(&response, "X-Atedm-Seed", "%" JSON_INTEGER_FORMAT,
                              integer(facts, "seed"));
    json_array_foreach(json_object_get(answer, "warnings"), i, warning)
    {
        if (response.status == 200)
            add_warning(&response, json_string_value(warning));
    }
    json_decref(answer);
    return response;
}

atedm_response atedm_png_response(const char *request_id, const atedm_worker_image *image)
{
    atedm_response response = {.status = 200, .content_type = "image/png", .size = image->size};
    response.body = malloc(image->size);
    if (!response.body)
        return atedm_problem_no_memory(request_id);
    memcpy(response.body, image->png, image->size);
    return response;
}

atedm_response atedm_answer_response(const char *request_id, json_t *take_answer,
                                     const atedm_worker_image *images, size_t n_images,
                                     atedm_response_format format)
{
    if (!take_answer)
        return atedm_problem_no_memory(request_id);
    switch (format) {
    case ATEDM_RESPONSE_PNG:
        return png_response(request_id, take_answer, &images[0]);
    case ATEDM_RESPONSE_B64_JSON:
        return b64_response(request_id, take_answer, images, n_images);
    case ATEDM_RESPONSE_URL:
        break;
    }
    return atedm_json_response(200, request_id, take_answer);
}
