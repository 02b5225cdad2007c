// `atedm request`: submits a job, follows its events, and fetches its pictures. The job gets an
// idempotency key, so that sending it twice makes it only once. If the daemon cannot be reached any
// more, the command keeps trying for a while: the daemon goes on with a job that it has accepted.
#include "cli/request.h"

#include "cli/cli.h"
#include "cli/event_stream.h"
#include "cli/fetch.h"
#include "cli/picture_files.h"
#include "cli/progress.h"
#include "cli/request_options.h"
#include "cli/request_report.h"
#include "core/base/clock.h"

#include <inttypes.h>
#include <math.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <time.h>
#include <unistd.h>

#define PAUSE_S 0.5  // between two tries
#define ANSWER_S 60  // timeout of a small answer
#define SILENCE_S 45 // longest silence of events, with comments every 15 s, and of large pictures
#define CANCEL_S 5   // timeout of telling the daemon to cancel the job

static volatile sig_atomic_t interrupted;

typedef struct run {
    const atedm_request_options *options;
    atedm_fetch *fetch;
    atedm_fetch_answer answer; // the last one
    atedm_progress progress;
    char key[80];  // the job's Idempotency-Key header
    char path[64]; // of the job; "": not known yet
    double patience_s;
    int events; // number of events of the present stream
    bool ended; // the job's last event has come
    int result; // exit status
} run;

static void on_signal(int number)
{
    interrupted = 1; // SA_RESETHAND has removed the handler: a second signal ends the program
}

static void catch_signals(void)
{
    const struct sigaction action = {.sa_handler = on_signal, .sa_flags = (int)SA_RESETHAND};
    signal(SIGPIPE, SIG_IGN); // TLS may write into a connection that the other end closed
    sigaction(SIGINT, &action, NULL);
    sigaction(SIGTERM, &action, NULL);
}

// ---- requests to the daemon

// Whether the status is that of a proxy without a daemon, or of a daemon that is starting or
// ending. A daemon may soon be there again.
static bool is_away(const run *r)
{
    return r->answer.status >= 502 && r->answer.status <= 504;
}

static void pause_a_while(void)
{
    nanosleep(&(struct timespec){.tv_nsec = (long)(PAUSE_S * 1e9)}, NULL); // a signal shortens it
}

// Same as atedm_fetch_do, but repeats the request while the daemon is away, for up to patience_s.
// So it must be a request that can safely be repeated.
static atedm_status ask(run *r, const atedm_fetch_call *call, atedm_error *err)
{
    double until = NAN;
    for (;;) {
        atedm_status status = atedm_fetch_do(r->fetch, call, &r->answer, err);
        bool gone = status == ATEDM_ERR_IO ? atedm_fetch_has_connected(r->fetch)
                                           : !status && *r->path && is_away(r);
        if (!gone)
            return status;
        double now = atedm_clock_monotonic();
        bool was_there = call->data && r->answer.status == 200; // it was there during the stream
        if (isnan(until) || was_there)
            until = now + r->patience_s;
        if (now >= until)
            return status;
        atedm_progress_show(&r->progress, 0, "the daemon cannot be reached");
        pause_a_while();
    }
}

static json_t *parse(const atedm_fetch_answer *answer)
{
    return answer->body.size ? json_loadb(answer->body.data, answer->body.size, 0, NULL) : NULL;
}

// Reports an answer with an unexpected status.
static atedm_status refuse(run *r)
{
    atedm_progress_clear(&r->progress);
    json_t *problem = parse(&r->answer);
    r->result = atedm_request_report_problem(problem, r->answer.status, r->answer.retry_after_s);
    json_decref(problem);
    return ATEDM_ERR_INVALID;
}

static atedm_status not_understood(atedm_error *err)
{
    return atedm_error_set(err, ATEDM_ERR_FORMAT, "the answer does not come from atedmd");
}

// ---- a job

static atedm_status make_key(run *r, atedm_error *err)
{
    uint64_t draw[2];
    if (getrandom(draw, sizeof draw, 0) != (ssize_t)sizeof draw)
        return atedm_error_set(err, ATEDM_ERR_IO, "no random numbers");
    snprintf(r->key, sizeof r->key, "Idempotency-Key: %016" PRIx64 "%016" PRIx64, draw[0], draw[1]);
    return ATEDM_OK;
}

