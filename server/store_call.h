// Exchanges that wait for the store. This part handles clients that leave before the store answers,
// and failures of the store, so that handlers need not.
#ifndef ATEDM_STORE_CALL_H
#define ATEDM_STORE_CALL_H

#include "server/daemon.h"

// Answers the exchange or makes it wait further. `context` is a value that the handler has passed
// along.
typedef void (*atedm_store_answer)(atedm_daemon *daemon, atedm_exchange *exchange, int context,
                                   atedm_store_result *result);

// Makes the exchange wait. Have the result passed once to atedm_store_call_back(call, result).
// NULL: out of memory, and the exchange is answered.
typedef struct atedm_store_call atedm_store_call;
atedm_store_call *atedm_store_call_create(atedm_daemon *daemon, atedm_exchange *exchange,
                                          atedm_store_answer answer, int context);
// Passes the result on, if the client is still there; an atedm_store_done.
void atedm_store_call_back(void *call, atedm_store_result *result);
// Call it if the store did not take the operation: answers the exchange.
void atedm_store_call_fail(atedm_store_call *call);

// Gets a job of the exchange's client, with images as in atedm_store_get, and calls `answer` with
// it in result->jobs[0]. If there is no such job, answers the exchange itself.
void atedm_store_call_get(atedm_daemon *daemon, atedm_exchange *exchange, const char *id, int image,
                          atedm_store_answer answer, int context);

#endif
