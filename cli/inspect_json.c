// The report of `atedm inspect` as JSON: see inspect_report.h. Sizes are bytes, costs of networks
// multiply-accumulates ("macs"), costs of plans and requests FLOPs.
#include "cli/inspect_report.h"

#include <math.h>

static json_t *json_count(uint64_t value)
{
    return json_integer(value > INT64_MAX ? INT64_MAX : (json_int_t)value);
}

static json_t *components_json(const atedm_inspect_report *report)
{
    json_t *list = json_array();
    for (int i = 0; i < ATEDM_INSPECT_COMPONENTS; i++) {
        const atedm_inspect_component *c = &report->components[i];
        json_t *stored = json_object();
        for (int d = 0; d < ATEDM_INSPECT_DTYPES; d++) {
            if (c->stored[d])
                json_object_set_new(stored, atedm_dtype_name((atedm_dtype)d),
                                    json_count(c->stored[d]));
        }
        json_t *item = json_pack("{s:s, s:o, s:o}", "name", c->name, "parameters",
                                 json_count(c->parameters), "stored", stored);
        if (report->from_files)
            json_object_set_new(item, "stored_bytes", json_count(c->stored_bytes));
        json_array_append_new(list, item);
    }
    return list;
}

static json_t *counts_json(const atedm_op_counts *c)
{
    return json_pack("{s:o, s:o, s:o, s:o}", "convolution", json_count(c->conv), "linear",
                     json_count(c->linear), "attention", json_count(c->attention), "total",
                     json_count(atedm_inspect_macs(c)));
}

static json_t *ints_json(const int64_t *values, int count)
{
    json_t *list = json_array();
    for (int i = 0; i < count; i++)
        json_array_append_new(list, json_integer(values[i]));
    return list;
}

static json_t *text_encoders_json(const atedm_inspect_report *report)
{
    json_t *list = json_array();
    for (int i = 0; i < 2; i++) {
        const atedm_clip_config *c = &report->config.parts.clip[i];
        atedm_op_counts counts = atedm_clip_cost(c, report->unet.context_tokens);
        json_array_append_new(
            list, json_pack("{s:I, s:I, s:i, s:i, s:I, s:I, s:o}", "width", (json_int_t)c->width,
                            "mlp_width", (json_int_t)c->mlp_width, "layers", c->layers, "heads",
                            c->heads, "tokens", (json_int_t)c->positions, "vocab",
                            (json_int_t)c->vocab, "macs", counts_json(&counts)));
    }
    return list;
}

static json_t *blocks_json(const atedm_inspect_report *report)
{
    const atedm_unet_config *config = &report->unet.config;
    json_t *list = json_array();
    for (int b = 0; b < report->unet.n_blocks; b++) {
        const atedm_block_info *info = &report->unet.blocks[b];
        atedm_op_counts counts = atedm_unet_cost_block(&report->unet, b, NULL, 0);
        json_array_append_new(list,
                              json_pack("{s:s, s:i, s:I, s:I, s:i, s:i, s:o}", "name", info->name,
                                        "level", info->level, "tokens",
                                        (json_int_t)atedm_unet_cost_tokens(&report->unet, b),
                                        "channels", (json_int_t)config->channels[info->level],
                                        "heads", config->heads[info->level], "layers", info->layers,
                                        "macs", json_count(atedm_inspect_macs(&counts))));
    }
    return list;
}

static json_t *unet_json(const atedm_inspect_report *report)
{
    const atedm_unet_config *u = &report->config.parts.unet;
    return json_pack("{s:o, s:i, s:I, s:I, s:o, s:o, s:o}", "channels",
                     ints_json(u->channels, u->levels), "layers_per_block", u->layers_per_block,
                     "cross_attention_dim", (json_int_t)u->cross_attention_dim, "latent_channels",
                     (json_int_t)u->in_channels, "macs", counts_json(&report->unpruned), "flops",
                     json_count(2 * atedm_inspect_macs(&report->unpruned)), "blocks",
                     blocks_json(report));
}

static json_t *vae_json(const atedm_inspect_report *report)
{
    const atedm_vae_config *v = &report->config.parts.vae;
    atedm_op_counts counts = atedm_vae_cost(v, report->unet.h, report->unet.w);
    return json_pack("{s:o, s:I, s:f, s:o}", "channels", ints_json(v->channels, v->levels),
                     "pixels_per_latent", (json_int_t)atedm_model_config_scale(&report->config),
                     "scaling_factor", v->scaling_factor, "macs", counts_json(&counts));
}

