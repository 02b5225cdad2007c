// Parses the addresses of the option "listen". This module opens no socket and looks up no name:
// listen.h does.
#ifndef ATEDM_ADDRESS_H
#define ATEDM_ADDRESS_H

#include "core/base/status.h"

#include <stdbool.h>
#include <stddef.h>

#define ATEDM_ADDRESS_MAX 16       // addresses in a list, and listening sockets altogether
#define ATEDM_ADDRESS_TEXT_MAX 280 // bytes of an address, the terminator included
#define ATEDM_ADDRESS_HOST_MAX 256 // bytes of its host, likewise
#define ATEDM_ADDRESS_PATH_MAX 108 // bytes of its path, likewise: the size of Linux's sun_path
#define ATEDM_ADDRESS_PORT_MAX 65535

typedef enum atedm_address_kind {
    ATEDM_ADDRESS_TCP,
    ATEDM_ADDRESS_UNIX,
    ATEDM_ADDRESS_PASSED, // sockets that systemd has opened
} atedm_address_kind;

typedef struct atedm_address {
    atedm_address_kind kind;
    bool tls;
    char text[ATEDM_ADDRESS_TEXT_MAX]; // as the operator wrote it, for messages
    char host[ATEDM_ADDRESS_HOST_MAX]; // of TCP; "": all addresses
    bool bracketed;                    // `host` is an IPv6 address, not a name
    char port[6];                      // of TCP; "0": the system picks a free one
    char path[ATEDM_ADDRESS_PATH_MAX]; // of a Unix socket
} atedm_address;

typedef struct atedm_addresses {
    atedm_address items[ATEDM_ADDRESS_MAX];
    size_t count;
} atedm_addresses;

// Parses a comma-separated list. Its items are "127.0.0.1:8080", "[::1]:8080", "localhost:8080",
// ":8080" (all addresses), any of these with "https://" (TLS) or "http://" before it,
// "unix:/run/atedmd/atedmd.sock", and "systemd". ATEDM_ERR_INVALID: an item is malformed or there
// twice; ATEDM_ERR_LIMIT: there are too many items, or one is too long, or its port too large.
// Messages quote the item.
ATEDM_MUST_CHECK atedm_status atedm_addresses_parse(const char *list,
                                                    atedm_addresses *ret_addresses,
                                                    atedm_error *err);
// Whether one of them has "https://". Whether systemd's sockets speak TLS is known only when they
// are opened.
bool atedm_addresses_have_tls(const atedm_addresses *addresses);
// Whether one of them is "systemd".
bool atedm_addresses_have_passed(const atedm_addresses *addresses);

// Parses the permissions of a Unix socket's file, in octal: "0660". ATEDM_ERR_INVALID: `text` is
// not an octal number within 0..0777.
ATEDM_MUST_CHECK atedm_status atedm_socket_mode_parse(const char *text, unsigned *ret_mode,
                                                      atedm_error *err);

#endif
