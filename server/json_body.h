// Turns a request's body into JSON, with every reason to refuse it.
#ifndef ATEDM_JSON_BODY_H
#define ATEDM_JSON_BODY_H

#include "core/base/status.h"

#include <jansson.h>

// Arrays and objects inside each other. api.md needs 4; jansson alone would take 2048.
#define ATEDM_JSON_DEPTH_MAX 16

// Once, before any body is parsed: by itself jansson does not tell want of memory from a text that
// is wrong.
void atedm_json_body_prepare(void);

// Any JSON value; json_decref it. Refused, with the place: what is not UTF-8, not JSON, nested
// deeper than the limit, has a key twice in an object, a NUL in a string, or a number that a double
// cannot hold. An integer beyond 64 bits comes as a real, for the range checks to name its field.
// ATEDM_ERR_NOMEM: nothing is known of the text.
ATEDM_MUST_CHECK atedm_status atedm_json_body_parse(const char *text, size_t size,
                                                    json_t **ret_value, atedm_error *err);

#endif
