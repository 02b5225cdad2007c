// Writes the member "pruning" of answers: see pick_json.h.
#include "server/pick_json.h"

#include "core/plan_json.h"

#include <math.h>

static json_t *pick_json(const atedm_pick *pick)
{
    const char *reason;
    if (isnan(pick->expected_s))
        reason = "no speed was measured yet";
    else if (pick->meets)
        reason = "the mildest plan that is expected in time, also if as much again comes meanwhile";
    else
        reason = "no plan down to the floor is expected in time if as much again comes meanwhile; "
                 "this is the floor";
    return json_pack("{s:f, s:o, s:s}", "objective_s", pick->objective_s, "expected_s",
                     isnan(pick->expected_s) ? json_null() : json_real(pick->expected_s), "reason",
                     reason);
}

json_t *atedm_pruning_json(const atedm_plan *plan, const atedm_request_cost *cost,
                           const atedm_pick *pick)
{
    json_t *value = atedm_plan_json(plan, cost);
    if (!pick->preset || json_object_set_new(value, "auto", pick_json(pick)) == 0)
        return value;
    json_decref(value);
    return NULL;
}
