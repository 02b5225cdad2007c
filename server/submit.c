// Turns requests into jobs: see submit.h.
#include "server/submit.h"

#include "server/accounts.h"
#include "server/admit.h"
#include "server/answer.h"
#include "server/generate_json.h"
#include "server/job_json.h"
#include "server/problem.h"
#include "server/refuse.h"
#include "server/settings.h"
#include "server/store_call.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

// Clients waiting with the same key that are answered at once when the job ends, before the loop
// does something else.
#define ANSWERS_AT_ONCE 8

// A client that waits for the acceptance or for the end of its job.
typedef struct waiter {
    atedm_daemon *daemon;
    atedm_exchange *exchange;
    atedm_job_watcher watcher;
    bool async, keyed;
    atedm_response_format format;
} waiter;

// ---- what the headers ask for

// Whether "respond-async" is among the preferences (RFC 7240).
static bool prefers_async(const atedm_exchange *x)
{
    static const char wanted[] = "respond-async";
    char *preferences = atedm_exchange_header_list(x, "Prefer");
    bool found = false;
    for (const char *at = preferences; at && *at; at += strcspn(at, ",")) {
        at += strspn(at, ", \t");
        size_t size = strcspn(at, ",; \t");
        found |= size == sizeof wanted - 1 && strncasecmp(at, wanted, size) == 0;
    }
    free(preferences);
    return found;
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

// Whether the request has one valid key. Two keys are refused, because a proxy on the way may have
// used the other one.
static bool has_good_key(const atedm_exchange *x)
{
    char *keys = atedm_exchange_header_list(x, "Idempotency-Key");
    bool good = keys && is_good_key(keys);
    free(keys);
    return good;
}

bool atedm_has_idempotency_key(const atedm_exchange *x)
{
    return idempotency_key(x) != NULL;
}

bool atedm_is_for_store(const atedm_exchange *x, const atedm_request *request)
{
    return prefers_async(x) || request->response_format == ATEDM_RESPONSE_URL;
}

// ---- answers

static atedm_response accepted_answer(const atedm_exchange *x, const atedm_store_job *record,
                                      const atedm_live *live)
{
    atedm_response response =
        atedm_json_response(202, atedm_exchange_id(x), atedm_job_json(record, live));
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

// The client has hung up. A client with a key can come back for its job, so such a job continues.
static void on_gone(void *user)
{
    waiter *w = user;
    atedm_live *live = w->watcher.live;
    atedm_live_unwatch(&w->watcher);
    if (live && !w->async && !w->keyed && w->daemon->config->cancel_on_disconnect)
        atedm_live_cancel(live, ATEDM_REJECTED_CLIENT_GONE);
    free(w);
}

static void answer_known(atedm_daemon *d, atedm_exchange *x, int format, atedm_store_result *result)
{
    const atedm_store_job *record = &result->jobs[0];
    const char *id = atedm_exchange_id(x);
    if (result->n_images && atedm_refuse_unread(d, x))
        return;
    atedm_exchange_respond(
        x, record->state == ATEDM_STORE_PENDING
               ? atedm_refuse_busy(d, id, ATEDM_BUSY_JOB_LEFT)
               : ended_answer(id, record, result->images, (atedm_response_format)format));
}

// Answers a client whose job has ended. Any number of clients may wait with one key: after the
// first few, each gets its answer from the store, as if it had asked only now.
static void answer_end(waiter *w, atedm_live *live)
{
    atedm_exchange *x = w->exchange;
    if (!w->keyed || live->answered++ < ANSWERS_AT_ONCE) {
        respond(w, ended_answer(atedm_exchange_id(x), &live->record, live->images, w->format));
        return;
    }
    atedm_store_call_get(w->daemon, x, live->record.id, ATEDM_STORE_ALL_IMAGES, answer_known,
                         w->format);
    free_waiter(w);
}

static void on_event(void *user, atedm_live *live, atedm_job_event event)
{
    waiter *w = user;
    const char *id = atedm_exchange_id(w->exchange);
    switch (event) {
    case ATEDM_JOB_MOVED:
        return;
    case ATEDM_JOB_ACCEPTED:
        if (w->async)
            respond(w, accepted_answer(w->exchange, &live->record, live));
        return;
    case ATEDM_JOB_ENDED:
        answer_end(w, live);
        return;
    case ATEDM_JOB_REFUSED:
        atedm_account_rejected(w->daemon->metrics, ATEDM_REJECTED_STORAGE);
        respond(w, atedm_refuse_storage(w->daemon, id, NULL));
        return;
    case ATEDM_JOB_LEFT:
    default:
        respond(w, atedm_refuse_busy(w->daemon, id, ATEDM_BUSY_JOB_LEFT));
        return;
    }
}

// ---- submitting

// Puts the values that the daemon chose into the body, so that the body makes the same pictures at
// every run.
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

// The text with which a second body with the same key is compared. Made before the daemon's choices
// go into the body.
static char *sent_text(const json_t *body)
{
    return json_dumps(body, JSON_COMPACT | JSON_SORT_KEYS);
}

static atedm_status submit(waiter *w, atedm_job *job, json_t *body, const char *sent)
{
    const atedm_exchange *x = w->exchange;
    char *request =
        pin(body, job, w->daemon->config->default_pruning) ? json_dumps(body, JSON_COMPACT) : NULL;
    atedm_store_job record = {.owner = atedm_exchange_client(x),
                              .key = idempotency_key(x),
                              .sent = sent,
                              .request = request};
    snprintf(record.id, sizeof record.id, "%s", atedm_exchange_id(x));
    atedm_status status =
        request ? atedm_jobs_submit(w->daemon->jobs, job, &record, &w->watcher) : ATEDM_ERR_NOMEM;
    free(request);
    return status;
}

static atedm_response no_memory(const atedm_exchange *x)
{
    return atedm_problem_response(ATEDM_PROBLEM_INTERNAL, atedm_exchange_id(x),
                                  "no memory for the request");
}

// Makes the exchange wait. NULL: out of memory, and the exchange is answered.
static waiter *new_waiter(atedm_daemon *d, atedm_exchange *x, atedm_response_format format)
{
    waiter *w = malloc(sizeof *w);
    if (!w) {
        atedm_exchange_respond(x, no_memory(x));
        return NULL;
    }
    *w = (waiter){.daemon = d,
                  .exchange = x,
                  .watcher = {.call = on_event, .user = w},
                  .async = prefers_async(x),
                  .keyed = idempotency_key(x) != NULL,
                  .format = format};
    atedm_exchange_wait(x, on_gone, w);
    return w;
}

// Submits a request that is a new job. `sent`: NULL without a key.
static void submit_new(atedm_daemon *d, atedm_exchange *x, atedm_job *job, json_t *body,
                       const char *sent)
{
    waiter *w = new_waiter(d, x, job->request.response_format);
    atedm_status status = w ? submit(w, job, body, sent) : ATEDM_ERR_NOMEM;
    if (!status)
        return;
    if (w)
        respond(w, atedm_refuse_submission(d, x, job, status));
    atedm_job_destroy(job);
}

void atedm_submit_stored(atedm_daemon *d, atedm_exchange *x, atedm_job *job, json_t *body)
{
    submit_new(d, x, job, body, NULL);
}

// ---- with a key, which an earlier request may have used: sending a request twice has the effect
// of sending it once. Live jobs are found at once; for ended ones the store must be asked.

static atedm_live *find_live(const atedm_daemon *d, const atedm_exchange *x)
{
    return atedm_jobs_find_key(d->jobs, atedm_exchange_client(x), idempotency_key(x));
}

// A request that waits until the store says whether a job has its key.
typedef struct lookup {
    atedm_daemon *daemon;
    atedm_exchange *exchange; // NULL: the client has hung up
    atedm_job *job;           // NULL: submitted, or the request was refused
    atedm_response refusal;   // set if there never was a job; body NULL: already sent
    atedm_response_format format;
    json_t *body;
    char *sent;
} lookup;

static void drop_request(lookup *l)
{
    atedm_job_destroy(l->job);
    free(l->refusal.body);
    json_decref(l->body);
    free(l->sent);
    l->job = NULL;
    l->refusal.body = NULL;
    l->body = NULL;
    l->sent = NULL;
}

static void free_lookup(lookup *l)
{
    drop_request(l);
    free(l);
}

static void respond_refusal(lookup *l)
{
    atedm_response refusal = l->refusal;
    l->refusal = (atedm_response){.status = 0};
    atedm_exchange_respond(l->exchange, refusal);
}

// The client has hung up. The store will still call back, so the lookup stays, without the request.
static void on_lookup_gone(void *user)
{
    lookup *l = user;
    l->exchange = NULL;
    drop_request(l);
}

// If the key was used with another body, answers and returns true.
static bool refuse_other(lookup *l, const atedm_store_job *known)
{
    if (known->sent && strcmp(l->sent, known->sent) == 0)
        return false;
    if (l->job)
        atedm_exchange_respond(
            l->exchange,
            atedm_problem_response(ATEDM_PROBLEM_CONFLICT, atedm_exchange_id(l->exchange),
                                   "job %s has this key, and another body", known->id));
    else
        respond_refusal(l);
    return true;
}

static void follow_live(lookup *l, atedm_live *live)
{
    if (refuse_other(l, &live->record))
        return;
    waiter *w = new_waiter(l->daemon, l->exchange, l->format);
    if (w && w->async && live->stored)
        respond(w, accepted_answer(l->exchange, &live->record, live));
    else if (w)
        atedm_live_watch(live, &w->watcher);
}

static void follow_stored(lookup *l, const atedm_store_job *known)
{
    atedm_exchange *x = l->exchange;
    if (refuse_other(l, known))
        return;
    if (prefers_async(x))
        atedm_exchange_respond(x, accepted_answer(x, known, NULL));
    else
        atedm_store_call_get(l->daemon, x, known->id, ATEDM_STORE_ALL_IMAGES, answer_known,
                             l->format);
}

static void submit_unknown(lookup *l)
{
    atedm_daemon *d = l->daemon;
    if (!l->job) {
        respond_refusal(l);
    } else if (d->draining) {
        atedm_account_rejected(d->metrics, ATEDM_REJECTED_DRAINING);
        atedm_exchange_respond(
            l->exchange, atedm_refuse_busy(d, atedm_exchange_id(l->exchange), ATEDM_BUSY_DRAINING));
    } else if (atedm_admit_charge(d, l->exchange, l->job)) {
        submit_new(d, l->exchange, l->job, l->body, l->sent);
        l->job = NULL;
    }
}

static void refuse_storage(atedm_daemon *d, atedm_exchange *x, const atedm_error *why)
{
    atedm_account_rejected(d->metrics, ATEDM_REJECTED_STORAGE);
    atedm_exchange_respond(x, atedm_refuse_storage(d, atedm_exchange_id(x), why));
}

static void on_found(void *user, atedm_store_result *result)
{
    lookup *l = user;
    atedm_daemon *d = l->daemon;
    atedm_exchange *x = l->exchange;
    // Another request with this key may have arrived meanwhile.
    atedm_live *live = x ? find_live(d, x) : NULL;
    if (live) {
        follow_live(l, live);
    } else if (x && result->status) {
        refuse_storage(d, x, &result->error);
    } else if (x && result->n_jobs) {
        follow_stored(l, &result->jobs[0]);
    } else if (x) {
        submit_unknown(l);
    }
    free_lookup(l);
}

static void look_up(lookup *l)
{
    atedm_exchange *x = l->exchange;
    atedm_live *live = find_live(l->daemon, x);
    if (live) {
        follow_live(l, live);
        free_lookup(l);
        return;
    }
    atedm_exchange_wait(x, on_lookup_gone, l);
    if (!atedm_store_find_key(atedm_jobs_store(l->daemon->jobs), atedm_exchange_client(x),
                              idempotency_key(x), on_found, l))
        return;
    atedm_daemon *d = l->daemon;
    free_lookup(l);
    refuse_storage(d, x, &(atedm_error){"too much waits for the job store, or no memory"});
}

static atedm_response bad_key(const atedm_exchange *x)
{
    return atedm_problem_response(
        ATEDM_PROBLEM_QUERY, atedm_exchange_id(x),
        "Idempotency-Key is 1..%d visible ASCII characters, in one header",
        ATEDM_IDEMPOTENCY_KEY_MAX);
}

void atedm_submit_keyed(atedm_daemon *d, atedm_exchange *x, atedm_job *job, atedm_response refusal,
                        json_t *body)
{
    bool png = atedm_admit_wants_png(x);
    atedm_response_format format;
    // No job can have this key: a body that cannot be answered in any format was never accepted.
    if (!has_good_key(x) || !atedm_generate_json_format(body, png, &format)) {
        atedm_exchange_respond(x, job ? bad_key(x) : refusal);
        atedm_job_destroy(job);
        return;
    }
    char *sent = sent_text(body);
    lookup *l = sent ? malloc(sizeof *l) : NULL;
    if (!l) {
        free(sent);
        free(refusal.body);
        atedm_job_destroy(job);
        atedm_exchange_respond(x, no_memory(x));
        return;
    }
    *l = (lookup){.daemon = d,
                  .exchange = x,
                  .job = job,
                  .refusal = refusal,
                  .format = format,
                  .body = json_incref(body),
                  .sent = sent};
    look_up(l);
}
