// Reads the configuration: see config.h. Checks only types and ranges; the daemon checks what
// values such as a model's path or a pruning default mean.
#include "config/config.h"

#include "core/engine.h"
#include "core/json_read.h"
#include "core/sampler.h"

#include <ctype.h>
#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define NAME_MAX_BYTES 64 // of an option's name, variable or flag

typedef enum option_type {
    OPTION_TEXT,
    OPTION_OPTIONAL, // text, may be empty
    OPTION_CHOICE,   // one of `choices`
    OPTION_INTEGER,
    OPTION_REAL,
    OPTION_BOOL,
    OPTION_PRUNING, // text; in the file it may also be an object
} option_type;

// `name` is the option's key in the file. The variable ATEDM_NAME and the flag --name (with dashes)
// are derived from it.
typedef struct option {
    const char *name;
    option_type type;
    size_t offset, size; // of its field in atedm_config
    bool live;           // a reload can change it
    const char *initial; // its default, as text
    double min, max;
    const char *choices; // separated by |
    const char *value;   // placeholder for the value in --help
    const char *help;
} option;

#define ANY_FIELD(name) offsetof(atedm_config, name), sizeof(((atedm_config *)NULL)->name)
#define FIELD(name) ANY_FIELD(name), false
#define LIVE_FIELD(name) ANY_FIELD(name), true

