// The options of `atedm request`: every field of POST /generate, in the daemon's order, whose
// limits and defaults are the daemon's own; where it is, and where pictures go.
#ifndef ATEDM_CLI_REQUEST_OPTIONS_H
#define ATEDM_CLI_REQUEST_OPTIONS_H

#include "cli/endpoint.h"

#include <jansson.h>
#include <stdbool.h>

#define ATEDM_REQUEST_PATIENCE_S 60
#define ATEDM_REQUEST_MAX_PATIENCE_S 1e6

typedef struct atedm_request_options {
    atedm_endpoint endpoint; // borrowed from argv and the environment, as is output
    json_t *fields;          // of the body: those that were given
    const char *output;
    double patience_s; // with a daemon that was there and cannot be reached
    bool json;
} atedm_request_options;

// Returns true where there is something to ask for, and the caller finishes the options; otherwise
// *ret_exit has the exit status.
bool atedm_request_options_parse(int argc, char **argv, atedm_request_options *ret_options,
                                 int *ret_exit);
void atedm_request_options_finish(atedm_request_options *options); // NULL is allowed

#endif
