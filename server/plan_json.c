// What answers say of plans: see plan_json.h.
#include "server/plan_json.h"

#include <math.h>
#include <string.h>

static json_t *number_or_null(double value)
{
    return isnan(value) ? json_null() : json_real(value);
}

static json_t *phases_json(const atedm_prune_spec *spec, double ratio)
{
    atedm_phase phases[ATEDM_MAX_PHASES];
    size_t n = atedm_prune_phases(spec, phases);
    json_t *list = json_array();
    for (size_t i = 0; i < n; i++) {
        double own = isnan(phases[i].ratio) ? ratio : phases[i].ratio;
        json_t *skip = json_array();
        for (size_t k = 0; k < phases[i].n_skip; k++)
            json_array_append_new(skip, json_string(phases[i].skip[k]));
        json_array_append_new(list, json_pack("{s:f, s:o, s:o}", "until", phases[i].until, "ratio",
                                              number_or_null(own), "skip", skip));
    }
    return list;
}

static json_t *pick_json(const atedm_pick *pick)
{
    json_t *reason;
    if (isnan(pick->expected_s))
        reason = json_string("no speed was measured yet");
    else if (pick->meets)
        reason =
            json_string("the mildest plan that is expected in time, also if as much again comes "
                        "meanwhile");
    else
        reason = json_string("no plan down to the floor is expected in time if as much again comes "
                             "meanwhile; this is the floor");
    return json_pack("{s:f, s:o, s:o}", "objective_s", pick->objective_s, "expected_s",
                     number_or_null(pick->expected_s), "reason", reason);
}

json_t *atedm_pruning_json(const atedm_plan *plan, const atedm_request_cost *cost,
                           const atedm_pick *pick)
{
    json_t *value;
    if (plan)
        value = json_pack("{s:s?, s:f, s:f, s:o}", "preset",
                          plan->spec.preset[0] ? plan->spec.preset : NULL, "ratio", plan->ratio,
                          "mean_unet_flops_ratio", cost->mean_unet_flops_ratio, "phases",
                          phases_json(&plan->spec, plan->ratio));
    else
        value = json_pack("{s:s, s:f, s:f, s:[]}", "preset", "off", "ratio", 0.0,
                          "mean_unet_flops_ratio", 1.0, "phases");
    if (value && pick->preset)
        json_object_set_new(value, "auto", pick_json(pick));
    return value;
}

static json_t *score_json(const atedm_prune_spec *spec)
{
    const char *map = atedm_score_map_names[spec->score_map];
    if (spec->score_map == ATEDM_SCORE_RANDOM)
        return json_pack("{s:s, s:n, s:n, s:n, s:n}", "map", map, "heads", "max_iterations",
                         "tolerance", "interval");
    return json_pack("{s:s, s:s, s:i, s:f, s:i}", "map", map, "heads",
                     spec->rank.heads == ATEDM_HEADS_RMS ? "rms" : "mean", "max_iterations",
                     spec->rank.max_iterations, "tolerance",
                     round((double)spec->rank.tolerance * 1e9) / 1e9, "interval",
                     spec->score_interval);
}

json_t *atedm_prune_spec_json(const atedm_prune_spec *spec)
{
    json_t *levels = json_array(), *layers = json_array();
    for (int i = 0; i < ATEDM_MAX_LEVELS; i++) {
        if (spec->skip_levels >> i & 1)
            json_array_append_new(levels, json_integer(i));
    }
    for (size_t i = 0; i < spec->n_prune_after; i++)
        json_array_append_new(layers, json_integer(spec->prune_after[i]));
    return json_pack(
        "{s:s?, s:o, s:o, s:s, s:o, s:o, s:o, s:o, s:o, s:s, s:s, s:s, s:b, s:s}", "preset",
        spec->preset[0] ? spec->preset : NULL, "ratio", number_or_null(spec->ratio), "flops_budget",
        number_or_null(spec->flops_budget), "schedule", spec->schedule, "tau",
        number_or_null(strcmp(spec->schedule, "dsap") == 0 ? spec->tau : (double)NAN), "phases",
        phases_json(spec, spec->ratio), "skip_levels", levels, "prune_after", layers, "score",
        score_json(spec), "selection", atedm_selection_names[spec->selection], "recovery",
        atedm_recovery_names[spec->recovery], "copy", atedm_copy_names[spec->copy],
        "proportional_attention", spec->proportional_attention, "masks",
        atedm_masks_names[spec->masks]);
}

json_t *atedm_cost_json(const atedm_request_cost *cost)
{
    return json_pack("{s:I, s:I, s:f, s:I, s:I, s:I, s:I}", "executed", (json_int_t)cost->executed,
                     "baseline", (json_int_t)cost->baseline, "saved_ratio", cost->saved_ratio,
                     "overhead", (json_int_t)cost->overhead, "text_encoder",
                     (json_int_t)cost->text_encoder, "unet", (json_int_t)cost->unet, "vae",
                     (json_int_t)cost->vae);
}
