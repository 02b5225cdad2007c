// Reads certificate and key into credentials for GnuTLS: see tls.h.
#include "server/tls.h"

#include "core/base/file.h"

#include <gnutls/abstract.h>
#include <gnutls/x509.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

struct atedm_tls {
    size_t users; // references, all held by the loop's thread
    gnutls_certificate_credentials_t credentials;
    int64_t valid_from, valid_until;
    bool key_is_open;
};

// A file in memory. It is wiped after use, since it may hold the private key.
typedef struct pem {
    char *data;
    size_t size;
} pem;

static void pem_finish(pem *p)
{
    if (p->data)
        explicit_bzero(p->data, p->size);
    free(p->data);
}

static gnutls_datum_t datum_of(const pem *p)
{
    return (gnutls_datum_t){.data = (unsigned char *)p->data, .size = (unsigned)p->size};
}

// Checks the first certificate of the file, and reads its dates.
static atedm_status read_dates(atedm_tls *tls, const pem *cert, const char *path, atedm_error *err)
{
    gnutls_x509_crt_t first;
    int result = gnutls_x509_crt_init(&first);
    if (result < 0)
        return atedm_error_set(err, ATEDM_ERR_NOMEM, "tls_cert: %s", gnutls_strerror(result));
    gnutls_datum_t datum = datum_of(cert);
    result = gnutls_x509_crt_import(first, &datum, GNUTLS_X509_FMT_PEM);
    if (result >= 0) {
        tls->valid_from = gnutls_x509_crt_get_activation_time(first);
        tls->valid_until = gnutls_x509_crt_get_expiration_time(first);
    }
    gnutls_x509_crt_deinit(first);
    if (result < 0)
        return atedm_error_set(err, ATEDM_ERR_FORMAT, "tls_cert: %s: no certificate in PEM: %s",
                               path, gnutls_strerror(result));
    return ATEDM_OK;
}

static atedm_status check_key(const pem *key, const char *path, atedm_error *err)
{
    gnutls_privkey_t parsed;
    int result = gnutls_privkey_init(&parsed);
    if (result < 0)
        return atedm_error_set(err, ATEDM_ERR_NOMEM, "tls_key: %s", gnutls_strerror(result));
    gnutls_datum_t datum = datum_of(key);
    result = gnutls_privkey_import_x509_raw(parsed, &datum, GNUTLS_X509_FMT_PEM, NULL, 0);
    gnutls_privkey_deinit(parsed);
    if (result < 0)
        return atedm_error_set(err, ATEDM_ERR_FORMAT,
                               "tls_key: %s: no key in PEM without a passphrase: %s", path,
                               gnutls_strerror(result));
    return ATEDM_OK;
}

static atedm_status read_file(const char *option, const char *path, pem *ret_pem, atedm_error *err)
{
    atedm_status status =
        atedm_file_read(path, ATEDM_TLS_FILE_MAX, &ret_pem->data, &ret_pem->size, err);
    return atedm_error_context(err, status, "%s", option);
}

static atedm_status read_pair(atedm_tls *tls, const char *cert_path, const char *key_path,
                              const pem *cert, const pem *key, atedm_error *err)
{
    atedm_status status = read_dates(tls, cert, cert_path, err);
    if (!status)
        status = check_key(key, key_path, err);
    if (status)
        return status;
    struct stat file;
    tls->key_is_open = stat(key_path, &file) == 0 && (file.st_mode & S_IROTH) != 0;
    gnutls_datum_t cert_datum = datum_of(cert), key_datum = datum_of(key);
    int result = gnutls_certificate_set_x509_key_mem(tls->credentials, &cert_datum, &key_datum,
                                                     GNUTLS_X509_FMT_PEM);
    if (result == GNUTLS_E_CERTIFICATE_KEY_MISMATCH)
        return atedm_error_set(err, ATEDM_ERR_INVALID, "tls_key: %s is not the key of %s", key_path,
                               cert_path);
    if (result < 0)
        return atedm_error_set(err, ATEDM_ERR_FORMAT, "tls_cert: %s: %s", cert_path,
                               gnutls_strerror(result));
    return ATEDM_OK;
}

atedm_status atedm_tls_load(const char *cert_path, const char *key_path, atedm_tls **ret_tls,
                            atedm_error *err)
{
    atedm_tls *tls = calloc(1, sizeof *tls);
    if (!tls)
        return atedm_error_set(err, ATEDM_ERR_NOMEM, "tls_cert: no memory");
    tls->users = 1;
    pem cert = {.data = NULL}, key = {.data = NULL};
    int result = gnutls_certificate_allocate_credentials(&tls->credentials);
    atedm_status status = ATEDM_OK;
    if (result < 0)
        status = atedm_error_set(err, ATEDM_ERR_NOMEM, "tls_cert: %s", gnutls_strerror(result));
    if (!status)
        status = read_file("tls_cert", cert_path, &cert, err);
    if (!status)
        status = read_file("tls_key", key_path, &key, err);
    if (!status)
        status = read_pair(tls, cert_path, key_path, &cert, &key, err);
    pem_finish(&cert);
    pem_finish(&key);
    if (status) {
        atedm_tls_unref(tls);
        return status;
    }
    *ret_tls = tls;
    return ATEDM_OK;
}

atedm_tls *atedm_tls_ref(atedm_tls *tls)
{
    tls->users++;
    return tls;
}

void atedm_tls_unref(atedm_tls *tls)
{
    if (!tls || --tls->users)
        return;
    if (tls->credentials)
        gnutls_certificate_free_credentials(tls->credentials);
    free(tls);
}

int64_t atedm_tls_valid_from(const atedm_tls *tls)
{
    return tls->valid_from;
}

int64_t atedm_tls_valid_until(const atedm_tls *tls)
{
    return tls->valid_until;
}

bool atedm_tls_key_is_open(const atedm_tls *tls)
{
    return tls->key_is_open;
}

void atedm_tls_use(const atedm_tls *tls, void *session)
{
    gnutls_credentials_set(session, GNUTLS_CRD_CERTIFICATE, tls->credentials);
}
