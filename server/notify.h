// Sends messages to the service manager that started this program, if one did, by the protocol of
// sd_notify(3). service.h decides what to send.
//
// We do not use libsystemd. Its sd_notify() opens a socket for each message, which fails when the
// process has run out of descriptors. It also waits if the service manager does not read, and the
// loop would wait with it.
#ifndef ATEDM_NOTIFY_H
#define ATEDM_NOTIFY_H

#include <stdbool.h>
#include <sys/socket.h>
#include <sys/un.h>

typedef struct atedm_notify {
    int fd; // -1: there is no service manager
    struct sockaddr_un address;
    socklen_t address_size;
    double watchdog_s; // the manager expects "WATCHDOG=1" within this time, again and again; 0: no
} atedm_notify;

// Reads the environment: NOTIFY_SOCKET, a path, or "@" before an abstract name; WATCHDOG_USEC and
// WATCHDOG_PID. Ignores a variable that it does not understand.
void atedm_notify_init(atedm_notify *ret_notify);
void atedm_notify_finish(atedm_notify *notify);

// Sends `state`, lines of "NAME=VALUE". Never waits. Returns false if the message was not sent.
// Call it only if `fd` is not -1.
bool atedm_notify_send(const atedm_notify *notify, const char *state);

#endif
