// The options of `atedm bench serve` that are lists: see load_lists.h.
#include "cli/load_lists.h"

#include "cli/cli.h"
#include "core/base/utf8.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

void atedm_load_lists_finish(atedm_load_lists *lists)
{
    for (size_t i = 0; i < lists->n_prunings; i++)
        json_decref(lists->prunings[i]);
    lists->n_prunings = 0;
}

bool atedm_load_lists_add_prompt(atedm_load_lists *lists, const char *text)
{
    size_t length = strlen(text);
    if (!length || length > ATEDM_PROMPT_MAX || !atedm_utf8_is_valid(text, length) ||
        lists->n_prompts == ATEDM_LOAD_MAX_LIST)
        return false;
    lists->prompts[lists->n_prompts++] = text;
    return true;
}

bool atedm_load_lists_add_guidance(atedm_load_lists *lists, const char *text)
{
    double value;
    if (!atedm_cli_parse_real(text, &value) || value < 0 || value > ATEDM_GUIDANCE_MAX)
        return false;
    lists->guidance_scale = value;
    return true;
}

// Calls `add` for each value between commas.
typedef bool add_fn(atedm_load_lists *lists, const char *value);
#define MAX_VALUE 64 // bytes of a size or number, terminator included

static bool each(atedm_load_lists *lists, const char *text, add_fn *add)
{
    for (;;) {
        char value[MAX_VALUE];
        size_t length = strcspn(text, ",");
        if (length >= sizeof value)
            return false;
        memcpy(value, text, length);
        value[length] = '\0';
        if (!add(lists, value))
            return false;
        if (!text[length])
            return true;
        text += length + 1;
    }
}

static bool add_size(atedm_load_lists *lists, const char *value)
{
    if (lists->n_sizes == ATEDM_LOAD_MAX_LIST)
        return false;
    atedm_load_size *size = &lists->sizes[lists->n_sizes];
    if (!atedm_cli_parse_size(value, &size->width, &size->height))
        return false;
    lists->n_sizes++;
    return true;
}

static bool add_steps(atedm_load_lists *lists, const char *value)
{
    if (lists->n_steps == ATEDM_LOAD_MAX_LIST ||
        !atedm_cli_parse_int(value, 1, ATEDM_MAX_STEPS, &lists->steps[lists->n_steps]))
        return false;
    lists->n_steps++;
    return true;
}

bool atedm_load_lists_add_sizes(atedm_load_lists *lists, const char *text)
{
    return each(lists, text, add_size);
}

bool atedm_load_lists_add_steps(atedm_load_lists *lists, const char *text)
{
    return each(lists, text, add_steps);
}

// ---- prunings

// Bytes up to the next comma that is not within an object, an array or a string.
static size_t pruning_length(const char *text)
{
    int depth = 0;
    bool in_string = false;
    size_t i = 0;
    for (; text[i]; i++) {
        if (in_string) {
            if (text[i] == '\\' && text[i + 1])
                i++;
            else if (text[i] == '"')
                in_string = false;
        } else if (text[i] == '"') {
            in_string = true;
        } else if (text[i] == '{' || text[i] == '[') {
            depth++;
        } else if (text[i] == '}' || text[i] == ']') {
            depth--;
        } else if (text[i] == ',' && depth <= 0) {
            break;
        }
    }
    return i;
}

// Checks the value as the daemon will, and stores it as JSON.
static int add_pruning(atedm_load_lists *lists, const char *value)
{
    atedm_prune_spec spec;
    atedm_field_errors errors = {.count = 0};
    if (lists->n_prunings == ATEDM_LOAD_MAX_LIST)
        return atedm_cli_usage("bench serve", "--pruning: more than %d values",
                               ATEDM_LOAD_MAX_LIST);
    if (strcmp(value, "auto") != 0) // only a daemon knows it
        atedm_cli_parse_pruning(value, &spec, &errors);
    if (errors.count)
        return atedm_cli_field_errors("bench serve", &errors);
    json_t *pruning = *value == '{' ? json_loads(value, 0, NULL) : json_string(value);
    if (!pruning)
        return atedm_cli_failed("bench serve", &(atedm_error){"no memory for a pruning"});
    lists->prunings[lists->n_prunings++] = pruning;
    return 0;
}

int atedm_load_lists_add_prunings(atedm_load_lists *lists, const char *text)
{
    for (;;) {
        size_t length = pruning_length(text);
        char *value = strndup(text, length);
        int result = value ? add_pruning(lists, value)
                           : atedm_cli_failed("bench serve", &(atedm_error){"no memory"});
        free(value);
        if (result || !text[length])
            return result;
        text += length + 1;
    }
}

// ---- all of them

// Entry `number` of the cross product, in which prunings vary fastest.
static json_t *crossed(const atedm_load_lists *l, size_t number)
{
    size_t n_prunings = l->n_prunings ? l->n_prunings : 1;
    size_t n_steps = l->n_steps ? l->n_steps : 1, n_sizes = l->n_sizes ? l->n_sizes : 1;
    size_t pruning = number % n_prunings;
    size_t steps = number / n_prunings % n_steps;
    size_t size = number / n_prunings / n_steps % n_sizes;
    size_t prompt = number / n_prunings / n_steps / n_sizes;
    json_t *request = json_object();
    int failed = json_object_set_new(request, "prompt", json_string(l->prompts[prompt]));
    if (l->n_sizes) {
        failed |= json_object_set_new(request, "width", json_integer(l->sizes[size].width));
        failed |= json_object_set_new(request, "height", json_integer(l->sizes[size].height));
    }
    if (l->n_steps)
        failed |= json_object_set_new(request, "steps", json_integer(l->steps[steps]));
    if (!isnan(l->guidance_scale))
        failed |= json_object_set_new(request, "guidance_scale", json_real(l->guidance_scale));
    if (l->n_prunings)
        failed |= json_object_set(request, "pruning", l->prunings[pruning]);
    if (failed) {
        json_decref(request);
        return NULL;
    }
    return request;
}

atedm_status atedm_load_lists_cross(const atedm_load_lists *lists, atedm_load_mix *ret_mix,
                                    atedm_error *err)
{
    size_t n = lists->n_prompts;
    if (lists->n_sizes)
        n *= lists->n_sizes;
    if (lists->n_steps)
        n *= lists->n_steps;
    if (lists->n_prunings)
        n *= lists->n_prunings;
    atedm_load_mix mix = {.n = 0};
    for (size_t i = 0; i < n; i++) {
        atedm_status status = atedm_load_mix_add(&mix, 1, crossed(lists, i), err);
        if (status) {
            atedm_load_mix_finish(&mix);
            return status;
        }
    }
    *ret_mix = mix;
    return ATEDM_OK;
}
