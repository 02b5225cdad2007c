// Reads the key from the headers: see authorize.h. clients.h decides what the key allows.
#include "server/authorize.h"

#include "core/base/clock.h"
#include "server/daemon.h"
#include "server/problem.h"

#include <string.h>
#include <strings.h>

_Static_assert(ATEDM_HTTP_CLIENT_MAX >= ATEDM_CLIENT_NAME_MAX, "exchanges have room for names");

// Uses the header Authorization if its scheme is Bearer (RFC 6750, 2.1), in upper or lower case
// (RFC 9110, 11.1); else X-Api-Key. NULL: the client sent no key.
static const char *find_key(const atedm_exchange *x)
{
    static const char scheme[] = "Bearer ";
    const char *authorization = atedm_exchange_header(x, "Authorization");
    if (!authorization || strncasecmp(authorization, scheme, sizeof scheme - 1) != 0)
        return atedm_exchange_header(x, "X-Api-Key");
    const char *key = authorization + sizeof scheme - 1;
    return key + strspn(key, " ");
}

bool atedm_authorize(void *app, const atedm_exchange *x, const char **ret_client,
                     atedm_refusal *ret_refusal)
{
    const atedm_daemon *d = app;
    switch (atedm_clients_authenticate(d->clients, find_key(x), atedm_clock_unix(), ret_client)) {
    case ATEDM_ACCESS_GRANTED:
        return true;
    case ATEDM_ACCESS_NO_KEY:
        *ret_refusal = ATEDM_REFUSE_NO_KEY;
        break;
    case ATEDM_ACCESS_UNKNOWN:
        *ret_refusal = ATEDM_REFUSE_UNKNOWN_KEY;
        break;
    case ATEDM_ACCESS_DISABLED:
        *ret_refusal = ATEDM_REFUSE_DISABLED_KEY;
        break;
    case ATEDM_ACCESS_EXPIRED:
        *ret_refusal = ATEDM_REFUSE_EXPIRED_KEY;
        break;
    }
    return false;
}

atedm_response atedm_authorize_refuse(const atedm_exchange *x, atedm_refusal refusal)
{
    const char *id = atedm_exchange_id(x);
    if (refusal == ATEDM_REFUSE_DISABLED_KEY || refusal == ATEDM_REFUSE_EXPIRED_KEY)
        return atedm_problem_response(ATEDM_PROBLEM_FORBIDDEN, id, "the key %s",
                                      refusal == ATEDM_REFUSE_DISABLED_KEY ? "is disabled"
                                                                           : "has expired");
    bool missing = refusal == ATEDM_REFUSE_NO_KEY;
    atedm_response response = atedm_problem_response(
        ATEDM_PROBLEM_UNAUTHORIZED, id,
        missing ? "send Authorization: Bearer KEY, or X-Api-Key: KEY" : "the key is not known");
    // The header names an error only if the client sent a key (RFC 6750, 3.1).
    atedm_response_header(&response, "WWW-Authenticate",
                          missing ? "Bearer" : "Bearer error=\"invalid_token\"");
    return response;
}

const char *atedm_authorize_owner(const atedm_daemon *d, const atedm_exchange *exchange)
{
    const char *client = atedm_exchange_client(exchange);
    return atedm_clients_is_admin(d->clients, client) ? NULL : client;
}

bool atedm_authorize_jobs_of(const atedm_daemon *d, const atedm_exchange *exchange,
                             const char *owner)
{
    const char *only = atedm_authorize_owner(d, exchange);
    return !only || strcmp(owner, only) == 0;
}
