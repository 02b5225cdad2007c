// GET /jobs/{id}/events: reports a job's progress as server-sent events (WHATWG HTML, section 9.2).
// A stream keeps no queue of events. When its client has read everything, the stream writes the
// job's present state. So a slow client misses steps, and the stream's memory does not grow.
#include "core/base/memory.h"
#include "core/preview.h"
#include "server/handlers.h"
#include "server/job_json.h"
#include "server/problem.h"
#include "server/refuse.h"
#include "server/store_call.h"
#include "server/text.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

// Most bytes of unread events: a state, a preview and the final event.
#define TEXT_MAX (2u << 20)
_Static_assert(ATEDM_PREVIEW_MAX_BYTES * 4 / 3 < TEXT_MAX - (512 << 10),
               "every preview has room, in base64, and what goes with it");

typedef struct stream {
    atedm_exchange *exchange;
    atedm_job_watcher watcher; // watches until the job's last event
    atedm_buffer text;
    size_t at;        // bytes of the text that the client has read
    bool moved;       // the job may have changed since the text was written
    bool waiting;     // the last event was "queued"
    int step;         // step of the last "progress"; -1: none since the job last waited
    int preview_step; // step of the last "preview"
} stream;

// Returns the event as the client gets it; free() it. NULL: out of memory.
static char *event_text(const char *name, json_t *take_data)
{
    char *data = atedm_json_text(take_data), *text = NULL;
    if (data && asprintf(&text, "event: %s\ndata: %s\n\n", name, data) < 0)
        text = NULL;
    free(data);
    return text;
}

// Appends an event. If there is no memory for it, the client misses that event.
static void append_text(stream *s, const char *text)
{
    if (!text || atedm_buffer_append(&s->text, text, strlen(text)))
        s->moved = true;
}

static void append_event(stream *s, const char *name, json_t *take_data)
{
    char *text = event_text(name, take_data);
    append_text(s, text);
    free(text);
}

static void append_preview(stream *s)
{
    const atedm_live *live = s->watcher.live;
    atedm_buffer text;
    atedm_buffer_init(&text, TEXT_MAX);
    s->preview_step = live->preview_step;
    if (!atedm_base64_append(live->preview.png, live->preview.size, &text))
        append_event(s, "preview",
                     json_pack("{s:i, s:s}", "step", live->preview_step, "b64_json", text.data));
    atedm_buffer_finish(&text);
}

static void append_state(stream *s)
{
    const atedm_job *job = s->watcher.live->job;
    size_t size = s->text.size;
    s->moved = false;
    if (job && !job->seat && !s->waiting) {
        append_event(s, "queued", atedm_job_json(&s->watcher.live->record, s->watcher.live));
        s->waiting = true;
        s->step = -1;
    } else if (job && job->seat && s->step != job->steps_done) {
        append_event(s, "progress", atedm_job_progress_json(job));
        s->waiting = false;
        s->step = job->steps_done;
    }
    if (s->watcher.previews && s->preview_step != s->watcher.live->preview_step)
        append_preview(s);
    // If there is no event, a comment keeps the connection alive and shows whether it still is.
    if (s->text.size == size && atedm_buffer_append(&s->text, ":\n\n", 3))
        return;
}

static char *end_text(const atedm_store_job *record)
{
    return record->state == ATEDM_STORE_DONE
               ? event_text("done", atedm_job_json(record, NULL))
               : event_text("error", json_loads(record->answer, 0, NULL));
}

static void on_event(void *user, atedm_live *live, atedm_job_event event)
{
    stream *s = user;
    s->moved = true;
    if (event == ATEDM_JOB_ENDED && !live->told_end)
        live->told_end = end_text(&live->record); // made once for all watchers
    if (event == ATEDM_JOB_ENDED)
        append_text(s, live->told_end);
    atedm_exchange_wake(s->exchange);
}

// ---- the exchange's side

static bool read_stream(void *user, char *data, size_t max, size_t *ret_size)
{
    stream *s = user;
    if (s->at == s->text.size && s->watcher.live && s->moved) {
        s->at = s->text.size = 0;
        append_state(s);
    }
    size_t left = s->text.size - s->at;
    *ret_size = left < max ? left : max;
    if (*ret_size)
        memcpy(data, s->text.data + s->at, *ret_size);
    s->at += *ret_size;
    return s->watcher.live || s->at < s->text.size;
}

static void close_stream(void *user)
{
    stream *s = user;
    atedm_live_unwatch(&s->watcher);
    atedm_buffer_finish(&s->text);
    free(s);
}

// Answers with a stream: the events of the live job, or only the final event of the job `ended`.
static void start_stream(atedm_exchange *x, atedm_live *live, const atedm_store_job *ended)
{
    stream *s = calloc(1, sizeof *s);
    if (!s) {
        atedm_exchange_respond(x, atedm_problem_no_memory(atedm_exchange_id(x)));
        return;
    }
    *s = (stream){.exchange = x, .moved = true, .step = -1};
    const char *previews = atedm_exchange_query(x, "previews");
    s->watcher = (atedm_job_watcher){
        .call = on_event, .user = s, .previews = previews && strcmp(previews, "1") == 0};
    atedm_buffer_init(&s->text, TEXT_MAX);
    if (live) {
        atedm_live_watch(live, &s->watcher);
    } else {
        char *text = end_text(ended);
        append_text(s, text);
        free(text);
    }
    atedm_response response = {.status = 200, .content_type = "text/event-stream"};
    atedm_response_header(&response, "Cache-Control", "no-store");
    atedm_response_header(&response, "X-Accel-Buffering", "no"); // no buffering in nginx
    atedm_exchange_stream(x, response, (atedm_stream){read_stream, close_stream, s});
}

static void answer_ended(atedm_daemon *d, atedm_exchange *x, int context,
                         atedm_store_result *result)
{
    const atedm_store_job *record = &result->jobs[0];
    if (record->state != ATEDM_STORE_PENDING)
        start_stream(x, NULL, record);
    else // the job is left to the next daemon, or reviving it failed for want of memory
        atedm_exchange_respond(x, atedm_refuse_busy(d, atedm_exchange_id(x), ATEDM_BUSY_JOB_LEFT));
}

void atedm_handle_job_events(void *app, atedm_exchange *x)
{
    atedm_daemon *d = app;
    atedm_live *live = atedm_job_of_path(d, x);
    if (live)
        start_stream(x, live, NULL);
    else
        atedm_store_call_get(d, x, atedm_exchange_parameter(x, 0), ATEDM_STORE_NO_IMAGES,
                             answer_ended, 0);
}
