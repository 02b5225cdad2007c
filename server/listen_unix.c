// Opens Unix sockets to listen on, and manages their files: see listen_private.h.
#include "server/listen_private.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

static struct sockaddr_un address_of(const atedm_address *a)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    snprintf(address.sun_path, sizeof address.sun_path, "%s", a->path);
    return address;
}

// Connects to find out whether a process listens there: 0 if so, else an errno that says why not.
static int knock(const struct sockaddr_un *address)
{
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return errno;
    int reason = connect(fd, (const struct sockaddr *)address, sizeof *address) == 0 ? 0 : errno;
    close(fd);
    return reason == EAGAIN ? 0 : reason; // EAGAIN: it listens, but its backlog is full
}

// A file is at the path. If it is the socket of a daemon that was killed, and so could not remove
// it, removes it; else fails.
static atedm_status remove_dead(const atedm_address *a, const struct sockaddr_un *address,
                                atedm_error *err)
{
    struct stat file;
    if (lstat(a->path, &file) == 0 && !S_ISSOCK(file.st_mode))
        return atedm_error_set(err, ATEDM_ERR_INVALID, "%s: there is a file that is no socket",
                               a->text);
    int reason = knock(address);
    if (reason == 0)
        return atedm_error_set(err, ATEDM_ERR_IO,
                               "%s: somebody listens there (is another atedmd running?)", a->text);
    if (reason == ECONNREFUSED)
        reason = unlink(a->path) == 0 ? 0 : errno;
    if (reason && reason != ENOENT)
        return atedm_error_set(err, ATEDM_ERR_IO, "%s: the socket that is there: %s", a->text,
                               strerror(reason));
    return ATEDM_OK;
}

static atedm_status bind_path(int fd, const atedm_address *a, atedm_error *err)
{
    struct sockaddr_un address = address_of(a);
    int result = bind(fd, (const struct sockaddr *)&address, sizeof address);
    if (result && errno == EADDRINUSE) {
        atedm_status status = remove_dead(a, &address, err);
        if (status)
            return status;
        result = bind(fd, (const struct sockaddr *)&address, sizeof address);
    }
    if (result)
        return atedm_error_set(err, ATEDM_ERR_IO, "%s: %s", a->text, strerror(errno));
    return ATEDM_OK;
}

atedm_status atedm_listen_unix(const atedm_address *a, unsigned mode, atedm_listener *ret_listener,
                               atedm_error *err)
{
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return atedm_error_set(err, ATEDM_ERR_IO, "%s: %s", a->text, strerror(errno));
    atedm_status status = bind_path(fd, a, err);
    if (status) {
        close(fd);
        return status;
    }
    atedm_listener l = {.fd = fd, .has_file = true};
    struct stat file = {.st_ino = 0};
    snprintf(l.path, sizeof l.path, "%s", a->path);
    // Nobody can connect before listen(), so the permissions are in force from the start.
    bool failed =
        lstat(a->path, &file) != 0 || chmod(a->path, mode) != 0 || listen(fd, SOMAXCONN) != 0;
    if (failed)
        status = atedm_error_set(err, ATEDM_ERR_IO, "%s: %s", a->text, strerror(errno));
    l.device = file.st_dev;
    l.inode = file.st_ino;
    if (failed) {
        atedm_listener_close(&l);
        return status;
    }
    atedm_listener_describe(&l);
    *ret_listener = l;
    return ATEDM_OK;
}
