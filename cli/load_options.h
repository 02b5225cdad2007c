// The options of `atedm bench serve`.
#ifndef ATEDM_CLI_LOAD_OPTIONS_H
#define ATEDM_CLI_LOAD_OPTIONS_H

#include "cli/load_mix.h"
#include "cli/load_run.h"

#include <stdbool.h>

#define ATEDM_LOAD_MAX_RATE 1e5    // requests/s
#define ATEDM_LOAD_MAX_SECONDS 1e6 // of anything

typedef struct atedm_load_options {
    atedm_load_plan plan; // its pointers are into this structure
    atedm_load_mix mix;
    char url[ATEDM_ENDPOINT_MAX_URL];
    const char *output; // JSON file; NULL: none
    const char *plot;   // SVG file; NULL: none
    bool json, fail_on_errors;
} atedm_load_options;

// Returns true if there is a load to run; the caller then finishes the options. Otherwise *ret_exit
// has the exit status.
bool atedm_load_options_parse(int argc, char **argv, atedm_load_options *ret_options,
                              int *ret_exit);
void atedm_load_options_finish(atedm_load_options *options); // NULL is allowed

#endif
