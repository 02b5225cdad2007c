// The report of `atedm generate`: a few lines of text, or JSON with the names of the daemon's
// answer.
#ifndef ATEDM_CLI_GENERATE_REPORT_H
#define ATEDM_CLI_GENERATE_REPORT_H

#include "core/model.h"
#include "core/pipeline.h"
#include "core/request.h"

#include <stdbool.h>

typedef struct atedm_generate_report {
    const atedm_model *model;
    const atedm_request *request;
    const atedm_generation *generation;
    const atedm_timing *timing;
    char *const *files;     // [num_images]
    double load_s, total_s; // seconds to load the model, and of the whole run
} atedm_generate_report;

// Prints to standard output; returns the exit status.
int atedm_generate_report_print(const atedm_generate_report *report, bool json);

#endif
