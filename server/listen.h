// The sockets that the daemon listens on.
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
    bool has_file;                         // a Unix socket's, which goes with it
    char path[ATEDM_ADDRESS_PATH_MAX];
    dev_t device;
    ino_t inode;
} atedm_listener;

typedef struct atedm_listeners {
    atedm_listener items[ATEDM_ADDRESS_MAX];
    size_t count;
} atedm_listeners;

// Opens all of them or none; `mode` is for the files of Unix sockets.
ATEDM_MUST_CHECK atedm_status atedm_listeners_open(const atedm_addresses *addresses, unsigned mode,
                                                   atedm_listeners *ret_listeners,
                                                   atedm_error *err);
void atedm_listeners_close(atedm_listeners *listeners);
// Removes the file of a Unix socket as well, as long as it is the one that was made here.
void atedm_listener_close(atedm_listener *listener);

#endif
