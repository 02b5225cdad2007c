// Informs a service manager (systemd's Type=notify) when the daemon is ready, reloads and stops,
// and how it is doing. It feeds the watchdog only while the daemon is well. Without a service
// manager these functions do nothing. Loop thread only.
#ifndef ATEDM_SERVICE_H
#define ATEDM_SERVICE_H

#include "server/dispatch.h"
#include "server/notify.h"

#include <stdbool.h>
#include <uv.h>

// Seconds between two messages; fewer if the watchdog requires it.
#define ATEDM_SERVICE_PERIOD_S 5
// The watchdog is fed this many times within its timeout.
#define ATEDM_SERVICE_FEEDS 3
// While the daemon drains, each message asks for this many seconds more before the manager kills
// it.
#define ATEDM_SERVICE_EXTENSION_S 30
// The daemon ends a worker that has been silent for worker_timeout_s. If the worker is silent for
// this many seconds more, that has failed, and the daemon is not well.
#define ATEDM_SERVICE_SILENCE_S 10

#define ATEDM_SERVICE_STATUS_MAX 256 // bytes of the status line for people
#define ATEDM_SERVICE_WORDS_MAX 64   // bytes of the lines about a change of state

struct atedm_daemon;

typedef struct atedm_service {
    atedm_notify notify;
    uv_timer_t timer;
    bool ready, stopping; // the manager knows this, or `owed` says it
    // Lines about a change of state that the manager has not got yet. Later ones replace them.
    char owed[ATEDM_SERVICE_WORDS_MAX];
} atedm_service;

// The state of the daemon from which the functions below judge it.
typedef struct atedm_service_view {
    const char *model;
    bool loaded, draining;
    atedm_dispatch_state state;
    size_t workers; // all of them, up or not
    double worker_timeout_s;
    double drain_left_s; // seconds until draining ends at the latest; only while it drains
} atedm_service_view;

// Whether the daemon is well, so that the watchdog may be fed. The loop's timer asks, which already
// shows that the loop runs. A daemon that has nothing to do, or whose workers make progress, is
// well. It is not well if a worker that has something to do has sent nothing for longer than
// worker_timeout_s + ATEDM_SERVICE_SILENCE_S: by then the daemon should have replaced that worker.
bool atedm_service_is_well(const atedm_service_view *view);

// One line that says how the daemon is doing, for `systemctl status`.
void atedm_service_describe(const atedm_service_view *view,
                            char ret_text[ATEDM_SERVICE_STATUS_MAX]);

// The events of a daemon's life, in order. The first needs only the daemon's loop.
void atedm_service_open(struct atedm_daemon *daemon);
void atedm_service_ready(struct atedm_daemon *daemon); // a worker takes requests; may be repeated
void atedm_service_reloading(struct atedm_daemon *daemon);
void atedm_service_reloaded(struct atedm_daemon *daemon);
void atedm_service_stopping(struct atedm_daemon *daemon); // it drains; may be repeated
void atedm_service_close(struct atedm_daemon *daemon);    // the loop has to run to close the timer

#endif
