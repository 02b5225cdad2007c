// Addresses to listen on, as the option "listen" writes them. Nothing is opened or looked up here:
// that is listen.h.
#ifndef ATEDM_ADDRESS_H
#define ATEDM_ADDRESS_H

#include "core/base/status.h"

#include <stdbool.h>
#include <stddef.h>

#define ATEDM_ADDRESS_MAX 16       // in a list, and sockets that are listened on
#define ATEDM_ADDRESS_TEXT_MAX 280 // bytes of one of them, the terminator included
#define ATEDM_ADDRESS_HOST_MAX 256 // likewise
#define ATEDM_ADDRESS_PATH_MAX 108 // likewise: what Linux has room for in a sockaddr_un
#define ATEDM_ADDRESS_PORT_MAX 65535

typedef enum atedm_address_kind {
    ATEDM_ADDRESS_TCP,
    ATEDM_ADDRESS_UNIX,
    ATEDM_ADDRESS_PASSED, // sockets that systemd has opened
} atedm_address_kind;

typedef struct atedm_address {
    atedm_address_kind kind;
    bool tls;
    char text[ATEDM_ADDRESS_TEXT_MAX]; // as it was written, for messages
    char host[ATEDM_ADDRESS_HOST_MAX]; // TCP; "": all addresses
    bool bracketed;                    // `host` is an IPv6 address, not a name
    char port[6];                      // TCP; "0": a free one
    char path[ATEDM_ADDRESS_PATH_MAX]; // of a Unix socket
} atedm_address;

typedef struct atedm_addresses {
    atedm_address items[ATEDM_ADDRESS_MAX];
    size_t count;
} atedm_addresses;

// A list with commas of "127.0.0.1:8080", "[::1]:8080", "localhost:8080", ":8080" (all addresses),
// the same behind "https://" for TLS or "http://", "unix:/run/atedmd/atedmd.sock", and "systemd".
ATEDM_MUST_CHECK atedm_status atedm_addresses_parse(const char *list,
                                                    atedm_addresses *ret_addresses,
                                                    atedm_error *err);
// Whether one of them speaks TLS for certain (what systemd passes shows later).
bool atedm_addresses_have_tls(const atedm_addresses *addresses);
bool atedm_addresses_have_passed(const atedm_addresses *addresses);

// "0660": permissions of a Unix socket's file, in octal.
ATEDM_MUST_CHECK atedm_status atedm_socket_mode_parse(const char *text, unsigned *ret_mode,
                                                      atedm_error *err);

#endif
