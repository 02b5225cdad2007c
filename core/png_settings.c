// The settings that a PNG carries: see png_settings.h.
#include "core/png_settings.h"

#include "core/png.h"
#include "core/sampler.h"

#include <inttypes.h>
#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define PARAMETERS_MAX (4u * ATEDM_PROMPT_MAX + 16384) // bytes of the `parameters` text

// What both texts are made from.
typedef struct source {
    const atedm_request *request;
    const atedm_plan *plan; // NULL: pruning is off
    uint64_t seed;
    const char *model, *dtype, *backend;
} source;

// The shortest text that reads back as the same number.
static const char *number_text(double value, char buffer[32])
{
    for (int digits = 1; digits <= 17; digits++) {
        snprintf(buffer, 32, "%.*g", digits, value);
        if (strtod(buffer, NULL) == value)
            break;
    }
    return buffer;
}

// The number whose shortest text is that of the float: 0.001 for 0.001f.
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

// ---- AUTOMATIC1111's text

static const char *sampler_title(const char *name)
{
    const atedm_sampler *sampler = atedm_sampler_find(name);
    return sampler ? sampler->title : name;
}

// A value with a comma, colon or line end stands in quotes, as a JSON string.
static atedm_status append_value(atedm_buffer *text, const char *key, const char *value)
{
    if (!strpbrk(value, ",:\n\""))
        return atedm_buffer_printf(text, ", %s: %s", key, value);
    json_t *string = json_string(value);
    char *quoted = string ? json_dumps(string, JSON_ENCODE_ANY) : NULL;
    json_decref(string);
    if (!quoted)
        return ATEDM_ERR_INVALID;
    atedm_status status = atedm_buffer_printf(text, ", %s: %s", key, quoted);
    free(quoted);
    return status;
}

static atedm_status append_pruning(atedm_buffer *text, const atedm_plan *plan)
{
    char number[32];
    const atedm_prune_spec *spec = &plan->spec;
    atedm_status status =
        append_value(text, "AT-EDM preset", spec->preset[0] ? spec->preset : "none");
    if (!status)
        status = append_value(text, "AT-EDM ratio", number_text(plan->ratio, number));
    if (!status)
        status = append_value(text, "AT-EDM schedule", spec->schedule);
    if (!status && strcmp(spec->schedule, "dsap") == 0)
        status = append_value(text, "AT-EDM tau", number_text(spec->tau, number));
    return status;
}

static atedm_status append_parameters(atedm_buffer *text, const source *s)
{
    char guidance[32];
    const atedm_request *r = s->request;
    atedm_status status = atedm_buffer_printf(text, "%s\n", r->prompt);
    if (!status && r->negative_prompt && r->negative_prompt[0])
        status = atedm_buffer_printf(text, "Negative prompt: %s\n", r->negative_prompt);
    if (!status)
        status = atedm_buffer_printf(
            text,
            "Steps: %d, Sampler: %s, CFG scale: %s, Seed: %" PRIu64 ", Size: %" PRId64 "x%" PRId64,
            r->steps, sampler_title(r->sampler), number_text(r->guidance_scale, guidance), s->seed,
            r->width, r->height);
    if (!status)
        status = append_value(text, "Model", s->model);
    if (!status && s->plan)
        status = append_pruning(text, s->plan);
    if (!status)
        status = append_value(text, "Version", "atedm " ATEDM_VERSION);
    return status;
}

// ---- JSON. Each function returns NULL where memory ran out; json_pack passes that on.

// Appends, taking the item; false where either is NULL.
static bool add(json_t *list, json_t *item)
{
    return json_array_append_new(list, item) == 0;
}

static bool set(json_t *object, const char *key, json_t *item)
{
    return json_object_set_new(object, key, item) == 0;
}

// The value where it is whole, else NULL.
static json_t *whole(json_t *value, bool complete)
{
    if (complete)
        return value;
    json_decref(value);
    return NULL;
}

static json_t *skip_json(const atedm_phase *phase)
{
    json_t *list = json_array();
    bool complete = list != NULL;
    for (size_t i = 0; i < phase->n_skip && complete; i++)
        complete = add(list, json_string(phase->skip[i]));
    return whole(list, complete);
}

static json_t *phases_json(const atedm_prune_spec *spec)
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

static bool set_schedule(json_t *pruning, const atedm_prune_spec *spec)
{
    if (strcmp(spec->schedule, "phases") == 0)
        return set(pruning, "phases", phases_json(spec));
    return set(pruning, "schedule", json_string(spec->schedule)) &&
           (strcmp(spec->schedule, "dsap") != 0 || set(pruning, "tau", json_real(spec->tau)));
}

