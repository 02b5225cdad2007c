// Writes the member "pruning" of answers: the plan, and why the daemon chose it if it did.
#ifndef ATEDM_PICK_JSON_H
#define ATEDM_PICK_JSON_H

#include "core/flops.h"
#include "core/plan.h"
#include "server/valve.h"

#include <jansson.h>

// The object of atedm_plan_json, with the pick as its member "auto" if the daemon picked the preset
// (`pick->preset` is not NULL). The caller releases it. NULL: no memory.
json_t *atedm_pruning_json(const atedm_plan *plan, const atedm_request_cost *cost,
                           const atedm_pick *pick);

#endif
