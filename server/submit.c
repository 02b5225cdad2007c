// Requests that become jobs: see submit.h.
#include "server/submit.h"

#include "server/answer.h"
#include "server/job_json.h"
#include "server/problem.h"
#include "server/settings.h"
#include "server/store_call.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

// A client that waits: to be told that its job is accepted, or for the job's end.
typedef struct waiter {
    atedm_daemon *daemon;
    atedm_exchange *exchange;
    atedm_job_watcher watcher;
    bool async, keyed;
    atedm_response_format format;
} waiter;

void atedm_count_rejected(const atedm_daemon *d, const char *reason)
{
    atedm_metrics_count(d->metrics, ATEDM_METRIC_QUEUE_REJECTED, 1, ATEDM_LABELS(reason));
}

atedm_response atedm_refuse_submission(atedm_daemon *d, const atedm_exchange *x,
                                       const atedm_job *job, atedm_status status)
{
    const char *id = atedm_exchange_id(x);
    if (status == ATEDM_ERR_LIMIT) {
        atedm_count_rejected(d, "full");
        return atedm_daemon_refuse_busy(d, id, true);
    }
    if (status == ATEDM_ERR_CANCELED) {
        atedm_count_rejected(d, "deadline");
        return atedm_problem_response(ATEDM_PROBLEM_DEADLINE, id, "cannot be done within %g s",
                                      job->request.deadline_s);
    }
    return atedm_problem_response(ATEDM_PROBLEM_INTERNAL, id, "no memory for the request");
}

// ---- what the headers ask for

// Whether "respond-async" is among the preferences (RFC 7240).
static bool prefers_async(const atedm_exchange *x)
{
    static const char wanted[] = "respond-async";
    const char *at = atedm_exchange_header(x, "Prefer");
    while (at && *at) {
        at += strspn(at, ", \t");
        size_t size = strcspn(at, ",; \t");
        if (size == sizeof wanted - 1 && strncasecmp(at, wanted, size) == 0)
            return true;
        at += strcspn(at, ",");
    }
    return false;
}

static const char *idempotency_key(const atedm_exchange *x)
{
    return atedm_exchange_header(x, "Idempotency-Key");
}

static bool is_good_key(const char *key)
{
    size_t size = 0;
    while (key[size] > ' ' && key[size] <= '~')
        size++;
    return size && !key[size] && size <= ATEDM_IDEMPOTENCY_KEY_MAX;
}

bool atedm_is_for_store(const atedm_exchange *x, const atedm_request *request)
{
    return prefers_async(x) || idempotency_key(x) || request->response_format == ATEDM_RESPONSE_URL;
}

// ---- answers

static atedm_response accepted_answer(const atedm_exchange *x, const atedm_store_job *record,
                                      const atedm_job *job)
{
    atedm_response response =
        atedm_json_response(202, atedm_exchange_id(x), atedm_job_json(record, job));
    if (response.status == 202) {
        atedm_response_header(&response, "Location", "/jobs/%s", record->id);
        atedm_response_header(&response, "Preference-Applied", "respond-async");
    }
    return response;
}

static atedm_response ended_answer(const char *id, const atedm_store_job *record,
                                   const atedm_worker_image *images, atedm_response_format format)
{
    json_t *answer = json_loads(record->answer, 0, NULL);
    if (record->state == ATEDM_STORE_DONE)
        return atedm_answer_response(id, answer, images, record->n_images, format);
    return atedm_problem_stored(id, answer);
}

// ---- waiting

static void free_waiter(waiter *w)
{
    atedm_live_unwatch(&w->watcher);
    free(w);
}

static void respond(waiter *w, atedm_response response)
{
    atedm_exchange *x = w->exchange;
    free_waiter(w);
    atedm_exchange_respond(x, response);
}

// A client that has a key comes back for its job.
static void on_gone(void *user)
{
    waiter *w = user;
    atedm_live *live = w->watcher.live;
    atedm_live_unwatch(&w->watcher);
    if (live && !w->async && !w->keyed && w->daemon->config->cancel_on_disconnect)
        atedm_live_cancel(live, "client_gone");
    free(w);
}

// What a call of the store is lent: formats outlive it.
static const atedm_response_format formats[] = {
    [ATEDM_RESPONSE_B64_JSON] = ATEDM_RESPONSE_B64_JSON,
    [ATEDM_RESPONSE_PNG] = ATEDM_RESPONSE_PNG,
    [ATEDM_RESPONSE_URL] = ATEDM_RESPONSE_URL,
};

static void answer_known(atedm_daemon *d, atedm_exchange *x, const void *format,
                         atedm_store_result *result)
{
    const atedm_store_job *record = &result->jobs[0];
    const char *id = atedm_exchange_id(x);
    atedm_exchange_respond(
        x, record->state == ATEDM_STORE_PENDING
               ? atedm_daemon_refuse_busy(d, id, false)
               : ended_answer(id, record, result->images, *(const atedm_response_format *)format));
}

// The key has been used: for the same request, it is as if it had been sent once.
static void follow_known(waiter *w, const char *sent, const atedm_store_job *known)
{
    atedm_daemon *d = w->daemon;
    atedm_exchange *x = w->exchange;
    atedm_live *live = atedm_jobs_find(d->jobs, known->id);
    if (!known->sent || strcmp(sent, known->sent) != 0) {
        respond(w, atedm_problem_response(ATEDM_PROBLEM_CONFLICT, atedm_exchange_id(x),
                                          "job %s has this key, and another body", known->id));
    } else if (w->async) {
        respond(w, accepted_answer(x, known, live ? live->job : NULL));
    } else if (live) {
        atedm_live_watch(live, &w->watcher);
    } else {
        const atedm_response_format *format = &formats[w->format];
        free_waiter(w);
        atedm_store_call_get(d, x, known->id, ATEDM_STORE_ALL_IMAGES, answer_known, format);
    }
}

