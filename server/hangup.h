// Watches a connected socket that nobody reads for the peer's hang-up.
#ifndef ATEDM_HANGUP_H
#define ATEDM_HANGUP_H

#include <uv.h>

typedef struct atedm_hangup atedm_hangup;

// Calls `call` once when the peer closes its side or resets the connection. NULL where it cannot be
// watched.
atedm_hangup *atedm_hangup_start(uv_loop_t *loop, int fd, void (*call)(void *user), void *user);
// Ends the watch, before the socket is closed; its memory goes when the loop has closed the handle.
// NULL allowed.
void atedm_hangup_stop(atedm_hangup *hangup);

#endif
