// POST /generate: admits a request, waits for its end and answers. Requests that must outlive their
// connection become stored jobs (submit.c).
#include "server/accounts.h"
#include "server/admit.h"
#include "server/answer.h"
#include "server/handlers.h"
#include "server/problem.h"
#include "server/refuse.h"
#include "server/submit.h"

#include <jansson.h>
#include <stdlib.h>

// A client that waits for its answer.
typedef struct waiter {
    atedm_daemon *daemon;
    atedm_exchange *exchange; // NULL: the client is gone, but the request continues
    atedm_job *job;
} waiter;

static atedm_response done_answer(const waiter *w, const atedm_worker_result *result)
{
    const char *id = atedm_exchange_id(w->exchange);
    return atedm_answer_response(id, atedm_answer_json(id, w->job, result), result->images,
                                 result->n_images, w->job->request.response_format);
}

static void on_end(void *user, const atedm_job *job, atedm_job_end end, atedm_worker_result *result,
                   const atedm_error *error)
{
    waiter *w = user;
    atedm_response response;
    if (end == ATEDM_JOB_DEADLINE)
        atedm_account_rejected(w->daemon->metrics, ATEDM_REJECTED_DEADLINE);
    if (!w->exchange) {
        free(w);
        return;
    }
    switch (end) {
    case ATEDM_JOB_DONE:
        response = done_answer(w, result);
        break;
    case ATEDM_JOB_DEADLINE:
        response = atedm_problem_response(ATEDM_PROBLEM_DEADLINE, atedm_exchange_id(w->exchange),
                                          "not done within %g s", job->request.deadline_s);
        break;
    case ATEDM_JOB_CUT_OFF:
        atedm_account_rejected(w->daemon->metrics, ATEDM_REJECTED_DRAINING);
        response =
            atedm_refuse_busy(w->daemon, atedm_exchange_id(w->exchange), ATEDM_BUSY_DRAINING);
        break;
    case ATEDM_JOB_NO_MEMORY:
        response = atedm_refuse_no_memory(w->daemon, atedm_exchange_id(w->exchange), error);
        break;
    case ATEDM_JOB_FAILED:
    default:
        response = atedm_refuse_failed(w->daemon, atedm_exchange_id(w->exchange), error);
        break;
    }
    atedm_exchange_respond(w->exchange, response);
    free(w);
}

static void on_gone(void *user)
{
    waiter *w = user;
    w->exchange = NULL;
    if (!w->daemon->config->cancel_on_disconnect)
        return;
    atedm_account_rejected(w->daemon->metrics, ATEDM_REJECTED_CLIENT_GONE);
    atedm_dispatch_give_up(w->daemon->dispatch, w->job);
    free(w);
}

// Submits the job and makes the exchange wait for its end. Takes the job.
static void wait_for_end(atedm_daemon *d, atedm_exchange *x, atedm_job *job)
{
    waiter *w = malloc(sizeof *w);
    atedm_status status = w ? ATEDM_OK : ATEDM_ERR_NOMEM;
    if (w) {
        *w = (waiter){.daemon = d, .exchange = x, .job = job};
        job->ended = on_end;
        job->user = w;
        status = atedm_dispatch_submit(d->dispatch, job);
    }
    if (!status) {
        atedm_exchange_wait(x, on_gone, w);
        return;
    }
    free(w);
    atedm_exchange_respond(x, atedm_refuse_submission(d, x, job, status));
    atedm_job_destroy(job);
}

void atedm_handle_generate(void *app, atedm_exchange *x)
{
    atedm_daemon *d = app;
    json_t *body;
    atedm_response refusal = {.status = 0};
    atedm_job *job = atedm_admit(d, x, atedm_admit_wants_png(x), &body, &refusal);
    if (job && d->draining) {
        atedm_account_rejected(d->metrics, ATEDM_REJECTED_DRAINING);
        atedm_job_destroy(job);
        atedm_exchange_respond(x, atedm_refuse_busy(d, atedm_exchange_id(x), ATEDM_BUSY_DRAINING));
    } else if (body && !d->draining && atedm_has_idempotency_key(x)) {
        atedm_submit_keyed(d, x, job, refusal, body);
    } else if (!job) {
        atedm_exchange_respond(x, refusal);
    } else if (!atedm_admit_charge(d, x, job)) { // which has answered
        atedm_job_destroy(job);
    } else if (atedm_is_for_store(x, &job->request)) {
        atedm_submit_stored(d, x, job, body);
    } else {
        wait_for_end(d, x, job);
    }
    json_decref(body);
}
