// Reads the "pruning" value of a request: see request.h. Names every wrong field, none twice. The
// preset supplies fields that are left out.
#include "core/request.h"

#include <inttypes.h>
#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#define KEY_MAX 48   // bytes of "prune_after/0" with any index
#define LIST_MAX 128 // bytes of a list of names in a message
#define N_NAMES(list) (sizeof(list) / sizeof(list)[0])

// A JSON object that is being read: its JSON pointer, and where to add errors.
typedef struct scope {
    const json_t *object;
    char pointer[48]; // such as "/pruning/phases/15"
    atedm_field_errors *errors;
} scope;

static void wrong(const scope *s, const char *key, const char *format, ...) ATEDM_PRINTF(3, 4);

static void wrong(const scope *s, const char *key, const char *format, ...)
{
    char detail[sizeof s->errors->items[0].detail];
    va_list args;
    va_start(args, format);
    vsnprintf(detail, sizeof detail, format, args);
    va_end(args);
    char pointer[sizeof s->errors->items[0].pointer];
    snprintf(pointer, sizeof pointer, "%s/%s", s->pointer, key);
    atedm_field_errors_add(s->errors, pointer, "%s", detail);
}

static void refuse_unknown(const scope *s, const char *const *known, size_t n_known)
{
    const char *key = NULL;
    json_t *item = NULL;
    json_object_foreach((json_t *)s->object, key, item)
    {
        size_t i = 0;
        while (i < n_known && strcmp(key, known[i]) != 0)
            i++;
        if (i < n_known)
            continue;
        atedm_field_errors_add_unknown(s->errors, s->pointer, key);
    }
}

static bool has(const scope *s, const char *key)
{
    return json_object_get(s->object, key) != NULL;
}

// The readers below leave *ret_value alone if the field is absent or wrong.

// Reads a number within [min, max]; with `positive`, within (0, max].
static void read_real(const scope *s, const char *key, double min, double max, bool positive,
                      double *ret_value)
{
    const json_t *item = json_object_get(s->object, key);
    if (!item)
        return;
    if (!json_is_number(item)) {
        wrong(s, key, "is not a number");
        return;
    }
    double value = json_number_value(item);
    if (positive && !(value > 0 && value <= max))
        wrong(s, key, "is %.15g, not over 0 and up to %g", value, max);
    else if (!(value >= min && value <= max))
        wrong(s, key, "is %.15g, not within %g..%g", value, min, max);
    else
        *ret_value = value;
}

static bool check_int(const scope *s, const char *key, const json_t *item, int min, int max)
{
    if (!json_is_integer(item)) {
        wrong(s, key, "is not an integer");
        return false;
    }
    int64_t value = json_integer_value(item);
    if (value < min || value > max) {
        wrong(s, key, "is %" PRId64 ", not within %d..%d", value, min, max);
        return false;
    }
    return true;
}

// Writes "a", "b", "c"; cuts the list if it does not fit.
static void list_names(const char *const *names, size_t n_names, char ret_list[LIST_MAX])
{
    ret_list[0] = '\0';
    for (size_t i = 0, used = 0; i < n_names && used < LIST_MAX; i++)
        used +=
            (size_t)snprintf(ret_list + used, LIST_MAX - used, "%s\"%s\"", i ? ", " : "", names[i]);
}

// Reads one of `names`; *ret_place gets its index in the list.
static void read_name(const scope *s, const char *key, const char *const *names, size_t n_names,
                      int *ret_place)
{
    const json_t *item = json_object_get(s->object, key);
    if (!item)
        return;
    const char *name = json_string_value(item);
    for (size_t i = 0; name && i < n_names; i++) {
        if (strcmp(name, names[i]) == 0) {
            *ret_place = (int)i;
            return;
        }
    }
    char list[LIST_MAX];
    list_names(names, n_names, list);
    wrong(s, key, "is not one of %s", list);
}

// The array `key`; NULL if it is absent or wrong.
static const json_t *get_array(const scope *s, const char *key, size_t min, size_t max)
{
    const json_t *item = json_object_get(s->object, key);
    if (!item)
        return NULL;
    if (!json_is_array(item)) {
        wrong(s, key, "is not an array");
        return NULL;
    }
    size_t size = json_array_size(item);
    if (size < min || size > max) {
        wrong(s, key, "has %zu entries, not %zu..%zu", size, min, max);
        return NULL;
    }
    return item;
}

