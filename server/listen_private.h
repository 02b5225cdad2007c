// What the files of listening share: listen.c (all of them, TCP), listen_unix.c (Unix sockets and
// their files), listen_passed.c (what systemd has opened).
#ifndef ATEDM_LISTEN_PRIVATE_H
#define ATEDM_LISTEN_PRIVATE_H

#include "server/listen.h"

// A file that a dead daemon has left is removed; where a living one answers, it is an error.
ATEDM_MUST_CHECK atedm_status atedm_listen_unix(const atedm_address *address, unsigned mode,
                                                atedm_listener *ret_listener, atedm_error *err);

// Adds the sockets of LISTEN_FDS; those whose name in LISTEN_FDNAMES is "https" speak TLS. On
// failure some may have been added.
ATEDM_MUST_CHECK atedm_status atedm_listen_passed(atedm_listeners *listeners, atedm_error *err);

// Fills `url` from the socket's own address.
void atedm_listener_describe(atedm_listener *listener);

#endif