static const option options[] = {
    {"model", OPTION_TEXT, FIELD(model), "models/demo", 0, 0, NULL, "DIR",
     "model: a folder in diffusers layout, or FILE.safetensors in one"},
    {"listen", OPTION_TEXT, FIELD(listen), "127.0.0.1:8080", 0, 0, NULL, "LIST",
     "addresses to listen on, separated by commas: ADDRESS:PORT (port 0 picks a free one), "
     "https://ADDRESS:PORT, unix:/PATH, systemd (sockets that systemd passes)"},
    {"socket_mode", OPTION_TEXT, FIELD(socket_mode), "0660", 0, 0, NULL, "OCTAL",
     "permissions of the files of Unix sockets"},
    {"tls_cert", OPTION_OPTIONAL, LIVE_FIELD(tls_cert), "", 0, 0, NULL, "FILE",
     "certificate for https://, in PEM, followed by its chain to the root"},
    {"tls_key", OPTION_OPTIONAL, LIVE_FIELD(tls_key), "", 0, 0, NULL, "FILE",
     "the certificate's key, in PEM"},
    {"backend", OPTION_CHOICE, FIELD(backend), "auto", 0, 0, "auto|cpu|cuda|ref", "NAME",
     "compute backend: auto (the best available), cuda (an NVIDIA GPU), cpu (oneDNN), ref (plain "
     "C, slow)"},
    {"devices", OPTION_TEXT, FIELD(devices), "auto", 0, 0, NULL, "LIST",
     "NVIDIA GPUs to use, by index or UUID, separated by commas; auto: all visible ones"},
    {"dtype", OPTION_CHOICE, FIELD(dtype), "auto", 0, 0, "auto|f32|bf16|f16", "NAME",
     "type of activations: auto (the fastest on this machine), f32, bf16, f16"},
    {"default_pruning", OPTION_PRUNING, LIVE_FIELD(default_pruning), "at-edm-dagger", 0, 0, NULL,
     "NAME|JSON", "pruning of a request that names none: a preset, off, auto, or a JSON object"},
    {"latency_objective_s", OPTION_REAL, LIVE_FIELD(latency_objective_s), "0", 0, 86400, NULL,
     "SECONDS", "seconds from request to answer that pruning \"auto\" aims at; 0: no auto"},
    {"auto_floor", OPTION_TEXT, LIVE_FIELD(auto_floor), "at-edm-c", 0, 0, NULL, "PRESET",
     "the strongest preset that auto may take"},
    {"queue_limit", OPTION_INTEGER, LIVE_FIELD(queue_limit), "64", 1, 100000, NULL, "N",
     "requests that may wait; further ones get 503"},
    {"workers", OPTION_INTEGER, FIELD(workers), "1", 1, 64, NULL, "N",
     "worker processes on each device, each with the model in its memory"},
    {"worker_timeout_s", OPTION_REAL, LIVE_FIELD(worker_timeout_s), "600", 0.1, 86400, NULL,
     "SECONDS", "a busy worker that is silent this long is ended and started again"},
    {"max_active", OPTION_INTEGER, FIELD(max_active), "16", 1, 4096, NULL, "N",
     "requests that a worker has at a time; further ones wait in the queue"},
    {"max_batch", OPTION_INTEGER, FIELD(max_batch), "8", 1, ATEDM_ENGINE_MAX_BATCH, NULL, "N",
     "images in one UNet evaluation"},
    {"memory_limit", OPTION_INTEGER, FIELD(memory_limit), "0", 0, 1e15, NULL, "BYTES",
     "device memory of a worker; 0: most of what its GPU, or on a CPU its container, has left"},
    {"job_store", OPTION_TEXT, FIELD(job_store), "auto", 0, 0, NULL, "FILE",
     "where jobs are kept; auto: jobs.db in $STATE_DIRECTORY, or in the user's state folder"},
    {"job_retention_s", OPTION_INTEGER, LIVE_FIELD(job_retention_s), "86400", 1, 1e9, NULL,
     "SECONDS", "jobs that ended longer ago are removed"},
    {"job_retention_bytes", OPTION_INTEGER, LIVE_FIELD(job_retention_bytes), "1073741824", 1, 1e15,
     NULL, "BYTES", "of all kept results together; the oldest are removed first"},
    {"cancel_on_disconnect", OPTION_BOOL, LIVE_FIELD(cancel_on_disconnect), "true", 0, 0,
     "true|false", "true|false", "whether a request ends when its waiting client goes away"},
    {"max_area", OPTION_INTEGER, LIVE_FIELD(max_area), "2359296", 64, 268435456, NULL, "PIXELS",
     "pixels of one image"},
    {"max_images", OPTION_INTEGER, LIVE_FIELD(max_images), "8", 1, 256, NULL, "N",
     "images of one request"},
    {"max_steps", OPTION_INTEGER, LIVE_FIELD(max_steps), "150", 1, ATEDM_MAX_STEPS, NULL, "N",
     "denoising steps of one request"},
    {"max_body_bytes", OPTION_INTEGER, FIELD(max_body_bytes), "1048576", 1024, 67108864, NULL,
     "BYTES", "bytes of a request's body; longer ones get 413"},
    {"max_connections", OPTION_INTEGER, FIELD(max_connections), "1024", 1, 100000, NULL, "N",
     "open connections; further ones wait to be accepted"},
    {"connection_timeout_s", OPTION_REAL, FIELD(connection_timeout_s), "60", 1, 86400, NULL,
     "SECONDS", "a silent connection is closed after this time; a request must arrive within it"},
    {"api_keys", OPTION_OPTIONAL, LIVE_FIELD(api_keys), "", 0, 0, NULL, "FILE",
     "file with the keys that clients need (atedm key makes them); none: no key is needed"},
    {"drain_timeout_s", OPTION_REAL, LIVE_FIELD(drain_timeout_s), "300", 0, 86400, NULL, "SECONDS",
     "time to finish requests after a signal to end; then they are cut off"},
    {"log_format", OPTION_CHOICE, LIVE_FIELD(log_format), "text", 0, 0, "text|json", "NAME",
     "lines on standard error: text or json"},
    {"log_level", OPTION_CHOICE, LIVE_FIELD(log_level), "info", 0, 0, "debug|info|warning|error",
     "NAME", "lowest severity that is logged"},
};
#define N_OPTIONS (sizeof options / sizeof *options)
_Static_assert(N_OPTIONS <= ATEDM_CONFIG_MAX_OPTIONS, "atedm_config_changes has room for all");

// ---- an option's names

static void environment_name(const char *name, char ret_text[NAME_MAX_BYTES])
{
    int size = snprintf(ret_text, NAME_MAX_BYTES, "ATEDM_%s", name);
    for (int i = 0; i < size; i++)
        ret_text[i] = (char)toupper((unsigned char)ret_text[i]);
}

static void flag_name(const char *name, char ret_text[NAME_MAX_BYTES])
{
    int size = snprintf(ret_text, NAME_MAX_BYTES, "--%s", name);
    for (int i = 0; i < size; i++) {
        if (ret_text[i] == '_')
            ret_text[i] = '-';
    }
}

static bool is_choice(const char *choices, const char *text)
{
    size_t size = strlen(text);
    if (size == 0 || strchr(text, '|'))
        return false;
    for (const char *c = choices; c; c = strchr(c, '|'), c += c != NULL) {
        if (strncmp(c, text, size) == 0 && (c[size] == '|' || c[size] == '\0'))
            return true;
    }
    return false;
}

