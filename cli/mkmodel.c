// `atedm mkmodel`: writes a model with seeded random weights in diffusers layout.
#include "core/mkmodel.h"

#include "cli/cli.h"
#include "core/base/clock.h"

#include <inttypes.h>
#include <stdio.h>
#include <unistd.h>

static const char help[] =
    "usage: atedm mkmodel --arch sdxl-base|FILE.json [OPTION...] DIR\n"
    "\n"
    "Writes a model with seeded random weights to DIR, in diffusers layout: for tests and\n"
    "measurements. The same arguments give the same bytes everywhere.\n"
    "\n"
    "  --arch sdxl-base|FILE     the architecture: SDXL base's, or that of a JSON file\n"
    "  --seed N                  default 0\n"
    "  --dtype f16|bf16|f32      of the weights; default f16\n"
    "  --json                    report as JSON\n"
    "  --help, --version\n";

enum { OPTION_ARCH, OPTION_SEED, OPTION_DTYPE, OPTION_JSON };

static const struct option options_table[] = {
    {"arch", required_argument, NULL, OPTION_ARCH},
    {"seed", required_argument, NULL, OPTION_SEED},
    {"dtype", required_argument, NULL, OPTION_DTYPE},
    {"json", no_argument, NULL, OPTION_JSON},
    ATEDM_CLI_COMMON_OPTIONS,
    {NULL, 0, NULL, 0},
};

typedef struct mkmodel_options {
    const char *arch, *dir;
    int64_t seed;
    atedm_dtype dtype;
    bool json;
} mkmodel_options;

static const atedm_cli_command command = {
    .name = "mkmodel", .help = help, .options = options_table, .letters = "h", .operands = true};

// Returns true if a model is to be made. Otherwise *ret_exit is the exit status.
static bool parse(int argc, char **argv, mkmodel_options *ret_options, int *ret_exit)
{
    mkmodel_options o = {.dtype = ATEDM_F16};
    bool automatic = false;
    int option;
    while ((option = atedm_cli_next_option(&command, argc, argv, ret_exit)) >= 0) {
        switch (option) {
        case OPTION_ARCH:
            o.arch = optarg;
            break;
        case OPTION_SEED:
            if (!atedm_cli_parse_int(optarg, 0, ATEDM_SEED_MAX, &o.seed)) {
                *ret_exit = atedm_cli_usage("mkmodel", "--seed: \"%s\" is not a seed", optarg);
                return false;
            }
            break;
        case OPTION_DTYPE:
            if (!atedm_cli_parse_dtype(optarg, &automatic, &o.dtype) || automatic) {
                *ret_exit =
                    atedm_cli_usage("mkmodel", "--dtype: \"%s\" is not f16, bf16 or f32", optarg);
                return false;
            }
            break;
        default:
            o.json = true;
        }
    }
    if (option == ATEDM_CLI_STOP)
        return false;
    if (!o.arch)
        *ret_exit = atedm_cli_usage("mkmodel", "--arch is missing");
    else if (optind + 1 != argc)
        *ret_exit = atedm_cli_usage("mkmodel", "one directory is needed");
    if (*ret_exit)
        return false;
    o.dir = argv[optind];
    *ret_options = o;
    return true;
}

// State of the progress callback.
typedef struct progress {
    bool visible;
    int percent;    // as last shown
    uint64_t bytes; // of all weights
} progress;

static void show_progress(void *user, uint64_t done, uint64_t total)
{
    progress *p = user;
    p->bytes = total;
    int percent = total ? (int)((double)done / (double)total * 100) : 100;
    if (!p->visible || percent == p->percent)
        return;
    p->percent = percent;
    fprintf(stderr, "\r%3d %% of %.2f GB", percent, (double)total * 1e-9);
    if (done >= total)
        fputs("\r\033[K", stderr);
    fflush(stderr);
}

int atedm_cli_mkmodel(int argc, char **argv)
{
    mkmodel_options options;
    int result;
    if (!parse(argc, argv, &options, &result))
        return result;
    atedm_error err = {""};
    progress p = {.visible = isatty(STDERR_FILENO) == 1, .percent = -1};
    double start = atedm_clock_monotonic();
    if (atedm_mkmodel(options.arch, (uint64_t)options.seed, options.dtype, options.dir,
                      show_progress, &p, &err))
        return atedm_cli_failed("mkmodel", &err);
    double seconds = atedm_clock_monotonic() - start;
    if (options.json)
        return atedm_cli_print_json(
            "mkmodel",
            json_pack("{s:s, s:s, s:I, s:s, s:I, s:f}", "model", options.dir, "arch", options.arch,
                      "seed", (json_int_t)options.seed, "dtype", atedm_dtype_name(options.dtype),
                      "weight_bytes", (json_int_t)p.bytes, "seconds", seconds));
    printf("%s: %s, seed %" PRId64 ", %s, %.2f MB of weights in %.1f s\n", options.dir,
           options.arch, options.seed, atedm_dtype_name(options.dtype), (double)p.bytes * 1e-6,
           seconds);
    return 0;
}
