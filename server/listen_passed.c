// Takes over sockets that systemd has opened, by the protocol of sd_listen_fds(3): see
// listen_private.h. The protocol consists of three environment variables, so we do without
// libsystemd.
#include "server/listen_private.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define FIRST_FD 3 // SD_LISTEN_FDS_START

static long number_in(const char *name)
{
    const char *text = getenv(name);
    char *end = NULL;
    long value = text ? strtol(text, &end, 10) : 0;
    return text && *text && !*end ? value : 0;
}

// Whether the name of the i-th descriptor is "https". Colons separate the names in LISTEN_FDNAMES.
static bool speaks_tls(long i)
{
    const char *name = getenv("LISTEN_FDNAMES");
    for (; name && i > 0; i--) {
        name = strchr(name, ':');
        name += name != NULL;
    }
    return name && strcspn(name, ":") == strlen("https") && strncmp(name, "https", 5) == 0;
}

static int option_of(int fd, int option)
{
    int value = -1;
    socklen_t size = sizeof value;
    return getsockopt(fd, SOL_SOCKET, option, &value, &size) == 0 ? value : -1;
}

static atedm_status take(int fd, bool tls, atedm_listener *ret_listener, atedm_error *err)
{
    if (option_of(fd, SO_TYPE) != SOCK_STREAM || option_of(fd, SO_ACCEPTCONN) != 1)
        return atedm_error_set(
            err, ATEDM_ERR_INVALID,
            "systemd: descriptor %d is no stream socket that listens (is Accept= "
            "of the socket unit \"no\"?)",
            fd);
    int flags = fcntl(fd, F_GETFL);
    if (flags < 0 || fcntl(fd, F_SETFL, flags | O_NONBLOCK) || fcntl(fd, F_SETFD, FD_CLOEXEC))
        return atedm_error_set(err, ATEDM_ERR_IO, "systemd: descriptor %d cannot be used", fd);
    *ret_listener = (atedm_listener){.fd = fd, .tls = tls};
    atedm_listener_describe(ret_listener);
    return ATEDM_OK;
}

atedm_status atedm_listen_passed(atedm_listeners *listeners, atedm_error *err)
{
    long n = number_in("LISTEN_PID") == (long)getpid() ? number_in("LISTEN_FDS") : 0;
    if (n <= 0)
        return atedm_error_set(err, ATEDM_ERR_INVALID,
                               "systemd: no sockets were passed (is the socket unit started?)");
    if (n > (long)(ATEDM_ADDRESS_MAX - listeners->count))
        return atedm_error_set(err, ATEDM_ERR_LIMIT, "more than %d sockets with systemd's",
                               ATEDM_ADDRESS_MAX);
    for (long i = 0; i < n; i++) {
        atedm_status status =
            take(FIRST_FD + (int)i, speaks_tls(i), &listeners->items[listeners->count], err);
        if (status)
            return status;
        listeners->count++;
    }
    return ATEDM_OK;
}
