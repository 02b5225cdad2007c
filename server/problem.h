// Error answers: application/problem+json (RFC 9457).
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
    ATEDM_PROBLEM_RATE,         // 429
    ATEDM_PROBLEM_QUOTA,        // 429
    ATEDM_PROBLEM_INTERNAL,     // 500
    ATEDM_PROBLEM_UNAVAILABLE,  // 503
    ATEDM_PROBLEM_QUEUE_FULL,   // 503
    ATEDM_PROBLEM_DRAINING,     // 503
    ATEDM_PROBLEM_STORAGE,      // 503
    ATEDM_PROBLEM_DEADLINE,     // 504
} atedm_problem;

// `id` is the exchange's. Where there is no memory the answer is a bare status 500.
atedm_response atedm_problem_response(atedm_problem problem, const char *id, const char *format,
                                      ...) ATEDM_PRINTF(3, 4);
atedm_response atedm_problem_no_memory(const char *id); // for the answer: 500
// The body alone, for where it is kept; NULL where there is no memory.
struct json_t;
struct json_t *atedm_problem_json(atedm_problem problem, const char *id, const char *format, ...)
    ATEDM_PRINTF(3, 4);
// An error answer from a body that was kept; takes it. NULL: there was no memory for it.
atedm_response atedm_problem_stored(const char *id, struct json_t *take_body);
// 422 with every wrong field.
atedm_response atedm_problem_fields(const char *id, const atedm_field_errors *errors);

// JSON as it is answered, to free; takes `value`. NULL where it is, or where there is no memory.
char *atedm_json_text(struct json_t *take_value);
// A JSON answer; takes `value`. Where it is NULL, or there is no memory, a problem.
atedm_response atedm_json_response(unsigned status, const char *id, struct json_t *take_value);

#endif