// ---- setting a value; the caller adds to messages where the value comes from

static atedm_status set_text(const option *o, const char *text, void *field, atedm_error *err)
{
    if (o->type == OPTION_CHOICE && !is_choice(o->choices, text))
        return atedm_error_set(err, ATEDM_ERR_INVALID, "\"%s\" is not one of %s", text, o->choices);
    if (!*text && o->type != OPTION_OPTIONAL)
        return atedm_error_set(err, ATEDM_ERR_INVALID, "is empty");
    if (strlen(text) >= o->size)
        return atedm_error_set(err, ATEDM_ERR_LIMIT, "has more than %zu bytes", o->size - 1);
    snprintf(field, o->size, "%s", text);
    return ATEDM_OK;
}

static atedm_status set_integer(const option *o, const char *text, int64_t *ret_value,
                                atedm_error *err)
{
    char *end;
    errno = 0;
    long long value = strtoll(text, &end, 10);
    if (end == text || *end)
        return atedm_error_set(err, ATEDM_ERR_INVALID, "\"%s\" is not an integer", text);
    if (errno || (double)value < o->min || (double)value > o->max)
        return atedm_error_set(err, ATEDM_ERR_LIMIT, "%s is not within %.0f..%.0f", text, o->min,
                               o->max);
    *ret_value = value;
    return ATEDM_OK;
}

static atedm_status set_real(const option *o, const char *text, double *ret_value, atedm_error *err)
{
    char *end;
    double value = strtod(text, &end);
    if (end == text || *end || isnan(value))
        return atedm_error_set(err, ATEDM_ERR_INVALID, "\"%s\" is not a number", text);
    if (value < o->min || value > o->max)
        return atedm_error_set(err, ATEDM_ERR_LIMIT, "%s is not within %g..%g", text, o->min,
                               o->max);
    *ret_value = value;
    return ATEDM_OK;
}

static atedm_status set_bool(const option *o, const char *text, bool *ret_value, atedm_error *err)
{
    if (!is_choice(o->choices, text))
        return atedm_error_set(err, ATEDM_ERR_INVALID, "\"%s\" is not one of %s", text, o->choices);
    *ret_value = strcmp(text, "true") == 0;
    return ATEDM_OK;
}

static atedm_status set(const option *o, const char *text, atedm_config *config, atedm_error *err)
{
    void *field = (char *)config + o->offset;
    switch (o->type) {
    case OPTION_INTEGER:
        return set_integer(o, text, field, err);
    case OPTION_REAL:
        return set_real(o, text, field, err);
    case OPTION_BOOL:
        return set_bool(o, text, field, err);
    case OPTION_TEXT:
    case OPTION_OPTIONAL:
    case OPTION_CHOICE:
    case OPTION_PRUNING:
        break;
    }
    return set_text(o, text, field, err);
}

// ---- the file

static atedm_status set_json(const option *o, const json_t *value, atedm_config *config,
                             atedm_error *err)
{
    char number[32];
    if (o->type == OPTION_INTEGER) {
        if (!json_is_integer(value))
            return atedm_error_set(err, ATEDM_ERR_INVALID, "is not an integer");
        snprintf(number, sizeof number, "%" JSON_INTEGER_FORMAT, json_integer_value(value));
        return set(o, number, config, err);
    }
    if (o->type == OPTION_REAL) {
        if (!json_is_number(value))
            return atedm_error_set(err, ATEDM_ERR_INVALID, "is not a number");
        snprintf(number, sizeof number, "%.17g", json_number_value(value));
        return set(o, number, config, err);
    }
    if (o->type == OPTION_BOOL) {
        if (!json_is_boolean(value))
            return atedm_error_set(err, ATEDM_ERR_INVALID, "is neither true nor false");
        return set(o, json_is_true(value) ? "true" : "false", config, err);
    }
    if (o->type == OPTION_PRUNING && json_is_object(value)) {
        char *text = json_dumps(value, JSON_COMPACT);
        if (!text)
            return atedm_error_set(err, ATEDM_ERR_NOMEM, "no memory");
        atedm_status status = set(o, text, config, err);
        free(text);
        return status;
    }
    if (!json_is_string(value))
        return atedm_error_set(err, ATEDM_ERR_INVALID, "is not a string%s",
                               o->type == OPTION_PRUNING ? " or an object" : "");
    return set(o, json_string_value(value), config, err);
}

