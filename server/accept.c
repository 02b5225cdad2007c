// Accepts connections: see accept.h. libmicrohttpd could do that itself. But when descriptors have
// run out, it either spins or stops listening until it is run again for another reason.
#include "server/accept.h"

#include <errno.h>
#include <stdlib.h>

// Connections that one round accepts before the loop's other work gets a turn.
#define AT_ONCE 32
// Milliseconds until the next attempt after the system had no descriptor or memory.
#define RETRY_MS 100

struct atedm_accept {
    atedm_accept_options options;
    uv_poll_t poll;
    uv_timer_t retry;
    bool full;   // `room` returned false: polling stops until atedm_accept_check
    bool told;   // `starved` has been called since the last accepted connection
    int handles; // of the loop, not closed yet
};

static void on_closed(uv_handle_t *handle)
{
    atedm_accept *a = handle->data;
    if (--a->handles == 0)
        free(a);
}

static void on_poll(uv_poll_t *poll, int status, int events);

static void on_retry(uv_timer_t *timer)
{
    atedm_accept *a = timer->data;
    uv_poll_start(&a->poll, UV_READABLE, on_poll);
}

// The system has no descriptor or memory for one more.
static void starve(atedm_accept *a, int why)
{
    uv_poll_stop(&a->poll);
    uv_timer_start(&a->retry, on_retry, RETRY_MS, 0);
    if (!a->told)
        a->options.starved(a->options.user, why);
    a->told = true;
}

// False if no connection waits, or the system cannot give us one.
static bool accept_one(atedm_accept *a)
{
    struct sockaddr_storage address;
    socklen_t size = sizeof address;
    int fd = accept4(a->options.listener.fd, (struct sockaddr *)&address, &size,
                     SOCK_NONBLOCK | SOCK_CLOEXEC);
    if (fd >= 0) {
        a->told = false;
        a->options.take(a->options.user, fd, (struct sockaddr *)&address, size);
        return true;
    }
    int why = errno;
    if (why == EMFILE || why == ENFILE || why == ENOBUFS || why == ENOMEM)
        starve(a, why);
    return why == EINTR || why == ECONNABORTED;
}

static void on_poll(uv_poll_t *poll, int status, int events)
{
    atedm_accept *a = poll->data;
    for (int i = 0; i < AT_ONCE; i++) {
        if (!a->options.room(a->options.user)) {
            uv_poll_stop(poll);
            a->full = true;
            break;
        }
        if (!accept_one(a))
            break;
    }
    a->options.taken(a->options.user);
}

atedm_status atedm_accept_create(const atedm_accept_options *options, atedm_accept **ret_accept,
                                 atedm_error *err)
{
    atedm_accept *a = calloc(1, sizeof *a);
    int result = a ? uv_poll_init(options->loop, &a->poll, options->listener.fd) : UV_ENOMEM;
    if (result) {
        free(a);
        atedm_listener listener = options->listener;
        atedm_listener_close(&listener);
        return atedm_error_set(err, ATEDM_ERR_IO, "libuv: %s", uv_strerror(result));
    }
    a->options = *options;
    uv_timer_init(options->loop, &a->retry); // cannot fail
    a->handles = 2;
    a->poll.data = a;
    a->retry.data = a;
    uv_poll_start(&a->poll, UV_READABLE, on_poll);
    *ret_accept = a;
    return ATEDM_OK;
}

void atedm_accept_check(atedm_accept *a)
{
    if (!a->full || !a->options.room(a->options.user))
        return;
    a->full = false;
    uv_poll_start(&a->poll, UV_READABLE, on_poll);
}

void atedm_accept_close(atedm_accept *a)
{
    if (!a)
        return;
    uv_close((uv_handle_t *)&a->poll, on_closed);
    uv_close((uv_handle_t *)&a->retry, on_closed);
    atedm_listener_close(&a->options.listener);
}
