// Makes error answers, application/problem+json (RFC 9457), and plain JSON answers.
#ifndef ATEDM_PROBLEM_H
#define ATEDM_PROBLEM_H

#include "core/request.h"
#include "server/http.h"

typedef enum atedm_problem {
    ATEDM_PROBLEM_NOT_JSON,     // 400
    ATEDM_PROBLEM_QUERY,        // 400
    ATEDM_PROBLEM_UNAUTHORIZED, // 401
    ATEDM_PROBLEM_FORBIDDEN,    // 403
    ATEDM_PROBLEM_NOT_FOUND,    // 404
    ATEDM_PROBLEM_METHOD,       // 405
    ATEDM_PROBLEM_CONFLICT,     // 409
    ATEDM_PROBLEM_CANCELED,     // 409
    ATEDM_PROBLEM_TOO_LARGE,    // 413
    ATEDM_PROBLEM_MEDIA_TYPE,   // 415
    ATEDM_PROBLEM_INVALID,      // 422
    ATEDM_PROBLEM_NO_MEMORY,    // 422
    ATEDM_PROBLEM_RATE,         // 429
    ATEDM_PROBLEM_QUOTA,        // 429
    ATEDM_PROBLEM_INTERNAL,     // 500
    ATEDM_PROBLEM_UNAVAILABLE,  // 503
    ATEDM_PROBLEM_QUEUE_FULL,   // 503
    ATEDM_PROBLEM_DRAINING,     // 503
    ATEDM_PROBLEM_STORAGE,      // 503
    ATEDM_PROBLEM_DEADLINE,     // 504
} atedm_problem;

// Makes an error answer; the format gives its detail. `id` is the exchange's. Without memory the
// answer is a bare status 500.
atedm_response atedm_problem_response(atedm_problem problem, const char *id, const char *format,
                                      ...) ATEDM_PRINTF(3, 4);
atedm_response atedm_problem_no_memory(const char *id); // 500: there was no memory for the answer
// Makes only the body, for callers that keep it. NULL: out of memory.
struct json_t;
struct json_t *atedm_problem_json(atedm_problem problem, const char *id, const char *format, ...)
    ATEDM_PRINTF(3, 4);
// Makes an error answer from a body that was kept. Takes the body; NULL: there was no memory for
// it.
atedm_response atedm_problem_stored(const char *id, struct json_t *take_body);
// Makes the answer 422, which names every wrong field.
atedm_response atedm_problem_fields(const char *id, const atedm_field_errors *errors);

// Writes JSON in the form of answers; free() the result. Takes `value`. NULL: `value` is NULL, or
// out of memory.
char *atedm_json_text(struct json_t *take_value);
// Makes a JSON answer. Takes `value`. If `value` is NULL or there is no memory, makes an error
// answer.
atedm_response atedm_json_response(unsigned status, const char *id, struct json_t *take_value);

#endif