static const option *find(const char *name)
{
    for (size_t i = 0; i < N_OPTIONS; i++) {
        if (strcmp(options[i].name, name) == 0)
            return &options[i];
    }
    return NULL;
}

static atedm_status read_file(const char *path, atedm_config *config, atedm_error *err)
{
    json_t *object = NULL;
    atedm_status status = atedm_json_load(path, &object, err);
    if (status)
        return status;
    const char *key;
    json_t *value;
    json_object_foreach(object, key, value)
    {
        const option *o = find(key);
        if (!o) {
            status =
                atedm_error_set(err, ATEDM_ERR_INVALID, "%s: there is no option \"%s\"", path, key);
            break;
        }
        status = set_json(o, value, config, err);
        if (status) {
            status = atedm_error_context(err, status, "%s: %s", path, key);
            break;
        }
    }
    json_decref(object);
    return status;
}

// ---- environment

// The value of the variable `name`; NULL: absent or empty.
static const char *variable(char *const *environment, const char *name)
{
    size_t size = strlen(name);
    for (; *environment; environment++) {
        if (strncmp(*environment, name, size) == 0 && (*environment)[size] == '=')
            return (*environment)[size + 1] ? *environment + size + 1 : NULL;
    }
    return NULL;
}

static atedm_status read_environment(char *const *environment, atedm_config *config,
                                     atedm_error *err)
{
    for (size_t i = 0; i < N_OPTIONS; i++) {
        char name[NAME_MAX_BYTES];
        environment_name(options[i].name, name);
        const char *text = variable(environment, name);
        atedm_status status = text ? set(&options[i], text, config, err) : ATEDM_OK;
        if (status)
            return atedm_error_context(err, status, "%s", name);
    }
    return ATEDM_OK;
}

// ---- flags

// Splits the flag at argv[*i], "--name value" or "--name=value": *ret_size gets the length of
// "--name". Moves *i to the flag's last argument.
static atedm_status split_flag(int argc, char *const *argv, int *i, size_t *ret_size,
                               const char **ret_value, atedm_error *err)
{
    const char *word = argv[*i];
    const char *equals = strchr(word, '=');
    size_t size = equals ? (size_t)(equals - word) : strlen(word);
    if (equals) {
        *ret_value = equals + 1;
    } else {
        if (*i + 1 >= argc)
            return atedm_error_set(err, ATEDM_ERR_INVALID, "%s needs a value", word);
        *ret_value = argv[++*i];
    }
    *ret_size = size;
    return ATEDM_OK;
}

static const option *find_flag(const char *word)
{
    size_t size = strcspn(word, "=");
    for (size_t i = 0; i < N_OPTIONS; i++) {
        char name[NAME_MAX_BYTES];
        flag_name(options[i].name, name);
        if (strlen(name) == size && strncmp(word, name, size) == 0)
            return &options[i];
    }
    return NULL;
}

static bool is_config_flag(const char *word)
{
    return strcmp(word, "--config") == 0 || strncmp(word, "--config=", strlen("--config=")) == 0;
}

// Goes through the flags. With config NULL: finds --config, --help and --version, and refuses
// unknown flags. Else: sets values in `config`.
static atedm_status read_flags(int argc, char *const *argv, atedm_config *config,
                               const char **ret_file, atedm_config_action *ret_action,
                               atedm_error *err)
{
    for (int i = 1; i < argc; i++) {
        const char *word = argv[i];
        if (strcmp(word, "--help") == 0 || strcmp(word, "--version") == 0) {
            *ret_action = word[2] == 'h' ? ATEDM_CONFIG_HELP : ATEDM_CONFIG_VERSION;
            return ATEDM_OK;
        }
        const option *o = find_flag(word);
        if (!o && !is_config_flag(word))
            return atedm_error_set(
                err, ATEDM_ERR_INVALID,
                *word == '-' ? "there is no option \"%s\"" : "\"%s\": it takes no operands", word);
        size_t size = 0;
        const char *value = NULL;
        atedm_status status = split_flag(argc, argv, &i, &size, &value, err);
        if (status)
            return status;
        if (!o)
            *ret_file = value;
        else if (config)
            status = set(o, value, config, err);
        if (status)
            return atedm_error_context(err, status, "%.*s", (int)size, word);
    }
    return ATEDM_OK;
}

