// Talks to the service manager over a datagram socket: see notify.h. sd_notify(3) describes the
// protocol, and promises that it will not change.
#include "server/notify.h"

#include <errno.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

// False if the address is neither a path nor an abstract name, or is too long.
static bool read_address(const char *name, struct sockaddr_un *ret_address, socklen_t *ret_size)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    size_t size = strlen(name);
    if ((*name != '/' && *name != '@') || size >= sizeof address.sun_path)
        return false;
    memcpy(address.sun_path, name, size);
    if (*name == '@')
        address.sun_path[0] = '\0';
    *ret_address = address;
    // The size of a path includes its terminator; an abstract name has none.
    size += *name == '/';
    *ret_size = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + size);
    return true;
}

// The value of a variable that is a positive number, else 0.
static uint64_t read_number(const char *name)
{
    const char *text = getenv(name);
    char *end;
    if (!text || *text < '0' || *text > '9')
        return 0;
    errno = 0;
    unsigned long long value = strtoull(text, &end, 10);
    return errno || *end ? 0 : value;
}

void atedm_notify_init(atedm_notify *ret_notify)
{
    const char *name = getenv("NOTIFY_SOCKET");
    atedm_notify notify = {.fd = -1};
    if (name && read_address(name, &notify.address, &notify.address_size))
        notify.fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    // WATCHDOG_PID says whom the manager means: child processes inherit both variables.
    uint64_t pid = read_number("WATCHDOG_PID");
    if (notify.fd >= 0 && (!getenv("WATCHDOG_PID") || pid == (uint64_t)getpid()))
        notify.watchdog_s = (double)read_number("WATCHDOG_USEC") * 1e-6;
    *ret_notify = notify;
}

void atedm_notify_finish(atedm_notify *n)
{
    if (n->fd >= 0)
        close(n->fd);
    *n = (atedm_notify){.fd = -1};
}

bool atedm_notify_send(const atedm_notify *n, const char *state)
{
    // No connect(): a service manager that was started again has the same address, but would not
    // get what is sent over an old connection.
    return sendto(n->fd, state, strlen(state), MSG_NOSIGNAL, (const struct sockaddr *)&n->address,
                  n->address_size) >= 0;
}