// ---- schedule

static void read_skip(const scope *s, atedm_phase *phase)
{
    const json_t *list = get_array(s, "skip", 0, ATEDM_MAX_PHASE_SKIPS);
    for (size_t i = 0; i < json_array_size(list); i++) {
        char key[KEY_MAX];
        snprintf(key, sizeof key, "skip/%zu", i);
        const char *name = json_string_value(json_array_get(list, i));
        if (!name)
            wrong(s, key, "is not a string");
        else if (!atedm_skip_is_valid(name))
            wrong(s, key, "\"%.32s\" is neither \"down.first\", \"up.last\" nor a block's name",
                  name);
        else
            snprintf(phase->skip[phase->n_skip++], ATEDM_BLOCK_NAME_MAX, "%s", name);
    }
}

static void read_phase(const scope *s, atedm_phase *phase)
{
    static const char *const known[] = {"until", "ratio", "skip"};
    refuse_unknown(s, known, N_NAMES(known));
    *phase = (atedm_phase){.until = NAN, .ratio = NAN};
    if (!has(s, "until"))
        wrong(s, "until", "is missing");
    read_real(s, "until", 0, 1, true, &phase->until);
    read_real(s, "ratio", 0, ATEDM_RATIO_MAX, false, &phase->ratio);
    read_skip(s, phase);
}

// Each phase must end later than the one before, and the last at 1. A phase with an invalid end
// (NAN) has been reported already.
static void check_order(const scope *s, const atedm_prune_spec *spec)
{
    for (size_t i = 0; i < spec->n_phases; i++) {
        char key[KEY_MAX];
        snprintf(key, sizeof key, "phases/%zu/until", i);
        double until = spec->phases[i].until;
        if (i > 0 && until <= spec->phases[i - 1].until)
            wrong(s, key, "is %.15g, not after the phase before it", until);
        else if (i + 1 == spec->n_phases && until < 1)
            wrong(s, key, "is %.15g, but the last phase ends at 1", until);
    }
}

static void read_phases(const scope *s, atedm_prune_spec *spec)
{
    const json_t *list = get_array(s, "phases", 1, ATEDM_MAX_PHASES);
    if (!list)
        return;
    spec->schedule = ATEDM_PRUNE_PHASES;
    spec->n_phases = json_array_size(list);
    for (size_t i = 0; i < spec->n_phases; i++) {
        scope phase = {.object = json_array_get(list, i), .errors = s->errors};
        snprintf(phase.pointer, sizeof phase.pointer, "%.24s/phases/%zu", s->pointer, i);
        spec->phases[i].until = NAN;
        if (json_is_object(phase.object)) {
            read_phase(&phase, &spec->phases[i]);
        } else {
            char key[KEY_MAX];
            snprintf(key, sizeof key, "phases/%zu", i);
            wrong(s, key, "is not an object");
        }
    }
    check_order(s, spec);
}

static bool uses_plan_ratio(const atedm_prune_spec *spec)
{
    if (spec->schedule != ATEDM_PRUNE_PHASES)
        return true;
    for (size_t i = 0; i < spec->n_phases; i++) {
        if (isnan(spec->phases[i].ratio))
            return true;
    }
    return false;
}

static void read_schedule(const scope *s, atedm_prune_spec *spec)
{
    if (has(s, "phases") && (has(s, "schedule") || has(s, "tau")))
        wrong(s, "phases", "excludes \"schedule\" and \"tau\"");
    read_phases(s, spec);

    int schedule = (int)spec->schedule;
    read_name(s, "schedule", atedm_prune_schedule_names, ATEDM_PRUNE_PHASES, &schedule);
    spec->schedule = (atedm_prune_schedule)schedule;
    read_real(s, "tau", 0, 1, false, &spec->tau);
    if (has(s, "tau") && spec->schedule == ATEDM_PRUNE_UNIFORM)
        wrong(s, "tau", "has no meaning with the schedule \"uniform\"");
}