atedm_status atedm_config_load(int argc, char *const *argv, char *const *environment,
                               atedm_config *ret_config, atedm_config_action *ret_action,
                               atedm_error *err)
{
    atedm_config config;
    memset(&config, 0, sizeof config);
    atedm_config_action action = ATEDM_CONFIG_RUN;
    const char *file = variable(environment, "ATEDM_CONFIG");
    atedm_status status = read_flags(argc, argv, NULL, &file, &action, err);
    if (status)
        return status;
    if (action != ATEDM_CONFIG_RUN) {
        *ret_action = action;
        return ATEDM_OK;
    }
    for (size_t i = 0; i < N_OPTIONS && !status; i++)
        status = set(&options[i], options[i].initial, &config, err);
    if (!status && file)
        status = read_file(file, &config, err);
    if (!status)
        status = read_environment(environment, &config, err);
    if (!status)
        status = read_flags(argc, argv, &config, &file, &action, err);
    if (status)
        return status;
    *ret_config = config;
    *ret_action = action;
    return ATEDM_OK;
}

// ---- comparing and reloading configurations

static bool is_text(const option *o)
{
    return o->type != OPTION_INTEGER && o->type != OPTION_REAL && o->type != OPTION_BOOL;
}

static bool is_same(const option *o, const atedm_config *a, const atedm_config *b)
{
    const char *left = (const char *)a + o->offset, *right = (const char *)b + o->offset;
    if (is_text(o))
        return strcmp(left, right) == 0;
    return memcmp(left, right, o->size) == 0; // numbers (never NaN) and bools
}

static void write_value(const option *o, const atedm_config *config,
                        char ret_text[ATEDM_CONFIG_VALUE_MAX])
{
    const char *field = (const char *)config + o->offset;
    if (o->type == OPTION_INTEGER)
        snprintf(ret_text, ATEDM_CONFIG_VALUE_MAX, "%" PRId64,
                 *(const int64_t *)(const void *)field);
    else if (o->type == OPTION_REAL)
        snprintf(ret_text, ATEDM_CONFIG_VALUE_MAX, "%g", *(const double *)(const void *)field);
    else if (o->type == OPTION_BOOL)
        snprintf(ret_text, ATEDM_CONFIG_VALUE_MAX, "%s",
                 *(const bool *)(const void *)field ? "true" : "false");
    else
        snprintf(ret_text, ATEDM_CONFIG_VALUE_MAX, "%s", field);
}

size_t atedm_config_changes(const atedm_config *before, const atedm_config *after, bool live,
                            atedm_config_change ret_changes[ATEDM_CONFIG_MAX_OPTIONS])
{
    size_t count = 0;
    for (size_t i = 0; i < N_OPTIONS; i++) {
        const option *o = &options[i];
        if (o->live != live || is_same(o, before, after))
            continue;
        atedm_config_change *change = &ret_changes[count++];
        change->name = o->name;
        write_value(o, before, change->before);
        write_value(o, after, change->after);
    }
    return count;
}

void atedm_config_take_live(atedm_config *config, const atedm_config *from)
{
    for (size_t i = 0; i < N_OPTIONS; i++) {
        const option *o = &options[i];
        if (o->live)
            memcpy((char *)config + o->offset, (const char *)from + o->offset, o->size);
    }
}

atedm_status atedm_config_help(atedm_buffer *buffer)
{
    atedm_status status = atedm_buffer_printf(
        buffer,
        "usage: atedmd [OPTION VALUE...]\n\n"
        "Answers text-to-image requests over HTTP with SDXL, its attention pruned as AT-EDM does.\n"
        "Each option may also be in the configuration file and in the environment; options "
        "override\n"
        "the environment, the environment overrides the file.\n\n"
        "  --config FILE\n      configuration file, a JSON object\n      [ATEDM_CONFIG]\n");
    for (size_t i = 0; i < N_OPTIONS && !status; i++) {
        const option *o = &options[i];
        char flag[NAME_MAX_BYTES], name[NAME_MAX_BYTES];
        flag_name(o->name, flag);
        environment_name(o->name, name);
        status = atedm_buffer_printf(buffer, "  %s %s\n      %s\n      [%s; \"%s\"; default %s]\n",
                                     flag, o->value, o->help, name, o->name,
                                     *o->initial ? o->initial : "none");
    }
    if (!status)
        status = atedm_buffer_printf(
            buffer, "  --help\n      this text\n  --version\n      the version\n\n"
                    "Exit status: 0 after SIGTERM or SIGINT, 1 when it failed, 2 for wrong options "
                    "or configuration.\n");
    return status;
}
