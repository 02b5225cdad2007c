// The options of `atedm bench serve`: see load_options.h.
#include "cli/load_options.h"

#include "cli/cli.h"
#include "cli/load_lists.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define DEFAULT_PROMPT "a red circle on a white background"
#define DEFAULT_OPEN 512
#define DEFAULT_DURATION_S 60
#define DEFAULT_TIMEOUT_S 600
#define DEFAULT_GRACE_S 30

static const char help[] =
    "usage: atedm bench serve (--rate R | --concurrency N) [OPTION...]\n"
    "\n"
    "Puts load on a running atedmd and reports how it performs.\n"
    "\n"
    "  --rate R             open loop: R requests/s arrive at random (a Poisson process), however\n"
    "                       slow the answers are; latency counts from when a request was due\n"
    "  --concurrency N      closed loop: N clients, each sends when its last request was "
    "answered\n" ATEDM_ENDPOINT_HELP "\n"
    "  --duration S         seconds in which requests become due; default 60\n"
    "  --requests N         number of requests, in place of --duration\n"
    "  --warmup S           seconds before that whose requests are sent but not counted; default "
    "0\n"
    "  --seed N             of arrivals, choice of requests and their seeds: the same seed sends\n"
    "                       the same requests; default 1\n"
    "  --max-open N         open loop: requests open at a time, 1..4096; further due ones are\n"
    "                       sent late; default 512\n"
    "  --timeout S          of one request; default 600\n"
    "  --grace S            after Ctrl-C, how long to wait for open requests (a second Ctrl-C "
    "ends\n"
    "                       the waiting); default 30\n"
    "\n"
    "The requests: each option takes a list, separated by commas, and may be repeated; all\n"
    "combinations of prompt, size, steps and pruning are equally likely:\n"
    "  --prompt TEXT        (no list) default: " DEFAULT_PROMPT "\n"
    "  --size WxH           pixels; default: the model's native size\n"
    "  --steps N            default: the daemon's, as for the next two\n"
    "  --pruning NAME|JSON\n"
    "  --guidance-scale X   (one value)\n"
    "or\n"
    "  --mix FILE           JSON: [{\"weight\": 2, \"request\": {\"prompt\": \"a cat\", ...}}, "
    "...], "
    "with\n"
    "                       the fields of POST /generate. A request without a seed gets one\n"
    "\n"
    "  --json               report as JSON on standard output\n"
    "  -o, --output FILE    write the report to FILE as JSON, too\n"
    "  --plot FILE          write a picture of the run, SVG\n"
    "  --fail-on-errors     exit status 1 if any request failed, not only if all did\n"
    "  --help, --version\n";

enum {
    OPTION_RATE = ATEDM_ENDPOINT_N_OPTIONS,
    OPTION_CONCURRENCY,
    OPTION_DURATION,
    OPTION_REQUESTS,
    OPTION_WARMUP,
    OPTION_SEED,
    OPTION_MAX_OPEN,
    OPTION_TIMEOUT,
    OPTION_GRACE,
    OPTION_MIX,
    OPTION_PROMPT,
    OPTION_SIZE,
    OPTION_STEPS,
    OPTION_PRUNING,
    OPTION_GUIDANCE_SCALE,
    OPTION_JSON,
    OPTION_OUTPUT,
    OPTION_PLOT,
    OPTION_FAIL_ON_ERRORS,
    N_OPTIONS,
};

static const struct option options_table[] = {
    ATEDM_ENDPOINT_OPTIONS,
    {"rate", required_argument, NULL, OPTION_RATE},
    {"concurrency", required_argument, NULL, OPTION_CONCURRENCY},
    {"duration", required_argument, NULL, OPTION_DURATION},
    {"requests", required_argument, NULL, OPTION_REQUESTS},
    {"warmup", required_argument, NULL, OPTION_WARMUP},
    {"seed", required_argument, NULL, OPTION_SEED},
    {"max-open", required_argument, NULL, OPTION_MAX_OPEN},
    {"timeout", required_argument, NULL, OPTION_TIMEOUT},
    {"grace", required_argument, NULL, OPTION_GRACE},
    {"mix", required_argument, NULL, OPTION_MIX},
    {"prompt", required_argument, NULL, OPTION_PROMPT},
    {"size", required_argument, NULL, OPTION_SIZE},
    {"steps", required_argument, NULL, OPTION_STEPS},
    {"pruning", required_argument, NULL, OPTION_PRUNING},
    {"guidance-scale", required_argument, NULL, OPTION_GUIDANCE_SCALE},
    {"json", no_argument, NULL, OPTION_JSON},
    {"output", required_argument, NULL, OPTION_OUTPUT},
    {"plot", required_argument, NULL, OPTION_PLOT},
    {"fail-on-errors", no_argument, NULL, OPTION_FAIL_ON_ERRORS},
    ATEDM_CLI_COMMON_OPTIONS,
    {NULL, 0, NULL, 0},
};

