// Shared by the files of listening: listen.c (the list, TCP sockets), listen_unix.c (Unix sockets
// and their files), listen_passed.c (sockets that systemd has opened).
#ifndef ATEDM_LISTEN_PRIVATE_H
#define ATEDM_LISTEN_PRIVATE_H

#include "server/listen.h"

// Opens a Unix socket. Removes the file that a dead daemon has left; if a living one answers there,
// that is an error.
ATEDM_MUST_CHECK atedm_status atedm_listen_unix(const atedm_address *address, unsigned mode,
                                                atedm_listener *ret_listener, atedm_error *err);

// Adds the sockets of LISTEN_FDS; those whose name in LISTEN_FDNAMES is "https" speak TLS. On
// failure some may have been added.
ATEDM_MUST_CHECK atedm_status atedm_listen_passed(atedm_listeners *listeners, atedm_error *err);

// Fills `url` from the socket's own address.
void atedm_listener_describe(atedm_listener *listener);

#endif
