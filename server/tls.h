// The certificate and key with which the daemon speaks TLS. They are renewed while it runs: new
// connections get the new ones, and those that are open keep theirs, so they are counted.
#ifndef ATEDM_TLS_H
#define ATEDM_TLS_H

#include "core/base/status.h"

#include <stdbool.h>
#include <stdint.h>

#define ATEDM_TLS_FILE_MAX (1u << 20) // bytes of a certificate's file, and of a key's
#define ATEDM_TLS_PRIORITIES "NORMAL:-VERS-ALL:+VERS-TLS1.3:+VERS-TLS1.2" // for GnuTLS

typedef struct atedm_tls atedm_tls;

// `cert` and `key` name PEM files; the certificate comes first in its file, those that lead to the
// root behind it. Messages begin with the option that is wrong.
ATEDM_MUST_CHECK atedm_status atedm_tls_load(const char *cert, const char *key, atedm_tls **ret_tls,
                                             atedm_error *err);
atedm_tls *atedm_tls_ref(atedm_tls *tls); // returns it
void atedm_tls_unref(atedm_tls *tls);     // NULL allowed

// From when to when the certificate is valid, in Unix time.
int64_t atedm_tls_valid_from(const atedm_tls *tls);
int64_t atedm_tls_valid_until(const atedm_tls *tls);
// Whether everybody on the machine can read the key.
bool atedm_tls_key_is_open(const atedm_tls *tls);

// For a gnutls_session_t before its handshake, which has to end before `tls` does.
void atedm_tls_use(const atedm_tls *tls, void *session);

#endif
