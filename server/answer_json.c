// The answers of /generate and /v1/estimate as JSON: see generate_json.h.
#include "server/generate_json.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

static char *base64(const char *data, size_t size)
{
    static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    char *text = malloc((size + 2) / 3 * 4 + 1), *to = text;
    for (size_t i = 0; text && i < size; i += 3) {
        size_t left = size - i;
        uint32_t bits = (uint32_t)(unsigned char)data[i] << 16;
        bits |= left > 1 ? (uint32_t)(unsigned char)data[i + 1] << 8 : 0;
        bits |= left > 2 ? (uint32_t)(unsigned char)data[i + 2] : 0;
        *to++ = digits[bits >> 18];
        *to++ = digits[(bits >> 12) & 63];
        *to++ = left > 1 ? digits[(bits >> 6) & 63] : '=';
        *to++ = left > 2 ? digits[bits & 63] : '=';
    }
    if (text)
        *to = '\0';
    return text;
}

static json_t *phases_json(const atedm_prune_spec *spec, double ratio)
{
    atedm_phase phases[ATEDM_MAX_PHASES];
    size_t n = atedm_prune_phases(spec, phases);
    json_t *list = json_array();
    for (size_t i = 0; i < n; i++) {
        json_t *skip = json_array();
        for (size_t k = 0; k < phases[i].n_skip; k++)
            json_array_append_new(skip, json_string(phases[i].skip[k]));
        json_array_append_new(list, json_pack("{s:f, s:f, s:o}", "until", phases[i].until, "ratio",
                                              isnan(phases[i].ratio) ? ratio : phases[i].ratio,
                                              "skip", skip));
    }
    return list;
}

json_t *atedm_plan_json(bool pruned, const atedm_prune_spec *spec, double ratio,
                        const atedm_request_cost *cost)
{
    if (!pruned)
        return json_pack("{s:s, s:f}", "preset", "off", "mean_unet_flops_ratio", 1.0);
    static const char *const recoveries[] = {"attention", "cosine", "nearest", "zero"};
    json_t *plan = json_pack(
        "{s:f, s:f, s:s, s:o, s:s, s:s}", "ratio", ratio, "mean_unet_flops_ratio",
        cost->mean_unet_flops_ratio, "schedule", spec->schedule, "phases", phases_json(spec, ratio),
        "map", spec->cross_map ? "cross" : "self", "recovery", recoveries[spec->recovery]);
    if (plan)
        json_object_set_new(plan, "preset",
                            *spec->preset ? json_string(spec->preset) : json_null());
    return plan;
}

json_t *atedm_cost_json(const atedm_request_cost *cost)
{
    return json_pack("{s:I, s:I, s:f, s:I, s:I, s:I, s:I}", "executed", (json_int_t)cost->executed,
                     "baseline", (json_int_t)cost->baseline, "saved_ratio", cost->saved_ratio,
                     "overhead", (json_int_t)cost->overhead, "text_encoder",
                     (json_int_t)cost->text_encoder, "unet", (json_int_t)cost->unet, "vae",
                     (json_int_t)cost->vae);
}

static json_t *images_json(const atedm_answer *a)
{
    json_t *list = json_array();
    for (int i = 0; i < a->result->n_images; i++) {
        char *text = base64(a->result->images[i].data, a->result->images[i].size);
        json_array_append_new(list,
                              json_pack("{s:s, s:I, s:I, s:I}", "b64_json", text ? text : "",
                                        "seed", (json_int_t)(a->seed + (uint64_t)i), "width",
                                        (json_int_t)a->width, "height", (json_int_t)a->height));
        free(text);
    }
    return list;
}

static json_t *latency_json(const atedm_answer *a)
{
    const atedm_timing *t = &a->result->timing;
    json_t *steps = json_array();
    for (int i = 0; i < a->steps; i++)
        json_array_append_new(steps, json_real(t->steps_s[i]));
    return json_pack("{s:f, s:f, s:f, s:f, s:f, s:f, s:o}", "queue_s", a->queue_s, "text_encoder_s",
                     t->text_encoder_s, "denoise_s", t->denoise_s, "vae_s", t->vae_s, "encode_s",
                     t->encode_s, "total_s", a->total_s, "steps_s", steps);
}

// A prompt that did not fit is cut; the answer says what of it was lost.
static void warn_cut(json_t *warnings, const char *field, const char *text, size_t encoded)
{
    if (!text || encoded >= strlen(text))
        return;
    json_t *warning = json_sprintf("%s is longer than the text encoders take; this was cut: %s",
                                   field, text + encoded);
    // json_sprintf refuses what is not UTF-8, which a cut inside a character would be.
    if (!warning)
        warning = json_sprintf("%s is longer than the text encoders take; its end was cut", field);
    json_array_append_new(warnings, warning);
}

json_t *atedm_answer_json(const atedm_answer *a)
{
    const atedm_worker_result *r = a->result;
    json_t *warnings = json_array();
    warn_cut(warnings, "prompt", a->prompt, r->encoded[0]);
    warn_cut(warnings, "negative_prompt", a->negative_prompt, r->encoded[1]);
    return json_pack("{s:s, s:I, s:s, s:o, s:o, s:o, s:o, s:{s:f, s:i}, s:o}", "id", a->id,
                     "created", (json_int_t)a->created, "model", a->model, "images", images_json(a),
                     "pruning", atedm_plan_json(r->pruned, &r->plan_spec, r->plan_ratio, &r->cost),
                     "flops", atedm_cost_json(&r->cost), "latency", latency_json(a), "batch",
                     "mean_size", r->mean_batch_size, "max_size", r->batch_size, "warnings",
                     warnings);
}
