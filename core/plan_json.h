// Plans as JSON, as they are written: in answers, in the list of presets, in a picture's settings.
// prune_json.c reads what requests say of them. Each returns NULL where memory ran out.
#ifndef ATEDM_PLAN_JSON_H
#define ATEDM_PLAN_JSON_H

#include "core/flops.h"
#include "core/plan.h"

#include <jansson.h>

// An answer's "pruning": preset, ratio, mean share of the unpruned UNet's cost, phases. plan NULL:
// off.
json_t *atedm_plan_json(const atedm_plan *plan, const atedm_request_cost *cost);
// An answer's "flops".
json_t *atedm_cost_json(const atedm_request_cost *cost);
// A complete spec, field by field as a request has them; null where a field has no meaning.
json_t *atedm_prune_spec_json(const atedm_prune_spec *spec);
// The "pruning" of a request that gets this plan again, budgets solved. plan NULL: off.
json_t *atedm_plan_request_json(const atedm_plan *plan);

#endif
