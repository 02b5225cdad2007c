// Reads the JSON body of /generate into a request and names every wrong field.
#ifndef ATEDM_GENERATE_JSON_H
#define ATEDM_GENERATE_JSON_H

#include "core/request.h"

#include <jansson.h>
#include <stdbool.h>

// Reads a parsed body, which may be any JSON value. `png_wanted`: the client's Accept header
// prefers a PNG; this decides if the body has no response_format. `seed`: the seed if the body has
// none. Adds every wrong field to `errors`, each once; *ret_request is complete only if there are
// none. The only failure is ATEDM_ERR_NOMEM. Finish the request in either case.
ATEDM_MUST_CHECK atedm_status atedm_generate_json_read(
    const json_t *body, const atedm_request_limits *limits, const atedm_prune_spec *default_prune,
    bool png_wanted, uint64_t seed, atedm_request *ret_request, atedm_field_errors *errors);

// Finds the format of the answer that a body asks for, even if other fields of the body are wrong.
// False: this body cannot be answered in any format.
bool atedm_generate_json_format(const json_t *body, bool png_wanted,
                                atedm_response_format *ret_format);

// Whether an Accept header (NULL: absent) prefers image/png to application/json (RFC 9110, 12.5.1).
bool atedm_accept_prefers_png(const char *accept);

#endif
