// Opens and closes the sockets that the daemon listens on.
#ifndef ATEDM_LISTEN_H
#define ATEDM_LISTEN_H

#include "core/base/status.h"
#include "server/address.h"

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

typedef struct atedm_listener {
    int fd;
    bool tls;
    char url[ATEDM_ADDRESS_TEXT_MAX + 32]; // "https://[::1]:8443", "unix:/run/atedmd/a.sock"
    bool has_file; // a Unix socket whose file we made, and remove when we close the socket
    char path[ATEDM_ADDRESS_PATH_MAX]; // of this file
    dev_t device;                      // likewise: shows whether another file has its place
    ino_t inode;
} atedm_listener;

typedef struct atedm_listeners {
    atedm_listener items[ATEDM_ADDRESS_MAX];
    size_t count;
} atedm_listeners;

// Opens sockets on all addresses, or on none of them if one fails. Looking up a host's name may
// wait. `mode`: permissions of the files of Unix sockets. *ret_listeners is the caller's.
// ATEDM_ERR_IO: the system refuses; ATEDM_ERR_INVALID: systemd passed no suitable socket, or the
// path of a Unix socket is a file of another kind; ATEDM_ERR_LIMIT: more than ATEDM_ADDRESS_MAX
// sockets. Messages quote the address.
ATEDM_MUST_CHECK atedm_status atedm_listeners_open(const atedm_addresses *addresses, unsigned mode,
                                                   atedm_listeners *ret_listeners,
                                                   atedm_error *err);
void atedm_listeners_close(atedm_listeners *listeners);
// Closes the socket. Also removes the file of a Unix socket, unless another file has taken its
// place.
void atedm_listener_close(atedm_listener *listener);

#endif
