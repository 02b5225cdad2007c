// Watches for a peer's hang-up: see hangup.h.
#include "server/hangup.h"

#include <stdlib.h>

struct atedm_hangup {
    uv_poll_t poll;
    void (*call)(void *user);
    void *user;
};

static void on_closed(uv_handle_t *handle)
{
    free(handle->data);
}

static void on_poll(uv_poll_t *poll, int status, int events)
{
    if (status == 0 && !(events & UV_DISCONNECT))
        return;
    atedm_hangup *hangup = poll->data;
    uv_poll_stop(poll); // the condition persists: libuv would call again and again
    hangup->call(hangup->user);
}

atedm_hangup *atedm_hangup_start(uv_loop_t *loop, int fd, void (*call)(void *user), void *user)
{
    atedm_hangup *hangup = malloc(sizeof *hangup);
    if (!hangup)
        return NULL;
    *hangup = (atedm_hangup){.call = call, .user = user};
    if (uv_poll_init(loop, &hangup->poll, fd)) {
        free(hangup);
        return NULL;
    }
    hangup->poll.data = hangup;
    if (uv_poll_start(&hangup->poll, UV_DISCONNECT, on_poll)) {
        atedm_hangup_stop(hangup);
        return NULL;
    }
    return hangup;
}

void atedm_hangup_stop(atedm_hangup *hangup)
{
    if (!hangup)
        return;
    uv_poll_stop(&hangup->poll);
    uv_close((uv_handle_t *)&hangup->poll, on_closed);
}
