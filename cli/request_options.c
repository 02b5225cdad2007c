// The options of `atedm request`: see request_options.h.
#include "cli/request_options.h"

#include "cli/cli.h"

#include <stdint.h>
#include <stdio.h>
#include <string.h>

static const char help[] =
    "usage: atedm request --prompt TEXT -o FILE.png [OPTION...]\n"
    "\n"
    "Requests a picture from a running atedmd. The request is a job: it survives the loss of the\n"
    "connection or the daemon. Ctrl-C cancels it.\n"
    "\n"
    "  --prompt TEXT        what to show\n"
    "  -o, --output FILE    PNG file; several images: FILE-0.png, FILE-1.png, ...\n"
    "  --negative-prompt TEXT\n"
    "  --width N, --height N\n"
    "  --steps N\n"
    "  --guidance-scale X\n"
    "  --seed N             default: drawn at random, and reported\n"
    "  --num-images N\n"
    "  --sampler NAME\n"
    "  --pruning NAME|JSON\n"
    "  --deadline-s X\n"
    "  --priority N\n"
    "Each is the field of POST /generate of that name; limits and defaults are the daemon's.\n"
    "\n" ATEDM_ENDPOINT_HELP "\n"
    "  --patience S         how long to retry a daemon that is no longer reachable; default 60\n"
    "  --json               report as JSON on standard output\n"
    "  --help, --version\n";

enum {
    OPTION_OUTPUT = ATEDM_ENDPOINT_N_OPTIONS,
    OPTION_PROMPT,
    OPTION_NEGATIVE_PROMPT,
    OPTION_WIDTH,
    OPTION_HEIGHT,
    OPTION_STEPS,
    OPTION_GUIDANCE_SCALE,
    OPTION_SEED,
    OPTION_NUM_IMAGES,
    OPTION_SAMPLER,
    OPTION_PRUNING,
    OPTION_DEADLINE_S,
    OPTION_PRIORITY,
    OPTION_PATIENCE,
    OPTION_JSON,
};

static const struct option options_table[] = {
    ATEDM_ENDPOINT_OPTIONS,
    {"output", required_argument, NULL, OPTION_OUTPUT},
    {"prompt", required_argument, NULL, OPTION_PROMPT},
    {"negative-prompt", required_argument, NULL, OPTION_NEGATIVE_PROMPT},
    {"width", required_argument, NULL, OPTION_WIDTH},
    {"height", required_argument, NULL, OPTION_HEIGHT},
    {"steps", required_argument, NULL, OPTION_STEPS},
    {"guidance-scale", required_argument, NULL, OPTION_GUIDANCE_SCALE},
    {"seed", required_argument, NULL, OPTION_SEED},
    {"num-images", required_argument, NULL, OPTION_NUM_IMAGES},
    {"sampler", required_argument, NULL, OPTION_SAMPLER},
    {"pruning", required_argument, NULL, OPTION_PRUNING},
    {"deadline-s", required_argument, NULL, OPTION_DEADLINE_S},
    {"priority", required_argument, NULL, OPTION_PRIORITY},
    {"patience", required_argument, NULL, OPTION_PATIENCE},
    {"json", no_argument, NULL, OPTION_JSON},
    ATEDM_CLI_COMMON_OPTIONS,
    {NULL, 0, NULL, 0},
};

// What a field's value must be, for the error message.
static const char *const kinds[] = {
    [OPTION_PROMPT] = "UTF-8",        [OPTION_NEGATIVE_PROMPT] = "UTF-8",
    [OPTION_WIDTH] = "an integer",    [OPTION_HEIGHT] = "an integer",
    [OPTION_STEPS] = "an integer",    [OPTION_GUIDANCE_SCALE] = "a number",
    [OPTION_SEED] = "an integer",     [OPTION_NUM_IMAGES] = "an integer",
    [OPTION_SAMPLER] = "UTF-8",       [OPTION_PRUNING] = "a name or a JSON object",
    [OPTION_DEADLINE_S] = "a number", [OPTION_PRIORITY] = "an integer",
};

