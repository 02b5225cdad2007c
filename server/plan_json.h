// What answers say of plans: how is pruned, why that was chosen, and what it costs.
#ifndef ATEDM_PLAN_JSON_H
#define ATEDM_PLAN_JSON_H

#include "core/flops.h"
#include "core/plan.h"
#include "server/valve.h"

#include <jansson.h>

// The answer's "pruning": preset, ratio, mean share of the unpruned UNet's cost, phases. plan NULL:
// off. `pick`: why the daemon chose it, where it did. NULL where there is no memory, as for the
// following.
json_t *atedm_pruning_json(const atedm_plan *plan, const atedm_request_cost *cost,
                           const atedm_pick *pick);
// A complete spec, field by field as a request has them.
json_t *atedm_prune_spec_json(const atedm_prune_spec *spec);
// The answer's "flops", from the analytic cost.
json_t *atedm_cost_json(const atedm_request_cost *cost);

#endif
