// Plans as JSON: see plan_json.h. Each function returns NULL if memory ran out. json_pack accepts
// such a NULL and then returns NULL itself.
#include "core/plan_json.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

// The double with the shortest decimal text that reads back as `value`: 0.001 for 0.001f.
static double plain_double(float value)
{
    char text[32];
    for (int digits = 1; digits <= 9; digits++) {
        snprintf(text, sizeof text, "%.*g", digits, (double)value);
        if (strtof(text, NULL) == value)
            break;
    }
    return strtod(text, NULL);
}

// Appends the item and takes ownership of it; false if either is NULL.
static bool add(json_t *list, json_t *item)
{
    return json_array_append_new(list, item) == 0;
}

static bool set(json_t *object, const char *key, json_t *item)
{
    return json_object_set_new(object, key, item) == 0;
}

// Returns the value if it is complete; else frees it and returns NULL.
static json_t *whole(json_t *value, bool complete)
{
    if (complete)
        return value;
    json_decref(value);
    return NULL;
}

static json_t *number_or_null(double value)
{
    return isnan(value) ? json_null() : json_real(value);
}

// ---- phases

static json_t *skip_json(const atedm_phase *phase)
{
    json_t *list = json_array();
    bool complete = list != NULL;
    for (size_t i = 0; i < phase->n_skip && complete; i++)
        complete = add(list, json_string(phase->skip[i]));
    return whole(list, complete);
}

// The phases that the schedule amounts to, each with its ratio. `ratio` is the plan's; NAN if a
// budget has not been solved yet.
static json_t *phases_json(const atedm_prune_spec *spec, double ratio)
{
    atedm_phase phases[ATEDM_MAX_PHASES];
    size_t n = atedm_prune_phases(spec, phases);
    json_t *list = json_array();
    bool complete = list != NULL;
    for (size_t i = 0; i < n && complete; i++) {
        double own = isnan(phases[i].ratio) ? ratio : phases[i].ratio;
        complete = add(list, json_pack("{s:f, s:o, s:o}", "until", phases[i].until, "ratio",
                                       number_or_null(own), "skip", skip_json(&phases[i])));
    }
    return whole(list, complete);
}

// The phases as the request gave them, with the ratios that it gave.
static json_t *own_phases_json(const atedm_prune_spec *spec)
{
    json_t *list = json_array();
    bool complete = list != NULL;
    for (size_t i = 0; i < spec->n_phases && complete; i++) {
        const atedm_phase *phase = &spec->phases[i];
        json_t *item = json_pack("{s:f, s:o}", "until", phase->until, "skip", skip_json(phase));
        complete = isnan(phase->ratio) || set(item, "ratio", json_real(phase->ratio));
        complete = add(list, item) && complete;
    }
    return whole(list, complete);
}

// ---- the other fields of a spec

static json_t *levels_json(const atedm_prune_spec *spec)
{
    json_t *list = json_array();
    bool complete = list != NULL;
    for (int level = 0; level < ATEDM_MAX_LEVELS && complete; level++)
        complete = !(spec->skip_levels >> level & 1) || add(list, json_integer(level));
    return whole(list, complete);
}

static json_t *layers_json(const atedm_prune_spec *spec)
{
    json_t *list = json_array();
    bool complete = list != NULL;
    for (size_t i = 0; i < spec->n_prune_after && complete; i++)
        complete = add(list, json_integer(spec->prune_after[i]));
    return whole(list, complete);
}

static json_t *score_json(const atedm_prune_spec *spec)
{
    return json_pack("{s:s, s:s, s:i, s:f, s:i}", "map", atedm_score_map_names[spec->score_map],
                     "heads", spec->rank.heads == ATEDM_HEADS_RMS ? "rms" : "mean",
                     "max_iterations", spec->rank.max_iterations, "tolerance",
                     plain_double(spec->rank.tolerance), "interval", spec->score_interval);
}

