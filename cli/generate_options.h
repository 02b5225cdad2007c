// The options of `atedm generate`: every field of POST /generate that makes sense in one process
// (response_format and priority do not), and the command's inputs and outputs.
#ifndef ATEDM_CLI_GENERATE_OPTIONS_H
#define ATEDM_CLI_GENERATE_OPTIONS_H

#include "core/model.h"
#include "core/request.h"

#include <stdbool.h>

typedef enum atedm_generate_option {
    ATEDM_GENERATE_MODEL,
    ATEDM_GENERATE_OUTPUT,
    ATEDM_GENERATE_PROMPT,
    ATEDM_GENERATE_NEGATIVE_PROMPT,
    ATEDM_GENERATE_WIDTH,
    ATEDM_GENERATE_HEIGHT,
    ATEDM_GENERATE_STEPS,
    ATEDM_GENERATE_GUIDANCE_SCALE,
    ATEDM_GENERATE_SEED,
    ATEDM_GENERATE_NUM_IMAGES,
    ATEDM_GENERATE_SAMPLER,
    ATEDM_GENERATE_PRUNING,
    ATEDM_GENERATE_DEADLINE_S,
    ATEDM_GENERATE_BACKEND,
    ATEDM_GENERATE_DTYPE,
    ATEDM_GENERATE_DUMP,
    ATEDM_GENERATE_LATENTS,
    ATEDM_GENERATE_N_VALUES,
} atedm_generate_option;

typedef struct atedm_generate_options {
    const char *values[ATEDM_GENERATE_N_VALUES]; // borrowed from argv; NULL: not given
    bool json;
} atedm_generate_options;

// Returns true if there is something to generate. Otherwise *ret_exit is the exit status: help or
// version was shown, or a mistake was reported.
bool atedm_generate_options_parse(int argc, char **argv, atedm_generate_options *ret_options,
                                  int *ret_exit);

// Makes the request of the options for a model, with the daemon's defaults. Mistakes are added to
// `errors`. The caller finishes the request in any case.
void atedm_generate_options_request(const atedm_generate_options *options,
                                    const atedm_model_config *config, atedm_request *ret_request,
                                    atedm_field_errors *errors);

#endif
