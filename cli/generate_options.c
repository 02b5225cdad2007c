// The options of `atedm generate`: see generate_options.h.
#include "cli/generate_options.h"

#include "cli/cli.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char help[] =
    "usage: atedm generate --model DIR --prompt TEXT -o FILE.png [OPTION...]\n"
    "\n"
    "Makes a picture in this process, without a daemon.\n"
    "\n"
    "  --model DIR               model: a folder in diffusers layout, or FILE.safetensors in one\n"
    "  --prompt TEXT             what to show, 1..8192 bytes of UTF-8\n"
    "  -o, --output FILE         PNG file; several images: FILE-0.png, FILE-1.png, ...\n"
    "  --negative-prompt TEXT    what not to show\n"
    "  --width N, --height N     pixels; sides up to 16384, 67108864 in all; default: the\n"
    "                            model's native size\n"
    "  --steps N                 denoising steps, 1..150; default 30\n"
    "  --guidance-scale X        0..30; 1 and below turn guidance off; default 7\n"
    "  --seed N                  default: drawn at random, and reported\n"
    "  --num-images N            1..256; image i takes seed + i; default 1\n"
    "  --sampler NAME            euler, euler_ancestral, dpmpp_2m, dpmpp_2m_karras; default euler\n"
    "  --pruning NAME|JSON       off, at-edm, at-edm-a .. at-edm-d, at-edm-dagger, or an object "
    "as\n"
    "                            in the daemon's \"pruning\"; default at-edm-dagger\n"
    "  --deadline-s X            give up between two steps after X seconds\n"
    "\n"
    "  --backend auto|cpu|cuda|ref  default auto; cuda:1 or cuda:GPU-... is one of several GPUs\n"
    "  --dtype auto|f32|bf16|f16 default auto: the fastest on this machine\n"
    "  --dump DIR                also write every intermediate to DIR/stages.safetensors; its "
    "names\n"
    "                            are in api.md, \"Dumps\"\n"
    "  --latents FILE            start from the tensor latents_init of a safetensors file; the "
    "seed\n"
    "                            still draws which tokens are kept, and a sampler's noise\n"
    "  --json                    report as JSON on standard output\n"
    "  --help, --version\n";

enum { OPTION_JSON = ATEDM_GENERATE_N_VALUES };

static const struct option options_table[] = {
    {"model", required_argument, NULL, ATEDM_GENERATE_MODEL},
    {"output", required_argument, NULL, ATEDM_GENERATE_OUTPUT},
    {"prompt", required_argument, NULL, ATEDM_GENERATE_PROMPT},
    {"negative-prompt", required_argument, NULL, ATEDM_GENERATE_NEGATIVE_PROMPT},
    {"width", required_argument, NULL, ATEDM_GENERATE_WIDTH},
    {"height", required_argument, NULL, ATEDM_GENERATE_HEIGHT},
    {"steps", required_argument, NULL, ATEDM_GENERATE_STEPS},
    {"guidance-scale", required_argument, NULL, ATEDM_GENERATE_GUIDANCE_SCALE},
    {"seed", required_argument, NULL, ATEDM_GENERATE_SEED},
    {"num-images", required_argument, NULL, ATEDM_GENERATE_NUM_IMAGES},
    {"sampler", required_argument, NULL, ATEDM_GENERATE_SAMPLER},
    {"pruning", required_argument, NULL, ATEDM_GENERATE_PRUNING},
    {"deadline-s", required_argument, NULL, ATEDM_GENERATE_DEADLINE_S},
    {"backend", required_argument, NULL, ATEDM_GENERATE_BACKEND},
    {"dtype", required_argument, NULL, ATEDM_GENERATE_DTYPE},
    {"dump", required_argument, NULL, ATEDM_GENERATE_DUMP},
    {"latents", required_argument, NULL, ATEDM_GENERATE_LATENTS},
    {"json", no_argument, NULL, OPTION_JSON},
    ATEDM_CLI_COMMON_OPTIONS,
    {NULL, 0, NULL, 0},
};

static const atedm_cli_command command = {
    .name = "generate", .help = help, .options = options_table, .letters = "ho:"};

bool atedm_generate_options_parse(int argc, char **argv, atedm_generate_options *ret_options,
                                  int *ret_exit)
{
    atedm_generate_options options = {0};
    int option;
    while ((option = atedm_cli_next_option(&command, argc, argv, ret_exit)) >= 0) {
        if (option == OPTION_JSON)
            options.json = true;
        else
            options.values[option == 'o' ? ATEDM_GENERATE_OUTPUT : option] = optarg;
    }
    if (option == ATEDM_CLI_STOP)
        return false;
    for (int i = ATEDM_GENERATE_MODEL; i <= ATEDM_GENERATE_PROMPT; i++) {
        if (!options.values[i]) {
            *ret_exit = atedm_cli_usage("generate", "--%s is missing", options_table[i].name);
            return false;
        }
    }
    *ret_options = options;
    return true;
}

