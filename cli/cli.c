// Functions that the subcommands of `atedm` share: see cli.h.
#include "cli/cli.h"

#include <errno.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

int atedm_cli_failed(const char *command, const atedm_error *err)
{
    fprintf(stderr, "atedm %s: %s\n", command, err->message);
    return ATEDM_EXIT_FAILED;
}

static int point_to_help(const char *command)
{
    fprintf(stderr, "Try 'atedm %s --help'.\n", command);
    return ATEDM_EXIT_USAGE;
}

int atedm_cli_usage(const char *command, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    fprintf(stderr, "atedm %s: ", command);
    vfprintf(stderr, format, args);
    fputc('\n', stderr);
    va_end(args);
    return point_to_help(command);
}

void atedm_cli_print_version(void)
{
    puts("atedm " ATEDM_VERSION);
}

int atedm_cli_next_option(const atedm_cli_command *command, int argc, char **argv, int *ret_exit)
{
    int option = getopt_long(argc, argv, command->letters, command->options, NULL);
    *ret_exit = 0;
    if (option == 'h')
        fputs(command->help, stdout);
    else if (option == ATEDM_CLI_VERSION_OPTION)
        atedm_cli_print_version();
    else if (option == '?') // getopt_long has printed what is wrong
        *ret_exit = point_to_help(command->name);
    else if (option == -1 && optind < argc && !command->operands)
        *ret_exit = atedm_cli_usage(command->name, "\"%s\" is not an option", argv[optind]);
    else
        return option == -1 ? ATEDM_CLI_NO_MORE : option;
    return ATEDM_CLI_STOP;
}

