// Puts a certificate into force, and logs its dates and any trouble with it.
#ifndef ATEDM_CERTIFICATE_H
#define ATEDM_CERTIFICATE_H

#include "server/daemon.h"

// New connections use the certificate from now on. Loop thread.
void atedm_certificate_take(atedm_daemon *daemon, atedm_tls *take_tls);

#endif
