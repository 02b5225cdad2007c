// Exchanges that wait for the store: see store_call.h.
#include "server/store_call.h"

#include "server/authorize.h"
#include "server/problem.h"
#include "server/refuse.h"

#include <stdlib.h>

struct atedm_store_call {
    atedm_daemon *daemon;
    atedm_exchange *exchange; // NULL: the client has hung up
    atedm_store_answer answer;
    int context;
    bool one_job; // the result must be one job of the exchange's client
};

static void on_gone(void *user)
{
    atedm_store_call *call = user;
    call->exchange = NULL;
}

atedm_store_call *atedm_store_call_create(atedm_daemon *d, atedm_exchange *x,
                                          atedm_store_answer answer, int context)
{
    atedm_store_call *call = malloc(sizeof *call);
    if (!call) {
        atedm_exchange_respond(x, atedm_problem_no_memory(atedm_exchange_id(x)));
        return NULL;
    }
    *call = (atedm_store_call){.daemon = d, .exchange = x, .answer = answer, .context = context};
    atedm_exchange_wait(x, on_gone, call);
    return call;
}

void atedm_store_call_fail(atedm_store_call *call)
{
    atedm_store_call_back(
        call, &(atedm_store_result){.status = ATEDM_ERR_LIMIT,
                                    .error = {"too much waits for the job store, or no memory"}});
}

static bool is_there(const atedm_store_call *call, const atedm_store_result *result)
{
    return result->n_jobs &&
           atedm_authorize_jobs_of(call->daemon, call->exchange, result->jobs[0].owner);
}

void atedm_store_call_back(void *user, atedm_store_result *result)
{
    atedm_store_call call = *(atedm_store_call *)user;
    atedm_exchange *x = call.exchange;
    free(user);
    if (!x)
        return;
    const char *id = atedm_exchange_id(x);
    if (result->status) {
        atedm_exchange_respond(x, atedm_refuse_storage(call.daemon, id, &result->error));
    } else if (call.one_job && !is_there(&call, result)) {
        atedm_exchange_respond(x, atedm_problem_response(ATEDM_PROBLEM_NOT_FOUND, id,
                                                         "there is no such job (any more)"));
    } else {
        call.answer(call.daemon, x, call.context, result);
    }
}

void atedm_store_call_get(atedm_daemon *d, atedm_exchange *x, const char *id, int image,
                          atedm_store_answer answer, int context)
{
    atedm_store_call *call = atedm_store_call_create(d, x, answer, context);
    if (!call)
        return;
    call->one_job = true;
    if (atedm_store_get(atedm_jobs_store(d->jobs), id, image, atedm_store_call_back, call))
        atedm_store_call_fail(call);
}