// Parses an option's integer, if the option was given. Adds an error, and leaves *ret_value alone,
// if the text is not an integer in the range. The request's validation may refuse it all the same.
static void read_int(const atedm_generate_options *options, atedm_generate_option which,
                     const char *pointer, atedm_integer_range range, int64_t *ret_value,
                     atedm_field_errors *errors)
{
    const char *text = options->values[which];
    if (text && !atedm_cli_parse_int(text, range.min, range.max, ret_value))
        atedm_field_errors_add(errors, pointer,
                               "\"%s\" is not an integer within %" PRId64 "..%" PRId64, text,
                               range.min, range.max);
}

static void read_real(const atedm_generate_options *options, atedm_generate_option which,
                      const char *pointer, double *ret_value, atedm_field_errors *errors)
{
    const char *text = options->values[which];
    if (text && !atedm_cli_parse_real(text, ret_value))
        atedm_field_errors_add(errors, pointer, "\"%s\" is not a number", text);
}

static char *copy_text(const char *text, const char *pointer, atedm_field_errors *errors)
{
    char *copy = strdup(text);
    if (!copy)
        atedm_field_errors_add(errors, pointer, "no memory");
    return copy;
}

static void draw_seed(uint64_t *ret_seed, atedm_field_errors *errors)
{
    atedm_error err;
    if (atedm_draw_seed(ret_seed, &err))
        atedm_field_errors_add(errors, "/seed", "%s", err.message);
}

void atedm_generate_options_request(const atedm_generate_options *options,
                                    const atedm_model_config *config, atedm_request *ret_request,
                                    atedm_field_errors *errors)
{
    const char *const *values = options->values;
    atedm_request_limits limits = atedm_cli_limits(config);
    atedm_prune_spec prune = {0};
    const char *pruning = values[ATEDM_GENERATE_PRUNING];
    atedm_cli_parse_pruning(pruning ? pruning : "at-edm-dagger", &prune, errors);
    if (errors->count)
        prune = (atedm_prune_spec){.enabled = false};
    atedm_request r = {0};
    atedm_request_init(&r, &limits, &prune);
    r.prompt = copy_text(values[ATEDM_GENERATE_PROMPT], "/prompt", errors);
    if (values[ATEDM_GENERATE_NEGATIVE_PROMPT])
        r.negative_prompt =
            copy_text(values[ATEDM_GENERATE_NEGATIVE_PROMPT], "/negative_prompt", errors);
    int64_t steps = r.steps, images = r.num_images, seed = 0;
    atedm_integer_range side = atedm_request_range(&limits, ATEDM_REQUEST_SIDE);
    read_int(options, ATEDM_GENERATE_WIDTH, "/width", side, &r.width, errors);
    read_int(options, ATEDM_GENERATE_HEIGHT, "/height", side, &r.height, errors);
    read_int(options, ATEDM_GENERATE_STEPS, "/steps",
             atedm_request_range(&limits, ATEDM_REQUEST_STEPS), &steps, errors);
    read_int(options, ATEDM_GENERATE_NUM_IMAGES, "/num_images",
             atedm_request_range(&limits, ATEDM_REQUEST_NUM_IMAGES), &images, errors);
    read_int(options, ATEDM_GENERATE_SEED, "/seed",
             atedm_request_range(&limits, ATEDM_REQUEST_SEED), &seed, errors);
    r.seed = (uint64_t)seed;
    if (!values[ATEDM_GENERATE_SEED])
        draw_seed(&r.seed, errors);
    read_real(options, ATEDM_GENERATE_GUIDANCE_SCALE, "/guidance_scale", &r.guidance_scale, errors);
    read_real(options, ATEDM_GENERATE_DEADLINE_S, "/deadline_s", &r.deadline_s, errors);
    r.steps = (int)steps;
    r.num_images = (int)images;
    const char *sampler = values[ATEDM_GENERATE_SAMPLER];
    if (sampler && strlen(sampler) >= sizeof r.sampler)
        atedm_field_errors_add_sampler(errors, sampler);
    else if (sampler)
        snprintf(r.sampler, sizeof r.sampler, "%s", sampler);
    if (r.prompt) // values that could not be parsed have been reported; here they have the defaults
        atedm_request_validate(&r, &limits, errors);
    *ret_request = r;
}
