// Makes error answers and plain JSON answers: see problem.h.
#include "server/problem.h"

#include "core/base/utf8.h"

#include <jansson.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

// 15 digits, so that a decimal number from a request (0.7) is written as the client wrote it.
#define DUMP_FLAGS (JSON_COMPACT | JSON_REAL_PRECISION(15))

static const struct {
    unsigned status;
    const char *type, *title;
} kinds[] = {
    [ATEDM_PROBLEM_NOT_JSON] = {400, "not-json", "The body is not acceptable JSON"},
    [ATEDM_PROBLEM_QUERY] = {400, "query", "The query or a header is wrong"},
    [ATEDM_PROBLEM_UNAUTHORIZED] = {401, "unauthorized", "An API key is needed"},
    [ATEDM_PROBLEM_FORBIDDEN] = {403, "forbidden", "The API key does not allow this"},
    [ATEDM_PROBLEM_NOT_FOUND] = {404, "not-found", "There is nothing here"},
    [ATEDM_PROBLEM_METHOD] = {405, "method", "The method is not allowed here"},
    [ATEDM_PROBLEM_CONFLICT] = {409, "idempotency-conflict",
                                "The key was used for another request"},
    [ATEDM_PROBLEM_CANCELED] = {409, "canceled", "The job was canceled"},
    [ATEDM_PROBLEM_TOO_LARGE] = {413, "too-large", "The body is too large"},
    [ATEDM_PROBLEM_MEDIA_TYPE] = {415, "media-type", "The body is not of type application/json"},
    [ATEDM_PROBLEM_INVALID] = {422, "invalid", "A field is wrong"},
    [ATEDM_PROBLEM_NO_MEMORY] = {422, "no-memory",
                                 "The device has not enough memory for the request"},
    [ATEDM_PROBLEM_RATE] = {429, "rate", "The client's requests come too fast"},
    [ATEDM_PROBLEM_QUOTA] = {429, "quota", "The client has too many requests at a time"},
    [ATEDM_PROBLEM_INTERNAL] = {500, "internal", "The request failed in the server"},
    [ATEDM_PROBLEM_UNAVAILABLE] = {503, "unavailable", "The server is not ready"},
    [ATEDM_PROBLEM_QUEUE_FULL] = {503, "queue-full", "The queue is full"},
    [ATEDM_PROBLEM_DRAINING] = {503, "draining", "The server is shutting down"},
    [ATEDM_PROBLEM_STORAGE] = {503, "storage", "The job store is out of order"},
    [ATEDM_PROBLEM_DEADLINE] = {504, "deadline", "The deadline cannot be met"},
};

char *atedm_json_text(json_t *take_value)
{
    char *text = take_value ? json_dumps(take_value, DUMP_FLAGS) : NULL;
    json_decref(take_value);
    return text;
}

// Makes a response from `value`, which it takes; NULL allowed.
static atedm_response serialise(unsigned status, const char *content_type, json_t *take_value)
{
    char *text = atedm_json_text(take_value);
    if (!text)
        return (atedm_response){.status = 500, .content_type = "text/plain"};
    return (atedm_response){
        .status = status, .content_type = content_type, .body = text, .size = strlen(text)};
}

static json_t *make_json(atedm_problem problem, const char *id, const char *detail)
{
    char type[64];
    snprintf(type, sizeof type, "urn:atedm:problem:%s", kinds[problem].type);
    return json_pack("{s:s, s:s, s:i, s:s, s:s}", "type", type, "title", kinds[problem].title,
                     "status", (int)kinds[problem].status, "detail", detail, "id", id);
}

static json_t *format_json(atedm_problem problem, const char *id, const char *format, va_list args)
    ATEDM_PRINTF(3, 0);

static json_t *format_json(atedm_problem problem, const char *id, const char *format, va_list args)
{
    char detail[ATEDM_ERROR_MAX];
    vsnprintf(detail, sizeof detail, format, args);
    atedm_utf8_clean(detail, false); // it may quote any bytes and be cut anywhere
    return make_json(problem, id, detail);
}

atedm_response atedm_problem_response(atedm_problem problem, const char *id, const char *format,
                                      ...)
{
    va_list args;
    va_start(args, format);
    json_t *body = format_json(problem, id, format, args);
    va_end(args);
    return serialise(kinds[problem].status, "application/problem+json", body);
}

atedm_response atedm_problem_no_memory(const char *id)
{
    return atedm_problem_response(ATEDM_PROBLEM_INTERNAL, id, "no memory for the answer");
}

json_t *atedm_problem_json(atedm_problem problem, const char *id, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    json_t *body = format_json(problem, id, format, args);
    va_end(args);
    return body;
}

atedm_response atedm_problem_stored(const char *id, json_t *take_body)
{
    if (!take_body)
        return atedm_problem_no_memory(id);
    unsigned status = (unsigned)json_integer_value(json_object_get(take_body, "status"));
    return serialise(status, "application/problem+json", take_body);
}

atedm_response atedm_problem_fields(const char *id, const atedm_field_errors *errors)
{
    char detail[64];
    size_t count = errors->count + errors->more;
    if (count == 1)
        snprintf(detail, sizeof detail, "one field is wrong");
    else
        snprintf(detail, sizeof detail, "%zu fields are wrong%s", count,
                 errors->more ? "; the first are named" : "");
    json_t *problem = make_json(ATEDM_PROBLEM_INVALID, id, detail);
    json_t *list = json_array();
    for (size_t i = 0; i < errors->count; i++) {
        // request.h guarantees that both texts are valid UTF-8. If there is no memory for the item,
        // json_array_append_new fails on NULL.
        json_t *item = json_pack("{s:s, s:s}", "pointer", errors->items[i].pointer, "detail",
                                 errors->items[i].detail);
        if (json_array_append_new(list, item)) {
            json_decref(problem);
            problem = NULL;
            break;
        }
    }
    if (!problem || json_object_set(problem, "errors", list)) {
        json_decref(problem);
        problem = NULL;
    }
    json_decref(list);
    return serialise(kinds[ATEDM_PROBLEM_INVALID].status, "application/problem+json", problem);
}

atedm_response atedm_json_response(unsigned status, const char *id, json_t *take_value)
{
    if (!take_value)
        return atedm_problem_no_memory(id);
    return serialise(status, "application/json", take_value);
}
