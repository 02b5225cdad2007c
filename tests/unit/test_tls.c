// Certificates and keys: which files are taken, and what is said about the others. Sessions with
// them are tests/e2e/api_tls.py's.
#include "server/tls.h"

#include <criterion/criterion.h>
#include <gnutls/abstract.h>
#include <gnutls/x509.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

static char folder[32];

static void start(void)
{
    snprintf(folder, sizeof folder, "/tmp/atedm-tls-XXXXXX");
    cr_assert_not_null(mkdtemp(folder));
}

static char *path_of(const char *name)
{
    static char paths[4][64];
    static int next;
    char *path = paths[next++ % 4];
    snprintf(path, sizeof paths[0], "%s/%s", folder, name);
    return path;
}

static void end(void)
{
    const char *const names[] = {"cert", "key", "other"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        unlink(path_of(names[i]));
    rmdir(folder);
}

TestSuite(tls, .init = start, .fini = end);

static void write_file(const char *name, const void *data, size_t size)
{
    FILE *file = fopen(path_of(name), "w");
    cr_assert_not_null(file);
    cr_assert_eq(fwrite(data, 1, size, file), size);
    cr_assert_eq(fclose(file), 0);
}

#define MUST(call) cr_assert_geq(call, 0, #call)

// A key into the file `name`; the caller frees.
static gnutls_x509_privkey_t make_key(const char *name)
{
    gnutls_x509_privkey_t key;
    gnutls_datum_t pem;
    MUST(gnutls_x509_privkey_init(&key));
    MUST(gnutls_x509_privkey_generate(key, GNUTLS_PK_ECDSA,
                                      GNUTLS_CURVE_TO_BITS(GNUTLS_ECC_CURVE_SECP256R1), 0));
    MUST(gnutls_x509_privkey_export2(key, GNUTLS_X509_FMT_PEM, &pem));
    write_file(name, pem.data, pem.size);
    gnutls_free(pem.data);
    return key;
}

// A certificate for it, signed with it.
static void make_cert(gnutls_x509_privkey_t key, time_t from, time_t until)
{
    gnutls_x509_crt_t cert;
    gnutls_datum_t pem;
    MUST(gnutls_x509_crt_init(&cert));
    MUST(gnutls_x509_crt_set_version(cert, 3));
    MUST(gnutls_x509_crt_set_serial(cert, "\1", 1));
    MUST(gnutls_x509_crt_set_dn(cert, "CN=localhost", NULL));
    MUST(gnutls_x509_crt_set_activation_time(cert, from));
    MUST(gnutls_x509_crt_set_expiration_time(cert, until));
    MUST(gnutls_x509_crt_set_key(cert, key));
    MUST(gnutls_x509_crt_sign2(cert, cert, key, GNUTLS_DIG_SHA256, 0));
    MUST(gnutls_x509_crt_export2(cert, GNUTLS_X509_FMT_PEM, &pem));
    write_file("cert", pem.data, pem.size);
    gnutls_free(pem.data);
    gnutls_x509_crt_deinit(cert);
}

static void make_pair(time_t from, time_t until)
{
    gnutls_x509_privkey_t key = make_key("key");
    make_cert(key, from, until);
    gnutls_x509_privkey_deinit(key);
}

static atedm_tls *load(void)
{
    atedm_tls *tls = NULL;
    atedm_error err = {""};
    cr_assert_eq(atedm_tls_load(path_of("cert"), path_of("key"), &tls, &err), ATEDM_OK, "%s",
                 err.message);
    return tls;
}

static void expect_error(const char *cert, const char *key, atedm_status wanted, const char *part)
{
    atedm_tls *tls = NULL;
    atedm_error err = {""};
    atedm_status status = atedm_tls_load(path_of(cert), path_of(key), &tls, &err);
    cr_assert_eq(status, wanted, "%d: %s", status, err.message);
    cr_assert_not_null(strstr(err.message, part), "\"%s\" lacks \"%s\"", err.message, part);
    cr_assert_null(tls);
}

Test(tls, a_pair_and_its_dates)
{
    time_t now = time(NULL);
    make_pair(now - 100, now + 200);
    cr_assert_eq(chmod(path_of("key"), 0640), 0);
    atedm_tls *tls = load();
    cr_assert_eq(atedm_tls_valid_from(tls), now - 100);
    cr_assert_eq(atedm_tls_valid_until(tls), now + 200);
    cr_assert_not(atedm_tls_key_is_open(tls));
    cr_assert_eq(atedm_tls_ref(tls), tls);
    atedm_tls_unref(tls);
    cr_assert_eq(atedm_tls_valid_until(tls), now + 200, "it is there until the last one leaves");
    atedm_tls_unref(tls);
    atedm_tls_unref(NULL);
}

Test(tls, a_key_that_everybody_can_read)
{
    make_pair(1, 2);
    cr_assert_eq(chmod(path_of("key"), 0644), 0);
    atedm_tls *tls = load();
    cr_assert(atedm_tls_key_is_open(tls));
    atedm_tls_unref(tls);
}

Test(tls, files_that_are_not_there)
{
    make_pair(1, 2);
    expect_error("none", "key", ATEDM_ERR_NOT_FOUND, "tls_cert: ");
    expect_error("cert", "none", ATEDM_ERR_NOT_FOUND, "tls_key: ");
}

Test(tls, files_that_are_something_else)
{
    make_pair(1, 2);
    write_file("other", "hello\n", 6);
    expect_error("other", "key", ATEDM_ERR_FORMAT, "no certificate in PEM");
    expect_error("key", "key", ATEDM_ERR_FORMAT, "no certificate in PEM");
    expect_error("cert", "other", ATEDM_ERR_FORMAT, "no key in PEM without a passphrase");
    expect_error("cert", "cert", ATEDM_ERR_FORMAT, "no key in PEM without a passphrase");
    write_file("other", "", 0);
    expect_error("other", "key", ATEDM_ERR_FORMAT, "no certificate in PEM");
    expect_error("cert", "other", ATEDM_ERR_FORMAT, "no key in PEM without a passphrase");
}

Test(tls, a_key_of_another_certificate)
{
    make_pair(1, 2);
    gnutls_x509_privkey_deinit(make_key("other"));
    expect_error("cert", "other", ATEDM_ERR_INVALID, "other is not the key of ");
}

Test(tls, the_largest_file)
{
    make_pair(1, 2);
    static char large[ATEDM_TLS_FILE_MAX + 1];
    memset(large, '\n', sizeof large);
    write_file("other", large, sizeof large);
    expect_error("other", "key", ATEDM_ERR_LIMIT, "tls_cert: ");
    expect_error("cert", "other", ATEDM_ERR_LIMIT, "tls_key: ");
    write_file("other", large, sizeof large - 1);
    expect_error("other", "key", ATEDM_ERR_FORMAT, "no certificate in PEM");
}
