// A new configuration for the running daemon.
#ifndef ATEDM_RELOAD_H
#define ATEDM_RELOAD_H

#include "server/daemon.h"

// Reads the configuration again, from where it came, and takes over what can be; the log tells what
// that was, and what needs a restart. What is wrong changes nothing.
void atedm_reload(atedm_daemon *daemon);

#endif
