// Turns a request's body into a job: see admit.h.
#include "server/admit.h"

#include "core/base/clock.h"
#include "core/pipeline.h"
#include "server/accounts.h"
#include "server/authorize.h"
#include "server/generate_json.h"
#include "server/json_body.h"
#include "server/problem.h"
#include "server/refuse.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

// The model does not allow the plan: finds out which field of the body is to blame. If the plan
// fails with any budget, the budget is not the cause.
static void blame_plan(const atedm_daemon *d, const json_t *body, const atedm_request *request,
                       const atedm_error *why, atedm_field_errors *errors)
{
    if (!json_object_get(body, "pruning")) {
        atedm_field_errors_add(errors, "", "names no pruning, and the default does not fit: %s",
                               why->message);
        return;
    }
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

// Checks the plan of a request that has other errors already, so that one answer names all errors.
// Wrong fields have their default values here.
static void try_plan(const atedm_daemon *d, const json_t *body, const atedm_request *request,
                     atedm_field_errors *errors)
{
    static const char pruning[] = "/pruning";
    for (size_t i = 0; i < errors->count; i++) {
        if (strncmp(errors->items[i].pointer, pruning, sizeof pruning - 1) == 0)
            return;
    }
    atedm_request trial;
    atedm_request_init(&trial, &d->limits, &request->prune);
    if (!atedm_field_errors_has(errors, "/steps"))
        trial.steps = request->steps;
    if (!atedm_field_errors_has(errors, "/width") && !atedm_field_errors_has(errors, "/height")) {
        trial.width = request->width;
        trial.height = request->height;
    }
    atedm_plan *plan = NULL;
    atedm_request_cost cost;
    atedm_error err = {""};
    if (atedm_estimate(&d->model, &trial, &plan, &cost, &err) == ATEDM_ERR_INVALID)
        blame_plan(d, body, &trial, &err, errors);
    atedm_plan_destroy(plan);
}

// ---- "pruning": "auto"

static bool wants_pick(const atedm_daemon *d, const json_t *body)
{
    const json_t *value = json_object_get(body, "pruning");
    const char *text = value ? json_string_value(value) : d->config->default_pruning;
    return text && strcmp(text, "auto") == 0;
}

// Sets the job's plan and cost for a preset. pick() calls it for every preset, to compare the
// costs, and at last for the chosen one.
static atedm_status try_preset(const atedm_daemon *d, const char *preset, atedm_job *job,
                               atedm_error *err)
{
    atedm_plan_destroy(job->plan);
    job->plan = NULL;
    atedm_status status = atedm_prune_preset(preset, &job->request.prune);
    return status ? status : atedm_estimate(&d->model, &job->request, &job->plan, &job->cost, err);
}

// Picks a preset for the present load and puts its plan and cost into the job.
static atedm_status pick(const atedm_daemon *d, atedm_job *job, atedm_error *err)
{
    size_t n;
    const char *const *names = atedm_prune_preset_names(&n);
    atedm_rung rungs[ATEDM_VALVE_MAX];
    size_t count = 0;
    for (size_t i = 0; i < n; i++) {
        atedm_status status = try_preset(d, names[i], job, err);
        if (status)
            return status;
        rungs[count++] = (atedm_rung){.preset = names[i], .flops = job->cost.executed};
    }
    count = atedm_valve_order(rungs, count, d->config->auto_floor);
    atedm_dispatch_state state = atedm_dispatch_get_state(d->dispatch);
    job->pick = atedm_valve_pick(rungs, count,
                                 atedm_dispatch_flops_ahead(d->dispatch, job->request.priority),
                                 state.rate, state.valve_multiple, d->config->latency_objective_s);
    return try_preset(d, job->pick.preset, job, err);
}

// Fills in everything of the job except its arrival. If the client is to blame, returns
// ATEDM_ERR_INVALID and puts the problems into `errors`.
static atedm_status fill(atedm_daemon *d, const json_t *body, bool png, atedm_job *job,
                         atedm_field_errors *errors, atedm_error *err)
{
    uint64_t seed = 0;
    atedm_status status = atedm_draw_seed(&seed, err);
    if (status)
        return status;
    bool automatic = wants_pick(d, body);
    json_t *rest = automatic ? json_copy((json_t *)(uintptr_t)body) : NULL; // a shallow copy
    if (automatic && !rest)
        return atedm_error_set(err, ATEDM_ERR_NOMEM, "no memory for the request");
    json_object_del(rest, "pruning");
    job->model = &d->model;
    status = atedm_generate_json_read(automatic ? rest : body, &d->limits, &d->default_prune, png,
                                      seed, &job->request, errors);
    json_decref(rest);
    if (status)
        return atedm_error_set(err, status, "no memory for the request");
    if (automatic && d->config->latency_objective_s == 0)
        atedm_field_errors_add(errors, "/pruning",
                               "\"auto\" needs an objective, and this server has "
                               "none (option latency_objective_s)");
    if (errors->count && !automatic)
        try_plan(d, body, &job->request, errors);
    if (errors->count)
        return ATEDM_ERR_INVALID;
    if (automatic)
        return pick(d, job, err);
    status = atedm_estimate(&d->model, &job->request, &job->plan, &job->cost, err);
    if (status == ATEDM_ERR_INVALID)
        blame_plan(d, body, &job->request, err, errors);
    return status;
}

// Returns NULL on failure; *ret_status says why.
static atedm_job *make_job(atedm_daemon *d, const json_t *body, bool png,
                           atedm_field_errors *errors, atedm_status *ret_status, atedm_error *err)
{
    atedm_job *job = calloc(1, sizeof *job);
    *ret_status = job ? fill(d, body, png, job, errors, err)
                      : atedm_error_set(err, ATEDM_ERR_NOMEM, "no memory for the request");
    if (!*ret_status)
        return job;
    atedm_job_destroy(job);
    return NULL;
}

static bool is_allowed(const atedm_daemon *d, const atedm_exchange *x, const atedm_job *job,
                       atedm_response *ret_refusal)
{
    int max = atedm_clients_max_priority(d->clients, atedm_exchange_client(x));
    if (job->request.priority <= max)
        return true;
    *ret_refusal =
        atedm_problem_response(ATEDM_PROBLEM_FORBIDDEN, atedm_exchange_id(x),
                               "priority %d: the key allows up to %d", job->request.priority, max);
    return false;
}

bool atedm_admit_wants_png(const atedm_exchange *x)
{
    char *accept = atedm_exchange_header_list(x, "Accept");
    bool png = atedm_accept_prefers_png(accept);
    free(accept);
    return png;
}

atedm_job *atedm_admit(atedm_daemon *d, const atedm_exchange *x, bool png, json_t **ret_body,
                       atedm_response *ret_refusal)
{
    const char *id = atedm_exchange_id(x);
    atedm_error err = {""};
    atedm_field_errors errors = {.count = 0};
    size_t size;
    const char *text = atedm_exchange_body(x, &size);
    *ret_body = NULL;
    atedm_status status = atedm_json_body_parse(text, size, ret_body, &err);
    if (status) {
        *ret_refusal = status == ATEDM_ERR_NOMEM
                           ? atedm_refuse_failed(d, id, &err)
                           : atedm_problem_response(ATEDM_PROBLEM_NOT_JSON, id, "%s", err.message);
        return NULL;
    }
    atedm_job *job = make_job(d, *ret_body, png, &errors, &status, &err);
    if (!job) {
        *ret_refusal =
            errors.count ? atedm_problem_fields(id, &errors) : atedm_refuse_failed(d, id, &err);
        return NULL;
    }
    if (!is_allowed(d, x, job, ret_refusal)) {
        atedm_job_destroy(job);
        return NULL;
    }
    job->arrived = atedm_exchange_started(x);
    return job;
}

// Whether a failure comes from the daemon's present state and not from the request.
static bool is_for_now(atedm_status status)
{
    return status == ATEDM_ERR_NOMEM || status == ATEDM_ERR_IO;
}

atedm_status atedm_admit_stored(atedm_daemon *d, const char *text, atedm_job **ret_job,
                                atedm_error *err)
{
    atedm_field_errors errors = {.count = 0};
    json_t *body = NULL;
    atedm_status status = atedm_json_body_parse(text, strlen(text), &body, err);
    atedm_job *job = status ? NULL : make_job(d, body, false, &errors, &status, err);
    if (job)
        *ret_job = job;
    if (status && errors.count)
        atedm_error_set(err, status, "%s %s", errors.items[0].pointer, errors.items[0].detail);
    json_decref(body);
    return status && !is_for_now(status) ? ATEDM_ERR_INVALID : status;
}

static atedm_response over_quota(atedm_daemon *d, const char *id, atedm_quota quota, double wait_s)
{
    bool rate = quota == ATEDM_QUOTA_RATE;
    atedm_account_rejected(d->metrics, rate ? ATEDM_REJECTED_RATE : ATEDM_REJECTED_QUOTA);
    atedm_response response =
        atedm_problem_response(rate ? ATEDM_PROBLEM_RATE : ATEDM_PROBLEM_QUOTA, id,
                               rate ? "the key's requests per minute are used up"
                                    : "the key's requests have to end first");
    // The time until the rate allows the request is known and rounded up. When another limit allows
    // it depends on which request ends first, which nobody knows.
    int seconds = rate ? (int)fmax(1, ceil(wait_s)) : atedm_dispatch_retry_after(d->dispatch);
    atedm_response_header(&response, "Retry-After", "%d", seconds);
    return response;
}

bool atedm_admit_charge(atedm_daemon *d, atedm_exchange *x, atedm_job *job)
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
