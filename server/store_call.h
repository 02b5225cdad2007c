// Exchanges that wait for the store: the client may be gone when it answers, and the store may have
// failed; what is left is for the handlers.
#ifndef ATEDM_STORE_CALL_H
#define ATEDM_STORE_CALL_H

#include "server/daemon.h"

// Answers the exchange, or waits on with it. `context`: what the answer has to know, its own
// affair.
typedef void (*atedm_store_answer)(atedm_daemon *daemon, atedm_exchange *exchange, int context,
                                   atedm_store_result *result);

// Makes the exchange wait. The result goes to atedm_store_call_back(call, result), once. NULL,
// and the exchange is answered, where there is no memory.
typedef struct atedm_store_call atedm_store_call;
atedm_store_call *atedm_store_call_create(atedm_daemon *daemon, atedm_exchange *exchange,
                                          atedm_store_answer answer, int context);
void atedm_store_call_back(void *call, atedm_store_result *result);
// The store did not take it: answers the exchange.
void atedm_store_call_fail(atedm_store_call *call);

// Asks for a job of the exchange's client, with images as atedm_store_get; answers where there is
// none. Else result->jobs[0] is it.
void atedm_store_call_get(atedm_daemon *daemon, atedm_exchange *exchange, const char *id, int image,
                          atedm_store_answer answer, int context);

#endif
