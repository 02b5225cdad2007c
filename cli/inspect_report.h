// The report of `atedm inspect`, and writing it as text or JSON.
#ifndef ATEDM_CLI_INSPECT_REPORT_H
#define ATEDM_CLI_INSPECT_REPORT_H

#include "cli/inspect_model.h"
#include "core/flops.h"
#include "core/model.h"
#include "core/plan.h"
#include "core/request.h"

#include <jansson.h>

#define ATEDM_INSPECT_MAX_PLANS 16

// Consecutive steps of a plan with the same ratios.
typedef struct atedm_inspect_phase {
    int first_step, steps;
    const float *rho; // [n_blocks], the plan's
    atedm_op_counts counts;
} atedm_inspect_phase;

typedef struct atedm_inspect_plan {
    const char *name; // preset, or "given"
    atedm_plan *plan; // owned
    size_t n_phases;
    atedm_inspect_phase phases[ATEDM_MAX_PHASES];
    double mean_flops, mean_overhead_flops; // of a step and sample; mean_flops: no overhead
    double share;                           // mean_flops over the unpruned UNet's
} atedm_inspect_plan;

typedef struct atedm_inspect_report {
    atedm_model_config config;
    bool from_files;
    atedm_inspect_component components[ATEDM_INSPECT_COMPONENTS];
    atedm_request request; // one guided image
    atedm_unet_cost unet;
    atedm_op_counts unpruned;
    size_t n_plans;
    atedm_inspect_plan plans[ATEDM_INSPECT_MAX_PLANS];
    size_t chosen; // the request's plan
    atedm_request_cost cost;
    atedm_inspect_scratch scratch[2]; // of atedm_inspect_scratch_dtypes, for the request
} atedm_inspect_report;

extern const atedm_dtype atedm_inspect_scratch_dtypes[2];

// Useful multiply-accumulates, that is, without overhead.
uint64_t atedm_inspect_macs(const atedm_op_counts *counts);
void atedm_inspect_print(const atedm_inspect_report *report);
json_t *atedm_inspect_json(const atedm_inspect_report *report); // NULL if memory is exhausted

#endif
