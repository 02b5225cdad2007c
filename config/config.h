// The daemon's configuration. One table of options serves the JSON file, the environment and the
// command line. Flags override the environment, which overrides the file, which overrides defaults.
#ifndef ATEDM_CONFIG_H
#define ATEDM_CONFIG_H

#include "core/base/memory.h"
#include "core/base/status.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define ATEDM_CONFIG_PATH_MAX 4096
#define ATEDM_CONFIG_PRUNING_MAX 4096 // bytes of "default_pruning" as JSON text
#define ATEDM_CONFIG_LISTEN_MAX 4096  // bytes of "listen"
#define ATEDM_CONFIG_WORD_MAX 16      // bytes of a short text
#define ATEDM_CONFIG_DEVICES_MAX 4096 // bytes of "devices"
#define ATEDM_CONFIG_MAX_OPTIONS 64
#define ATEDM_CONFIG_VALUE_MAX 160 // bytes of a value in atedm_config_change; longer ones are cut

// Strings are NUL-terminated; the sizes above include the terminator. Times are in seconds.
typedef struct atedm_config {
    char model[ATEDM_CONFIG_PATH_MAX];       // a folder, or FILE.safetensors in one
    char listen[ATEDM_CONFIG_LISTEN_MAX];    // addresses, separated by commas (server/address.h)
    char socket_mode[ATEDM_CONFIG_WORD_MAX]; // permissions of Unix sockets' files, octal
    char tls_cert[ATEDM_CONFIG_PATH_MAX];    // file; "": none
    char tls_key[ATEDM_CONFIG_PATH_MAX];     // file; "": none
    char backend[ATEDM_CONFIG_WORD_MAX];
    char devices[ATEDM_CONFIG_DEVICES_MAX]; // devices of the backend; "auto": all
    char dtype[ATEDM_CONFIG_WORD_MAX];
    char default_pruning[ATEDM_CONFIG_PRUNING_MAX]; // a preset's name, or a JSON object's text
    double latency_objective_s;                     // that "auto" pruning aims at; 0: no "auto"
    char auto_floor[ATEDM_CONFIG_WORD_MAX];         // preset that "auto" does not go below
    int64_t queue_limit;                            // most waiting requests
    int64_t workers;                                // worker processes on each device
    double worker_timeout_s;                // after so long a silence a busy worker is restarted
    int64_t max_active;                     // most requests of a worker at a time
    int64_t max_batch;                      // most images in one UNet evaluation
    int64_t memory_limit;                   // device bytes of a worker; 0: most of what is free
    char job_store[ATEDM_CONFIG_PATH_MAX];  // file; "auto": a default path (server/store_path.h)
    int64_t job_retention_s;                // how long a job is kept after its end
    int64_t job_retention_bytes;            // most bytes of all kept results
    bool cancel_on_disconnect;              // a request ends when its waiting client disconnects
    int64_t max_area;                       // most pixels of an image
    int64_t max_images;                     // most images of a request
    int64_t max_steps;                      // most denoising steps of a request
    int64_t max_body_bytes;                 // most bytes of a request's body
    int64_t max_unread_bytes;               // most bytes of all answers that clients have not read
    int64_t max_connections;                // most open connections
    double connection_timeout_s;            // after so long a silence a connection is closed
    char api_keys[ATEDM_CONFIG_PATH_MAX];   // key file; "": none
    double drain_timeout_s;                 // from the signal to end until work is cut off
    char log_format[ATEDM_CONFIG_WORD_MAX]; // "text" or "json"
    char log_level[ATEDM_CONFIG_WORD_MAX];  // "debug", "info", "warning", "error"
} atedm_config;

typedef enum atedm_config_action {
    ATEDM_CONFIG_RUN,
    ATEDM_CONFIG_HELP,    // --help was given; *ret_config is not set
    ATEDM_CONFIG_VERSION, // --version was given; *ret_config is not set
} atedm_config_action;

// Reads the file of `--config FILE` (or of the variable ATEDM_CONFIG), the environment
// (`environment`: strings "NAME=value", then NULL) and the flags argv[1..]. Messages name where a
// wrong value is: file and key, variable, or flag. ATEDM_ERR_INVALID: an unknown option, or a value
// of the wrong type. ATEDM_ERR_LIMIT: a value out of range.
ATEDM_MUST_CHECK atedm_status atedm_config_load(int argc, char *const *argv,
                                                char *const *environment, atedm_config *ret_config,
                                                atedm_config_action *ret_action, atedm_error *err);

// An option that differs between two configurations. A running daemon can take over some options
// ("live"); the others need a restart.
typedef struct atedm_config_change {
    const char *name;                                                   // static storage
    char before[ATEDM_CONFIG_VALUE_MAX], after[ATEDM_CONFIG_VALUE_MAX]; // values as text
} atedm_config_change;
// Lists the live options that differ, or, with `live` false, the others that differ. Returns their
// number.
size_t atedm_config_changes(const atedm_config *before, const atedm_config *after, bool live,
                            atedm_config_change ret_changes[ATEDM_CONFIG_MAX_OPTIONS]);
// Copies the values of the live options from `from` to `config`.
void atedm_config_take_live(atedm_config *config, const atedm_config *from);

// Appends the text of --help.
ATEDM_MUST_CHECK atedm_status atedm_config_help(atedm_buffer *buffer);

#endif
