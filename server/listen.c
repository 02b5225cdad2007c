// Opens the listening socket: see listen.h.
#include "server/listen.h"

#include <errno.h>
#include <netdb.h>
#include <netinet/in.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define HOST_MAX 256

// Splits at the last colon; brackets around an IPv6 address go. An IPv6 address without brackets
// would be ambiguous.
static bool split(const char *text, char ret_host[HOST_MAX], const char **ret_port)
{
    const char *colon = strrchr(text, ':');
    if (!colon || !colon[1] || strspn(colon + 1, "0123456789") != strlen(colon + 1))
        return false;
    size_t size = (size_t)(colon - text);
    if (size >= 2 && text[0] == '[' && colon[-1] == ']') {
        text++;
        size -= 2;
    } else if (memchr(text, ':', size)) {
        return false;
    }
    if (size >= HOST_MAX)
        return false;
    memcpy(ret_host, text, size);
    ret_host[size] = '\0';
    *ret_port = colon + 1;
    return true;
}

static int open_socket(const struct addrinfo *info)
{
    int fd = socket(info->ai_family, info->ai_socktype | SOCK_NONBLOCK | SOCK_CLOEXEC,
                    info->ai_protocol);
    if (fd < 0)
        return -1;
    int one = 1;
    if (setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one) == 0 &&
        bind(fd, info->ai_addr, info->ai_addrlen) == 0 && listen(fd, SOMAXCONN) == 0)
        return fd;
    int reason = errno;
    close(fd);
    errno = reason;
    return -1;
}

static void describe(int fd, char *ret_address, size_t size)
{
    struct sockaddr_storage address = {.ss_family = AF_UNSPEC};
    socklen_t length = sizeof address;
    char host[HOST_MAX] = "?", port[16] = "?";
    if (getsockname(fd, (struct sockaddr *)&address, &length) == 0)
        getnameinfo((struct sockaddr *)&address, length, host, sizeof host, port, sizeof port,
                    NI_NUMERICHOST | NI_NUMERICSERV);
    bool v6 = address.ss_family == AF_INET6;
    snprintf(ret_address, size, v6 ? "[%s]:%s" : "%s:%s", host, port);
}

atedm_status atedm_listen(const char *text, int *ret_fd, char *ret_address, size_t size,
                          atedm_error *err)
{
    char host[HOST_MAX];
    const char *port;
    if (!split(text, host, &port))
        return atedm_error_set(err, ATEDM_ERR_INVALID,
                               "listen: \"%s\" is not ADDRESS:PORT, e.g. 127.0.0.1:8080", text);
    const struct addrinfo hints = {.ai_flags = AI_PASSIVE | AI_NUMERICSERV,
                                   .ai_socktype = SOCK_STREAM};
    struct addrinfo *list = NULL;
    int result = getaddrinfo(*host ? host : NULL, port, &hints, &list);
    if (result)
        return atedm_error_set(err, ATEDM_ERR_IO, "listen: %s: %s", text, gai_strerror(result));
    int fd = -1;
    for (const struct addrinfo *info = list; info && fd < 0; info = info->ai_next)
        fd = open_socket(info);
    int reason = errno;
    freeaddrinfo(list);
    if (fd < 0)
        return atedm_error_set(err, ATEDM_ERR_IO, "listen: %s: %s%s", text, strerror(reason),
                               reason == EADDRINUSE ? " (is another atedmd running?)" : "");
    describe(fd, ret_address, size);
    *ret_fd = fd;
    return ATEDM_OK;
}
