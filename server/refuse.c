// Makes the answers to requests that the daemon does not serve: see refuse.h.
#include "server/refuse.h"

#include "server/accounts.h"
#include "server/authorize.h"
#include "server/problem.h"

#include <inttypes.h>

// Seconds of Retry-After while clients have yet to read what they asked for.
#define UNREAD_RETRY_S 5

atedm_response atedm_refuse_exchange(void *app, const atedm_exchange *x, atedm_refusal refusal)
{
    const atedm_daemon *d = app;
    const char *id = atedm_exchange_id(x);
    char allowed[ATEDM_ALLOWED_SIZE];
    atedm_response response;
    switch (refusal) {
    case ATEDM_REFUSE_FRAMING:
        return atedm_problem_response(ATEDM_PROBLEM_QUERY, id,
                                      "a request has one Host, one Content-Length or "
                                      "Transfer-Encoding: chunked, and no space "
                                      "before a colon");
    case ATEDM_REFUSE_NOT_FOUND:
        return atedm_problem_response(ATEDM_PROBLEM_NOT_FOUND, id, "no such path");
    case ATEDM_REFUSE_METHOD:
        atedm_exchange_allowed(x, allowed);
        response = atedm_problem_response(ATEDM_PROBLEM_METHOD, id, "allowed: %s", allowed);
        atedm_response_header(&response, "Allow", "%s", allowed);
        return response;
    case ATEDM_REFUSE_TOO_LARGE:
        return atedm_problem_response(ATEDM_PROBLEM_TOO_LARGE, id, "more than %" PRId64 " bytes",
                                      d->config->max_body_bytes);
    case ATEDM_REFUSE_MEDIA_TYPE:
        return atedm_problem_response(ATEDM_PROBLEM_MEDIA_TYPE, id,
                                      "send Content-Type: application/json (in UTF-8)");
    case ATEDM_REFUSE_NO_KEY:
    case ATEDM_REFUSE_UNKNOWN_KEY:
    case ATEDM_REFUSE_DISABLED_KEY:
    case ATEDM_REFUSE_EXPIRED_KEY:
        return atedm_authorize_refuse(x, refusal);
    case ATEDM_REFUSE_INTERNAL:
        break;
    }
    return atedm_problem_response(ATEDM_PROBLEM_INTERNAL, id, "no memory for the request");
}

atedm_response atedm_refuse_busy(atedm_daemon *d, const char *id, atedm_busy why)
{
    atedm_response response;
    switch (d->draining ? ATEDM_BUSY_DRAINING : why) {
    case ATEDM_BUSY_FULL:
        response =
            atedm_problem_response(ATEDM_PROBLEM_QUEUE_FULL, id,
                                   "%" PRId64 " requests wait already", d->config->queue_limit);
        break;
    case ATEDM_BUSY_NO_WORKER:
        response = atedm_problem_response(ATEDM_PROBLEM_UNAVAILABLE, id,
                                          d->loaded ? "no worker is up; one is being started again"
                                                    : "the model is being loaded");
        break;
    case ATEDM_BUSY_JOB_LEFT:
        response = atedm_problem_response(ATEDM_PROBLEM_UNAVAILABLE, id,
                                          "the job is stored, but there was no memory for it");
        break;
    case ATEDM_BUSY_DRAINING:
    default:
        response = atedm_problem_response(ATEDM_PROBLEM_DRAINING, id, "no more requests are taken");
        break;
    }
    atedm_response_header(&response, "Retry-After", "%d", atedm_dispatch_retry_after(d->dispatch));
    return response;
}

bool atedm_refuse_unread(const atedm_daemon *d, atedm_exchange *x)
{
    if (atedm_http_unread(d->http) < (size_t)d->config->max_unread_bytes)
        return false;
    atedm_response response = atedm_problem_response(
        ATEDM_PROBLEM_UNAVAILABLE, atedm_exchange_id(x),
        "%zu bytes of answers are yet to be read by others", atedm_http_unread(d->http));
    atedm_response_header(&response, "Retry-After", "%d", UNREAD_RETRY_S);
    atedm_exchange_respond(x, response);
    return true;
}

static void log_failure(const atedm_daemon *d, const char *id, const atedm_error *why)
{
    ATEDM_LOG(&d->log, ATEDM_LOG_ERROR, "request failed", atedm_log_text("id", id),
              atedm_log_text("error", why->message));
}

atedm_response atedm_refuse_failed(const atedm_daemon *d, const char *id, const atedm_error *why)
{
    log_failure(d, id, why);
    return atedm_problem_response(ATEDM_PROBLEM_INTERNAL, id, "the log says more under this id");
}

atedm_response atedm_refuse_no_memory(const atedm_daemon *d, const char *id, const atedm_error *why)
{
    log_failure(d, id, why);
    return atedm_problem_response(ATEDM_PROBLEM_NO_MEMORY, id, "%s", why->message);
}

atedm_response atedm_refuse_storage(atedm_daemon *d, const char *id, const atedm_error *why)
{
    if (why)
        log_failure(d, id, why);
    atedm_response response = atedm_problem_response(
        ATEDM_PROBLEM_STORAGE, id, "the job store is out of order; the log says more");
    atedm_response_header(&response, "Retry-After", "%d", atedm_dispatch_retry_after(d->dispatch));
    return response;
}

atedm_response atedm_refuse_submission(atedm_daemon *d, const atedm_exchange *x,
                                       const atedm_job *job, atedm_status status)
{
    const char *id = atedm_exchange_id(x);
    if (status == ATEDM_ERR_LIMIT) {
        atedm_account_rejected(d->metrics, ATEDM_REJECTED_FULL);
        return atedm_refuse_busy(d, id, ATEDM_BUSY_FULL);
    }
    if (status == ATEDM_ERR_CANCELED) {
        atedm_account_rejected(d->metrics, ATEDM_REJECTED_DEADLINE);
        return atedm_problem_response(ATEDM_PROBLEM_DEADLINE, id, "cannot be done within %g s",
                                      job->request.deadline_s);
    }
    if (status == ATEDM_ERR_IO) {
        atedm_account_rejected(d->metrics, ATEDM_REJECTED_STORAGE);
        return atedm_refuse_storage(d, id, NULL);
    }
    return atedm_problem_response(ATEDM_PROBLEM_INTERNAL, id, "no memory for the request");
}
