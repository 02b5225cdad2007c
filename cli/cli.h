// What the subcommands of `atedm` share: entry points, exit statuses, messages, and parsing of
// option values.
//
// A subcommand gets "atedm NAME" as argv[0], because getopt begins its messages with it. It writes
// results to standard output and everything else to standard error, and returns the exit status.
#ifndef ATEDM_CLI_H
#define ATEDM_CLI_H

#include "core/base/exit_status.h"
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

int atedm_cli_generate(int argc, char **argv);
int atedm_cli_mkmodel(int argc, char **argv);
int atedm_cli_bench(int argc, char **argv);
int atedm_cli_key(int argc, char **argv);

// Each writes "atedm COMMAND: message" to standard error and returns the exit status;
// atedm_cli_usage also says where the help is.
int atedm_cli_failed(const char *command, const atedm_error *err);
int atedm_cli_usage(const char *command, const char *format, ...) ATEDM_PRINTF(2, 3);
void atedm_cli_print_version(void);

// A command's options, for getopt_long.
typedef struct atedm_cli_command {
    const char *name, *help;
    const struct option *options; // its own, with values 0.., then ATEDM_CLI_COMMON_OPTIONS
    const char *letters;          // short options: "h" and its own
    bool operands;                // accepts operands
} atedm_cli_command;
#define ATEDM_CLI_VERSION_OPTION 256
#define ATEDM_CLI_COMMON_OPTIONS                                                                   \
    {"help", no_argument, NULL, 'h'},                                                              \
    {                                                                                              \
        "version", no_argument, NULL, ATEDM_CLI_VERSION_OPTION                                     \
    }
// Returns the command's next option, with its value in optarg; ATEDM_CLI_NO_MORE after the last
// one; or ATEDM_CLI_STOP if the command has to end with *ret_exit, because help or version was
// shown or a mistake was reported.
enum { ATEDM_CLI_NO_MORE = -1, ATEDM_CLI_STOP = -2 };
int atedm_cli_next_option(const atedm_cli_command *command, int argc, char **argv, int *ret_exit);

void atedm_cli_sort(double *values, size_t n); // ascending; none of them NaN

// Each parses the whole of `text`, or returns false and leaves the results alone.
bool atedm_cli_parse_int(const char *text, int64_t min, int64_t max, int64_t *ret_value);
bool atedm_cli_parse_real(const char *text, double *ret_value); // a finite number
// "WxH", or "N" for NxN, in pixels.
bool atedm_cli_parse_size(const char *text, int64_t *ret_width, int64_t *ret_height);
// "auto" sets *ret_auto; f32, bf16 and f16 clear it and set *ret_dtype.
bool atedm_cli_parse_dtype(const char *text, bool *ret_auto, atedm_dtype *ret_dtype);

// Parses a preset's name or a JSON object, as in the field "pruning" of POST /generate. Mistakes
// are added to `errors`.
void atedm_cli_parse_pruning(const char *text, atedm_prune_spec *ret_spec,
                             atedm_field_errors *errors);
// Writes each error as "atedm COMMAND: --name: detail", with "/guidance_scale" as
// "--guidance-scale". Returns the exit status.
int atedm_cli_field_errors(const char *command, const atedm_field_errors *errors);

// The pruning that bench and inspect use if none is named.
#define ATEDM_CLI_PRUNING "at-edm"

// The limits of a request in this process: the model's sizes, and ATEDM_CLI_MAX_*.
#define ATEDM_CLI_MAX_AREA (8192ll * 8192) // pixels
#define ATEDM_CLI_MAX_IMAGES 256
atedm_request_limits atedm_cli_limits(const atedm_model_config *config);

// Opens the device of --backend ("auto": see atedm_backend_of) and finds the dtype of --dtype on it
// ("auto": the fastest one). The caller destroys the device.
ATEDM_MUST_CHECK atedm_status atedm_cli_open_device(const char *backend, const char *dtype,
                                                    atedm_device **ret_device,
                                                    atedm_dtype *ret_dtype, atedm_error *err);

// Opens the dry device, which computes nothing. The dtype "auto" is f32 on it.
ATEDM_MUST_CHECK atedm_status atedm_cli_open_dry(const char *dtype, atedm_device **ret_device,
                                                 atedm_dtype *ret_dtype, atedm_error *err);

// Writes `value` to standard output, indented, and takes ownership of it. Returns the exit status:
// 0, or 1 if `value` is NULL (out of memory) or could not be written.
int atedm_cli_print_json(const char *command, json_t *take_value);

size_t atedm_cli_peak_memory(void); // most bytes this process has held at a time; 0: unknown

#endif