// ---- the rest of the object

static void read_amount(const scope *s, atedm_prune_spec *spec)
{
    read_real(s, "ratio", 0, ATEDM_RATIO_MAX, false, &spec->ratio);
    read_real(s, "flops_budget", 0, 1, true, &spec->flops_budget);
    if (!has(s, "flops_budget"))
        return;
    if (has(s, "ratio"))
        wrong(s, "flops_budget", "excludes \"ratio\"");
    else if (!uses_plan_ratio(spec))
        wrong(s, "flops_budget", "needs a phase without a ratio of its own");
    spec->ratio = NAN;
}

static void read_lists(const scope *s, atedm_prune_spec *spec)
{
    const json_t *levels = get_array(s, "skip_levels", 0, ATEDM_MAX_LEVELS);
    if (levels)
        spec->skip_levels = 0;
    for (size_t i = 0; i < json_array_size(levels); i++) {
        const json_t *item = json_array_get(levels, i);
        char key[KEY_MAX];
        snprintf(key, sizeof key, "skip_levels/%zu", i);
        if (check_int(s, key, item, 0, ATEDM_MAX_LEVELS - 1))
            spec->skip_levels |= 1U << json_integer_value(item);
    }
    const json_t *layers = get_array(s, "prune_after", 1, ATEDM_MAX_PRUNE_LAYERS);
    if (layers)
        spec->n_prune_after = json_array_size(layers);
    int last = -1;
    for (size_t i = 0; i < json_array_size(layers); i++) {
        const json_t *item = json_array_get(layers, i);
        char key[KEY_MAX];
        snprintf(key, sizeof key, "prune_after/%zu", i);
        if (!check_int(s, key, item, 0, ATEDM_PRUNE_LAYER_MAX))
            continue;
        int layer = (int)json_integer_value(item);
        if (layer <= last)
            wrong(s, key, "is %d, not after %d", layer, last);
        last = layer;
        spec->prune_after[i] = layer;
    }
}

// Reads the parameters of the iterations over an attention map.
static void read_rank(const scope *s, atedm_rank_params *rank)
{
    static const char *const heads[] = {"rms", "mean"};
    int place = rank->heads == ATEDM_HEADS_MEAN;
    read_name(s, "heads", heads, N_NAMES(heads), &place);
    rank->heads = place == 1 ? ATEDM_HEADS_MEAN : ATEDM_HEADS_RMS;
    const json_t *iterations = json_object_get(s->object, "max_iterations");
    if (iterations && check_int(s, "max_iterations", iterations, 1, ATEDM_MAX_RANK_ITERATIONS))
        rank->max_iterations = (int)json_integer_value(iterations);
    double tolerance = (double)rank->tolerance;
    read_real(s, "tolerance", 0, ATEDM_TOLERANCE_MAX, false, &tolerance);
    rank->tolerance = (float)tolerance;
}

static void read_interval(const scope *s, atedm_prune_spec *spec)
{
    static const char key[] = "interval";
    const json_t *item = json_object_get(s->object, key);
    if (!item || !check_int(s, key, item, 1, ATEDM_MAX_SCORE_INTERVAL))
        return;
    spec->score_interval = (int)json_integer_value(item);
    if (spec->score_interval > 1 && spec->n_prune_after > 1)
        wrong(s, key, "is %d, but must be 1 with several layers in \"prune_after\"",
              spec->score_interval);
}

static void read_score(const scope *outer, atedm_prune_spec *spec)
{
    static const char *const known[] = {"map", "heads", "max_iterations", "tolerance", "interval"};
    scope s = {.object = json_object_get(outer->object, "score"), .errors = outer->errors};
    if (!s.object)
        return;
    if (!json_is_object(s.object)) {
        wrong(outer, "score", "is not an object");
        return;
    }
    snprintf(s.pointer, sizeof s.pointer, "%.24s/score", outer->pointer);
    refuse_unknown(&s, known, N_NAMES(known));
    int place = (int)spec->score_map;
    read_name(&s, "map", atedm_score_map_names, ATEDM_N_SCORE_MAPS, &place);
    spec->score_map = (atedm_score_map)place;
    if (spec->score_map != ATEDM_SCORE_RANDOM) {
        read_rank(&s, &spec->rank);
        read_interval(&s, spec);
        return;
    }
    for (size_t i = 1; i < N_NAMES(known); i++)
        if (has(&s, known[i]))
            wrong(&s, known[i], "has no meaning with the map \"random\"");
}

