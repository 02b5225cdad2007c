// The daemon's certificate: put into force, and what the log says of it.
#ifndef ATEDM_CERTIFICATE_H
#define ATEDM_CERTIFICATE_H

#include "server/daemon.h"

// New connections get it from now on.
void atedm_certificate_take(atedm_daemon *daemon, atedm_tls *take_tls);

#endif
