// Reloads the configuration of the running daemon.
#ifndef ATEDM_RELOAD_H
#define ATEDM_RELOAD_H

#include "server/daemon.h"

// Reads the configuration again from its sources, and puts into force the options that can change
// at run time. The log has these, and those that need a restart. If anything in the configuration
// is wrong, nothing changes, and the log says why. Loop thread.
void atedm_reload(atedm_daemon *daemon);

#endif