// What has no meaning with the map is left out: requests may not have it then.
static json_t *score_json(const atedm_prune_spec *spec)
{
    const char *map = atedm_score_map_names[spec->score_map];
    if (spec->score_map == ATEDM_SCORE_RANDOM)
        return json_pack("{s:s}", "map", map);
    return json_pack("{s:s, s:s, s:i, s:f, s:i}", "map", map, "heads",
                     spec->rank.heads == ATEDM_HEADS_MEAN ? "mean" : "rms", "max_iterations",
                     spec->rank.max_iterations, "tolerance", plain_double(spec->rank.tolerance),
                     "interval", spec->score_interval);
}

static json_t *pruning_json(const atedm_plan *plan)
{
    if (!plan)
        return json_string("off");
    const atedm_prune_spec *spec = &plan->spec;
    json_t *pruning = json_pack(
        "{s:f, s:o, s:o, s:o, s:s, s:s, s:s, s:b, s:s}", "ratio", plan->ratio, "skip_levels",
        levels_json(spec), "prune_after", layers_json(spec), "score", score_json(spec), "selection",
        atedm_selection_names[spec->selection], "recovery", atedm_recovery_names[spec->recovery],
        "copy", atedm_copy_names[spec->copy], "proportional_attention",
        spec->proportional_attention, "masks", atedm_masks_names[spec->masks]);
    bool complete = pruning && set_schedule(pruning, spec) &&
                    (!spec->preset[0] || set(pruning, "preset", json_string(spec->preset)));
    return whole(pruning, complete);
}

static json_t *settings_json(const source *s)
{
    const atedm_request *r = s->request;
    json_t *body =
        json_pack("{s:s, s:s?, s:I, s:I, s:i, s:f, s:I, s:i, s:s, s:o}", "prompt", r->prompt,
                  "negative_prompt", r->negative_prompt, "width", (json_int_t)r->width, "height",
                  (json_int_t)r->height, "steps", r->steps, "guidance_scale", r->guidance_scale,
                  "seed", (json_int_t)s->seed, "num_images", 1, "sampler", r->sampler, "pruning",
                  pruning_json(s->plan));
    return json_pack("{s:o, s:s, s:s, s:s, s:s}", "generate", body, "model", s->model, "dtype",
                     s->dtype, "backend", s->backend, "version", ATEDM_VERSION);
}

// As text, in the fewest digits in which every number reads back as the same.
static char *dump_json(const json_t *value)
{
    for (size_t digits = 15;; digits++) {
        char *text = json_dumps(value, JSON_COMPACT | JSON_REAL_PRECISION(digits));
        json_t *back = text ? json_loads(text, 0, NULL) : NULL;
        bool same = json_equal(back, value);
        json_decref(back);
        if (!text || same || digits == 17)
            return text;
        free(text);
    }
}

atedm_status atedm_png_settings_write(const atedm_request *request, const atedm_plan *plan,
                                      int index, const atedm_model_config *model, atedm_dtype dtype,
                                      const char *backend, atedm_png_settings *ret_settings,
                                      atedm_error *err)
{
    source s = {.request = request,
                .plan = plan,
                .seed = request->seed + (uint64_t)index,
                .model = model->name,
                .dtype = atedm_dtype_name(dtype),
                .backend = backend};
    atedm_buffer parameters;
    atedm_buffer_init(&parameters, PARAMETERS_MAX);
    json_t *json = settings_json(&s);
    char *json_text = json ? dump_json(json) : NULL;
    atedm_status status = append_parameters(&parameters, &s);
    if (!status && !json_text)
        status = ATEDM_ERR_INVALID;
    json_decref(json);
    if (status) {
        free(json_text);
        atedm_buffer_finish(&parameters);
        return atedm_error_set(err, status, "png: the settings cannot be written: %s",
                               atedm_status_name(status));
    }
    *ret_settings = (atedm_png_settings){.parameters = parameters.data, .json = json_text};
    return ATEDM_OK;
}

void atedm_png_settings_finish(atedm_png_settings *settings)
{
    if (!settings)
        return;
    free(settings->parameters);
    free(settings->json);
    *settings = (atedm_png_settings){0};
}

atedm_status atedm_png_encode_settings(const uint8_t *rgb, int64_t width, int64_t height,
                                       const atedm_png_settings *settings, atedm_buffer *ret_png,
                                       atedm_error *err)
{
    const atedm_png_text texts[] = {{"parameters", settings->parameters},
                                    {"atedm", settings->json}};
    return atedm_png_encode(rgb, width, height, texts, 2, ret_png, err);
}

atedm_status atedm_png_encode_image(const uint8_t *rgb, const atedm_request *request,
                                    const atedm_plan *plan, int index,
                                    const atedm_model_config *model, atedm_dtype dtype,
                                    const char *backend, atedm_buffer *ret_png, atedm_error *err)
{
    atedm_png_settings settings;
    atedm_status status =
        atedm_png_settings_write(request, plan, index, model, dtype, backend, &settings, err);
    if (status)
        return status;
    status =
        atedm_png_encode_settings(rgb, request->width, request->height, &settings, ret_png, err);
    atedm_png_settings_finish(&settings);
    return status;
}