// The allowed values of each option, for error messages.
static const char *const allowed[N_OPTIONS] = {
    [OPTION_RATE] = "over 0, up to 100000 requests/s",
    [OPTION_CONCURRENCY] = "1..4096 clients",
    [OPTION_DURATION] = "over 0, up to 1000000 s",
    [OPTION_REQUESTS] = "1..1000000 requests",
    [OPTION_WARMUP] = "0..1000000 s",
    [OPTION_SEED] = "0..9223372036854775807",
    [OPTION_MAX_OPEN] = "1..4096 requests",
    [OPTION_TIMEOUT] = "over 0, up to 1000000 s",
    [OPTION_GRACE] = "0..1000000 s",
    [OPTION_PROMPT] = "1..8192 bytes of UTF-8; 64 prompts at most",
    [OPTION_SIZE] = "WxH with 1..16384 pixels a side; 64 sizes at most",
    [OPTION_STEPS] = "1..150; 64 values at most",
    [OPTION_GUIDANCE_SCALE] = "0..30",
};

// The given options, before they are combined.
typedef struct given {
    atedm_load_options *o;
    atedm_load_lists lists;
    const char *mix;
    bool is[N_OPTIONS];
} given;

// Seconds within 0..ATEDM_LOAD_MAX_SECONDS, over 0 unless `zero`.
static bool parse_seconds(const char *text, bool zero, double *ret_seconds)
{
    double value;
    if (!atedm_cli_parse_real(text, &value) || value < 0 || value > ATEDM_LOAD_MAX_SECONDS ||
        (value == 0 && !zero))
        return false;
    *ret_seconds = value;
    return true;
}

static bool parse_seed(const char *text, uint64_t *ret_seed)
{
    int64_t value;
    if (!atedm_cli_parse_int(text, 0, ATEDM_SEED_MAX, &value))
        return false;
    *ret_seed = (uint64_t)value;
    return true;
}

// Takes an option of the load itself. False if its value is wrong.
static bool take_plan(atedm_load_plan *p, int option, const char *value)
{
    switch (option) {
    case OPTION_RATE:
        return atedm_cli_parse_real(value, &p->rate) && p->rate > 0 &&
               p->rate <= ATEDM_LOAD_MAX_RATE;
    case OPTION_CONCURRENCY:
    case OPTION_MAX_OPEN:
        return atedm_cli_parse_int(value, 1, ATEDM_LOAD_MAX_OPEN, &p->max_open);
    case OPTION_DURATION:
        return parse_seconds(value, false, &p->duration_s);
    case OPTION_REQUESTS:
        return atedm_cli_parse_int(value, 1, ATEDM_LOAD_MAX_REQUESTS, &p->requests);
    case OPTION_WARMUP:
        return parse_seconds(value, true, &p->warm_up_s);
    case OPTION_SEED:
        return parse_seed(value, &p->seed);
    case OPTION_TIMEOUT:
        return parse_seconds(value, false, &p->timeout_s);
    default:
        return parse_seconds(value, true, &p->grace_s);
    }
}

// Takes one option's value. Returns the exit status, 0 if it is right.
static int take(given *g, int option, const char *value)
{
    bool good = true;
    g->is[option] = true;
    switch (option) {
    case ATEDM_ENDPOINT_URL:
    case ATEDM_ENDPOINT_UNIX_SOCKET:
    case ATEDM_ENDPOINT_CA_FILE:
    case ATEDM_ENDPOINT_API_KEY:
        atedm_endpoint_take(&g->o->plan.endpoint, (atedm_endpoint_option)option, value);
        break;
    case OPTION_MIX:
        g->mix = value;
        break;
    case OPTION_PROMPT:
        good = atedm_load_lists_add_prompt(&g->lists, value);
        break;
    case OPTION_SIZE:
        good = atedm_load_lists_add_sizes(&g->lists, value);
        break;
    case OPTION_STEPS:
        good = atedm_load_lists_add_steps(&g->lists, value);
        break;
    case OPTION_PRUNING:
        return atedm_load_lists_add_prunings(&g->lists, value);
    case OPTION_GUIDANCE_SCALE:
        good = atedm_load_lists_add_guidance(&g->lists, value);
        break;
    case OPTION_JSON:
        g->o->json = true;
        break;
    case OPTION_OUTPUT:
        g->o->output = value;
        break;
    case OPTION_PLOT:
        g->o->plot = value;
        break;
    case OPTION_FAIL_ON_ERRORS:
        g->o->fail_on_errors = true;
        break;
    default:
        good = take_plan(&g->o->plan, option, value);
    }
    if (good)
        return 0;
    return atedm_cli_usage("bench serve", "--%s: \"%s\" is not %s", options_table[option].name,
                           value, allowed[option]);
}

