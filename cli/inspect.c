// `atedm inspect`: its options, and gathering the report. inspect_report.c and inspect_json.c write
// it; inspect_model.c queries the modules.
#include "cli/inspect.h"

#include "cli/cli.h"
#include "cli/inspect_report.h"
#include "core/pipeline.h"
#include "core/sampler.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

const atedm_dtype atedm_inspect_scratch_dtypes[2] = {ATEDM_BF16, ATEDM_F32};

static const char help[] =
    "usage: atedm inspect (DIR | --arch NAME|FILE.json) [OPTION...]\n"
    "\n"
    "Shows what a model is made of and what a request on it costs: parameters, storage, the\n"
    "operations of one UNet evaluation by kind and by attention block, pruned and not, and of a\n"
    "whole request (one image, guided) by stage. Nothing is computed.\n"
    "\n"
    "  DIR                       model: a folder in diffusers layout, or FILE.safetensors in one\n"
    "  --arch sdxl-base|FILE     an architecture, without weights\n"
    "  --size WxH                pixels; default: the model's native size\n"
    "  --steps N                 denoising steps; default 30\n"
    "  --pruning NAME|JSON       default: " ATEDM_CLI_PRUNING ", and a table of all presets\n"
    "  --json                    report as JSON\n"
    "  --help, --version\n";

typedef struct inspect_options {
    const char *dir, *arch;
    const char *size, *steps, *pruning;
    bool json;
} inspect_options;

enum {
    OPTION_ARCH = 1,
    OPTION_SIZE,
    OPTION_STEPS,
    OPTION_PRUNING,
    OPTION_JSON,
};

static const struct option options_table[] = {
    {"arch", required_argument, NULL, OPTION_ARCH},
    {"size", required_argument, NULL, OPTION_SIZE},
    {"steps", required_argument, NULL, OPTION_STEPS},
    {"pruning", required_argument, NULL, OPTION_PRUNING},
    {"json", no_argument, NULL, OPTION_JSON},
    ATEDM_CLI_COMMON_OPTIONS,
    {NULL, 0, NULL, 0},
};

static const atedm_cli_command command = {
    .name = "inspect", .help = help, .options = options_table, .letters = "h", .operands = true};

// On false, *ret_exit is the exit status.
static bool parse_options(int argc, char **argv, inspect_options *options, int *ret_exit)
{
    int option;
    while ((option = atedm_cli_next_option(&command, argc, argv, ret_exit)) >= 0) {
        switch (option) {
        case OPTION_ARCH:
            options->arch = optarg;
            break;
        case OPTION_SIZE:
            options->size = optarg;
            break;
        case OPTION_STEPS:
            options->steps = optarg;
            break;
        case OPTION_PRUNING:
            options->pruning = optarg;
            break;
        default:
            options->json = true;
        }
    }
    if (option == ATEDM_CLI_STOP)
        return false;
    if (optind < argc)
        options->dir = argv[optind++];
    if (optind < argc)
        *ret_exit = atedm_cli_usage("inspect", "\"%s\" is one argument too many", argv[optind]);
    else if (!options->dir == !options->arch)
        *ret_exit = atedm_cli_usage("inspect", "give either a model's directory or --arch");
    else
        return true;
    return false;
}

// Makes the request whose cost is shown. Returns false if it is wrong; then *ret_exit is the exit
// status.
static bool make_request(const inspect_options *options, atedm_inspect_report *report,
                         int *ret_exit)
{
    atedm_request_limits limits = atedm_cli_limits(&report->config);
    atedm_field_errors errors = {.count = 0};
    atedm_prune_spec prune = {0};
    atedm_cli_parse_pruning(options->pruning ? options->pruning : ATEDM_CLI_PRUNING, &prune,
                            &errors);
    atedm_request *r = &report->request;
    atedm_request_init(r, &limits, &prune);
    r->prompt = strdup("x"); // any prompt has the same cost
    int64_t steps = r->steps;
    if (options->size && !atedm_cli_parse_size(options->size, &r->width, &r->height))
        atedm_field_errors_add(&errors, "/size", "\"%s\" is not WxH", options->size);
    if (options->steps && !atedm_cli_parse_int(options->steps, INT32_MIN, INT32_MAX, &steps))
        atedm_field_errors_add(&errors, "/steps", "\"%s\" is not an integer", options->steps);
    r->steps = (int)steps;
    // Unreadable values kept their defaults, so everything else can be checked too.
    atedm_request_validate(r, &limits, &errors);
    if (!errors.count)
        return true;
    *ret_exit = atedm_cli_field_errors("inspect", &errors);
    return false;
}

uint64_t atedm_inspect_macs(const atedm_op_counts *counts)
{
    return counts->conv + counts->linear + counts->attention;
}