static json_t *phase_json(const atedm_inspect_report *report, const atedm_inspect_plan *p,
                          const atedm_inspect_phase *phase)
{
    json_t *blocks = json_array();
    for (int b = 0; b < report->unet.n_blocks; b++) {
        float rho = phase->rho[b];
        int64_t kept = atedm_plan_kept(p->plan, phase->first_step, b, report->unet.blocks[b].layers,
                                       atedm_unet_cost_tokens(&report->unet, b));
        atedm_op_counts c = atedm_unet_cost_block(&report->unet, b, &p->plan->spec, rho);
        // The matrix holds floats; ratios are whole millionths.
        double ratio = rint((double)rho * 1e6) / 1e6;
        json_array_append_new(blocks, json_pack("{s:s, s:f, s:I, s:o, s:o}", "name",
                                                report->unet.blocks[b].name, "ratio", ratio, "kept",
                                                (json_int_t)kept, "macs",
                                                json_count(atedm_inspect_macs(&c)), "overhead_macs",
                                                json_count(c.overhead)));
    }
    return json_pack("{s:i, s:i, s:o, s:o, s:o}", "first_step", phase->first_step, "steps",
                     phase->steps, "flops", json_count(2 * atedm_inspect_macs(&phase->counts)),
                     "overhead_flops", json_count(2 * phase->counts.overhead), "blocks", blocks);
}

static json_t *plans_json(const atedm_inspect_report *report)
{
    json_t *list = json_array();
    for (size_t i = 0; i < report->n_plans; i++) {
        const atedm_inspect_plan *p = &report->plans[i];
        json_t *phases = json_array();
        for (size_t k = 0; k < p->n_phases; k++)
            json_array_append_new(phases, phase_json(report, p, &p->phases[k]));
        json_array_append_new(
            list, json_pack("{s:s, s:f, s:s, s:f, s:f, s:f, s:o}", "name", p->name, "ratio",
                            p->plan->ratio, "schedule",
                            atedm_prune_schedule_names[p->plan->spec.schedule], "mean_unet_flops",
                            p->mean_flops, "mean_unet_flops_ratio", p->share, "mean_overhead_flops",
                            p->mean_overhead_flops, "phases", phases));
    }
    return list;
}

static json_t *request_json(const atedm_inspect_report *report)
{
    const atedm_request_cost *c = &report->cost;
    const atedm_request *r = &report->request;
    json_t *flops =
        json_pack("{s:o, s:o, s:f, s:o, s:o, s:o, s:o}", "executed", json_count(c->executed),
                  "baseline", json_count(c->baseline), "saved_ratio", c->saved_ratio, "overhead",
                  json_count(c->overhead), "text_encoder", json_count(c->text_encoder), "unet",
                  json_count(c->unet), "vae", json_count(c->vae));
    json_t *scratch = json_object();
    for (int i = 0; i < 2; i++) {
        const atedm_inspect_scratch *s = &report->scratch[i];
        json_object_set_new(scratch, atedm_dtype_name(atedm_inspect_scratch_dtypes[i]),
                            json_pack("{s:o, s:o, s:o}", "text_encoder",
                                      json_count(s->text_encoder), "unet", json_count(s->unet),
                                      "vae", json_count(s->vae)));
    }
    return json_pack("{s:I, s:I, s:i, s:s, s:f, s:o, s:o}", "width", (json_int_t)r->width, "height",
                     (json_int_t)r->height, "steps", r->steps, "pruning",
                     report->plans[report->chosen].name, "mean_unet_flops_ratio",
                     c->mean_unet_flops_ratio, "flops", flops, "scratch_bytes", scratch);
}

json_t *atedm_inspect_json(const atedm_inspect_report *report)
{
    return json_pack("{s:s, s:I, s:o, s:o, s:o, s:o, s:o, s:o}", "model", report->config.name,
                     "native_size", (json_int_t)atedm_model_config_native_size(&report->config),
                     "components", components_json(report), "text_encoders",
                     text_encoders_json(report), "unet", unet_json(report), "vae", vae_json(report),
                     "plans", plans_json(report), "request", request_json(report));
}
