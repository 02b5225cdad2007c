// The JSON of /generate: a body read into a request with every wrong field named.
#ifndef ATEDM_GENERATE_JSON_H
#define ATEDM_GENERATE_JSON_H

#include "core/request.h"

#include <jansson.h>
#include <stdbool.h>

// Reads a parsed body (any JSON value). `png_wanted`: the client's Accept header prefers a PNG,
// which holds where the body has no response_format. `seed`: taken where the body has none. Every
// wrong field is added to `errors`, each once; *ret_request is complete only when there is none.
// ATEDM_ERR_NOMEM is the one failure. Finish the request in either case.
ATEDM_MUST_CHECK atedm_status atedm_generate_json_read(
    const json_t *body, const atedm_request_limits *limits, const atedm_prune_spec *default_prune,
    bool png_wanted, uint64_t seed, atedm_request *ret_request, atedm_field_errors *errors);

// The format of the answer that a body asks for, which may have other fields that are wrong. False:
// none that this body can be answered in.
bool atedm_generate_json_format(const json_t *body, bool png_wanted,
                                atedm_response_format *ret_format);

// Whether an Accept header (NULL: absent) prefers image/png to application/json (RFC 9110, 12.5.1).
bool atedm_accept_prefers_png(const char *accept);

#endif