static void read_proportional_attention(const scope *s, atedm_prune_spec *spec)
{
    static const char key[] = "proportional_attention";
    const json_t *item = json_object_get(s->object, key);
    if (item && !json_is_boolean(item))
        wrong(s, key, "is not true or false");
    else if (item)
        spec->proportional_attention = json_is_true(item);
}

static void wrong_preset(atedm_field_errors *errors, const char *pointer, const char *name)
{
    char list[LIST_MAX];
    size_t count;
    const char *const *names = atedm_prune_preset_names(&count);
    list_names(names, count, list);
    atedm_field_errors_add(errors, pointer, "\"%.32s\" is not a preset: one of %s", name, list);
}

// Sets every field to the preset's value; the fields of the request then replace some.
static void read_preset(const scope *s, atedm_prune_spec *spec)
{
    if (atedm_prune_preset("at-edm", spec) != ATEDM_OK)
        return; // cannot happen: "at-edm" is built in
    spec->preset[0] = '\0';
    const json_t *item = json_object_get(s->object, "preset");
    if (!item)
        return;
    const char *name = json_string_value(item);
    if (!name) {
        wrong(s, "preset", "is not a string");
        return;
    }
    if (atedm_prune_preset(name, spec) != ATEDM_OK) {
        char pointer[sizeof s->pointer + sizeof "/preset"];
        snprintf(pointer, sizeof pointer, "%s/preset", s->pointer);
        wrong_preset(s->errors, pointer, name);
    } else if (!spec->enabled && json_object_size(s->object) > 1) {
        wrong(s, "preset", "\"off\" excludes every other field");
    }
}

static void read_object(const scope *s, atedm_prune_spec *spec)
{
    static const char *const known[] = {"preset",
                                        "ratio",
                                        "flops_budget",
                                        "schedule",
                                        "tau",
                                        "phases",
                                        "skip_levels",
                                        "prune_after",
                                        "score",
                                        "selection",
                                        "recovery",
                                        "copy",
                                        "proportional_attention",
                                        "masks"};
    refuse_unknown(s, known, N_NAMES(known));
    read_preset(s, spec);
    read_schedule(s, spec);
    read_amount(s, spec);
    read_lists(s, spec);
    read_score(s, spec);
    int selection = (int)spec->selection;
    int recovery = (int)spec->recovery, copy = (int)spec->copy, masks = (int)spec->masks;
    read_name(s, "selection", atedm_selection_names, ATEDM_N_SELECTIONS, &selection);
    read_name(s, "recovery", atedm_recovery_names, ATEDM_N_RECOVERIES, &recovery);
    read_name(s, "copy", atedm_copy_names, ATEDM_N_COPIES, &copy);
    read_proportional_attention(s, spec);
    read_name(s, "masks", atedm_masks_names, ATEDM_N_MASKS, &masks);
    spec->selection = (atedm_selection)selection;
    spec->recovery = (atedm_recovery)recovery;
    spec->copy = (atedm_copy_kind)copy;
    spec->masks = (atedm_masks)masks;
}

void atedm_prune_spec_from_json(const struct json_t *value, const char *pointer,
                                atedm_prune_spec *ret_spec, atedm_field_errors *errors)
{
    if (json_is_string(value)) {
        if (atedm_prune_preset(json_string_value(value), ret_spec))
            wrong_preset(errors, pointer, json_string_value(value));
        return;
    }
    if (!json_is_object(value)) {
        atedm_field_errors_add(errors, pointer, "is neither a preset's name nor an object");
        return;
    }
    size_t before = errors->count + errors->more;
    scope s = {.object = value, .errors = errors};
    snprintf(s.pointer, sizeof s.pointer, "%s", pointer);
    atedm_prune_spec spec;
    read_object(&s, &spec);
    if (errors->count + errors->more == before)
        *ret_spec = spec;
}
