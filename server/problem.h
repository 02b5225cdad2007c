// Error answers: application/problem+json (RFC 9457).
#ifndef ATEDM_SERVER_PROBLEM_H
#define ATEDM_SERVER_PROBLEM_H

#include "core/request.h"

#include <jansson.h>

// The object, with "errors" where `errors` (may be NULL) holds any. NULL when memory is out.
json_t *atedm_problem_json(unsigned status, const char *detail, const char *request_id,
                           const atedm_field_errors *errors);
// The reason phrase of the status codes that the daemon uses.
const char *atedm_problem_title(unsigned status);

#endif
