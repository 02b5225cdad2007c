// The certificate and key with which the daemon speaks TLS. A reload can renew them: new
// connections use the new ones, and open connections keep the old ones. So an atedm_tls counts its
// references. The count is not atomic: loop thread only.
#ifndef ATEDM_TLS_H
#define ATEDM_TLS_H

#include "core/base/status.h"

#include <stdbool.h>
#include <stdint.h>

#define ATEDM_TLS_FILE_MAX (1u << 20) // bytes of each of the two files
#define ATEDM_TLS_PRIORITIES "NORMAL:-VERS-ALL:+VERS-TLS1.3:+VERS-TLS1.2" // for GnuTLS

typedef struct atedm_tls atedm_tls;

// Reads the PEM files `cert` and `key`. In its file the daemon's certificate comes first, followed
// by those that lead to the root. The caller gets one reference. Messages begin with the name of
// the option that is wrong. ATEDM_ERR_FORMAT: a file has another format; ATEDM_ERR_INVALID:
// the key does not belong to the certificate; ATEDM_ERR_NOMEM, or an error of atedm_file_read.
ATEDM_MUST_CHECK atedm_status atedm_tls_load(const char *cert, const char *key, atedm_tls **ret_tls,
                                             atedm_error *err);
atedm_tls *atedm_tls_ref(atedm_tls *tls); // one more reference; returns `tls`
void atedm_tls_unref(atedm_tls *tls);     // the last one frees it; NULL allowed

// When the certificate's validity begins and ends, in seconds since 1970.
int64_t atedm_tls_valid_from(const atedm_tls *tls);
int64_t atedm_tls_valid_until(const atedm_tls *tls);
// Whether every user of the machine can read the key's file.
bool atedm_tls_key_is_open(const atedm_tls *tls);

// Makes `session`, a gnutls_session_t before its handshake, use the certificate. The session has to
// end before `tls` is freed.
void atedm_tls_use(const atedm_tls *tls, void *session);

#endif
