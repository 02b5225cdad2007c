// The daemon's configuration: one table of options that serves the JSON file, the environment and
// the command line alike. Later ones win: defaults, file, environment, flags.
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
#define ATEDM_CONFIG_WORD_MAX 16
#define ATEDM_CONFIG_DEVICES_MAX 4096 // bytes of "devices"
#define ATEDM_CONFIG_MAX_OPTIONS 64
#define ATEDM_CONFIG_VALUE_MAX 160 // bytes of a value as a change shows it, cut where it is longer

typedef struct atedm_config {
    char model[ATEDM_CONFIG_PATH_MAX];       // directory
    char listen[ATEDM_CONFIG_LISTEN_MAX];    // addresses with commas: server/address.h
    char socket_mode[ATEDM_CONFIG_WORD_MAX]; // of Unix sockets' files, octal
    char tls_cert[ATEDM_CONFIG_PATH_MAX];    // file; "": none
    char tls_key[ATEDM_CONFIG_PATH_MAX];     // likewise
    char backend[ATEDM_CONFIG_WORD_MAX];
    char devices[ATEDM_CONFIG_DEVICES_MAX]; // of the backend; "auto": all
    char dtype[ATEDM_CONFIG_WORD_MAX];
    char default_pruning[ATEDM_CONFIG_PRUNING_MAX]; // a preset's name, or a JSON object's text
    double latency_objective_s;                     // of "auto" pruning; 0: there is none
    char auto_floor[ATEDM_CONFIG_WORD_MAX];         // the preset that "auto" does not go below
    int64_t queue_limit;                            // waiting requests
    int64_t workers;                                // processes
    double worker_timeout_s;                        // a busy one that says nothing is ended
    int64_t max_active;                             // requests that a worker has at a time
    int64_t max_batch;                              // images in one UNet evaluation
    int64_t memory_limit;                           // device bytes of a worker; 0: what is free
    char job_store[ATEDM_CONFIG_PATH_MAX];          // file; "auto": where such files belong
    int64_t job_retention_s;                        // jobs that ended longer ago are forgotten
    int64_t job_retention_bytes;                    // of all results that are kept
    bool cancel_on_disconnect;                      // of a client that waits
    int64_t max_area;                               // pixels of one image
    int64_t max_images;                             // of one request
    int64_t max_steps;
    int64_t max_body_bytes;   // bytes
    int64_t max_unread_bytes; // of all answers
    int64_t max_connections;
    double connection_timeout_s;
    char api_keys[ATEDM_CONFIG_PATH_MAX];   // file; "": none
    double drain_timeout_s;                 // from the signal to end
    char log_format[ATEDM_CONFIG_WORD_MAX]; // "text" or "json"
    char log_level[ATEDM_CONFIG_WORD_MAX];  // "debug", "info", "warning", "error"
} atedm_config;

typedef enum atedm_config_action {
    ATEDM_CONFIG_RUN,
    ATEDM_CONFIG_HELP,    // --help was given; *ret_config is not filled
    ATEDM_CONFIG_VERSION, // --version likewise
} atedm_config_action;

// Reads `--config FILE` (or ATEDM_CONFIG), the environment (`environment`: "NAME=value" strings
// with NULL behind the last) and argv[1..]. Messages name the place: the file and its key, the
// variable, or the flag.
ATEDM_MUST_CHECK atedm_status atedm_config_load(int argc, char *const *argv,
                                                char *const *environment, atedm_config *ret_config,
                                                atedm_config_action *ret_action, atedm_error *err);

// A configuration that is to take another's place in the running daemon: some options can ("live"),
// others need a restart.
typedef struct atedm_config_change {
    const char *name; // static storage
    char before[ATEDM_CONFIG_VALUE_MAX], after[ATEDM_CONFIG_VALUE_MAX];
} atedm_config_change;
// The options of the one kind that differ; returns their number.
size_t atedm_config_changes(const atedm_config *before, const atedm_config *after, bool live,
                            atedm_config_change ret_changes[ATEDM_CONFIG_MAX_OPTIONS]);
// Copies the live options.
void atedm_config_take_live(atedm_config *config, const atedm_config *from);

// Appends the text of --help.
ATEDM_MUST_CHECK atedm_status atedm_config_help(atedm_buffer *buffer);

#endif
