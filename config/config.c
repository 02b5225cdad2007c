// Reads the configuration: see config.h. Checks only types and ranges; the daemon checks what
// values such as a model's path or a pruning default mean.
#include "config/config.h"

#include "config/option_table.h"
#include "core/json_read.h"

#include <ctype.h>
#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define NAME_MAX_BYTES 64 // of an option's name, variable or flag

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

static atedm_status set_text(const atedm_option *o, const char *text, void *field, atedm_error *err)
{
    if (o->type == ATEDM_OPTION_CHOICE && !is_choice(o->choices, text))
        return atedm_error_set(err, ATEDM_ERR_INVALID, "\"%s\" is not one of %s", text, o->choices);
    if (!*text && o->type != ATEDM_OPTION_OPTIONAL)
        return atedm_error_set(err, ATEDM_ERR_INVALID, "is empty");
    if (strlen(text) >= o->size)
        return atedm_error_set(err, ATEDM_ERR_LIMIT, "has more than %zu bytes", o->size - 1);
    snprintf(field, o->size, "%s", text);
    return ATEDM_OK;
}

static atedm_status set_integer(const atedm_option *o, const char *text, int64_t *ret_value,
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

static atedm_status set_real(const atedm_option *o, const char *text, double *ret_value,
                             atedm_error *err)
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

static atedm_status set_bool(const atedm_option *o, const char *text, bool *ret_value,
                             atedm_error *err)
{
    if (!is_choice(o->choices, text))
        return atedm_error_set(err, ATEDM_ERR_INVALID, "\"%s\" is not one of %s", text, o->choices);
    *ret_value = strcmp(text, "true") == 0;
    return ATEDM_OK;
}

static atedm_status set(const atedm_option *o, const char *text, atedm_config *config,
                        atedm_error *err)
{
    void *field = (char *)config + o->offset;
    switch (o->type) {
    case ATEDM_OPTION_INTEGER:
        return set_integer(o, text, field, err);
    case ATEDM_OPTION_REAL:
        return set_real(o, text, field, err);
    case ATEDM_OPTION_BOOL:
        return set_bool(o, text, field, err);
    case ATEDM_OPTION_TEXT:
    case ATEDM_OPTION_OPTIONAL:
    case ATEDM_OPTION_CHOICE:
    case ATEDM_OPTION_PRUNING:
        break;
    }
    return set_text(o, text, field, err);
}

// ---- the file

static atedm_status set_json(const atedm_option *o, const json_t *value, atedm_config *config,
                             atedm_error *err)
{
    char number[32];
    if (o->type == ATEDM_OPTION_INTEGER) {
        if (!json_is_integer(value))
            return atedm_error_set(err, ATEDM_ERR_INVALID, "is not an integer");
        snprintf(number, sizeof number, "%" JSON_INTEGER_FORMAT, json_integer_value(value));
        return set(o, number, config, err);
    }
    if (o->type == ATEDM_OPTION_REAL) {
        if (!json_is_number(value))
            return atedm_error_set(err, ATEDM_ERR_INVALID, "is not a number");
        snprintf(number, sizeof number, "%.17g", json_number_value(value));
        return set(o, number, config, err);
    }
    if (o->type == ATEDM_OPTION_BOOL) {
        if (!json_is_boolean(value))
            return atedm_error_set(err, ATEDM_ERR_INVALID, "is neither true nor false");
        return set(o, json_is_true(value) ? "true" : "false", config, err);
    }
    if (o->type == ATEDM_OPTION_PRUNING && json_is_object(value)) {
        char *text = json_dumps(value, JSON_COMPACT);
        if (!text)
            return atedm_error_set(err, ATEDM_ERR_NOMEM, "no memory");
        atedm_status status = set(o, text, config, err);
        free(text);
        return status;
    }
    if (!json_is_string(value))
        return atedm_error_set(err, ATEDM_ERR_INVALID, "is not a string%s",
                               o->type == ATEDM_OPTION_PRUNING ? " or an object" : "");
    return set(o, json_string_value(value), config, err);
}

static const atedm_option *find(const char *name)
{
    for (size_t i = 0; i < ATEDM_N_OPTIONS; i++) {
        if (strcmp(atedm_options[i].name, name) == 0)
            return &atedm_options[i];
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
        const atedm_option *o = find(key);
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
    for (size_t i = 0; i < ATEDM_N_OPTIONS; i++) {
        char name[NAME_MAX_BYTES];
        environment_name(atedm_options[i].name, name);
        const char *text = variable(environment, name);
        atedm_status status = text ? set(&atedm_options[i], text, config, err) : ATEDM_OK;
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

static const atedm_option *find_flag(const char *word)
{
    size_t size = strcspn(word, "=");
    for (size_t i = 0; i < ATEDM_N_OPTIONS; i++) {
        char name[NAME_MAX_BYTES];
        flag_name(atedm_options[i].name, name);
        if (strlen(name) == size && strncmp(word, name, size) == 0)
            return &atedm_options[i];
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
        const atedm_option *o = find_flag(word);
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
    for (size_t i = 0; i < ATEDM_N_OPTIONS && !status; i++)
        status = set(&atedm_options[i], atedm_options[i].initial, &config, err);
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

static bool is_text(const atedm_option *o)
{
    return o->type != ATEDM_OPTION_INTEGER && o->type != ATEDM_OPTION_REAL &&
           o->type != ATEDM_OPTION_BOOL;
}

static bool is_same(const atedm_option *o, const atedm_config *a, const atedm_config *b)
{
    const char *left = (const char *)a + o->offset, *right = (const char *)b + o->offset;
    if (is_text(o))
        return strcmp(left, right) == 0;
    return memcmp(left, right, o->size) == 0; // numbers (never NaN) and bools
}

static void write_value(const atedm_option *o, const atedm_config *config,
                        char ret_text[ATEDM_CONFIG_VALUE_MAX])
{
    const char *field = (const char *)config + o->offset;
    if (o->type == ATEDM_OPTION_INTEGER)
        snprintf(ret_text, ATEDM_CONFIG_VALUE_MAX, "%" PRId64,
                 *(const int64_t *)(const void *)field);
    else if (o->type == ATEDM_OPTION_REAL)
        snprintf(ret_text, ATEDM_CONFIG_VALUE_MAX, "%g", *(const double *)(const void *)field);
    else if (o->type == ATEDM_OPTION_BOOL)
        snprintf(ret_text, ATEDM_CONFIG_VALUE_MAX, "%s",
                 *(const bool *)(const void *)field ? "true" : "false");
    else
        snprintf(ret_text, ATEDM_CONFIG_VALUE_MAX, "%s", field);
}

size_t atedm_config_changes(const atedm_config *before, const atedm_config *after, bool live,
                            atedm_config_change ret_changes[ATEDM_CONFIG_MAX_OPTIONS])
{
    size_t count = 0;
    for (size_t i = 0; i < ATEDM_N_OPTIONS; i++) {
        const atedm_option *o = &atedm_options[i];
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
    for (size_t i = 0; i < ATEDM_N_OPTIONS; i++) {
        const atedm_option *o = &atedm_options[i];
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
    for (size_t i = 0; i < ATEDM_N_OPTIONS && !status; i++) {
        const atedm_option *o = &atedm_options[i];
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
