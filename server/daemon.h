// The daemon: its state, which the handlers of requests share, and its start and end.
#ifndef ATEDM_DAEMON_H
#define ATEDM_DAEMON_H

#include "config/config.h"
#include "core/model.h"
#include "core/request.h"
#include "server/clients.h"
#include "server/devices.h"
#include "server/dispatch.h"
#include "server/http.h"
#include "server/jobs.h"
#include "server/log.h"
#include "server/metrics.h"
#include "server/service.h"
#include "server/settings.h"
#include "server/worker.h"

#include <stdbool.h>
#include <uv.h>

// Where the configuration comes from: the arguments and the environment of main().
typedef struct atedm_config_source {
    int argc;
    char *const *argv;
    char *const *environment;
} atedm_config_source;

typedef struct atedm_daemon {
    atedm_config *config; // borrowed; a reload changes it
    atedm_config_source source;
    atedm_log log;
    int64_t log_lost;         // lines that the log has lost
    atedm_model_config model; // its name is valid UTF-8
    uint64_t model_stamp;     // of the model's files when the daemon started
    atedm_request_limits limits;
    atedm_prune_spec default_prune;
    atedm_clients *clients;
    atedm_tls *tls; // NULL: none
    atedm_devices devices;
    atedm_metrics *metrics;
    uv_loop_t loop;
    uv_signal_t sigterm, sigint, sighup;
    uv_timer_t drain_limit;
    uv_timer_t trim;      // returns free memory to the system
    double drain_started; // monotonic clock
    uv_timer_t grace;     // runs while clients read the last answers
    atedm_service service;
    atedm_http *http;
    atedm_dispatch *dispatch;
    atedm_jobs *jobs;
    bool loaded; // `facts` is set
    atedm_worker_facts facts;
    char *openapi; // answer to /openapi.json; NULL: not built since the last reload
    bool draining, closing;
    int exit_status;
} atedm_daemon;

// Runs the daemon until a signal ends it, and returns the exit status. Messages for people go to
// standard error; the line with the address goes to standard output. `config` is the configuration
// that was read from `source`.
int atedm_daemon_run(const atedm_config_source *source, atedm_config *config);

// While the daemon drains: sets the time at which it ends from the present drain_timeout_s.
void atedm_daemon_limit_drain(atedm_daemon *daemon);

// Puts settings into force. Takes the settings' keys and certificate.
void atedm_daemon_take_settings(atedm_daemon *daemon, const atedm_settings *settings);

#endif
