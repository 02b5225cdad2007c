// Finds out which client sent a request, from the header `Authorization: Bearer KEY` or
// `X-Api-Key: KEY`. Call all functions on the loop's thread.
#ifndef ATEDM_AUTHORIZE_H
#define ATEDM_AUTHORIZE_H

#include "server/daemon.h"
#include "server/http.h"

// The callback `authorize` of atedm_http_options; `app` is the daemon. Returns false if the request
// is refused; *ret_refusal says why. *ret_client is set in any case, and valid until the keys are
// replaced.
bool atedm_authorize(void *app, const atedm_exchange *exchange, const char **ret_client,
                     atedm_refusal *ret_refusal);
// The answer to a refused request: 403 if the key is disabled or expired, else 401. `refusal` is
// one of the four about keys.
atedm_response atedm_authorize_refuse(const atedm_exchange *exchange, atedm_refusal refusal);
// The owner whose jobs the client may see and delete: the client itself. NULL: the client is an
// admin, and may do this with all jobs. Borrowed from the exchange.
const char *atedm_authorize_owner(const atedm_daemon *d, const atedm_exchange *exchange);
// Whether the client may do this with the jobs of `owner`.
bool atedm_authorize_jobs_of(const atedm_daemon *d, const atedm_exchange *exchange,
                             const char *owner);

#endif
