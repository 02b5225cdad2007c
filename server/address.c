// Parses the addresses to listen on: see address.h.
#include "server/address.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/un.h>

_Static_assert(sizeof((struct sockaddr_un){0}.sun_path) == ATEDM_ADDRESS_PATH_MAX,
               "room for the path of a socket");

#define SOCKET_MODE_MAX 0777u

// Skips `prefix` if `text` begins with it; else returns false.
static bool skip(const char **text, const char *prefix)
{
    size_t size = strlen(prefix);
    if (strncmp(*text, prefix, size) != 0)
        return false;
    *text += size;
    return true;
}

static atedm_status parse_unix(const char *path, atedm_address *a, atedm_error *err)
{
    if (*path != '/')
        return atedm_error_set(err, ATEDM_ERR_INVALID, "\"%s\": the path has to begin with /",
                               a->text);
    if (strlen(path) >= sizeof a->path)
        return atedm_error_set(err, ATEDM_ERR_LIMIT, "\"%s\": the path has more than %zu bytes",
                               a->text, sizeof a->path - 1);
    a->kind = ATEDM_ADDRESS_UNIX;
    snprintf(a->path, sizeof a->path, "%s", path);
    return ATEDM_OK;
}

static atedm_status parse_port(const char *port, atedm_address *a, atedm_error *err)
{
    size_t digits = strspn(port, "0123456789");
    if (digits == 0 || port[digits])
        return atedm_error_set(err, ATEDM_ERR_INVALID,
                               "\"%s\" is not ADDRESS:PORT, e.g. 127.0.0.1:8080", a->text);
    // A longer number is too large, or has leading zeros, which nobody writes.
    if (digits >= sizeof a->port || strtol(port, NULL, 10) > ATEDM_ADDRESS_PORT_MAX)
        return atedm_error_set(err, ATEDM_ERR_LIMIT, "\"%s\": the port is not within 0..%d",
                               a->text, ATEDM_ADDRESS_PORT_MAX);
    snprintf(a->port, sizeof a->port, "%ld", strtol(port, NULL, 10));
    return ATEDM_OK;
}

// Splits `text` at its last colon, and removes the brackets of an IPv6 address. They are required,
// since without them an address cannot be distinguished from its port.
static atedm_status parse_tcp(const char *text, atedm_address *a, atedm_error *err)
{
    if (strstr(text, "://"))
        return atedm_error_set(err, ATEDM_ERR_INVALID,
                               "\"%s\": what stands before :// is neither http nor https", a->text);
    const char *colon = strrchr(text, ':');
    if (!colon)
        return parse_port("", a, err);
    atedm_status status = parse_port(colon + 1, a, err);
    if (status)
        return status;
    size_t size = (size_t)(colon - text);
    a->bracketed = *text == '[';
    if (a->bracketed) {
        if (size < 3 || colon[-1] != ']')
            return atedm_error_set(err, ATEDM_ERR_INVALID, "\"%s\": a bracket without the other",
                                   a->text);
        text++;
        size -= 2;
    } else if (memchr(text, ':', size) || memchr(text, ']', size)) {
        return atedm_error_set(err, ATEDM_ERR_INVALID,
                               "\"%s\": an IPv6 address needs brackets, e.g. [::1]:8080", a->text);
    }
    if (size >= sizeof a->host)
        return atedm_error_set(err, ATEDM_ERR_LIMIT, "\"%s\": the host has more than %zu bytes",
                               a->text, sizeof a->host - 1);
    memcpy(a->host, text, size);
    a->host[size] = '\0';
    return ATEDM_OK;
}

static atedm_status parse_one(const char *text, size_t size, atedm_address *ret_address,
                              atedm_error *err)
{
    atedm_address a = {.kind = ATEDM_ADDRESS_TCP};
    if (size == 0)
        return atedm_error_set(err, ATEDM_ERR_INVALID, "an address of the list is empty");
    if (size >= sizeof a.text)
        return atedm_error_set(err, ATEDM_ERR_LIMIT, "\"%.40s...\" has more than %zu bytes", text,
                               sizeof a.text - 1);
    memcpy(a.text, text, size);
    atedm_status status = ATEDM_OK;
    const char *rest = a.text;
    if (strcmp(rest, "systemd") == 0) {
        a.kind = ATEDM_ADDRESS_PASSED;
    } else if (skip(&rest, "unix:")) {
        status = parse_unix(rest, &a, err);
    } else {
        a.tls = skip(&rest, "https://");
        if (!a.tls)
            skip(&rest, "http://");
        status = parse_tcp(rest, &a, err);
    }
    if (!status)
        *ret_address = a;
    return status;
}

static bool is_same(const atedm_address *a, const atedm_address *b)
{
    if (a->kind != b->kind)
        return false;
    if (a->kind == ATEDM_ADDRESS_TCP) // each port 0 becomes another free port
        return strcmp(a->port, "0") != 0 && strcmp(a->port, b->port) == 0 &&
               strcasecmp(a->host, b->host) == 0;
    return strcmp(a->path, b->path) == 0;
}

atedm_status atedm_addresses_parse(const char *list, atedm_addresses *ret_addresses,
                                   atedm_error *err)
{
    atedm_addresses all = {.count = 0};
    for (const char *at = list; at; at = strchr(at, ','), at += at != NULL) {
        const char *text = at + strspn(at, " ");
        size_t size = strcspn(text, ",");
        while (size && text[size - 1] == ' ')
            size--;
        if (all.count == ATEDM_ADDRESS_MAX)
            return atedm_error_set(err, ATEDM_ERR_LIMIT, "more than %d addresses",
                                   ATEDM_ADDRESS_MAX);
        atedm_address *a = &all.items[all.count];
        atedm_status status = parse_one(text, size, a, err);
        if (status)
            return status;
        for (size_t i = 0; i < all.count; i++) {
            if (is_same(&all.items[i], a))
                return atedm_error_set(err, ATEDM_ERR_INVALID, "\"%s\" is there twice", a->text);
        }
        all.count++;
    }
    *ret_addresses = all;
    return ATEDM_OK;
}

bool atedm_addresses_have_tls(const atedm_addresses *addresses)
{
    for (size_t i = 0; i < addresses->count; i++) {
        if (addresses->items[i].tls)
            return true;
    }
    return false;
}

bool atedm_addresses_have_passed(const atedm_addresses *addresses)
{
    for (size_t i = 0; i < addresses->count; i++) {
        if (addresses->items[i].kind == ATEDM_ADDRESS_PASSED)
            return true;
    }
    return false;
}

atedm_status atedm_socket_mode_parse(const char *text, unsigned *ret_mode, atedm_error *err)
{
    char *end;
    unsigned long mode = strtoul(text, &end, 8);
    if (strspn(text, "01234567") == 0 || *end || mode > SOCKET_MODE_MAX)
        return atedm_error_set(err, ATEDM_ERR_INVALID,
                               "\"%s\" are no permissions in octal within 0..0777, e.g. 0660",
                               text);
    *ret_mode = (unsigned)mode;
    return ATEDM_OK;
}
