// Parses a request's body as JSON, and refuses whatever the rest of the daemon could misread.
#ifndef ATEDM_JSON_BODY_H
#define ATEDM_JSON_BODY_H

#include "core/base/status.h"

#include <jansson.h>

// Most levels of nested arrays and objects. api.md needs 4; jansson alone would allow 2048.
#define ATEDM_JSON_DEPTH_MAX 16

// Call it once, before any body is parsed. By itself jansson does not distinguish want of memory
// from a wrong text.
void atedm_json_body_prepare(void);

// Parses any JSON value; json_decref the result. The message of a refusal names the place. Refused
// are: text that is not UTF-8 or not JSON, nesting beyond the limit, a duplicate key in an object,
// a NUL in a string, and a number that a double cannot hold. An integer beyond 64 bits becomes a
// real, so that the range check can name its field. ATEDM_ERR_NOMEM says nothing about the text.
ATEDM_MUST_CHECK atedm_status atedm_json_body_parse(const char *text, size_t size,
                                                    json_t **ret_value, atedm_error *err);

#endif
