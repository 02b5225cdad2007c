// An answer's "pruning": the plan, and why the daemon chose it where it did.
#ifndef ATEDM_PICK_JSON_H
#define ATEDM_PICK_JSON_H

#include "core/flops.h"
#include "core/plan.h"
#include "server/valve.h"

#include <jansson.h>

// As atedm_plan_json, with the pick as "auto" where there was one. NULL where there is no memory.
json_t *atedm_pruning_json(const atedm_plan *plan, const atedm_request_cost *cost,
                           const atedm_pick *pick);

#endif
