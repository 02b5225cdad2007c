// Puts a certificate into force: see certificate.h.
#include "server/certificate.h"

#include <time.h>

#define DAY_S 86400
// The log warns of a certificate that expires within this many days.
#define SOON_DAYS 14

// The warning for the operator: what is wrong with the certificate now, or will be soon. NULL:
// nothing.
static const char *trouble_of(const atedm_tls *tls, int64_t now)
{
    if (now < atedm_tls_valid_from(tls))
        return "the certificate is not valid yet";
    if (now >= atedm_tls_valid_until(tls))
        return "the certificate has expired";
    if (now >= atedm_tls_valid_until(tls) - SOON_DAYS * DAY_S)
        return "the certificate expires soon";
    return NULL;
}

static void announce(const atedm_daemon *d)
{
    time_t until = (time_t)atedm_tls_valid_until(d->tls);
    struct tm tm;
    char text[32] = "?";
    if (gmtime_r(&until, &tm))
        strftime(text, sizeof text, "%Y-%m-%dT%H:%M:%SZ", &tm);
    const char *trouble = trouble_of(d->tls, (int64_t)time(NULL));
    ATEDM_LOG(&d->log, trouble ? ATEDM_LOG_WARNING : ATEDM_LOG_INFO,
              trouble ? trouble : "certificate", atedm_log_text("file", d->config->tls_cert),
              atedm_log_text("expires", text));
    if (atedm_tls_key_is_open(d->tls))
        ATEDM_LOG(&d->log, ATEDM_LOG_WARNING, "everybody on this machine can read the key",
                  atedm_log_text("file", d->config->tls_key));
}

void atedm_certificate_take(atedm_daemon *d, atedm_tls *take_tls)
{
    atedm_tls_unref(d->tls);
    d->tls = take_tls;
    if (d->http)
        atedm_http_set_tls(d->http, d->tls);
    announce(d);
}
