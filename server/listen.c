// Opens the sockets to listen on: see listen.h. This file has the list of them, and TCP.
#include "server/listen_private.h"

#include <errno.h>
#include <netdb.h>
#include <netinet/in.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

// `dual`: an IPv6 socket accepts IPv4 connections too. Without it, it accepts IPv6 only, whatever
// net.ipv6.bindv6only says: an address that the operator wrote means nothing but itself.
static int open_socket(const struct addrinfo *info, bool dual)
{
    int fd = socket(info->ai_family, info->ai_socktype | SOCK_NONBLOCK | SOCK_CLOEXEC,
                    info->ai_protocol);
    if (fd < 0)
        return -1;
    int one = 1, only = !dual;
    if (setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one) == 0 &&
        (info->ai_family != AF_INET6 ||
         setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &only, sizeof only) == 0) &&
        bind(fd, info->ai_addr, info->ai_addrlen) == 0 && listen(fd, SOMAXCONN) == 0)
        return fd;
    int reason = errno;
    close(fd);
    errno = reason;
    return -1;
}

// Listens on the first of the host's addresses on which this succeeds. *ret_fd is -1 if it succeeds
// on none; errno then says why.
static atedm_status open_host(const atedm_address *a, int family, int *ret_fd, atedm_error *err)
{
    const struct addrinfo hints = {.ai_flags = AI_PASSIVE | AI_NUMERICSERV |
                                               (a->bracketed ? AI_NUMERICHOST : 0),
                                   .ai_family = family,
                                   .ai_socktype = SOCK_STREAM};
    struct addrinfo *list = NULL;
    int result = getaddrinfo(*a->host ? a->host : NULL, a->port, &hints, &list);
    if (result)
        return atedm_error_set(err, ATEDM_ERR_IO, "%s: %s", a->text, gai_strerror(result));
    int fd = -1;
    for (const struct addrinfo *info = list; info && fd < 0; info = info->ai_next)
        fd = open_socket(info, !*a->host);
    int reason = errno;
    freeaddrinfo(list);
    errno = reason;
    *ret_fd = fd;
    return ATEDM_OK;
}

static atedm_status listen_tcp(const atedm_address *a, atedm_listener *ret_listener,
                               atedm_error *err)
{
    int fd = -1;
    int family = a->bracketed || !*a->host ? AF_INET6 : AF_UNSPEC;
    atedm_status status = open_host(a, family, &fd, err);
    // ":PORT" means all addresses. On a machine without IPv6 these are those of IPv4.
    if (!status && fd < 0 && !*a->host && (errno == EAFNOSUPPORT || errno == EADDRNOTAVAIL))
        status = open_host(a, AF_INET, &fd, err);
    if (status)
        return status;
    if (fd < 0)
        return atedm_error_set(err, ATEDM_ERR_IO, "%s: %s%s", a->text, strerror(errno),
                               errno == EADDRINUSE ? " (is another atedmd running?)" : "");
    *ret_listener = (atedm_listener){.fd = fd, .tls = a->tls};
    atedm_listener_describe(ret_listener);
    return ATEDM_OK;
}

void atedm_listener_describe(atedm_listener *l)
{
    union {
        struct sockaddr any;
        struct sockaddr_un un;
        struct sockaddr_storage storage;
    } address = {.storage = {.ss_family = AF_UNSPEC}};
    socklen_t length = sizeof address;
    char host[ATEDM_ADDRESS_HOST_MAX] = "?", port[16] = "?";
    if (getsockname(l->fd, &address.any, &length) == 0 && address.any.sa_family == AF_UNIX) {
        snprintf(l->url, sizeof l->url, "unix:%.*s", (int)sizeof address.un.sun_path,
                 address.un.sun_path);
        return;
    }
    getnameinfo(&address.any, length, host, sizeof host, port, sizeof port,
                NI_NUMERICHOST | NI_NUMERICSERV);
    bool v6 = address.any.sa_family == AF_INET6;
    snprintf(l->url, sizeof l->url, "%s://%s%s%s:%s", l->tls ? "https" : "http", v6 ? "[" : "",
             host, v6 ? "]" : "", port);
}

atedm_status atedm_listeners_open(const atedm_addresses *addresses, unsigned mode,
                                  atedm_listeners *ret_listeners, atedm_error *err)
{
    atedm_listeners all = {.count = 0};
    atedm_status status = ATEDM_OK;
    for (size_t i = 0; i < addresses->count && !status; i++) {
        const atedm_address *a = &addresses->items[i];
        if (a->kind == ATEDM_ADDRESS_PASSED) {
            status = atedm_listen_passed(&all, err);
            continue;
        }
        if (all.count == ATEDM_ADDRESS_MAX) {
            status = atedm_error_set(err, ATEDM_ERR_LIMIT, "more than %d sockets with systemd's",
                                     ATEDM_ADDRESS_MAX);
            break;
        }
        atedm_listener *l = &all.items[all.count];
        status = a->kind == ATEDM_ADDRESS_UNIX ? atedm_listen_unix(a, mode, l, err)
                                               : listen_tcp(a, l, err);
        all.count += !status;
    }
    if (status) {
        atedm_listeners_close(&all);
        return status;
    }
    *ret_listeners = all;
    return ATEDM_OK;
}

void atedm_listeners_close(atedm_listeners *listeners)
{
    for (size_t i = 0; i < listeners->count; i++)
        atedm_listener_close(&listeners->items[i]);
    listeners->count = 0;
}

void atedm_listener_close(atedm_listener *l)
{
    struct stat now;
    if (l->has_file && lstat(l->path, &now) == 0 && now.st_dev == l->device &&
        now.st_ino == l->inode)
        unlink(l->path);
    l->has_file = false;
    close(l->fd);
}
