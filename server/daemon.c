// Starts the daemon's parts on one loop, drains them on a signal, and ends them. See daemon.h.
#include "server/daemon.h"

#include "core/base/clock.h"
#include "core/base/exit_status.h"
#include "core/base/utf8.h"
#include "server/admit.h"
#include "server/authorize.h"
#include "server/certificate.h"
#include "server/gauges.h"
#include "server/json_body.h"
#include "server/listen.h"
#include "server/model_stamp.h"
#include "server/process.h"
#include "server/refuse.h"
#include "server/reload.h"
#include "server/routes.h"
#include "server/store_path.h"

#include <inttypes.h>
#include <math.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

// Seconds for which clients may read their last answers after the daemon has finished its work.
#define GRACE_S 10
// Descriptors that are not connections: those of the store, the loop and the workers' pipes.
#define OWN_DESCRIPTORS 128
// Seconds between two calls that return free memory to the system.
#define TRIM_S 5

// ---- ending

// Everything is answered: stops the loop, so that atedm_daemon_run continues.
static void stop(atedm_daemon *d)
{
    d->closing = true;
    uv_stop(&d->loop);
}

static void on_grace(uv_timer_t *timer)
{
    stop(timer->data);
}

// Called when the last job or the last exchange has ended.
static void check_drained(void *user)
{
    atedm_daemon *d = user;
    if (!d->draining || d->closing)
        return;
    atedm_dispatch_state state = atedm_dispatch_get_state(d->dispatch);
    if (state.depth || state.active)
        return;
    if (atedm_http_open_exchanges(d->http) == 0)
        stop(d);
    else if (!uv_is_active((uv_handle_t *)&d->grace))
        uv_timer_start(&d->grace, on_grace, GRACE_S * 1000, 0);
}

static void on_drain_limit(uv_timer_t *timer)
{
    atedm_daemon *d = timer->data;
    size_t count = atedm_dispatch_end_all(d->dispatch, ATEDM_JOB_CUT_OFF, NULL);
    if (count)
        ATEDM_LOG(&d->log, ATEDM_LOG_WARNING, "drain_timeout_s is over: requests are cut off",
                  atedm_log_integer("requests", (int64_t)count));
    check_drained(d);
}

void atedm_daemon_limit_drain(atedm_daemon *d)
{
    double left = d->drain_started + d->config->drain_timeout_s - atedm_clock_monotonic();
    uv_update_time(&d->loop);
    uv_timer_start(&d->drain_limit, on_drain_limit, (uint64_t)ceil(fmax(0, left) * 1e3), 0);
}

static void drain(atedm_daemon *d)
{
    d->draining = true;
    d->drain_started = atedm_clock_monotonic();
    if (d->jobs)
        atedm_jobs_drain(d->jobs);
    atedm_daemon_limit_drain(d);
    atedm_service_stopping(d);
    atedm_http_quiesce(d->http);
    check_drained(d);
}

static void on_signal(uv_signal_t *handle, int number)
{
    atedm_daemon *d = handle->data;
    atedm_dispatch_state state = atedm_dispatch_get_state(d->dispatch);
    if (d->draining) {
        ATEDM_LOG(&d->log, ATEDM_LOG_WARNING, "second signal: ends at once",
                  atedm_log_integer("signal", number));
        _exit(ATEDM_EXIT_FAILED);
    }
    ATEDM_LOG(&d->log, ATEDM_LOG_INFO, "signal: finishes what it has, then ends",
              atedm_log_integer("signal", number),
              atedm_log_integer("waiting", (int64_t)state.depth),
              atedm_log_integer("running", (int64_t)state.active));
    drain(d);
}

static void on_hangup_signal(uv_signal_t *handle, int number)
{
    atedm_daemon *d = handle->data;
    if (d->closing)
        return;
    atedm_service_reloading(d);
    atedm_reload(d);
    atedm_service_reloaded(d);
}

static void on_trim(uv_timer_t *timer)
{
    (void)timer;
    atedm_process_trim();
}

// ---- callbacks of the parts

static void set_up(atedm_daemon *d, const char *device, bool up)
{
    atedm_metrics_set(d->metrics, ATEDM_METRIC_WORKER_UP, up, ATEDM_LABELS(device));
}

// Warns if the model's files have changed: a worker reads them whenever it starts, also when it
// replaces one that ended.
static void check_model(const atedm_daemon *d)
{
    if (atedm_model_stamp(d->config->model) == d->model_stamp)
        return;
    ATEDM_LOG(&d->log, ATEDM_LOG_WARNING,
              "the model's files have changed since the daemon was started: workers may draw other "
              "pictures, until it is started again",
              atedm_log_text("model", d->config->model));
}

