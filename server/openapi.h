// The description of the interface for programs: openapi.json, which is built into the daemon, with
// the values that only the running daemon knows.
#ifndef ATEDM_OPENAPI_H
#define ATEDM_OPENAPI_H

#include "config/config.h"
#include "core/request.h"

#include <jansson.h>

// The file's bytes, as the build makes them.
extern const unsigned char atedm_openapi_text[];
extern const size_t atedm_openapi_text_size;

// The document in `text`, filled in with the version, limits, defaults, names and key schemes of a
// daemon with these settings. The caller releases it. `text` must already have each place that is
// filled in. NULL if it lacks one, if it is not JSON, or if there is no memory.
json_t *atedm_openapi_json(const unsigned char *text, size_t size, const atedm_config *config,
                           const atedm_request_limits *limits);

#endif