static void on_event(void *user, const atedm_live *live, atedm_job_event event,
                     const atedm_store_job *known)
{
    waiter *w = user;
    const char *id = atedm_exchange_id(w->exchange);
    switch (event) {
    case ATEDM_JOB_MOVED:
        return;
    case ATEDM_JOB_ACCEPTED:
        if (w->async)
            respond(w, accepted_answer(w->exchange, &live->record, live->job));
        return;
    case ATEDM_JOB_ENDED:
        respond(w, ended_answer(id, &live->record, live->images, w->format));
        return;
    case ATEDM_JOB_KNOWN:
        follow_known(w, live->record.sent, known);
        return;
    case ATEDM_JOB_REFUSED:
        atedm_count_rejected(w->daemon, "storage");
        respond(w, atedm_daemon_refuse_storage(w->daemon, id));
        return;
    case ATEDM_JOB_LEFT:
    default:
        respond(w, atedm_daemon_refuse_busy(w->daemon, id, false));
        return;
    }
}

// ---- submitting

// Puts into the body what is chosen for it, so that it makes the same pictures whenever it is run.
static bool pin(json_t *body, const atedm_job *job, const char *default_pruning)
{
    bool good = json_object_set_new(body, "seed", json_integer((json_int_t)job->request.seed)) == 0;
    if (job->pick.preset)
        good &= json_object_set_new(body, "pruning", json_string(job->pick.preset)) == 0;
    else if (!json_object_get(body, "pruning"))
        good &= json_object_set_new(body, "pruning",
                                    atedm_settings_pruning_json(default_pruning, NULL)) == 0;
    return good;
}

// What a second body with the same key is compared with; before anything is chosen for it.
static char *sent_text(const json_t *body)
{
    return json_dumps(body, JSON_COMPACT | JSON_SORT_KEYS);
}

static atedm_status submit(waiter *w, atedm_job *job, json_t *body, const char *key)
{
    const atedm_exchange *x = w->exchange;
    char *sent = key ? sent_text(body) : NULL;
    char *request =
        pin(body, job, w->daemon->config->default_pruning) ? json_dumps(body, JSON_COMPACT) : NULL;
    atedm_store_job record = {
        .owner = atedm_exchange_client(x), .key = key, .sent = sent, .request = request};
    snprintf(record.id, sizeof record.id, "%s", atedm_exchange_id(x));
    atedm_status status = !request || (key && !sent)
                              ? ATEDM_ERR_NOMEM
                              : atedm_jobs_submit(w->daemon->jobs, job, &record, &w->watcher);
    free(sent);
    free(request);
    return status;
}

// One that cannot even wait.
static void refuse(atedm_exchange *x, atedm_job *job, atedm_response response)
{
    atedm_job_destroy(job);
    atedm_exchange_respond(x, response);
}

static waiter *new_waiter(atedm_daemon *d, atedm_exchange *x, const atedm_request *request)
{
    waiter *w = malloc(sizeof *w);
    if (w)
        *w = (waiter){.daemon = d,
                      .exchange = x,
                      .watcher = {.call = on_event, .user = w},
                      .async = prefers_async(x),
                      .keyed = idempotency_key(x) != NULL,
                      .format = request->response_format};
    return w;
}

bool atedm_submit_known(atedm_daemon *d, atedm_exchange *x, const atedm_request *request,
                        const json_t *body)
{
    const char *key = idempotency_key(x);
    const atedm_live *known =
        key ? atedm_jobs_find_key(d->jobs, atedm_exchange_client(x), key) : NULL;
    if (!known)
        return false;
    char *sent = sent_text(body);
    waiter *w = sent ? new_waiter(d, x, request) : NULL;
    if (w) {
        atedm_exchange_wait(x, on_gone, w);
        follow_known(w, sent, &known->record);
    } else {
        atedm_exchange_respond(x,
                               atedm_problem_response(ATEDM_PROBLEM_INTERNAL, atedm_exchange_id(x),
                                                      "no memory for the request"));
    }
    free(sent);
    return true;
}

void atedm_submit_stored(atedm_daemon *d, atedm_exchange *x, atedm_job *job, json_t *body)
{
    const char *id = atedm_exchange_id(x), *key = idempotency_key(x);
    if (key && !is_good_key(key)) {
        refuse(x, job,
               atedm_problem_response(ATEDM_PROBLEM_QUERY, id,
                                      "Idempotency-Key is 1..%d visible ASCII characters",
                                      ATEDM_IDEMPOTENCY_KEY_MAX));
        return;
    }
    waiter *w = new_waiter(d, x, &job->request);
    if (!w) {
        refuse(x, job,
               atedm_problem_response(ATEDM_PROBLEM_INTERNAL, id, "no memory for the request"));
        return;
    }
    atedm_exchange_wait(x, on_gone, w);
    atedm_status status = submit(w, job, body, key);
    if (!status)
        return;
    respond(w, atedm_refuse_submission(d, x, job, status));
    atedm_job_destroy(job);
}
