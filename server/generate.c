// POST /generate: admits a request, waits for its end, answers.
#include "core/base/clock.h"
#include "core/base/utf8.h"
#include "server/accounts.h"
#include "server/admit.h"
#include "server/daemon.h"
#include "server/generate_json.h"
#include "server/handlers.h"
#include "server/problem.h"
#include "server/text.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

// Bytes of the cut text that a warning quotes.
#define WARNING_QUOTE_MAX 200

// A client that waits.
typedef struct waiter {
    atedm_daemon *daemon;
    atedm_exchange *exchange;
    atedm_job *job;
} waiter;

static void count_rejected(atedm_daemon *d, const char *reason)
{
    atedm_metrics_count(d->metrics, ATEDM_METRIC_QUEUE_REJECTED, 1, ATEDM_LABELS(reason));
}

// ---- the answer

static json_t *warnings_json(const atedm_job *job, const atedm_worker_result *result)
{
    const char *const names[2] = {"prompt", "negative_prompt"};
    const char *const texts[2] = {job->request.prompt, job->request.negative_prompt};
    json_t *list = json_array();
    for (int which = 0; which < 2; which++) {
        size_t size = texts[which] ? strlen(texts[which]) : 0;
        size_t encoded = result->report.encoded[which];
        if (encoded >= size || (which == 1 && job->request.guidance_scale <= 1))
            continue;
        const char *cut = texts[which] + encoded;
        size_t quoted = atedm_utf8_cut(cut, size - encoded, WARNING_QUOTE_MAX);
        json_array_append_new(
            list, json_sprintf("%s is longer than the text encoders take; cut after byte %zu: "
                               "\"%.*s\"%s",
                               names[which], encoded, (int)quoted, cut,
                               quoted < size - encoded ? "..." : ""));
    }
    return list;
}

static json_t *latency_json(const atedm_job *job, const atedm_timing *t)
{
    json_t *steps = json_array();
    for (int i = 0; i < job->request.steps; i++)
        json_array_append_new(steps, json_real(t->steps_s[i]));
    return json_pack("{s:f, s:f, s:f, s:f, s:f, s:f, s:o}", "queue_s", job->started - job->arrived,
                     "text_encoder_s", t->text_encoder_s, "denoise_s", t->denoise_s, "vae_s",
                     t->vae_s, "encode_s", t->encode_s, "total_s",
                     atedm_clock_monotonic() - job->arrived, "steps_s", steps);
}

static json_t *batch_json(const atedm_engine_report *report)
{
    double mean = (double)report->batch_images / (double)report->evaluations;
    return json_pack("{s:f, s:I}", "mean_size", mean, "max_size", (json_int_t)report->max_batch);
}

// The answer but for its images.
static json_t *answer_json(const waiter *w, const atedm_worker_result *result)
{
    const atedm_job *job = w->job;
    atedm_request_cost cost = atedm_account_cost(job, result);
    return json_pack("{s:s, s:I, s:s, s:o, s:o, s:o, s:o, s:o}", "id",
                     atedm_exchange_id(w->exchange), "created", (json_int_t)atedm_clock_unix(),
                     "model", job->model->name, "pruning",
                     atedm_pruning_json(job->plan, &job->cost), "flops", atedm_cost_json(&cost),
                     "latency", latency_json(job, &result->report.timing), "batch",
                     batch_json(&result->report), "warnings", warnings_json(job, result));
}

static atedm_status append_images(const atedm_job *job, const atedm_worker_result *result,
                                  atedm_buffer *text)
{
    atedm_status status = atedm_buffer_printf(text, ",\"images\":[");
    for (size_t i = 0; i < result->n_images && !status; i++) {
        status = atedm_buffer_printf(text, "%s{\"b64_json\":\"", i ? "," : "");
        if (!status)
            status = atedm_base64_append(result->images[i].png, result->images[i].size, text);
        if (!status)
            status = atedm_buffer_printf(
                text, "\",\"seed\":%" PRIu64 ",\"width\":%" PRId64 ",\"height\":%" PRId64 "}",
                job->request.seed + i, job->request.width, job->request.height);
    }
    return status ? status : atedm_buffer_printf(text, "]}");
}