// The option's value as JSON; NULL: the text is invalid, or out of memory.
static json_t *parse_value(int option, const char *text)
{
    int64_t integer;
    double real;
    switch (option) {
    case OPTION_WIDTH:
    case OPTION_HEIGHT:
    case OPTION_STEPS:
    case OPTION_SEED:
    case OPTION_NUM_IMAGES:
    case OPTION_PRIORITY:
        return atedm_cli_parse_int(text, INT64_MIN, INT64_MAX, &integer) ? json_integer(integer)
                                                                         : NULL;
    case OPTION_GUIDANCE_SCALE:
    case OPTION_DEADLINE_S:
        return atedm_cli_parse_real(text, &real) ? json_real(real) : NULL;
    case OPTION_PRUNING:
        return *text == '{' ? json_loads(text, JSON_REJECT_DUPLICATES, NULL) : json_string(text);
    default:
        return json_string(text);
    }
}

// Sets the body's field: "guidance-scale" sets "guidance_scale". Returns the exit status; 0: valid.
static int take_field(json_t *fields, int option, const char *text)
{
    char name[32];
    snprintf(name, sizeof name, "%s", options_table[option].name);
    for (char *c = name; *c; c++)
        *c = *c == '-' ? '_' : *c;
    if (!json_object_set_new(fields, name, parse_value(option, text)))
        return 0;
    return atedm_cli_usage("request", "--%s: \"%s\" is not %s", options_table[option].name, text,
                           kinds[option]);
}

static int take_patience(atedm_request_options *o, const char *value)
{
    double seconds;
    if (!atedm_cli_parse_real(value, &seconds) || seconds < 0 ||
        seconds > ATEDM_REQUEST_MAX_PATIENCE_S)
        return atedm_cli_usage("request", "--patience: \"%s\" is not 0..%g s", value,
                               ATEDM_REQUEST_MAX_PATIENCE_S);
    o->patience_s = seconds;
    return 0;
}

// Takes one option. Returns the exit status; 0: valid.
static int take(atedm_request_options *o, int option, const char *value)
{
    if (option < ATEDM_ENDPOINT_N_OPTIONS)
        atedm_endpoint_take(&o->endpoint, (atedm_endpoint_option)option, value);
    else if (option == OPTION_OUTPUT || option == 'o')
        o->output = value;
    else if (option == OPTION_JSON)
        o->json = true;
    else if (option == OPTION_PATIENCE)
        return take_patience(o, value);
    else
        return take_field(o->fields, option, value);
    return 0;
}

static const atedm_cli_command command = {
    .name = "request", .help = help, .options = options_table, .letters = "ho:"};

static int parse(int argc, char **argv, atedm_request_options *o, bool *ret_run)
{
    int option, result;
    while ((option = atedm_cli_next_option(&command, argc, argv, &result)) >= 0) {
        result = take(o, option, optarg);
        if (result)
            return result;
    }
    if (option == ATEDM_CLI_STOP)
        return result;
    if (!o->output || !json_object_get(o->fields, "prompt"))
        return atedm_cli_usage("request", "--%s is missing", o->output ? "prompt" : "output");
    result = atedm_endpoint_check(&o->endpoint, "request");
    *ret_run = !result;
    return result;
}

bool atedm_request_options_parse(int argc, char **argv, atedm_request_options *ret_options,
                                 int *ret_exit)
{
    bool run = false;
    atedm_request_options o = {.fields = json_object(), .patience_s = ATEDM_REQUEST_PATIENCE_S};
    atedm_endpoint_init(&o.endpoint);
    *ret_exit = o.fields ? parse(argc, argv, &o, &run)
                         : atedm_cli_failed("request", &(atedm_error){"no memory"});
    if (run)
        *ret_options = o;
    else
        atedm_request_options_finish(&o);
    return run;
}

void atedm_request_options_finish(atedm_request_options *options)
{
    if (options)
        json_decref(options->fields);
}
