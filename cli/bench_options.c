// The options of `atedm bench step`: see bench_options.h.
#include "cli/bench_options.h"

#include "cli/cli.h"
#include "core/unet.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

static const char help[] =
    "usage: atedm bench step (--model DIR | --arch NAME|FILE.json) [OPTION...]\n"
    "\n"
    "Times text encoders, UNet evaluations and VAE decoding in this process, and in the same run "
    "a\n"
    "4096x1280x1280 matrix product of the same backend and dtype as the yardstick.\n"
    "\n"
    "  --model DIR               model: a folder in diffusers layout, or FILE.safetensors in one\n"
    "  --arch sdxl-base|FILE     an architecture, with random weights made in memory\n"
    "  --size WxH                pixels; may be repeated; default: the model's native size\n"
    "  --batch N                 samples of a UNet evaluation, two an image with guidance, which\n"
    "                            share their masks as the plan says; may be repeated; default 2\n"
    "  --images N                images of a denoising loop with guidance; may be repeated;\n"
    "                            default 1\n"
    "  --pruning NAME|JSON       may be repeated; default: off, then " ATEDM_CLI_PRUNING "\n"
    "  --steps N                 steps of the plan whose phases are timed; default 30\n"
    "  --repeat N                measured runs, after one that is not measured; default 3\n"
    "  --stages LIST             of ceilings (a large copy and a large product), text, unet, loop\n"
    "                            (all steps), vae; default: text,unet,vae\n"
    "  --matrix N                rows and columns of the ceilings' product; default 8192\n"
    "  --copy MIB                bytes of their copy; default 1024\n"
    "  --backend auto|cpu|cuda|ref|dry  default auto; cuda:1 or cuda:GPU-... is one of several "
    "GPUs;\n"
    "                            dry runs nothing and counts the work\n"
    "  --rates FLOPS,BYTES       with dry: a device's FLOPs and bytes per second, as in\n"
    "                            989e12,4.8e12, for the least time that it can take\n"
    "  --dtype auto|f32|bf16|f16 default auto\n"
    "  --ops                     each stage by operation, too: calls, time, FLOPs; with rates,\n"
    "                            the least time\n"
    "  --json                    report as JSON\n"
    "  --help, --version\n";

enum {
    OPTION_MODEL,
    OPTION_ARCH,
    OPTION_SIZE,
    OPTION_BATCH,
    OPTION_IMAGES,
    OPTION_MATRIX,
    OPTION_COPY,
    OPTION_PRUNING,
    OPTION_STEPS,
    OPTION_REPEAT,
    OPTION_STAGES,
    OPTION_BACKEND,
    OPTION_RATES,
    OPTION_DTYPE,
    OPTION_JSON,
    OPTION_OPS,
};

static const struct option options_table[] = {
    {"model", required_argument, NULL, OPTION_MODEL},
    {"arch", required_argument, NULL, OPTION_ARCH},
    {"size", required_argument, NULL, OPTION_SIZE},
    {"batch", required_argument, NULL, OPTION_BATCH},
    {"images", required_argument, NULL, OPTION_IMAGES},
    {"matrix", required_argument, NULL, OPTION_MATRIX},
    {"copy", required_argument, NULL, OPTION_COPY},
    {"pruning", required_argument, NULL, OPTION_PRUNING},
    {"steps", required_argument, NULL, OPTION_STEPS},
    {"repeat", required_argument, NULL, OPTION_REPEAT},
    {"stages", required_argument, NULL, OPTION_STAGES},
    {"backend", required_argument, NULL, OPTION_BACKEND},
    {"rates", required_argument, NULL, OPTION_RATES},
    {"dtype", required_argument, NULL, OPTION_DTYPE},
    {"json", no_argument, NULL, OPTION_JSON},
    {"ops", no_argument, NULL, OPTION_OPS},
    ATEDM_CLI_COMMON_OPTIONS,
    {NULL, 0, NULL, 0},
};

static bool parse_stages(const char *text, atedm_bench_options *options)
{
    const struct {
        const char *name;
        bool *is_wanted;
    } stages[] = {
        {"ceilings", &options->ceilings}, {"text", &options->text}, {"unet", &options->unet},
        {"loop", &options->loop},         {"vae", &options->vae},
    };
    const size_t n = sizeof stages / sizeof *stages;
    for (size_t i = 0; i < n; i++)
        *stages[i].is_wanted = false;
    do {
        size_t length = strcspn(text, ","), i = 0;
        while (i < n &&
               (strlen(stages[i].name) != length || strncmp(text, stages[i].name, length) != 0))
            i++;
        if (i == n)
            return false;
        *stages[i].is_wanted = true;
        text += length;
    } while (*text++);
    return true;
}

static bool parse_small(const char *text, int max, int *ret_value)
{
    int64_t value;
    if (!atedm_cli_parse_int(text, 1, max, &value))
        return false;
    *ret_value = (int)value;
    return true;
}

static bool parse_rate(const char *text, double *ret_rate)
{
    double rate;
    if (!atedm_cli_parse_real(text, &rate) || rate < ATEDM_BENCH_MIN_RATE ||
        rate > ATEDM_BENCH_MAX_RATE)
        return false;
    *ret_rate = rate;
    return true;
}

