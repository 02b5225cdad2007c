// The daemon under a service manager (systemd's Type=notify): when it is ready, reloads and stops,
// how it is doing, and the watchdog, which is fed only as long as all is well. Without a service
// manager nothing here does anything.
#ifndef ATEDM_SERVICE_H
#define ATEDM_SERVICE_H

#include "server/dispatch.h"
#include "server/notify.h"

#include <stdbool.h>
#include <uv.h>

// Seconds between two words about how it is doing; less where the watchdog wants it.
#define ATEDM_SERVICE_PERIOD_S 5
// The watchdog is fed so many times in its time.
#define ATEDM_SERVICE_FEEDS 3
// While it drains: seconds that it asks for from then on, with each word.
#define ATEDM_SERVICE_EXTENSION_S 30
// What ends a worker that hangs has so many seconds for it, behind worker_timeout_s, before the
// daemon is not well.
#define ATEDM_SERVICE_SILENCE_S 10

#define ATEDM_SERVICE_STATUS_MAX 256 // bytes of the line for people
#define ATEDM_SERVICE_WORDS_MAX 64   // of the others

struct atedm_daemon;

typedef struct atedm_service {
    atedm_notify notify;
    uv_timer_t timer;
    bool ready, stopping;               // that was said, or is owed
    char owed[ATEDM_SERVICE_WORDS_MAX]; // lines that did not get through yet; later ones replace
                                        // them
} atedm_service;

// What it is judged by.
typedef struct atedm_service_view {
    const char *model;
    bool loaded, draining;
    atedm_dispatch_state state;
    size_t workers; // that there should be
    double worker_timeout_s;
    double drain_left_s; // while it drains
} atedm_service_view;

// Whether the watchdog is fed. It is the loop that asks, so the loop turns. A daemon with nothing
// to do is well, and so is one whose workers make progress. It is not where a worker that has
// something to do has said nothing for longer than worker_timeout_s + ATEDM_SERVICE_SILENCE_S:
// such a worker would have been ended, and another started, if that helped.
bool atedm_service_is_well(const atedm_service_view *view);

// One line on how it is doing, for `systemctl status`.
void atedm_service_describe(const atedm_service_view *view,
                            char ret_text[ATEDM_SERVICE_STATUS_MAX]);

// In the order of a daemon's life; `open` needs the loop only.
void atedm_service_open(struct atedm_daemon *daemon);
void atedm_service_ready(struct atedm_daemon *daemon); // a worker takes requests; again: no news
void atedm_service_reloading(struct atedm_daemon *daemon);
void atedm_service_reloaded(struct atedm_daemon *daemon);
void atedm_service_stopping(struct atedm_daemon *daemon); // it drains
void atedm_service_close(struct atedm_daemon *daemon);    // the loop closes the timer afterwards

#endif
