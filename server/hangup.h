// Watches a connected socket for the peer's hang-up, without reading from it. Loop thread only.
#ifndef ATEDM_HANGUP_H
#define ATEDM_HANGUP_H

#include <uv.h>

typedef struct atedm_hangup atedm_hangup;

// Calls `call` once when the peer closes its side or resets the connection. `fd` stays the
// caller's. NULL: there is no memory, or libuv cannot watch the socket.
atedm_hangup *atedm_hangup_start(uv_loop_t *loop, int fd, void (*call)(void *user), void *user);
// Ends the watch. Call it before you close the socket. The memory is freed once the loop has closed
// the handle. NULL allowed.
void atedm_hangup_stop(atedm_hangup *hangup);

#endif