// Checks for options that exclude each other. Returns the exit status, 0 if there are none.
static int check_together(const given *g)
{
    if (g->is[OPTION_RATE] == g->is[OPTION_CONCURRENCY])
        return atedm_cli_usage("bench serve", "one of --rate and --concurrency is needed");
    if (g->is[OPTION_DURATION] && g->is[OPTION_REQUESTS])
        return atedm_cli_usage("bench serve", "--duration and --requests exclude each other");
    if (g->is[OPTION_CONCURRENCY] && g->is[OPTION_MAX_OPEN])
        return atedm_cli_usage("bench serve", "--max-open goes with --rate only");
    for (int i = OPTION_PROMPT; i <= OPTION_GUIDANCE_SCALE; i++)
        if (g->is[OPTION_MIX] && g->is[i])
            return atedm_cli_usage("bench serve", "--mix and --%s exclude each other",
                                   options_table[i].name);
    const atedm_load_plan *p = &g->o->plan;
    double expected = p->rate * (p->warm_up_s + (g->is[OPTION_REQUESTS] ? 0 : p->duration_s)) +
                      (g->is[OPTION_REQUESTS] ? (double)p->requests : 0);
    if (p->rate > 0 && expected > ATEDM_LOAD_MAX_REQUESTS)
        return atedm_cli_usage("bench serve", "%.0f requests are more than %d", expected,
                               ATEDM_LOAD_MAX_REQUESTS);
    return 0;
}

// Sets defaults, and derives the values that depend on several options. Returns the exit status, 0
// if all is well.
static int complete(given *g)
{
    atedm_load_options *o = g->o;
    atedm_error err = {""};
    int result = check_together(g);
    if (result)
        return result;
    if (g->is[OPTION_REQUESTS])
        o->plan.duration_s = INFINITY;
    result = atedm_endpoint_check(&o->plan.endpoint, "bench serve");
    if (result || !atedm_endpoint_address(&o->plan.endpoint, "/generate", sizeof o->url, o->url))
        return result;
    if (!g->lists.n_prompts && !atedm_load_lists_add_prompt(&g->lists, DEFAULT_PROMPT))
        return ATEDM_EXIT_FAILED;
    atedm_status status = g->mix ? atedm_load_mix_read(g->mix, &o->mix, &err)
                                 : atedm_load_lists_cross(&g->lists, &o->mix, &err);
    if (status)
        return atedm_cli_usage("bench serve", "%s%s", g->mix ? "--mix: " : "", err.message);
    return 0;
}

static const atedm_cli_command command = {
    .name = "bench serve", .help = help, .options = options_table, .letters = "ho:"};

static int parse(given *g, int argc, char **argv, bool *ret_run)
{
    int option, result;
    while ((option = atedm_cli_next_option(&command, argc, argv, &result)) >= 0) {
        result = take(g, option == 'o' ? OPTION_OUTPUT : option, optarg);
        if (result)
            return result;
    }
    if (option == ATEDM_CLI_STOP)
        return result;
    result = complete(g);
    *ret_run = !result;
    return result;
}

bool atedm_load_options_parse(int argc, char **argv, atedm_load_options *ret_options, int *ret_exit)
{
    bool run = false;
    given *g = calloc(1, sizeof *g);
    if (!g) {
        *ret_exit = atedm_cli_failed("bench serve", &(atedm_error){"no memory"});
        return false;
    }
    *ret_options = (atedm_load_options){
        .plan = {.url = ret_options->url,
                 .mix = &ret_options->mix,
                 .seed = 1,
                 .max_open = DEFAULT_OPEN,
                 .duration_s = DEFAULT_DURATION_S,
                 .requests = INT64_MAX,
                 .limit = ATEDM_LOAD_MAX_REQUESTS,
                 .timeout_s = DEFAULT_TIMEOUT_S,
                 .grace_s = DEFAULT_GRACE_S},
    };
    g->o = ret_options;
    atedm_endpoint_init(&ret_options->plan.endpoint);
    g->lists.guidance_scale = NAN;
    *ret_exit = parse(g, argc, argv, &run);
    atedm_load_lists_finish(&g->lists);
    free(g);
    return run;
}

void atedm_load_options_finish(atedm_load_options *options)
{
    if (options)
        atedm_load_mix_finish(&options->mix);
}
