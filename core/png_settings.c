// Writes the settings into a PNG: see png_settings.h.
#include "core/png_settings.h"

#include "core/plan_json.h"
#include "core/png.h"
#include "core/sampler.h"

#include <inttypes.h>
#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define PARAMETERS_MAX (4u * ATEDM_PROMPT_MAX + 16384) // bytes of the `parameters` text

// What both texts are made from. Pointers are borrowed.
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

// The value as text, with as few digits as let every number read back the same; the caller frees
// it.
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

// ---- AUTOMATIC1111's text

static const char *sampler_title(const char *name)
{
    const atedm_sampler *sampler = atedm_sampler_find(name);
    return sampler ? sampler->title : name;
}

// Appends a field. A value with a comma, colon, quote or line end is quoted, as a JSON string.
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

// Appends the whole "pruning" of a request that gets the plan, unless preset, ratio, schedule and
// tau describe the plan completely, because all other fields are the preset's.
static atedm_status append_rest(atedm_buffer *text, const atedm_plan *plan)
{
    const atedm_prune_spec *spec = &plan->spec;
    atedm_plan plain = {.ratio = plan->ratio};
    atedm_status status =
        atedm_prune_preset(spec->preset[0] ? spec->preset : "at-edm", &plain.spec);
    if (status)
        return status;
    snprintf(plain.spec.preset, sizeof plain.spec.preset, "%s", spec->preset);
    plain.spec.schedule = spec->schedule;
    plain.spec.tau = spec->tau;
    json_t *all = atedm_plan_request_json(plan), *told = atedm_plan_request_json(&plain);
    if (!all || !told || !json_equal(all, told)) {
        char *rest = dump_json(all);
        status = rest ? append_value(text, "AT-EDM pruning", rest) : ATEDM_ERR_NOMEM;
        free(rest);
    }
    json_decref(all);
    json_decref(told);
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
        status = append_value(text, "AT-EDM schedule", atedm_prune_schedule_names[spec->schedule]);
    if (!status && spec->schedule == ATEDM_PRUNE_DSAP)
        status = append_value(text, "AT-EDM tau", number_text(spec->tau, number));
    return status ? status : append_rest(text, plan);
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

// ---- JSON

static json_t *settings_json(const source *s)
{
    const atedm_request *r = s->request;
    json_t *body =
        json_pack("{s:s, s:s?, s:I, s:I, s:i, s:f, s:I, s:i, s:s, s:o}", "prompt", r->prompt,
                  "negative_prompt", r->negative_prompt, "width", (json_int_t)r->width, "height",
                  (json_int_t)r->height, "steps", r->steps, "guidance_scale", r->guidance_scale,
                  "seed", (json_int_t)s->seed, "num_images", 1, "sampler", r->sampler, "pruning",
                  atedm_plan_request_json(s->plan));
    return json_pack("{s:o, s:s, s:s, s:s, s:s}", "generate", body, "model", s->model, "dtype",
                     s->dtype, "backend", s->backend, "version", ATEDM_VERSION);
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
