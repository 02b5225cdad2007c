// The options of `atedm request`: every field of POST /generate, in the daemon's order; the
// daemon's address; and where pictures go. The daemon itself supplies limits and defaults of the
// fields.
#ifndef ATEDM_CLI_REQUEST_OPTIONS_H
#define ATEDM_CLI_REQUEST_OPTIONS_H

#include "cli/endpoint.h"

#include <jansson.h>
#include <stdbool.h>

#define ATEDM_REQUEST_PATIENCE_S 60      // default
#define ATEDM_REQUEST_MAX_PATIENCE_S 1e6 // limit

typedef struct atedm_request_options {
    atedm_endpoint endpoint; // borrowed from argv and the environment
    json_t *fields;          // owned; the fields of the body that were given
    const char *output;      // borrowed from argv
    double patience_s;       // how long to try to reach a daemon that has been there before
    bool json;
} atedm_request_options;

// Returns true if there is something to request; the caller then finishes the options. Otherwise
// *ret_exit is the exit status.
bool atedm_request_options_parse(int argc, char **argv, atedm_request_options *ret_options,
                                 int *ret_exit);
void atedm_request_options_finish(atedm_request_options *options); // NULL is allowed

#endif
