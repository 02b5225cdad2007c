// Writes plans as JSON: for answers, the list of presets, and a picture's settings. prune_json.c
// reads the "pruning" of a request. Each function returns a new reference, or NULL if memory ran
// out.
#ifndef ATEDM_PLAN_JSON_H
#define ATEDM_PLAN_JSON_H

#include "core/flops.h"
#include "core/plan.h"

#include <jansson.h>

// An answer's "pruning": preset, ratio, mean share of the unpruned UNet's cost, phases. plan NULL:
// pruning off.
json_t *atedm_plan_json(const atedm_plan *plan, const atedm_request_cost *cost);
// An answer's "flops".
json_t *atedm_cost_json(const atedm_request_cost *cost);
// A complete spec with the fields that requests have; null for a field that has no meaning.
json_t *atedm_prune_spec_json(const atedm_prune_spec *spec);
// The "pruning" that makes a request get this plan again; a budget is written as the ratio it was
// solved to. plan NULL: off.
json_t *atedm_plan_request_json(const atedm_plan *plan);

#endif
