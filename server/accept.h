// Takes connections in from a listening socket on the loop, as long as there is room for them.
// Where descriptors have run out it tries again now and then, and neither spins nor goes deaf.
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
    atedm_listener listener; // taken, also on failure
    void *user;
    bool (*room)(void *user); // for one more
    void (*take)(void *user, int take_fd, const struct sockaddr *address, socklen_t size);
    void (*taken)(void *user);            // behind a few of them
    void (*starved)(void *user, int why); // errno; told once until one is accepted again
} atedm_accept_options;

ATEDM_MUST_CHECK atedm_status atedm_accept_create(const atedm_accept_options *options,
                                                  atedm_accept **ret_accept, atedm_error *err);
// To be called where there may be room again.
void atedm_accept_check(atedm_accept *accept);
// Refuses connections from now on; NULL allowed. What it has is freed by the loop.
void atedm_accept_close(atedm_accept *accept);

#endif
