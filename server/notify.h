// The service manager that started this program, if one did: what is said to it, in the words of
// sd_notify(3), and how often it wants to hear. What there is to say is service.h's business.
#ifndef ATEDM_NOTIFY_H
#define ATEDM_NOTIFY_H

#include <stdbool.h>

typedef struct atedm_notify {
    bool heard;        // somebody listens; false where this was built without libsystemd
    double watchdog_s; // "WATCHDOG=1" is expected within so long, again and again; 0: it is not
    int reserve;       // a descriptor for the next message, should there be no other; -1: none
} atedm_notify;

void atedm_notify_init(atedm_notify *ret_notify);
void atedm_notify_finish(atedm_notify *notify);

// `state`: lines "NAME=VALUE". Nothing happens where nobody listens; a message that does not get
// through is lost.
void atedm_notify_send(atedm_notify *notify, const char *state);

#endif
