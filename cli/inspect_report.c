// The report of `atedm inspect` as text: see inspect_report.h.
#include "cli/inspect_report.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

// A power of 1000 as the unit of all numbers of a table.
typedef struct unit {
    double divisor;
    const char *prefix;
} unit;

static unit unit_for(double value)
{
    static const unit units[] = {{1e12, "T"}, {1e9, "G"}, {1e6, "M"}, {1e3, "k"}};
    for (size_t i = 0; i < sizeof units / sizeof units[0]; i++) {
        // From a tenth of the unit on, so that shares of a trillion are written in trillions too.
        if (value >= units[i].divisor / 10)
            return units[i];
    }
    return (unit){1, ""};
}

static double in_unit(uint64_t value, unit u)
{
    return (double)value / u.divisor;
}

static void print_components(const atedm_inspect_report *report)
{
    uint64_t parameters = 0;
    uint64_t bytes = 0;
    printf("%-15s %14s  %-24s %14s\n", "component", "parameters", "stored as",
           report->from_files ? "stored bytes" : "bytes as f16");
    for (int i = 0; i < ATEDM_INSPECT_COMPONENTS; i++) {
        const atedm_inspect_component *c = &report->components[i];
        char stored[64] = "-";
        size_t used = 0;
        for (int d = 0; d < ATEDM_INSPECT_DTYPES && used < sizeof stored; d++) {
            if (c->stored[d])
                used += (size_t)snprintf(stored + used, sizeof stored - used, "%s%s",
                                         used ? ", " : "", atedm_dtype_name((atedm_dtype)d));
        }
        uint64_t size = report->from_files ? c->stored_bytes : 2 * c->parameters;
        printf("%-15s %14" PRIu64 "  %-24s %14" PRIu64 "\n", c->name, c->parameters, stored, size);
        parameters += c->parameters;
        bytes += size;
    }
    printf("%-15s %14" PRIu64 "  %-24s %14" PRIu64 "\n", "total", parameters, "", bytes);
}

static void print_architecture(const atedm_inspect_report *report)
{
    const atedm_model_configs *parts = &report->config.parts;
    for (int i = 0; i < 2; i++) {
        const atedm_clip_config *c = &parts->clip[i];
        printf("text encoder %d  width %" PRId64 ", %d layers, %d heads, %" PRId64 " tokens\n",
               i + 1, c->width, c->layers, c->heads, c->positions);
    }
    const atedm_unet_config *u = &parts->unet;
    printf("UNet            channels");
    for (int i = 0; i < u->levels; i++)
        printf(" %" PRId64, u->channels[i]);
    printf(", %d residual blocks a down stage, text width %" PRId64 ", latents of %" PRId64
           " channels\n",
           u->layers_per_block, u->cross_attention_dim, u->in_channels);
    printf("VAE decoder     channels");
    for (int i = parts->vae.levels - 1; i >= 0; i--)
        printf(" %" PRId64, parts->vae.channels[i]);
    printf(", %" PRId64 " pixels a latent\n", atedm_model_config_scale(&report->config));
    printf("native size     %" PRId64 "x%" PRId64 "\n",
           atedm_model_config_native_size(&report->config),
           atedm_model_config_native_size(&report->config));
}

static void print_evaluation(const atedm_inspect_report *report)
{
    const atedm_op_counts *c = &report->unpruned;
    uint64_t total = atedm_inspect_macs(c);
    unit u = unit_for((double)total);
    printf("\nOne UNet evaluation at %" PRId64 "x%" PRId64 ", one sample, %" PRId64
           " text tokens, unpruned:\n\n",
           report->request.width, report->request.height, report->unet.context_tokens);
    printf("%-20s %s\n", "part", "multiply-accumulates");
    printf("%-20s %.3f %s\n", "convolutions", in_unit(c->conv, u), u.prefix);
    printf("%-20s %.3f %s\n", "linear layers", in_unit(c->linear, u), u.prefix);
    printf("%-20s %.3f %s\n", "attention products", in_unit(c->attention, u), u.prefix);
    printf("%-20s %.3f %s, that is %.3f %sFLOPs\n", "total", in_unit(total, u), u.prefix,
           in_unit(2 * total, u), u.prefix);
}

static void print_plans(const atedm_inspect_report *report)
{
    unit u = unit_for((double)atedm_inspect_macs(&report->unpruned));
    printf("\nPlans of %d steps, %sFLOPs a step and sample, overhead apart:\n\n",
           report->request.steps, u.prefix);
    printf("%-14s %8s %-8s %9s %9s %9s %10s %9s\n", "plan", "ratio", "schedule", "mean", "of full",
           "overhead", "first step", "last step");
    for (size_t i = 0; i < report->n_plans; i++) {
        const atedm_inspect_plan *p = &report->plans[i];
        const atedm_op_counts *first = &p->phases[0].counts;
        const atedm_op_counts *last = &p->phases[p->n_phases - 1].counts;
        printf("%-14s %8.4g %-8s %9.3f %8.1f%% %9.3f %10.3f %9.3f\n", p->name, p->plan->ratio,
               p->plan->spec.enabled ? atedm_prune_schedule_names[p->plan->spec.schedule] : "-",
               p->mean_flops / u.divisor, 100 * p->share, p->mean_overhead_flops / u.divisor,
               in_unit(2 * atedm_inspect_macs(first), u), in_unit(2 * atedm_inspect_macs(last), u));
    }
}

