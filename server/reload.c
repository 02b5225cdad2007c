// Reloads the configuration: see reload.h. It first reads and checks everything, and then puts
// everything into force. The second part cannot fail, so the daemon never runs with half of a
// configuration.
#include "server/reload.h"

#include "server/settings.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

// Bytes of the text that names the changed keys: at most all old and all new ones, with commas. The
// log may cut it further.
#define KEYS_TEXT_MAX (2u * ATEDM_CLIENT_KEYS_MAX * (ATEDM_CLIENT_NAME_MAX + 2) + 128)
#define CHANGE_TEXT_MAX (2 * ATEDM_CONFIG_VALUE_MAX + 8)

// A new configuration that is not in force yet.
typedef struct fresh {
    atedm_config config;
    atedm_settings settings;
    atedm_buffer keys; // text for the log: what changes in the keys
} fresh;

static atedm_status read_fresh(const atedm_daemon *d, fresh *f, atedm_error *err)
{
    atedm_config_action action; // unused: "run", or this daemon would not be running
    atedm_buffer_init(&f->keys, KEYS_TEXT_MAX);
    f->settings = (atedm_settings){.keys = NULL};
    atedm_status status = atedm_config_load(d->source.argc, d->source.argv, d->source.environment,
                                            &f->config, &action, err);
    if (!status)
        status = atedm_settings_read(&f->config, &d->model, &f->settings, err);
    if (status)
        return status;
    status = atedm_clients_describe(d->clients, f->settings.keys, &f->keys);
    return status ? atedm_error_set(err, status, "no memory for the keys") : ATEDM_OK;
}

// Logs one line: each changed option as "old -> new", and the changed keys.
static void log_changes(const atedm_log *log, atedm_log_level level, const char *message,
                        const atedm_config_change *changes, size_t n, const char *keys)
{
    char texts[ATEDM_CONFIG_MAX_OPTIONS][CHANGE_TEXT_MAX];
    atedm_log_field fields[ATEDM_CONFIG_MAX_OPTIONS + 2];
    for (size_t i = 0; i < n; i++) {
        snprintf(texts[i], sizeof texts[i], "%s -> %s", changes[i].before, changes[i].after);
        fields[i] = atedm_log_text(changes[i].name, texts[i]);
    }
    fields[n] = atedm_log_text(keys ? "keys" : NULL, keys); // a key of NULL ends the list
    fields[n + 1].key = NULL;
    atedm_log_write(log, level, message, fields);
}

static void put_into_force(atedm_daemon *d, const fresh *f)
{
    atedm_config_take_live(d->config, &f->config);
    atedm_daemon_take_settings(d, &f->settings);
    atedm_store_set_retention(atedm_jobs_store(d->jobs), d->config->job_retention_s,
                              d->config->job_retention_bytes);
    atedm_dispatch_configure(d->dispatch, (size_t)d->config->queue_limit,
                             d->config->worker_timeout_s);
    d->log.json = strcmp(d->config->log_format, "json") == 0;
    d->log.level = atedm_log_level_named(d->config->log_level);
    free(d->openapi); // it contains the limits
    d->openapi = NULL;
    if (d->draining)
        atedm_daemon_limit_drain(d);
}

void atedm_reload(atedm_daemon *d)
{
    atedm_log_write(&d->log, ATEDM_LOG_INFO, "reloading", &(atedm_log_field){.key = NULL});
    atedm_error err = {"no memory"};
    fresh *f = malloc(sizeof *f);
    atedm_status status = f ? read_fresh(d, f, &err) : ATEDM_ERR_NOMEM;
    if (status) {
        ATEDM_LOG(&d->log, ATEDM_LOG_ERROR, "not reloaded: everything stays as it was",
                  atedm_log_text("error", err.message));
        if (f) {
            atedm_settings_finish(&f->settings);
            atedm_buffer_finish(&f->keys);
        }
        free(f);
        return;
    }
    atedm_config_change live[ATEDM_CONFIG_MAX_OPTIONS], fixed[ATEDM_CONFIG_MAX_OPTIONS];
    size_t n_live = atedm_config_changes(d->config, &f->config, true, live);
    size_t n_fixed = atedm_config_changes(d->config, &f->config, false, fixed);
    atedm_log_level level = d->log.level;
    put_into_force(d, f);
    // The line appears if either the old or the new level lets it through.
    atedm_log log = d->log;
    log.level = level < log.level ? level : log.level;
    log_changes(&log, ATEDM_LOG_INFO, "reloaded", live, n_live, f->keys.data);
    if (n_fixed)
        log_changes(&log, ATEDM_LOG_WARNING, "needs a restart", fixed, n_fixed, NULL);
    atedm_buffer_finish(&f->keys);
    free(f);
}
