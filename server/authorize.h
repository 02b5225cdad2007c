// Whose request it is, from its headers: `Authorization: Bearer KEY` or `X-Api-Key: KEY`.
#ifndef ATEDM_AUTHORIZE_H
#define ATEDM_AUTHORIZE_H

#include "server/daemon.h"
#include "server/http.h"

// For atedm_http_options; `app` is the daemon.
bool atedm_authorize(void *app, const atedm_exchange *exchange, const char **ret_client,
                     atedm_refusal *ret_refusal);
// The answer to what was not allowed: 401 or 403.
atedm_response atedm_authorize_refuse(const atedm_exchange *exchange, atedm_refusal refusal);
// Whose jobs the client may deal with: its own; NULL for an admin, who may with all.
const char *atedm_authorize_owner(const atedm_daemon *d, const atedm_exchange *exchange);
// Whether those of `owner` are among them.
bool atedm_authorize_jobs_of(const atedm_daemon *d, const atedm_exchange *exchange,
                             const char *owner);

#endif