// Submits the job. A repeated submission has the same key, so it gets the same job.
static atedm_status submit(run *r, double timeout_s, atedm_error *err)
{
    char *body = json_dumps(r->options->fields, JSON_COMPACT | JSON_REAL_PRECISION(17));
    if (!body)
        return atedm_error_set(err, ATEDM_ERR_NOMEM, "no memory for the request");
    atedm_status status =
        ask(r,
            &(atedm_fetch_call){.method = "POST",
                                .path = "/generate",
                                .body = body,
                                .headers = (const char *[]){"Prefer: respond-async", r->key, NULL},
                                .timeout_s = timeout_s},
            err);
    free(body);
    if (status)
        return status;
    if (r->answer.status != 202)
        return refuse(r);
    json_t *job = parse(&r->answer);
    const char *id = json_string_value(json_object_get(job, "id"));
    bool good = id && *id && strspn(id, "0123456789abcdef") == strlen(id) &&
                (size_t)snprintf(r->path, sizeof r->path, "/jobs/%s", id) < sizeof r->path;
    json_decref(job);
    return good ? ATEDM_OK : not_understood(err);
}

static void show_progress(run *r, const char *data, size_t size)
{
    json_t *p = json_loadb(data, size, 0, NULL);
    int step = (int)json_integer_value(json_object_get(p, "step")),
        steps = (int)json_integer_value(json_object_get(p, "steps"));
    if (steps > 0)
        atedm_progress_step(&r->progress, step, steps);
    json_decref(p);
}

static void on_event(void *user, const char *name, const char *data, size_t size)
{
    run *r = user;
    r->events++;
    if (strcmp(name, "queued") == 0)
        atedm_progress_show(&r->progress, 0, "waiting");
    else if (strcmp(name, "progress") == 0)
        show_progress(r, data, size);
    else if (strcmp(name, "done") == 0 || strcmp(name, "error") == 0)
        r->ended = true;
}

static void on_data(void *user, const char *data, size_t size)
{
    atedm_event_stream *stream = user;
    if (atedm_event_stream_feed(stream, data, size))
        return; // loses an event; that is harmless, as get_job asks for the result anyway
}

// Follows the job's events to the last one, over as many connections as it takes.
static atedm_status watch(run *r, atedm_error *err)
{
    char path[sizeof r->path + sizeof "/events"];
    snprintf(path, sizeof path, "%s/events", r->path);
    atedm_status status = ATEDM_OK;
    double fruitless_s = 0;
    while (!status && !r->ended) {
        double begun = atedm_clock_monotonic();
        r->events = 0;
        atedm_event_stream stream;
        atedm_event_stream_init(&stream, on_event, r);
        status = ask(r,
                     &(atedm_fetch_call){.method = "GET",
                                         .path = path,
                                         .silence_s = SILENCE_S,
                                         .data = on_data,
                                         .user = &stream},
                     err);
        atedm_event_stream_finish(&stream);
        if (!status && r->answer.status != 200)
            status = refuse(r);
        // The daemon's streams do not end at once again and again, so this is something else.
        bool at_once = !r->events && atedm_clock_monotonic() - begun < PAUSE_S;
        fruitless_s = at_once ? fruitless_s + PAUSE_S : 0;
        if (!status && fruitless_s > r->patience_s)
            status = not_understood(err);
        if (!status && !r->ended)
            pause_a_while();
    }
    return status;
}

// Gets the job after its end. *ret_job is set only if the job is done.
static atedm_status get_job(run *r, json_t **ret_job, atedm_error *err)
{
    atedm_status status =
        ask(r, &(atedm_fetch_call){.method = "GET", .path = r->path, .timeout_s = ANSWER_S}, err);
    if (status)
        return status;
    if (r->answer.status != 200)
        return refuse(r);
    json_t *job = parse(&r->answer);
    const json_t *problem = json_object_get(job, "error");
    if (problem)
        r->result = atedm_request_report_problem(problem, 0, 0);
    else if (!json_is_array(json_object_get(json_object_get(job, "result"), "images")))
        status = not_understood(err);
    if (problem || status) {
        json_decref(job);
        return status ? status : ATEDM_ERR_INVALID;
    }
    *ret_job = job;
    return ATEDM_OK;
}

