// Composes and sends the messages to the service manager: see service.h.
#include "server/service.h"

#include "core/base/clock.h"
#include "server/daemon.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>

#define MESSAGE_MAX (ATEDM_SERVICE_STATUS_MAX + 2 * ATEDM_SERVICE_WORDS_MAX + 32)

// ---- judging

bool atedm_service_is_well(const atedm_service_view *v)
{
    return v->state.silence_s <= v->worker_timeout_s + ATEDM_SERVICE_SILENCE_S;
}

// Replaces control characters: after a line break the service manager would read a new variable.
static void blank_controls(char *text)
{
    for (; *text; text++) {
        if ((unsigned char)*text < ' ')
            *text = ' ';
    }
}

void atedm_service_describe(const atedm_service_view *v, char ret_text[ATEDM_SERVICE_STATUS_MAX])
{
    const atedm_dispatch_state *s = &v->state;
    if (!atedm_service_is_well(v))
        snprintf(ret_text, ATEDM_SERVICE_STATUS_MAX,
                 "A worker has said nothing for %.0f s though it has to", s->silence_s);
    else if (v->draining)
        snprintf(ret_text, ATEDM_SERVICE_STATUS_MAX,
                 "Finishes %zu running and %zu waiting requests, for %.0f s at most", s->active,
                 s->depth, ceil(fmax(0, v->drain_left_s)));
    else if (!v->loaded)
        snprintf(ret_text, ATEDM_SERVICE_STATUS_MAX, "Loads the model %s", v->model);
    else
        snprintf(ret_text, ATEDM_SERVICE_STATUS_MAX,
                 "%zu of %zu workers up, %zu requests running, %zu waiting", s->ready, v->workers,
                 s->active, s->depth);
    blank_controls(ret_text);
}

static void look(const atedm_daemon *d, atedm_service_view *ret_view)
{
    atedm_worker_state unused;
    size_t workers = 0;
    while (atedm_dispatch_get_worker(d->dispatch, workers, &unused))
        workers++;
    *ret_view = (atedm_service_view){
        .model = d->model.name,
        .loaded = d->loaded,
        .draining = d->draining,
        .state = atedm_dispatch_get_state(d->dispatch),
        .workers = workers,
        .worker_timeout_s = d->config->worker_timeout_s,
        .drain_left_s = d->drain_started + d->config->drain_timeout_s - atedm_clock_monotonic(),
    };
}

// ---- sending

// Sends `words`, lines about a change of state, or "", together with the status line. If the
// service manager does not read, and so the message is not sent, the words are sent again with the
// next message, unless later words replace them: only the latest state counts.
static void tell(atedm_daemon *d, const char *words)
{
    atedm_service *s = &d->service;
    if (s->notify.fd < 0)
        return;
    if (*words)
        snprintf(s->owed, sizeof s->owed, "%s", words);
    atedm_service_view view;
    char status[ATEDM_SERVICE_STATUS_MAX], extension[ATEDM_SERVICE_WORDS_MAX] = "";
    char message[MESSAGE_MAX];
    look(d, &view);
    atedm_service_describe(&view, status);
    bool fed = s->notify.watchdog_s > 0 && atedm_service_is_well(&view);
    if (s->stopping)
        snprintf(extension, sizeof extension, "EXTEND_TIMEOUT_USEC=%" PRIu64 "\n",
                 (uint64_t)(ATEDM_SERVICE_EXTENSION_S * 1e6));
    snprintf(message, sizeof message, "%s%s%sSTATUS=%s", s->owed, extension,
             fed ? "WATCHDOG=1\n" : "", status);
    if (atedm_notify_send(&s->notify, message))
        *s->owed = '\0';
}

static void on_timer(uv_timer_t *timer)
{
    tell(timer->data, "");
}

void atedm_service_open(atedm_daemon *d)
{
    atedm_service *s = &d->service;
    atedm_notify_init(&s->notify);
    uv_timer_init(&d->loop, &s->timer); // cannot fail
    s->timer.data = d;
    if (s->notify.fd < 0)
        return;
    double period_s = ATEDM_SERVICE_PERIOD_S;
    if (s->notify.watchdog_s > 0)
        period_s = fmin(period_s, s->notify.watchdog_s / ATEDM_SERVICE_FEEDS);
    uint64_t period_ms = (uint64_t)fmax(1, period_s * 1e3);
    uv_timer_start(&s->timer, on_timer, 0, period_ms);
}

void atedm_service_ready(atedm_daemon *d)
{
    bool first = !d->service.ready && !d->service.stopping;
    d->service.ready = true;
    tell(d, first ? "READY=1\n" : "");
}

// A reload ends with "READY=1". That would be wrong before the daemon is ready, and while it stops.
static bool tells_reload(const atedm_daemon *d)
{
    return d->service.ready && !d->service.stopping;
}

void atedm_service_reloading(atedm_daemon *d)
{
    char words[ATEDM_SERVICE_WORDS_MAX];
    snprintf(words, sizeof words, "RELOADING=1\nMONOTONIC_USEC=%" PRIu64 "\n",
             (uint64_t)(atedm_clock_monotonic() * 1e6));
    if (tells_reload(d))
        tell(d, words);
}

void atedm_service_reloaded(atedm_daemon *d)
{
    if (tells_reload(d))
        tell(d, "READY=1\n");
}

void atedm_service_stopping(atedm_daemon *d)
{
    bool first = !d->service.stopping;
    d->service.stopping = true;
    tell(d, first ? "STOPPING=1\n" : "");
}

void atedm_service_close(atedm_daemon *d)
{
    uv_close((uv_handle_t *)&d->service.timer, NULL);
    atedm_notify_finish(&d->service.notify);
}