// Images are megabytes of text that needs no escaping and no checking: they are put behind the rest
// by hand.
static atedm_response json_answer(const waiter *w, const atedm_worker_result *result)
{
    const char *id = atedm_exchange_id(w->exchange);
    atedm_response response = atedm_json_response(200, id, answer_json(w, result));
    if (response.status != 200)
        return response;
    atedm_buffer text;
    atedm_buffer_init(&text, SIZE_MAX / 4);
    atedm_status status = atedm_buffer_append(&text, response.body, response.size - 1); // no "}"
    free(response.body);
    response.body = NULL;
    if (!status)
        status = append_images(w->job, result, &text);
    if (status) {
        atedm_buffer_finish(&text);
        return atedm_problem_response(ATEDM_PROBLEM_INTERNAL, id, "no memory for the answer");
    }
    response.body = text.data;
    response.size = text.size;
    return response;
}

static atedm_response png_answer(const waiter *w, const atedm_worker_result *result)
{
    const atedm_job *job = w->job;
    atedm_response response = {.status = 200, .content_type = "image/png"};
    response.body = malloc(result->images[0].size);
    if (!response.body)
        return atedm_problem_response(ATEDM_PROBLEM_INTERNAL, atedm_exchange_id(w->exchange),
                                      "no memory for the answer");
    memcpy(response.body, result->images[0].png, result->images[0].size);
    response.size = result->images[0].size;
    atedm_response_header(&response, "X-Atedm-Seed", "%" PRIu64, job->request.seed);
    if (result->report.encoded[0] < strlen(job->request.prompt))
        atedm_response_header(&response, "X-Atedm-Warning", "prompt cut after byte %zu of %zu",
                              result->report.encoded[0], strlen(job->request.prompt));
    return response;
}

// ---- the wait

static atedm_response failure_answer(const waiter *w, const atedm_error *error)
{
    const char *id = atedm_exchange_id(w->exchange);
    ATEDM_LOG(&w->daemon->log, ATEDM_LOG_ERROR, "request failed", atedm_log_text("id", id),
              atedm_log_text("error", error->message));
    return atedm_problem_response(ATEDM_PROBLEM_INTERNAL, id, "the log says more under this id");
}

static void on_end(void *user, const atedm_job *job, atedm_job_end end,
                   const atedm_worker_result *result, const atedm_error *error)
{
    waiter *w = user;
    atedm_response response;
    switch (end) {
    case ATEDM_JOB_DONE:
        response = job->request.response_format == ATEDM_RESPONSE_PNG ? png_answer(w, result)
                                                                      : json_answer(w, result);
        break;
    case ATEDM_JOB_DEADLINE:
        count_rejected(w->daemon, "deadline");
        response = atedm_problem_response(ATEDM_PROBLEM_DEADLINE, atedm_exchange_id(w->exchange),
                                          "not done within %g s", job->request.deadline_s);
        break;
    case ATEDM_JOB_CUT_OFF:
        count_rejected(w->daemon, "draining");
        response = atedm_daemon_refuse_busy(w->daemon, atedm_exchange_id(w->exchange), false);
        break;
    case ATEDM_JOB_FAILED:
    default:
        response = failure_answer(w, error);
        break;
    }
    atedm_exchange_respond(w->exchange, response);
    free(w);
}

static void on_gone(void *user)
{
    waiter *w = user;
    count_rejected(w->daemon, "client_gone");
    atedm_dispatch_give_up(w->daemon->dispatch, w->job);
    free(w);
}

void atedm_handle_generate(void *app, atedm_exchange *x)
{
    atedm_daemon *d = app;
    const char *id = atedm_exchange_id(x);
    atedm_job *job = atedm_admit(d, x);
    if (!job)
        return;
    if (d->draining) {
        count_rejected(d, "draining");
        atedm_job_destroy(job);
        atedm_exchange_respond(x, atedm_daemon_refuse_busy(d, id, false));
        return;
    }
    if (!atedm_admit_count(d, x, job)) {
        atedm_job_destroy(job);
        return;
    }
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
    double deadline_s = job->request.deadline_s;
    atedm_job_destroy(job);
    if (status == ATEDM_ERR_LIMIT) {
        count_rejected(d, "full");
        atedm_exchange_respond(x, atedm_daemon_refuse_busy(d, id, true));
    } else if (status == ATEDM_ERR_CANCELED) {
        count_rejected(d, "deadline");
        atedm_exchange_respond(x, atedm_problem_response(ATEDM_PROBLEM_DEADLINE, id,
                                                         "cannot be done within %g s", deadline_s));
    } else {
        atedm_exchange_respond(
            x, atedm_problem_response(ATEDM_PROBLEM_INTERNAL, id, "no memory for the request"));
    }
}
