// What the subcommands of `atedm` share: their entry points, exit statuses, messages, and reading
// of option values.
//
// A subcommand gets "atedm NAME" as argv[0] (getopt puts it before its messages), writes results to
// standard output and everything else to standard error, and returns the exit status.
#ifndef ATEDM_CLI_H
#define ATEDM_CLI_H

#include "core/base/status.h"
#include "core/base/tensor.h"
#include "core/model.h"
#include "core/plan.h"
#include "core/request.h"
#include "kernels/kernels.h"

#include <getopt.h>
#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

#define ATEDM_EXIT_FAILED 1
#define ATEDM_EXIT_USAGE 2

int atedm_cli_generate(int argc, char **argv);
int atedm_cli_mkmodel(int argc, char **argv);
int atedm_cli_bench(int argc, char **argv);
int atedm_cli_key(int argc, char **argv);

// Writes "atedm COMMAND: message" and, for usage, where the help is; returns the exit status.
int atedm_cli_failed(const char *command, const atedm_error *err);
int atedm_cli_usage(const char *command, const char *format, ...) ATEDM_PRINTF(2, 3);
void atedm_cli_print_version(void);

// What getopt_long has to know of a command.
typedef struct atedm_cli_command {
    const char *name, *help;
    const struct option *options; // its own, from 0 on, then ATEDM_CLI_COMMON_OPTIONS
    const char *letters;          // "h", and what else it has
    bool operands;                // it takes some
} atedm_cli_command;
#define ATEDM_CLI_VERSION_OPTION 256
#define ATEDM_CLI_COMMON_OPTIONS                                                                   \
    {"help", no_argument, NULL, 'h'},                                                              \
    {                                                                                              \
        "version", no_argument, NULL, ATEDM_CLI_VERSION_OPTION                                     \
    }
// The command's next option, its value in optarg; ATEDM_CLI_NO_MORE where all are taken;
// ATEDM_CLI_STOP where *ret_exit is the exit status: help or version was shown, or a mistake told.
enum { ATEDM_CLI_NO_MORE = -1, ATEDM_CLI_STOP = -2 };
int atedm_cli_next_option(const atedm_cli_command *command, int argc, char **argv, int *ret_exit);

void atedm_cli_sort(double *values, size_t n); // ascending; none of them NaN

// Each reads the whole of `text`, or returns false and leaves *ret_value alone.
bool atedm_cli_parse_int(const char *text, int64_t min, int64_t max, int64_t *ret_value);
bool atedm_cli_parse_real(const char *text, double *ret_value);                       // finite
bool atedm_cli_parse_size(const char *text, int64_t *ret_width, int64_t *ret_height); // "WxH", "N"
// "auto" gives *ret_auto; else f32, bf16, f16.
bool atedm_cli_parse_dtype(const char *text, bool *ret_auto, atedm_dtype *ret_dtype);

// `text`: a preset's name or a JSON object, as the field "pruning" of POST /generate has it. What
// is wrong goes to `errors`.
void atedm_cli_parse_pruning(const char *text, atedm_prune_spec *ret_spec,
                             atedm_field_errors *errors);
// Writes each as "atedm COMMAND: --name: detail", "/guidance_scale" as "--guidance-scale"; returns
// the exit status.
int atedm_cli_field_errors(const char *command, const atedm_field_errors *errors);

// The pruning that bench and inspect show where none is named.
#define ATEDM_CLI_PRUNING "at-edm"

// What a model allows in this process: its sizes, and the limits of ATEDM_CLI_MAX_*.
#define ATEDM_CLI_MAX_AREA (8192ll * 8192) // pixels
#define ATEDM_CLI_MAX_IMAGES 256
atedm_request_limits atedm_cli_limits(const atedm_model_config *config);

// The device of --backend ("auto": atedm_backend_of) and the dtype of --dtype on it.
ATEDM_MUST_CHECK atedm_status atedm_cli_open_device(const char *backend, const char *dtype,
                                                    atedm_device **ret_device,
                                                    atedm_dtype *ret_dtype, atedm_error *err);

// The dry device, which computes nothing; its "auto" is f32.
ATEDM_MUST_CHECK atedm_status atedm_cli_open_dry(const char *dtype, atedm_device **ret_device,
                                                 atedm_dtype *ret_dtype, atedm_error *err);

// Writes `value` to standard output, indented, and takes it. Returns the exit status: 0, or 1 where
// `value` is NULL (memory) or the writing failed.
int atedm_cli_print_json(const char *command, json_t *take_value);

size_t atedm_cli_peak_memory(void); // bytes this process held at most so far; 0: not known

#endif
