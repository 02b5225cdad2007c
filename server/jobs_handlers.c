// Answers requests about jobs: GET and DELETE /jobs/{id}, a job's images, lists of jobs. Only the
// store knows jobs that have ended, so such an answer waits for the store.
#include "server/answer.h"
#include "server/authorize.h"
#include "server/handlers.h"
#include "server/job_json.h"
#include "server/problem.h"
#include "server/refuse.h"
#include "server/store_call.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

// Length of a list if the query does not set it.
#define LIST_DEFAULT 100

static void respond_job(atedm_exchange *x, const atedm_store_job *record, const atedm_live *live)
{
    atedm_exchange_respond(
        x, atedm_json_response(200, atedm_exchange_id(x), atedm_job_json(record, live)));
}

atedm_live *atedm_job_of_path(const atedm_daemon *d, const atedm_exchange *x)
{
    atedm_live *live = atedm_jobs_find(d->jobs, atedm_exchange_parameter(x, 0));
    return live && atedm_authorize_jobs_of(d, x, live->record.owner) ? live : NULL;
}

// ---- one job

static void answer_job(atedm_daemon *d, atedm_exchange *x, int context, atedm_store_result *result)
{
    respond_job(x, &result->jobs[0], atedm_job_of_path(d, x));
}

void atedm_handle_job(void *app, atedm_exchange *x)
{
    atedm_daemon *d = app;
    const atedm_live *live = atedm_job_of_path(d, x);
    // If the store is just taking the job's end, the answer comes from the store after that.
    if (live && live->job)
        respond_job(x, &live->record, live);
    else
        atedm_store_call_get(d, x, atedm_exchange_parameter(x, 0), ATEDM_STORE_NO_IMAGES,
                             answer_job, 0);
}

static void answer_image(atedm_daemon *d, atedm_exchange *x, int context,
                         atedm_store_result *result)
{
    const char *id = atedm_exchange_id(x);
    bool pending = result->jobs[0].state == ATEDM_STORE_PENDING;
    if (result->n_images && atedm_refuse_unread(d, x))
        return;
    atedm_exchange_respond(x, result->n_images
                                  ? atedm_png_response(id, &result->images[0])
                                  : atedm_problem_response(ATEDM_PROBLEM_NOT_FOUND, id, "%s",
                                                           pending ? "the job is not done yet"
                                                                   : "the job has no such image"));
}

// Reads a number without sign or spaces. False: it is not such a number, or exceeds `max`.
static bool read_number(const char *text, int64_t max, int64_t *ret_value)
{
    errno = 0;
    *ret_value = strtoll(text, NULL, 10);
    return *text && strspn(text, "0123456789") == strlen(text) && !errno && *ret_value <= max;
}

void atedm_handle_job_image(void *app, atedm_exchange *x)
{
    int64_t number;
    if (read_number(atedm_exchange_parameter(x, 1), INT32_MAX, &number))
        atedm_store_call_get(app, x, atedm_exchange_parameter(x, 0), (int)number, answer_image, 0);
    else
        atedm_exchange_respond(x,
                               atedm_problem_response(ATEDM_PROBLEM_NOT_FOUND, atedm_exchange_id(x),
                                                      "images are numbered from 0"));
}

// ---- DELETE: cancels what runs or waits, removes what has ended

static void answer_removed(atedm_daemon *d, atedm_exchange *x, int context,
                           atedm_store_result *result)
{
    atedm_exchange_respond(x, (atedm_response){.status = 204});
}

static void answer_canceled(atedm_daemon *d, atedm_exchange *x, int context,
                            atedm_store_result *result)
{
    // A canceled job stops being live before this call, unless its end could not be stored.
    if (atedm_job_of_path(d, x))
        atedm_exchange_respond(x, atedm_refuse_storage(d, atedm_exchange_id(x), NULL));
    else
        answer_job(d, x, context, result);
}

static void remove_found(atedm_daemon *d, atedm_exchange *x, int context,
                         atedm_store_result *result)
{
    atedm_store_call *call = atedm_store_call_create(d, x, answer_removed, 0);
    if (call && atedm_store_remove(atedm_jobs_store(d->jobs), result->jobs[0].id,
                                   atedm_store_call_back, call))
        atedm_store_call_fail(call);
}

void atedm_handle_job_remove(void *app, atedm_exchange *x)
{
    atedm_daemon *d = app;
    atedm_live *live = atedm_job_of_path(d, x);
    bool at_work = live && live->job;
    if (at_work)
        atedm_live_cancel(live, ATEDM_REJECTED_CANCELED);
    // The store performs operations in order, so its answer includes the end that was just handed
    // over.
    atedm_store_call_get(d, x, atedm_exchange_parameter(x, 0), ATEDM_STORE_NO_IMAGES,
                         at_work ? answer_canceled : remove_found, 0);
}

// ---- lists

// The states that a client may ask for, and their values in the store.
static const struct {
    const char *name;
    int stored;
} states[] = {{"queued", ATEDM_STORE_PENDING},
              {"running", ATEDM_STORE_PENDING},
              {"done", ATEDM_STORE_DONE},
              {"failed", ATEDM_STORE_FAILED},
              {"canceled", ATEDM_STORE_CANCELED}};

#define N_STATES ((int)(sizeof states / sizeof *states)) // this index means any state

static int find_state(const char *name)
{
    int i = 0;
    while (i < N_STATES && strcmp(states[i].name, name) != 0)
        i++;
    return i;
}

static void answer_list(atedm_daemon *d, atedm_exchange *x, int state, atedm_store_result *result)
{
    json_t *list = json_array();
    for (size_t i = 0; i < result->n_jobs; i++) {
        const atedm_store_job *record = &result->jobs[i];
        const atedm_live *live = atedm_jobs_find(d->jobs, record->id);
        if (state == N_STATES ||
            strcmp(states[state].name, atedm_job_state_name(record, live)) == 0)
            json_array_append_new(list, atedm_job_json(record, live));
    }
    json_t *next =
        result->more ? json_integer(result->jobs[result->n_jobs - 1].sequence) : json_null();
    atedm_exchange_respond(
        x, atedm_json_response(200, atedm_exchange_id(x),
                               json_pack("{s:o, s:o}", "jobs", list, "next", next)));
}

void atedm_handle_jobs(void *app, atedm_exchange *x)
{
    atedm_daemon *d = app;
    const char *name = atedm_exchange_query(x, "state"), *limit = atedm_exchange_query(x, "limit"),
               *before = atedm_exchange_query(x, "before");
    int state = name ? find_state(name) : N_STATES;
    int64_t n = LIST_DEFAULT, sequence = INT64_MAX;
    const char *wrong = NULL;
    if (name && state == N_STATES)
        wrong = "state is one of queued, running, done, failed, canceled";
    else if (limit && (!read_number(limit, ATEDM_STORE_LIST_MAX, &n) || n == 0))
        wrong = "limit is within 1..1000";
    else if (before && !read_number(before, INT64_MAX, &sequence))
        wrong = "before is the \"next\" of an earlier list";
    if (wrong) {
        atedm_exchange_respond(
            x, atedm_problem_response(ATEDM_PROBLEM_QUERY, atedm_exchange_id(x), "%s", wrong));
        return;
    }
    atedm_store_call *call = atedm_store_call_create(d, x, answer_list, state);
    if (call && atedm_store_list(atedm_jobs_store(d->jobs), atedm_authorize_owner(d, x),
                                 state < N_STATES ? states[state].stored : -1, sequence, (size_t)n,
                                 atedm_store_call_back, call))
        atedm_store_call_fail(call);
}