static void on_ready(void *user, const char *device, const atedm_worker_facts *facts)
{
    atedm_daemon *d = user;
    d->facts = *facts;
    d->loaded = true;
    set_up(d, device, true);
    check_model(d);
    atedm_service_ready(d);
    const char *dtype = atedm_dtype_name(facts->dtype);
    atedm_metrics_set(d->metrics, ATEDM_METRIC_MODEL_INFO, 1,
                      ATEDM_LABELS(d->model.name, dtype, facts->backend));
    ATEDM_LOG(&d->log, ATEDM_LOG_INFO, "ready", atedm_log_text("device", device),
              atedm_log_text("name", facts->device), atedm_log_text("model", d->model.name),
              atedm_log_text("backend", facts->backend), atedm_log_text("dtype", dtype),
              atedm_log_integer("parameters", (int64_t)facts->parameters));
}

static void on_worker_lost(void *user, const char *device, const atedm_error *error)
{
    atedm_daemon *d = user;
    set_up(d, device, false);
    atedm_metrics_count(d->metrics, ATEDM_METRIC_WORKER_RESTARTS, 1, ATEDM_LABELS(device));
    ATEDM_LOG(&d->log, ATEDM_LOG_ERROR, "worker lost", atedm_log_text("device", device),
              atedm_log_text("error", error->message));
}

static void on_figures(void *user, const char *device, const atedm_device_figures *figures)
{
    atedm_daemon *d = user;
    atedm_devices_tell(d->metrics, device, figures);
}

static void on_worker_failed(void *user, const atedm_error *error)
{
    atedm_daemon *d = user;
    ATEDM_LOG(&d->log, ATEDM_LOG_ERROR, "the model cannot be used",
              atedm_log_text("model", d->config->model), atedm_log_text("error", error->message));
    d->exit_status = ATEDM_EXIT_FAILED;
    drain(d);
    if (d->jobs)
        atedm_jobs_leave(d->jobs); // the next daemon, with a model that loads, runs them
    atedm_dispatch_end_all(d->dispatch, ATEDM_JOB_FAILED, error);
    check_drained(d); // an ended job without an exchange did not trigger this check
}

static void on_answered(void *app, const atedm_exchange *x, unsigned status, double seconds)
{
    atedm_daemon *d = app;
    char code[16];
    snprintf(code, sizeof code, "%u", status);
    const char *route = atedm_exchange_route(x);
    atedm_metrics_count(d->metrics, ATEDM_METRIC_REQUESTS, 1, ATEDM_LABELS(route, code));
    atedm_metrics_observe(d->metrics, ATEDM_METRIC_REQUEST_DURATION, seconds, ATEDM_LABELS(route));
    const char *client = atedm_exchange_client(x);
    ATEDM_LOG(&d->log, status >= 500 ? ATEDM_LOG_WARNING : ATEDM_LOG_INFO, "request",
              atedm_log_text("id", atedm_exchange_id(x)),
              atedm_log_text("method", atedm_exchange_method(x)),
              atedm_log_text("path", atedm_exchange_path(x)), atedm_log_integer("status", status),
              atedm_log_real("seconds", seconds),
              atedm_log_text(*client ? "client" : NULL, client)); // no key: ends the list
}

static void on_http_message(void *app, const char *text)
{
    const atedm_daemon *d = app;
    ATEDM_LOG(&d->log, ATEDM_LOG_DEBUG, "http", atedm_log_text("text", text));
}

static void on_starved(void *app, int why)
{
    const atedm_daemon *d = app;
    ATEDM_LOG(&d->log, ATEDM_LOG_WARNING, "connections have to wait to be accepted",
              atedm_log_text("error", strerror(why)));
}

void atedm_daemon_take_settings(atedm_daemon *d, const atedm_settings *settings)
{
    d->limits = settings->limits;
    d->default_prune = settings->default_prune;
    atedm_clients_replace(d->clients, settings->keys, atedm_clock_monotonic());
    if (settings->tls)
        atedm_certificate_take(d, settings->tls);
}

// ---- starting

static int complain(const char *what, const atedm_error *err, int exit_status)
{
    fprintf(stderr, "atedmd: %s%s%s\n", what, *what ? ": " : "", err->message);
    return exit_status;
}