// "FLOPS,BYTES"
static bool parse_rates(const char *text, atedm_profile_rates *ret_rates)
{
    char flops[32];
    size_t length = strcspn(text, ",");
    if (!text[length] || length >= sizeof flops)
        return false;
    memcpy(flops, text, length);
    flops[length] = '\0';
    return parse_rate(flops, &ret_rates->flops_per_s) &&
           parse_rate(text + length + 1, &ret_rates->bytes_per_s);
}

// Takes one option's value. False if it is wrong.
static bool take(atedm_bench_options *o, int option, const char *value)
{
    switch (option) {
    case OPTION_MODEL:
        o->model = value;
        return true;
    case OPTION_ARCH:
        o->arch = value;
        return true;
    case OPTION_SIZE:
        return o->n_sizes < ATEDM_BENCH_MAX_LIST &&
               atedm_cli_parse_size(value, &o->sizes[o->n_sizes].width,
                                    &o->sizes[o->n_sizes].height) &&
               ++o->n_sizes;
    case OPTION_BATCH:
        return o->n_batches < ATEDM_BENCH_MAX_LIST &&
               atedm_cli_parse_int(value, 1, ATEDM_UNET_MAX_SAMPLES, &o->batches[o->n_batches]) &&
               ++o->n_batches;
    case OPTION_IMAGES:
        return o->n_images < ATEDM_BENCH_MAX_LIST &&
               atedm_cli_parse_int(value, 1, ATEDM_UNET_MAX_SAMPLES / 2, &o->images[o->n_images]) &&
               ++o->n_images;
    case OPTION_MATRIX:
        return atedm_cli_parse_int(value, 1, ATEDM_BENCH_MAX_MATRIX, &o->matrix);
    case OPTION_COPY:
        return atedm_cli_parse_int(value, 1, ATEDM_BENCH_MAX_COPY_MIB, &o->copy_mib);
    case OPTION_PRUNING:
        if (o->n_prunings == ATEDM_BENCH_MAX_LIST)
            return false;
        o->prunings[o->n_prunings++] = value;
        return true;
    case OPTION_STEPS:
        return parse_small(value, ATEDM_MAX_STEPS, &o->steps);
    case OPTION_REPEAT:
        return parse_small(value, ATEDM_BENCH_MAX_REPEAT, &o->repeat);
    case OPTION_STAGES:
        return parse_stages(value, o);
    case OPTION_BACKEND:
        o->backend = value;
        o->dry = strcmp(value, "dry") == 0;
        return true;
    case OPTION_RATES:
        return parse_rates(value, &o->rates);
    case OPTION_DTYPE:
        o->dtype = value;
        return true;
    case OPTION_OPS:
        o->ops = true;
        return true;
    default:
        o->json = true;
        return true;
    }
}

// Sets defaults of missing options, and parses the prunings. Returns the exit status, 0 if all is
// well.
static int complete(atedm_bench_options *o)
{
    if (!o->model == !o->arch)
        return atedm_cli_usage("bench step", "one of --model and --arch is needed");
    if (o->rates.flops_per_s > 0 && !o->dry)
        return atedm_cli_usage("bench step", "--rates: for --backend dry only");
    if (o->dry && o->ceilings)
        return atedm_cli_usage("bench step", "--stages: backend dry has no ceilings; see --rates");
    if (!o->n_batches)
        o->batches[o->n_batches++] = 2;
    if (!o->n_images)
        o->images[o->n_images++] = 1;
    if (!o->n_prunings) {
        o->prunings[o->n_prunings++] = "off";
        o->prunings[o->n_prunings++] = ATEDM_CLI_PRUNING;
    }
    for (int i = 0; i < o->n_prunings; i++) {
        atedm_field_errors errors = {.count = 0};
        atedm_cli_parse_pruning(o->prunings[i], &o->specs[i], &errors);
        if (errors.count)
            return atedm_cli_field_errors("bench step", &errors);
    }
    return 0;
}

static const atedm_cli_command command = {
    .name = "bench step", .help = help, .options = options_table, .letters = "h"};

bool atedm_bench_options_parse(int argc, char **argv, atedm_bench_options *ret_options,
                               int *ret_exit)
{
    atedm_bench_options o = {.backend = "auto",
                             .dtype = "auto",
                             .steps = 30,
                             .repeat = 3,
                             .matrix = 8192,
                             .copy_mib = 1024,
                             .text = true,
                             .unet = true,
                             .vae = true};
    int option;
    while ((option = atedm_cli_next_option(&command, argc, argv, ret_exit)) >= 0) {
        if (!take(&o, option, optarg)) {
            *ret_exit = atedm_cli_usage("bench step", "--%s: \"%s\" is wrong, or one too many",
                                        options_table[option].name, optarg);
            return false;
        }
    }
    if (option == ATEDM_CLI_STOP)
        return false;
    *ret_exit = complete(&o);
    if (*ret_exit)
        return false;
    *ret_options = o;
    return true;
}

bool atedm_bench_options_check_sizes(atedm_bench_options *options, const atedm_model_config *config)
{
    int64_t native = atedm_model_config_native_size(config);
    int64_t multiple = atedm_model_config_scale(config);
    if (!options->n_sizes)
        options->sizes[options->n_sizes++] = (atedm_bench_size){native, native};
    for (int i = 0; i < options->n_sizes; i++) {
        const atedm_bench_size *size = &options->sizes[i];
        if (size->width % multiple || size->height % multiple) {
            atedm_cli_usage("bench step", "--size: sides of this model are multiples of %" PRId64,
                            multiple);
            return false;
        }
    }
    return true;
}
