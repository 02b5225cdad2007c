// The service manager by libsystemd: see notify.h. That opens a socket for each message, so one
// descriptor is kept for it: a daemon whose descriptors have run out is alive, and has to say so.
#include "server/notify.h"

#include <fcntl.h>
#include <stdint.h>
#include <stdlib.h>
#include <systemd/sd-daemon.h>
#include <unistd.h>

static int reserve(void)
{
    return open("/dev/null", O_RDONLY | O_CLOEXEC);
}

void atedm_notify_init(atedm_notify *ret_notify)
{
    uint64_t watchdog_us = 0;
    const char *address = getenv("NOTIFY_SOCKET");
    bool heard = address && *address;
    // Neither variable is removed: a worker that inherits them is not the process that is heard.
    if (!heard || sd_watchdog_enabled(0, &watchdog_us) <= 0)
        watchdog_us = 0;
    *ret_notify = (atedm_notify){.heard = heard,
                                 .watchdog_s = (double)watchdog_us * 1e-6,
                                 .reserve = heard ? reserve() : -1};
}

void atedm_notify_finish(atedm_notify *n)
{
    if (n->reserve >= 0)
        close(n->reserve);
    *n = (atedm_notify){.reserve = -1};
}

void atedm_notify_send(atedm_notify *n, const char *state)
{
    if (!n->heard)
        return;
    if (n->reserve >= 0)
        close(n->reserve);
    sd_notify(0, state);
    n->reserve = reserve();
}