static atedm_status get_image(run *r, json_t *image, int number, int count, atedm_error *err)
{
    char path[sizeof r->path + sizeof "/images/2147483647"];
    snprintf(path, sizeof path, "%s/images/%d", r->path, number);
    atedm_status status =
        ask(r, &(atedm_fetch_call){.method = "GET", .path = path, .silence_s = SILENCE_S}, err);
    if (status)
        return status;
    if (r->answer.status != 200)
        return refuse(r);
    char *file = atedm_picture_name(r->options->output, number, count);
    if (!file || json_object_set_new(image, "file", json_string(file)))
        status = atedm_error_set(err, ATEDM_ERR_NOMEM, "no memory for the name of a file");
    else
        status = atedm_picture_write(file, r->answer.body.data, r->answer.body.size, err);
    free(file);
    return status;
}

static atedm_status get_images(run *r, const json_t *images, atedm_error *err)
{
    size_t i;
    json_t *image;
    json_array_foreach(images, i, image)
    {
        atedm_status status = get_image(r, image, (int)i, (int)json_array_size(images), err);
        if (status)
            return status;
    }
    return ATEDM_OK;
}

// After an interruption: cancels the job at the daemon.
static void cancel(run *r)
{
    atedm_fetch_ignore_interruption(r->fetch);
    r->patience_s = 0;
    const atedm_fetch_call call = {.method = "DELETE", .path = r->path, .timeout_s = CANCEL_S};
    atedm_error err = {""};
    if (r->ended) // deleting a finished job would remove its results
        fprintf(stderr, "atedm request: interrupted; the job is done: %s%s\n",
                r->options->endpoint.url, r->path);
    else if (!*r->path && atedm_fetch_has_connected(r->fetch) && submit(r, CANCEL_S, &err))
        fputs("atedm request: interrupted; the daemon may have the request\n", stderr);
    else if (!*r->path)
        fputs("atedm request: interrupted\n", stderr);
    else if (atedm_fetch_do(r->fetch, &call, &r->answer, &err) || r->answer.status >= 400)
        fprintf(stderr, "atedm request: interrupted; the job goes on: %s%s\n",
                r->options->endpoint.url, r->path);
    else
        fputs("atedm request: canceled\n", stderr);
}

// Reports an error of this command. The daemon still has the job, so the message says where.
static void fail(run *r, const atedm_error *err)
{
    r->result = atedm_cli_failed("request", err);
    if (*r->path)
        fprintf(stderr, "atedm request: the job is %s%s\n", r->options->endpoint.url, r->path);
}

static void carry_out(run *r)
{
    atedm_error err = {""};
    json_t *job = NULL;
    atedm_status status = make_key(r, &err);
    if (!status)
        status = submit(r, ANSWER_S, &err);
    if (!status)
        status = watch(r, &err);
    if (!status)
        status = get_job(r, &job, &err);
    json_t *result = json_object_get(job, "result");
    if (!status)
        status = get_images(r, json_object_get(result, "images"), &err);
    atedm_progress_clear(&r->progress);
    if (!status)
        r->result = r->options->json ? atedm_cli_print_json("request", json_incref(result))
                                     : atedm_request_report_print(result);
    else if (status == ATEDM_ERR_CANCELED)
        cancel(r);
    else if (!r->result)
        fail(r, &err);
    if (status && !r->result)
        r->result = ATEDM_EXIT_FAILED;
    json_decref(job);
}

int atedm_cli_request(int argc, char **argv)
{
    atedm_request_options options;
    int result;
    if (!atedm_request_options_parse(argc, argv, &options, &result))
        return result;
    run r = {.options = &options, .patience_s = options.patience_s};
    atedm_error err = {""};
    atedm_fetch_answer_init(&r.answer);
    atedm_progress_init(&r.progress, NAN);
    catch_signals();
    if (atedm_picture_check(options.output, &err) ||
        atedm_fetch_create(&options.endpoint, &interrupted, &r.fetch, &err))
        r.result = atedm_cli_failed("request", &err);
    else
        carry_out(&r);
    atedm_fetch_destroy(r.fetch);
    atedm_fetch_answer_finish(&r.answer);
    atedm_request_options_finish(&options);
    return r.result;
}
