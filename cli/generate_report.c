// Prints the report of `atedm generate`: see generate_report.h.
#include "cli/generate_report.h"

#include "cli/cli.h"
#include "core/plan_json.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

// The part of a prompt that was cut off before encoding; NULL: nothing was cut.
static const char *cut_part(const atedm_generate_report *report, int which)
{
    const char *text = which ? report->request->negative_prompt : report->request->prompt;
    if (!text || (which && report->request->guidance_scale <= 1))
        return NULL;
    size_t encoded = atedm_generation_encoded(report->generation, which);
    return encoded < strlen(text) ? text + encoded : NULL;
}

static json_t *images_json(const atedm_generate_report *report)
{
    const atedm_request *r = report->request;
    json_t *images = json_array();
    for (int i = 0; i < r->num_images; i++)
        json_array_append_new(images,
                              json_pack("{s:s, s:I, s:I, s:I}", "file", report->files[i], "seed",
                                        (json_int_t)(r->seed + (uint64_t)i), "width",
                                        (json_int_t)r->width, "height", (json_int_t)r->height));
    return images;
}

static json_t *latency_json(const atedm_generate_report *report)
{
    const atedm_timing *t = report->timing;
    json_t *steps = json_array();
    for (int k = 0; k < report->request->steps; k++)
        json_array_append_new(steps, json_real(t->steps_s[k]));
    return json_pack("{s:f, s:f, s:f, s:f, s:f, s:f, s:o}", "load_s", report->load_s,
                     "text_encoder_s", t->text_encoder_s, "denoise_s", t->denoise_s, "vae_s",
                     t->vae_s, "encode_s", t->encode_s, "total_s", report->total_s, "steps_s",
                     steps);
}

static json_t *warnings_json(const atedm_generate_report *report)
{
    json_t *warnings = json_array();
    for (int which = 0; which < 2; which++) {
        const char *cut = cut_part(report, which);
        if (cut)
            json_array_append_new(warnings, json_sprintf("%s: the text encoders take %" PRId64
                                                         " tokens; cut off: \"%s\"",
                                                         which ? "negative_prompt" : "prompt",
                                                         report->model->context_tokens, cut));
    }
    return warnings;
}

static int print_json(const atedm_generate_report *report)
{
    const atedm_model *m = report->model;
    const atedm_request_cost *cost = atedm_generation_cost(report->generation);
    return atedm_cli_print_json(
        "generate",
        json_pack("{s:s, s:s, s:s, s:o, s:o, s:o, s:o, s:I, s:o}", "model", m->config.name,
                  "backend", atedm_device_backend(m->device), "dtype", atedm_dtype_name(m->dtype),
                  "images", images_json(report), "pruning",
                  atedm_plan_json(atedm_generation_plan(report->generation), cost), "flops",
                  atedm_cost_json(cost), "latency", latency_json(report), "peak_memory_bytes",
                  (json_int_t)atedm_cli_peak_memory(), "warnings", warnings_json(report)));
}

static void print_text(const atedm_generate_report *report)
{
    const atedm_request *r = report->request;
    const atedm_timing *t = report->timing;
    const atedm_request_cost *cost = atedm_generation_cost(report->generation);
    const atedm_plan *plan = atedm_generation_plan(report->generation);
    for (int i = 0; i < r->num_images; i++)
        printf("%s: %" PRId64 "x%" PRId64 ", seed %" PRIu64 "\n", report->files[i], r->width,
               r->height, r->seed + (uint64_t)i);
    printf("%.2f s: load %.2f, text encoders %.2f, %d steps %.2f, VAE %.2f, PNG %.2f (%s, %s)\n",
           report->total_s, report->load_s, t->text_encoder_s, r->steps, t->denoise_s, t->vae_s,
           t->encode_s, atedm_device_backend(report->model->device),
           atedm_dtype_name(report->model->dtype));
    if (plan)
        printf("pruning %s, ratio %.4g: UNet at %.1f %% of its FLOPs, ",
               *plan->spec.preset ? plan->spec.preset : "custom", plan->ratio,
               100 * cost->mean_unet_flops_ratio);
    else
        printf("pruning off, ");
    printf("%.4g TFLOPs in all\n", (double)cost->executed * 1e-12);
    for (int which = 0; which < 2; which++) {
        const char *cut = cut_part(report, which);
        if (cut)
            fprintf(stderr, "atedm generate: %s cut to %" PRId64 " tokens; cut off: \"%s\"\n",
                    which ? "negative prompt" : "prompt", report->model->context_tokens, cut);
    }
}

int atedm_generate_report_print(const atedm_generate_report *report, bool json)
{
    if (json)
        return print_json(report);
    print_text(report);
    return 0;
}
