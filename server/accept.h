// Accepts connections from a listening socket, on the loop's thread, as long as its owner has room
// for them. When the system has run out of descriptors it tries again at intervals: it neither
// spins nor stops accepting for good.
#ifndef ATEDM_ACCEPT_H
#define ATEDM_ACCEPT_H

#include "core/base/status.h"
#include "server/listen.h"

#include <stdbool.h>
#include <sys/socket.h>
#include <uv.h>

typedef struct atedm_accept atedm_accept;

typedef struct atedm_accept_options {
    uv_loop_t *loop;
    atedm_listener listener;  // taken, also on failure
    void *user;               // the argument of the functions below; the loop's thread calls them
    bool (*room)(void *user); // whether the owner can take one more connection
    // A connection: a nonblocking descriptor, and the client's address.
    void (*take)(void *user, int take_fd, const struct sockaddr *address, socklen_t size);
    void (*taken)(void *user); // after each round of up to a few dozen calls of `take`
    // The system has no descriptor or memory for one more; `why` is an errno. Called once, and
    // again only after a connection has been accepted in between.
    void (*starved)(void *user, int why);
} atedm_accept_options;

// Starts accepting. Call all functions on the loop's thread. ATEDM_ERR_IO: libuv refuses, or there
// is no memory.
ATEDM_MUST_CHECK atedm_status atedm_accept_create(const atedm_accept_options *options,
                                                  atedm_accept **ret_accept, atedm_error *err);
// The owner calls this when it may have room again after `room` returned false.
void atedm_accept_check(atedm_accept *accept);
// Closes the listening socket and ends `accept`, whose memory is freed once the loop has closed its
// handles. NULL allowed.
void atedm_accept_close(atedm_accept *accept);

#endif