static int compare_doubles(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

void atedm_cli_sort(double *values, size_t n)
{
    qsort(values, n, sizeof *values, compare_doubles);
}

bool atedm_cli_parse_int(const char *text, int64_t min, int64_t max, int64_t *ret_value)
{
    char *end;
    errno = 0;
    long long value = strtoll(text, &end, 10);
    if (errno || end == text || *end || value < min || value > max)
        return false;
    *ret_value = value;
    return true;
}

bool atedm_cli_parse_real(const char *text, double *ret_value)
{
    char *end;
    errno = 0;
    double value = strtod(text, &end);
    if (errno || end == text || *end || !isfinite(value))
        return false;
    *ret_value = value;
    return true;
}

bool atedm_cli_parse_size(const char *text, int64_t *ret_width, int64_t *ret_height)
{
    char width_text[16];
    const char *x = strchr(text, 'x');
    size_t length = x ? (size_t)(x - text) : strlen(text);
    if (length >= sizeof width_text)
        return false;
    memcpy(width_text, text, length);
    width_text[length] = '\0';
    int64_t width, height;
    if (!atedm_cli_parse_int(width_text, 1, ATEDM_SIZE_MAX, &width) ||
        !atedm_cli_parse_int(x ? x + 1 : width_text, 1, ATEDM_SIZE_MAX, &height))
        return false;
    *ret_width = width;
    *ret_height = height;
    return true;
}

bool atedm_cli_parse_dtype(const char *text, bool *ret_auto, atedm_dtype *ret_dtype)
{
    static const atedm_dtype dtypes[] = {ATEDM_F32, ATEDM_BF16, ATEDM_F16};
    if (strcmp(text, "auto") == 0) {
        *ret_auto = true;
        return true;
    }
    for (size_t i = 0; i < sizeof dtypes / sizeof *dtypes; i++) {
        if (strcmp(text, atedm_dtype_name(dtypes[i])) == 0) {
            *ret_auto = false;
            *ret_dtype = dtypes[i];
            return true;
        }
    }
    return false;
}

void atedm_cli_parse_pruning(const char *text, atedm_prune_spec *ret_spec,
                             atedm_field_errors *errors)
{
    json_error_t parse_error;
    json_t *value =
        *text == '{' ? json_loads(text, JSON_REJECT_DUPLICATES, &parse_error) : json_string(text);
    if (value)
        atedm_prune_spec_from_json(value, "/pruning", ret_spec, errors);
    else
        atedm_field_errors_add(errors, "/pruning", "%s",
                               *text == '{' ? parse_error.text : "not valid UTF-8");
    json_decref(value);
}

int atedm_cli_field_errors(const char *command, const atedm_field_errors *errors)
{
    for (size_t i = 0; i < errors->count; i++) {
        // After the "/" comes the option's name, then the place in its JSON value.
        const char *name = errors->items[i].pointer + 1;
        int length = (int)strcspn(name, "/");
        fprintf(stderr, "atedm %s: --", command);
        for (int c = 0; c < length; c++)
            fputc(name[c] == '_' ? '-' : name[c], stderr);
        fprintf(stderr, "%s: %s\n", name + length, errors->items[i].detail);
    }
    if (errors->more)
        fprintf(stderr, "atedm %s: and %zu more\n", command, errors->more);
    return ATEDM_EXIT_USAGE;
}

atedm_request_limits atedm_cli_limits(const atedm_model_config *config)
{
    int64_t native = atedm_model_config_native_size(config);
    return (atedm_request_limits){
        .native_width = native,
        .native_height = native,
        .size_multiple = atedm_model_config_scale(config),
        .max_area = ATEDM_CLI_MAX_AREA,
        .max_images = ATEDM_CLI_MAX_IMAGES,
        .max_steps = ATEDM_MAX_STEPS,
    };
}

static atedm_status open_device(const char *name, const char *dtype, atedm_device **ret_device,
                                atedm_dtype *ret_dtype, atedm_error *err)
{
    bool best = false;
    atedm_dtype act = ATEDM_F32;
    if (!atedm_cli_parse_dtype(dtype, &best, &act))
        return atedm_error_set(err, ATEDM_ERR_INVALID, "dtype \"%s\" is not auto, f32, bf16 or f16",
                               dtype);
    atedm_device *device = NULL;
    atedm_status status = atedm_device_create(name, &device, err);
    if (status)
        return status;
    if (best) {
        act = atedm_device_best_dtype(device);
    } else if (!atedm_device_supports(device, act)) {
        status =
            atedm_error_set(err, ATEDM_ERR_UNSUPPORTED, "the %s backend cannot compute in %s here",
                            atedm_device_backend(device), dtype);
        atedm_device_destroy(device);
        return status;
    }
    *ret_device = device;
    *ret_dtype = act;
    return ATEDM_OK;
}

atedm_status atedm_cli_open_device(const char *backend, const char *dtype,
                                   atedm_device **ret_device, atedm_dtype *ret_dtype,
                                   atedm_error *err)
{
    if (strcmp(backend, "auto") != 0 && strcmp(backend, "cpu") != 0 &&
        strcmp(backend, "cuda") != 0 && strncmp(backend, "cuda:", strlen("cuda:")) != 0 &&
        strcmp(backend, "ref") != 0)
        return atedm_error_set(err, ATEDM_ERR_INVALID,
                               "backend \"%s\" is not auto, cpu, cuda, cuda:DEVICE or ref",
                               backend);
    atedm_error reason;
    if (strcmp(backend, "auto") == 0 && atedm_cuda_is_missed(&reason))
        fprintf(stderr, "atedm: no GPU is used: %s\n", reason.message);
    return open_device(atedm_backend_of(backend), dtype, ret_device, ret_dtype, err);
}

atedm_status atedm_cli_open_dry(const char *dtype, atedm_device **ret_device,
                                atedm_dtype *ret_dtype, atedm_error *err)
{
    return open_device("dry", dtype, ret_device, ret_dtype, err);
}

int atedm_cli_print_json(const char *command, json_t *take_value)
{
    int failed =
        !take_value || json_dumpf(take_value, stdout, JSON_INDENT(2) | JSON_REAL_PRECISION(9));
    failed = failed || putchar('\n') == EOF || fflush(stdout) != 0;
    json_decref(take_value);
    if (!failed)
        return 0;
    fprintf(stderr, "atedm %s: the report could not be written\n", command);
    return ATEDM_EXIT_FAILED;
}

size_t atedm_cli_peak_memory(void)
{
    struct rusage usage;
    if (getrusage(RUSAGE_SELF, &usage))
        return 0;
    return (size_t)usage.ru_maxrss * 1024; // ru_maxrss is in KiB
}