// Adds the fields that both forms of a spec share, and takes ownership of `score`. False if `score`
// or the object is NULL, or memory ran out.
static bool set_common(json_t *object, const atedm_prune_spec *spec, json_t *score)
{
    json_t *fields = json_pack(
        "{s:o, s:o, s:o, s:s, s:s, s:s, s:b, s:s}", "skip_levels", levels_json(spec), "prune_after",
        layers_json(spec), "score", score, "selection", atedm_selection_names[spec->selection],
        "recovery", atedm_recovery_names[spec->recovery], "copy", atedm_copy_names[spec->copy],
        "proportional_attention", spec->proportional_attention, "masks",
        atedm_masks_names[spec->masks]);
    bool complete = fields && json_object_update(object, fields) == 0;
    json_decref(fields);
    return complete;
}

// ---- whole values

json_t *atedm_prune_spec_json(const atedm_prune_spec *spec)
{
    double tau = spec->schedule == ATEDM_PRUNE_DSAP ? spec->tau : (double)NAN;
    json_t *score =
        spec->score_map == ATEDM_SCORE_RANDOM
            ? json_pack("{s:s, s:n, s:n, s:n, s:n}", "map", atedm_score_map_names[spec->score_map],
                        "heads", "max_iterations", "tolerance", "interval")
            : score_json(spec);
    json_t *value = json_pack(
        "{s:s?, s:o, s:o, s:s, s:o, s:o}", "preset", spec->preset[0] ? spec->preset : NULL, "ratio",
        number_or_null(spec->ratio), "flops_budget", number_or_null(spec->flops_budget), "schedule",
        atedm_prune_schedule_names[spec->schedule], "tau", number_or_null(tau), "phases",
        phases_json(spec, spec->ratio));
    return whole(value, set_common(value, spec, score));
}

json_t *atedm_plan_json(const atedm_plan *plan, const atedm_request_cost *cost)
{
    if (!plan)
        return json_pack("{s:s, s:f, s:f, s:[]}", "preset", "off", "ratio", 0.0,
                         "mean_unet_flops_ratio", 1.0, "phases");
    return json_pack("{s:s?, s:f, s:f, s:o}", "preset",
                     plan->spec.preset[0] ? plan->spec.preset : NULL, "ratio", plan->ratio,
                     "mean_unet_flops_ratio", cost->mean_unet_flops_ratio, "phases",
                     phases_json(&plan->spec, plan->ratio));
}

static bool set_schedule(json_t *pruning, const atedm_prune_spec *spec)
{
    if (spec->schedule == ATEDM_PRUNE_PHASES)
        return set(pruning, "phases", own_phases_json(spec));
    return set(pruning, "schedule", json_string(atedm_prune_schedule_names[spec->schedule])) &&
           (spec->schedule != ATEDM_PRUNE_DSAP || set(pruning, "tau", json_real(spec->tau)));
}

json_t *atedm_plan_request_json(const atedm_plan *plan)
{
    if (!plan)
        return json_string("off");
    const atedm_prune_spec *spec = &plan->spec;
    // A request must not have fields that are meaningless with its map, so they are left out.
    json_t *score = spec->score_map == ATEDM_SCORE_RANDOM
                        ? json_pack("{s:s}", "map", atedm_score_map_names[spec->score_map])
                        : score_json(spec);
    json_t *pruning = json_pack("{s:f}", "ratio", plan->ratio);
    bool complete = set_common(pruning, spec, score) && set_schedule(pruning, spec) &&
                    (!spec->preset[0] || set(pruning, "preset", json_string(spec->preset)));
    return whole(pruning, complete);
}

json_t *atedm_cost_json(const atedm_request_cost *cost)
{
    return json_pack("{s:I, s:I, s:f, s:I, s:I, s:I, s:I}", "executed", (json_int_t)cost->executed,
                     "baseline", (json_int_t)cost->baseline, "saved_ratio", cost->saved_ratio,
                     "overhead", (json_int_t)cost->overhead, "text_encoder",
                     (json_int_t)cost->text_encoder, "unet", (json_int_t)cost->unet, "vae",
                     (json_int_t)cost->vae);
}