// Checks what can be checked before any part starts. Returns the exit status; 0: continue.
static int prepare(atedm_daemon *d)
{
    atedm_error err = {""};
    const atedm_config *config = d->config;
    d->model_stamp = atedm_model_stamp(config->model);
    if (atedm_model_config_read(config->model, &d->model, &err))
        return complain("model", &err, ATEDM_EXIT_FAILED);
    atedm_utf8_clean(d->model.name, false);
    atedm_settings settings;
    atedm_status status = atedm_devices_read(config, &d->devices, &err);
    if (status)
        return complain("", &err,
                        status == ATEDM_ERR_UNSUPPORTED ? ATEDM_EXIT_FAILED : ATEDM_EXIT_USAGE);
    if (strcmp(config->backend, "auto") == 0 && atedm_cuda_is_missed(&err))
        ATEDM_LOG(&d->log, ATEDM_LOG_WARNING, "no GPU is used",
                  atedm_log_text("reason", err.message));
    if (atedm_settings_read(config, &d->model, &settings, &err))
        return complain("", &err, ATEDM_EXIT_USAGE);
    if (atedm_clients_create(&d->clients)) {
        atedm_settings_finish(&settings);
        return complain("", &(atedm_error){"no memory for the clients"}, ATEDM_EXIT_FAILED);
    }
    atedm_daemon_take_settings(d, &settings);
    return 0;
}

static atedm_status start_dispatch(atedm_daemon *d, atedm_error *err)
{
    return atedm_dispatch_create(
        &(atedm_dispatch_options){
            .loop = &d->loop,
            .metrics = d->metrics,
            .max_queue = (size_t)d->config->queue_limit,
            .devices = d->devices.items,
            .n_devices = d->devices.count,
            .workers = (size_t)d->config->workers,
            .worker_timeout_s = d->config->worker_timeout_s,
            .worker = {.model = d->config->model,
                       .backend = atedm_backend_of(d->config->backend),
                       .dtype = d->config->dtype,
                       .max_batch = (size_t)d->config->max_batch,
                       .max_requests = (size_t)d->config->max_active,
                       .memory_limit = (size_t)d->config->memory_limit,
                       .sharers = (size_t)d->config->workers},
            .user = d,
            .ready = on_ready,
            .lost = on_worker_lost,
            .failed = on_worker_failed,
            .figures = on_figures,
            .idle = check_drained,
        },
        &d->dispatch, err);
}

static atedm_status revive(void *user, const char *request, atedm_job **ret_job, atedm_error *err)
{
    return atedm_admit_stored(user, request, ret_job, err);
}

static atedm_status start_jobs(atedm_daemon *d, atedm_error *err)
{
    char path[ATEDM_CONFIG_PATH_MAX];
    atedm_status status = atedm_store_path(d->config->job_store, path, err);
    if (status)
        return status;
    return atedm_jobs_create(
        &(atedm_jobs_options){.loop = &d->loop,
                              .log = &d->log,
                              .dispatch = d->dispatch,
                              .metrics = d->metrics,
                              .store = {.path = path,
                                        .retention_s = d->config->job_retention_s,
                                        .retention_bytes = d->config->job_retention_bytes},
                              .revive = revive,
                              .user = d},
        &d->jobs, err);
}

static atedm_status start_http(atedm_daemon *d, const atedm_listeners *take_listeners,
                               atedm_error *err)
{
    return atedm_http_create(
        &(atedm_http_options){
            .loop = &d->loop,
            .listeners = *take_listeners,
            .tls = d->tls,
            .routes = atedm_routes,
            .max_body = (size_t)d->config->max_body_bytes,
            .max_connections = (unsigned)d->config->max_connections,
            .connection_timeout_s = d->config->connection_timeout_s,
            .app = d,
            .authorize = atedm_authorize,
            .refuse = atedm_refuse_exchange,
            .answered = on_answered,
            .idle = check_drained,
            .message = on_http_message,
            .starved = on_starved,
        },
        &d->http, err);
}

static void start_handles(atedm_daemon *d)
{
    uv_timer_init(&d->loop, &d->grace); // uv_timer_init cannot fail
    uv_timer_init(&d->loop, &d->drain_limit);
    uv_timer_init(&d->loop, &d->trim);
    uv_timer_start(&d->trim, on_trim, TRIM_S * 1000, TRIM_S * 1000);
    atedm_service_open(d);
    uv_signal_init(&d->loop, &d->sighup);
    uv_signal_init(&d->loop, &d->sigterm);
    uv_signal_init(&d->loop, &d->sigint);
    d->grace.data = d;
    d->drain_limit.data = d;
    d->sighup.data = d;
    d->sigterm.data = d;
    d->sigint.data = d;
    uv_signal_start(&d->sigterm, on_signal, SIGTERM);
    uv_signal_start(&d->sigint, on_signal, SIGINT);
    uv_signal_start(&d->sighup, on_hangup_signal, SIGHUP);
    sigset_t held; // the signals that main() blocked
    sigemptyset(&held);
    sigaddset(&held, SIGHUP);
    sigprocmask(SIG_UNBLOCK, &held, NULL);
}

