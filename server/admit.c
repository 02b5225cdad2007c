// From a body to a job: see admit.h.
#include "server/admit.h"

#include "core/base/clock.h"
#include "core/pipeline.h"
#include "server/authorize.h"
#include "server/generate_json.h"
#include "server/json_body.h"
#include "server/problem.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/random.h>

// PyTorch's generator looks at 32 bits of a seed: more would only be harder to type.
static bool draw_seed(uint64_t *ret_seed)
{
    uint32_t seed;
    if (getrandom(&seed, sizeof seed, 0) != sizeof seed)
        return false;
    *ret_seed = seed;
    return true;
}

// A plan that the model cannot have: which field is to blame? What fails with any budget is not the
// budget's fault.
static void blame_plan(const atedm_daemon *d, const atedm_request *request, const atedm_error *why,
                       atedm_field_errors *errors)
{
    atedm_request without = *request;
    without.prune.flops_budget = NAN;
    without.prune.ratio = 0;
    atedm_plan *plan = NULL;
    atedm_request_cost cost;
    atedm_status status = atedm_estimate(&d->model, &without, &plan, &cost, NULL);
    atedm_plan_destroy(plan);
    bool budget = !isnan(request->prune.flops_budget) && !status;
    atedm_field_errors_add(errors, budget ? "/pruning/flops_budget" : "/pruning/phases", "%s",
                           why->message);
}

// Fills the job; ATEDM_ERR_INVALID with the problem where the client is to blame.
static atedm_status fill(atedm_daemon *d, const atedm_exchange *x, const json_t *body,
                         atedm_job *job, atedm_field_errors *errors, atedm_error *err)
{
    uint64_t seed = 0;
    if (!draw_seed(&seed))
        return atedm_error_set(err, ATEDM_ERR_IO, "no random numbers");
    bool png = atedm_accept_prefers_png(atedm_exchange_header(x, "Accept"));
    job->model = &d->model;
    job->arrived = atedm_exchange_started(x);
    atedm_status status = atedm_generate_json_read(body, &d->limits, &d->default_prune, png, seed,
                                                   &job->request, errors);
    if (status)
        return atedm_error_set(err, status, "no memory for the request");
    if (errors->count)
        return ATEDM_ERR_INVALID;
    status = atedm_estimate(&d->model, &job->request, &job->plan, &job->cost, err);
    if (status == ATEDM_ERR_INVALID)
        blame_plan(d, &job->request, err, errors);
    return status;
}

static bool is_allowed(const atedm_daemon *d, atedm_exchange *x, const atedm_job *job)
{
    int max = atedm_clients_max_priority(d->clients, atedm_exchange_client(x));
    if (job->request.priority <= max)
        return true;
    atedm_exchange_respond(x, atedm_problem_response(ATEDM_PROBLEM_FORBIDDEN, atedm_exchange_id(x),
                                                     "priority %d: the key allows up to %d",
                                                     job->request.priority, max));
    return false;
}

atedm_job *atedm_admit(atedm_daemon *d, atedm_exchange *x)
{
    const char *id = atedm_exchange_id(x);
    atedm_error err = {""};
    atedm_field_errors errors = {.count = 0};
    json_t *body = NULL;
    size_t size;
    const char *text = atedm_exchange_body(x, &size);
    if (atedm_json_body_parse(text, size, &body, &err)) {
        atedm_exchange_respond(
            x, atedm_problem_response(ATEDM_PROBLEM_NOT_JSON, id, "%s", err.message));
        return NULL;
    }
    atedm_status status = ATEDM_ERR_NOMEM;
    atedm_job *job = calloc(1, sizeof *job);
    if (job)
        status = fill(d, x, body, job, &errors, &err);
    json_decref(body);
    if (!status && is_allowed(d, x, job))
        return job;
    atedm_job_destroy(job);
    if (!status)
        return NULL; // is answered
    if (errors.count) {
        atedm_exchange_respond(x, atedm_problem_fields(id, &errors));
    } else {
        ATEDM_LOG(&d->log, ATEDM_LOG_ERROR, "request failed", atedm_log_text("id", id),
                  atedm_log_text("error", err.message));
        atedm_exchange_respond(x, atedm_problem_response(ATEDM_PROBLEM_INTERNAL, id,
                                                         "the log says more under this id"));
    }
    return NULL;
}

static atedm_response over_quota(atedm_daemon *d, const char *id, atedm_quota quota, double wait_s)
{
    bool rate = quota == ATEDM_QUOTA_RATE;
    atedm_metrics_count(d->metrics, ATEDM_METRIC_QUEUE_REJECTED, 1,
                        ATEDM_LABELS(rate ? "rate" : "quota"));
    atedm_response response =
        atedm_problem_response(rate ? ATEDM_PROBLEM_RATE : ATEDM_PROBLEM_QUOTA, id,
                               rate ? "the key's requests per minute are used up"
                                    : "the key's requests have to end first");
    // For the rate it is exact, and rounded up; of the others nobody knows which ends first.
    int seconds = rate ? (int)fmax(1, ceil(wait_s)) : atedm_dispatch_retry_after(d->dispatch);
    atedm_response_header(&response, "Retry-After", "%d", seconds);
    return response;
}

bool atedm_admit_count(atedm_daemon *d, atedm_exchange *x, atedm_job *job)
{
    const char *client = atedm_exchange_client(x);
    double wait_s = 0;
    atedm_quota quota = atedm_clients_acquire(d->clients, client, atedm_clock_monotonic(), &wait_s);
    switch (quota) {
    case ATEDM_QUOTA_OK:
        job->clients = d->clients;
        snprintf(job->client, sizeof job->client, "%s", client);
        return true;
    case ATEDM_QUOTA_FREE:
        return true;
    case ATEDM_QUOTA_NOBODY:
        atedm_exchange_respond(x, atedm_authorize_refuse(x, ATEDM_REFUSE_UNKNOWN_KEY));
        return false;
    case ATEDM_QUOTA_RATE:
    case ATEDM_QUOTA_OPEN:
        break;
    }
    atedm_exchange_respond(x, over_quota(d, atedm_exchange_id(x), quota, wait_s));
    return false;
}
