// The interface described for machines: openapi.json, which is built in, with what only the running
// daemon knows.
#ifndef ATEDM_OPENAPI_H
#define ATEDM_OPENAPI_H

#include "config/config.h"
#include "core/request.h"

#include <jansson.h>

// The file's bytes, as the build makes them.
extern const unsigned char atedm_openapi_text[];
extern const size_t atedm_openapi_text_size;

// `text` with the version, limits, defaults, names and keys of a daemon that has these settings.
// What is to be filled in has to be there already: NULL where it is not, where the text is not
// JSON, or where there is no memory.
json_t *atedm_openapi_json(const unsigned char *text, size_t size, const atedm_config *config,
                           const atedm_request_limits *limits);

#endif