// Adds a plan with its phases and means; *ret_plan is in the report.
static atedm_status add_plan(atedm_inspect_report *report, const char *name,
                             const atedm_prune_spec *spec, atedm_error *err)
{
    atedm_inspect_plan *p = &report->plans[report->n_plans];
    int steps = report->request.steps;
    atedm_status status = atedm_plan_create(spec, steps, &report->unet, &p->plan, err);
    if (status)
        return atedm_error_context(err, status, "pruning %s", name);
    report->n_plans++;
    p->name = name;
    size_t row = (size_t)p->plan->n_blocks * sizeof *p->plan->rho;
    for (int k = 0; k < steps; k++) {
        const float *rho = atedm_plan_step(p->plan, k);
        if (k == 0 || memcmp(rho, p->phases[p->n_phases - 1].rho, row) != 0)
            p->phases[p->n_phases++] =
                (atedm_inspect_phase){.first_step = k,
                                      .rho = rho,
                                      .counts = atedm_unet_cost_eval(&report->unet, spec, rho)};
        const atedm_op_counts counts = atedm_unet_cost_step(&report->unet, p->plan, k);
        p->phases[p->n_phases - 1].steps++;
        p->mean_flops += 2 * (double)atedm_inspect_macs(&counts) / steps;
        p->mean_overhead_flops += 2 * (double)counts.overhead / steps;
    }
    p->share = p->mean_flops / (2 * (double)atedm_inspect_macs(&report->unpruned));
    return ATEDM_OK;
}

// Adds all presets, or "off" and the plan of --pruning.
static atedm_status add_plans(atedm_inspect_report *report, const char *pruning, atedm_error *err)
{
    const char *wanted = pruning ? pruning : ATEDM_CLI_PRUNING;
    size_t count = 0;
    const char *const *names = atedm_prune_preset_names(&count);
    atedm_status status = ATEDM_OK;
    for (size_t i = 0; i < count && !status; i++) {
        bool chosen = strcmp(names[i], wanted) == 0;
        if (pruning && !chosen && strcmp(names[i], "off") != 0)
            continue;
        atedm_prune_spec spec;
        status = atedm_prune_preset(names[i], &spec);
        if (!status)
            status = add_plan(report, names[i], &spec, err);
        if (chosen)
            report->chosen = report->n_plans - 1;
    }
    if (!status && strcmp(report->plans[report->chosen].name, wanted) != 0) {
        report->chosen = report->n_plans;
        status = add_plan(report, "given", &report->request.prune, err);
    }
    return status;
}

static atedm_status measure_scratch(atedm_inspect_report *report, atedm_error *err)
{
    const atedm_plan *plan = report->plans[report->chosen].plan;
    atedm_status status = ATEDM_OK;
    for (int i = 0; i < 2 && !status; i++)
        status = atedm_inspect_scratch_measure(
            &report->config, atedm_inspect_scratch_dtypes[i], 2, report->unet.h, report->unet.w,
            plan->spec.enabled ? plan : NULL, &report->scratch[i], err);
    return status;
}

static atedm_status gather(atedm_inspect_report *report, const inspect_options *options,
                           atedm_error *err)
{
    const atedm_request *r = &report->request;
    int64_t scale = atedm_model_config_scale(&report->config);
    atedm_unet_cost_init(&report->unet, &report->config.parts.unet, r->height / scale,
                         r->width / scale, report->config.parts.clip[0].positions);
    report->unpruned = atedm_unet_cost_eval(&report->unet, NULL, NULL);
    report->from_files = options->dir != NULL;
    atedm_status status =
        atedm_inspect_components(&report->config, options->dir, report->components, err);
    if (!status)
        status = add_plans(report, options->pruning, err);
    if (!status)
        status = measure_scratch(report, err);
    if (status)
        return status;
    atedm_plan *plan = NULL;
    status = atedm_estimate(&report->config, r, &plan, &report->cost, err);
    atedm_plan_destroy(plan);
    return status;
}

int atedm_cli_inspect(int argc, char **argv)
{
    inspect_options options = {0};
    int result = 0;
    if (!parse_options(argc, argv, &options, &result))
        return result;
    atedm_inspect_report *report = calloc(1, sizeof *report);
    atedm_error err = {{0}};
    if (!report) {
        atedm_error_set(&err, ATEDM_ERR_NOMEM, "no memory");
        return atedm_cli_failed("inspect", &err);
    }
    atedm_status status = options.dir
                              ? atedm_model_config_read(options.dir, &report->config, &err)
                              : atedm_model_config_from_arch(options.arch, &report->config, &err);
    if (status) {
        result = atedm_cli_failed("inspect", &err);
        goto fail;
    }
    if (!make_request(&options, report, &result))
        goto fail;
    if (gather(report, &options, &err))
        result = atedm_cli_failed("inspect", &err);
    else if (options.json)
        result = atedm_cli_print_json("inspect", atedm_inspect_json(report));
    else
        atedm_inspect_print(report);
fail:
    for (size_t i = 0; i < report->n_plans; i++)
        atedm_plan_destroy(report->plans[i].plan);
    atedm_request_finish(&report->request);
    free(report);
    return result;
}
