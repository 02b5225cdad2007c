// The service manager that started this program, if one did: what is said to it, in the words of
// sd_notify(3), and how often it wants to hear. What there is to say is service.h's business.
//
// Not by libsystemd: its sd_notify() opens a socket for each message, which fails where descriptors
// have run out, and waits where the service manager does not read, and with it the loop would.
#ifndef ATEDM_NOTIFY_H
#define ATEDM_NOTIFY_H

#include <stdbool.h>
#include <sys/socket.h>
#include <sys/un.h>

typedef struct atedm_notify {
    int fd; // -1: there is nobody to tell
    struct sockaddr_un address;
    socklen_t address_size;
    double watchdog_s; // "WATCHDOG=1" is expected within so long, again and again; 0: it is not
} atedm_notify;

// From the environment: NOTIFY_SOCKET, a path or "@" with an abstract name; WATCHDOG_USEC and
// WATCHDOG_PID. What is not understood there is as if it were absent.
void atedm_notify_init(atedm_notify *ret_notify);
void atedm_notify_finish(atedm_notify *notify);

// `state`: lines "NAME=VALUE". Never waits: false where the message did not get through. Only while
// there is somebody to tell.
bool atedm_notify_send(const atedm_notify *notify, const char *state);

#endif