static void end_at_once(int number)
{
    (void)number;
    _exit(ATEDM_EXIT_FAILED);
}

// Ends the loop's handling of signals. From here on SIGTERM and SIGINT end the process at once, and
// SIGHUP is ignored. Signals are blocked while the handlers change.
static void close_signals(atedm_daemon *d)
{
    sigset_t all, before;
    sigfillset(&all);
    sigprocmask(SIG_BLOCK, &all, &before);
    uv_close((uv_handle_t *)&d->sighup, NULL);
    uv_close((uv_handle_t *)&d->sigterm, NULL);
    uv_close((uv_handle_t *)&d->sigint, NULL);
    signal(SIGTERM, end_at_once);
    signal(SIGINT, end_at_once);
    signal(SIGHUP, SIG_IGN);
    sigprocmask(SIG_SETMASK, &before, NULL);
}

// Frees the parts that do not need the loop.
static void release(atedm_daemon *d)
{
    atedm_metrics_destroy(d->metrics);
    atedm_clients_destroy(d->clients);
    atedm_tls_unref(d->tls);
    free(d->openapi);
}

// Closes the parts that were started, and runs the loop until their handles are closed.
static void finish(atedm_daemon *d)
{
    d->closing = true;
    atedm_jobs_close(d->jobs); // before HTTP, so that no exchange still waits for a job
    if (d->http)
        atedm_http_close(d->http);
    if (d->dispatch)
        atedm_dispatch_close(d->dispatch);
    uv_close((uv_handle_t *)&d->grace, NULL);
    uv_close((uv_handle_t *)&d->drain_limit, NULL);
    uv_close((uv_handle_t *)&d->trim, NULL);
    atedm_service_close(d);
    close_signals(d);
    uv_run(&d->loop, UV_RUN_DEFAULT);
    uv_loop_close(&d->loop);
    atedm_http_destroy(d->http);
    atedm_jobs_destroy(d->jobs);
    atedm_dispatch_destroy(d->dispatch);
    release(d);
}

static atedm_status open_listeners(const atedm_config *config, atedm_listeners *ret_listeners,
                                   atedm_error *err)
{
    atedm_addresses addresses;
    unsigned mode;
    atedm_status status = atedm_addresses_parse(config->listen, &addresses, err);
    if (!status)
        status = atedm_socket_mode_parse(config->socket_mode, &mode, err);
    return status ? status : atedm_listeners_open(&addresses, mode, ret_listeners, err);
}

int atedm_daemon_run(const atedm_config_source *source, atedm_config *config)
{
    atedm_daemon d = {
        .config = config,
        .source = *source,
        .log = {.fd = STDERR_FILENO,
                .json = strcmp(config->log_format, "json") == 0,
                .level = atedm_log_level_named(config->log_level)},
    };
    d.log.lost = &d.log_lost;
    atedm_json_body_prepare();
    atedm_process_prepare((size_t)config->max_connections + OWN_DESCRIPTORS);
    int exit_status = prepare(&d);
    if (exit_status)
        return exit_status;
    atedm_error err = {""};
    atedm_listeners listeners = {.count = 0};
    atedm_status status = open_listeners(config, &listeners, &err);
    if (status) {
        exit_status = complain("listen", &err,
                               status == ATEDM_ERR_INVALID ? ATEDM_EXIT_USAGE : ATEDM_EXIT_FAILED);
        goto fail;
    }
    if (atedm_metrics_create(&d.metrics) || uv_loop_init(&d.loop)) {
        exit_status = complain("", &(atedm_error){"no memory or file descriptors to start"},
                               ATEDM_EXIT_FAILED);
        goto fail;
    }
    start_handles(&d);
    status = start_http(&d, &listeners, &err);
    if (!status)
        status = start_dispatch(&d, &err);
    if (!status)
        status = start_jobs(&d, &err);
    if (status) {
        d.exit_status = complain("", &err, ATEDM_EXIT_FAILED);
    } else {
        atedm_gauges_start(&d);
        for (size_t i = 0; i < listeners.count; i++)
            printf("atedmd listening on %s\n", listeners.items[i].url);
        fflush(stdout);
        uv_run(&d.loop, UV_RUN_DEFAULT);
        ATEDM_LOG(&d.log, ATEDM_LOG_INFO, "ends", atedm_log_integer("status", d.exit_status));
    }
    finish(&d);
    return d.exit_status;
fail:
    atedm_listeners_close(&listeners);
    release(&d);
    return exit_status;
}