// Prints one line for each block: its cost unpruned, and in the first and last phases of the
// request's plan.
static void print_blocks(const atedm_inspect_report *report)
{
    const atedm_inspect_plan *p = &report->plans[report->chosen];
    const atedm_inspect_phase *phases[2] = {&p->phases[0], &p->phases[p->n_phases - 1]};
    const atedm_unet_config *config = &report->unet.config;
    atedm_op_counts largest = atedm_unet_cost_block(&report->unet, 0, NULL, 0);
    unit u = unit_for((double)atedm_inspect_macs(&largest));
    printf("\nAttention blocks, %s multiply-accumulates; with %s in the first and the last step "
           "(kept tokens, cost, overhead):\n\n",
           u.prefix, p->name);
    printf("%-9s %5s %8s %9s %9s %6s %9s  %8s %9s %9s  %8s %9s %9s\n", "block", "level", "tokens",
           "channels", "heads", "layers", "unpruned", "kept", "first", "overhead", "kept", "last",
           "overhead");
    for (int b = 0; b < report->unet.n_blocks; b++) {
        const atedm_block_info *info = &report->unet.blocks[b];
        int64_t tokens = atedm_unet_cost_tokens(&report->unet, b);
        int64_t channels = config->channels[info->level];
        int heads = config->heads[info->level];
        atedm_op_counts full = atedm_unet_cost_block(&report->unet, b, NULL, 0);
        char head_text[32];
        snprintf(head_text, sizeof head_text, "%dx%" PRId64, heads, channels / heads);
        printf("%-9s %5d %8" PRId64 " %9" PRId64 " %9s %6d %9.3f", info->name, info->level, tokens,
               channels, head_text, info->layers, in_unit(atedm_inspect_macs(&full), u));
        for (int i = 0; i < 2; i++) {
            float rho = phases[i]->rho[b];
            atedm_op_counts c = atedm_unet_cost_block(&report->unet, b, &p->plan->spec, rho);
            printf("  %8" PRId64 " %9.3f %9.3f",
                   atedm_plan_kept(p->plan, phases[i]->first_step, b, info->layers, tokens),
                   in_unit(atedm_inspect_macs(&c), u), in_unit(c.overhead, u));
        }
        putchar('\n');
    }
}

static void print_request(const atedm_inspect_report *report)
{
    const atedm_request_cost *c = &report->cost;
    unit u = unit_for((double)c->baseline);
    printf("\nA request: one image, guided, %d steps, pruning %s, %sFLOPs:\n\n",
           report->request.steps, report->plans[report->chosen].name, u.prefix);
    printf("%-14s %11s %11s\n", "stage", "executed", "unpruned");
    printf("%-14s %11.3f %11.3f\n", "text encoders", in_unit(c->text_encoder, u),
           in_unit(c->text_encoder, u));
    printf("%-14s %11.3f %11.3f\n", "UNet", in_unit(c->unet, u), in_unit(c->unet_baseline, u));
    printf("%-14s %11.3f %11s\n", "  overhead", in_unit(c->overhead, u), "");
    printf("%-14s %11.3f %11.3f\n", "VAE", in_unit(c->vae, u), in_unit(c->vae, u));
    printf("%-14s %11.3f %11.3f, saved %.1f%%\n", "total", in_unit(c->executed, u),
           in_unit(c->baseline, u), 100 * c->saved_ratio);
}

static void print_scratch(const atedm_inspect_report *report)
{
    printf("\nScratch memory of that request, MiB:\n\n%-14s", "stage");
    for (int i = 0; i < 2; i++)
        printf(" %9s", atedm_dtype_name(atedm_inspect_scratch_dtypes[i]));
    const atedm_inspect_scratch *s = report->scratch;
    const double mib = 1 << 20;
    printf("\n%-14s %9.1f %9.1f\n", "text encoders", (double)s[0].text_encoder / mib,
           (double)s[1].text_encoder / mib);
    printf("%-14s %9.1f %9.1f\n", "UNet", (double)s[0].unet / mib, (double)s[1].unet / mib);
    printf("%-14s %9.1f %9.1f\n", "VAE", (double)s[0].vae / mib, (double)s[1].vae / mib);
}

void atedm_inspect_print(const atedm_inspect_report *report)
{
    printf("%s\n\n", report->config.name);
    print_components(report);
    putchar('\n');
    print_architecture(report);
    print_evaluation(report);
    print_plans(report);
    print_blocks(report);
    print_request(report);
    print_scratch(report);
}
