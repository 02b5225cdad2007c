// Exchanges, from a request's headers to the end of its answer: see http.h. http_server.c runs
// libmicrohttpd. Two properties of libmicrohttpd shape this file. First, it calls one function
// several times for each request: with the headers, with each part of the body, at the body's end,
// and after each resume. Second, a connection may be suspended only inside that function, or when
// libmicrohttpd asks for more of a stream; libmicrohttpd does not watch suspended connections, and
// has to be run after a resume.
#include "server/http.h"

#include "core/base/clock.h"
#include "core/base/memory.h"
#include "server/http_private.h"

#include <microhttpd.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/random.h>

// The reported status if the connection ended before there was an answer (nginx's code).
#define STATUS_GONE 499

void atedm_response_header(atedm_response *response, const char *name, const char *format, ...)
{
    if (response->n_headers == ATEDM_RESPONSE_MAX_HEADERS)
        return;
    va_list args;
    va_start(args, format);
    vsnprintf(response->headers[response->n_headers].value, sizeof response->headers[0].value,
              format, args);
    va_end(args);
    response->headers[response->n_headers++].name = name;
}

// ---- exchanges

static void make_id(char ret_id[ATEDM_HTTP_ID_SIZE])
{
    uint64_t bits = 0;
    if (getrandom(&bits, sizeof bits, 0) != sizeof bits)
        bits = (uint64_t)(atedm_clock_monotonic() * 1e9);
    snprintf(ret_id, ATEDM_HTTP_ID_SIZE, "%016llx", (unsigned long long)bits);
}

// Bytes of the body according to the headers; UINT64_MAX: the headers do not say.
static uint64_t promised_body(const atedm_exchange *x)
{
    const char *length = atedm_exchange_header(x, MHD_HTTP_HEADER_CONTENT_LENGTH);
    if (length)
        return strtoull(length, NULL, 10);
    return atedm_exchange_header(x, MHD_HTTP_HEADER_TRANSFER_ENCODING) ? UINT64_MAX : 0;
}

static bool authorize(atedm_exchange *x)
{
    const atedm_http_options *options = &x->http->options;
    const char *client = "";
    bool allowed = x->route->access == ATEDM_ROUTE_OPEN ||
                   options->authorize(options->app, x, &client, &x->refusal);
    snprintf(x->client, sizeof x->client, "%s", client);
    return allowed;
}

// Finds the handler from the headers, or the reason to refuse the request.
static void dispatch(atedm_exchange *x, const char *version)
{
    const atedm_http_options *options = &x->http->options;
    x->refusal = ATEDM_REFUSE_FRAMING;
    if (!atedm_framing_is_clear(x->connection, version))
        return;
    x->route = atedm_route_find(options->routes, x->path, x->parameters);
    uint64_t promised = promised_body(x);
    bool post = strcmp(x->method, MHD_HTTP_METHOD_POST) == 0;
    x->refusal = ATEDM_REFUSE_NOT_FOUND;
    if (!x->route || !authorize(x))
        return;
    x->refusal = ATEDM_REFUSE_METHOD;
    atedm_handler handler = atedm_route_handler(x->route, x->method);
    if (!handler)
        return;
    x->refusal = ATEDM_REFUSE_MEDIA_TYPE;
    if (post && !atedm_content_type_is_json(atedm_exchange_header(x, MHD_HTTP_HEADER_CONTENT_TYPE)))
        return;
    x->refusal = ATEDM_REFUSE_TOO_LARGE;
    if (promised != UINT64_MAX && promised > options->max_body)
        return;
    x->handler = handler;
}

static atedm_exchange *exchange_create(atedm_http *http, struct MHD_Connection *connection,
                                       const char *method, const char *target, const char *version)
{
    atedm_exchange *x = calloc(1, sizeof *x);
    if (!x)
        return NULL;
    x->http = http;
    x->connection = connection;
    x->peer = atedm_peer_of(connection);
    atedm_peer_begin(x->peer);
    x->started = atedm_clock_monotonic();
    make_id(x->id);
    snprintf(x->method, sizeof x->method, "%s", method);
    snprintf(x->path, sizeof x->path, "%s", atedm_route_path(target));
    atedm_buffer_init(&x->body, http->options.max_body);
    dispatch(x, version);
    http->open++;
    return x;
}

// Nobody will read the answer: calls `gone` once.
static void give_up(atedm_exchange *x)
{
    void (*gone)(void *user) = x->gone;
    x->gone = NULL;
    if (gone)
        gone(x->gone_user);
}

static void report(atedm_exchange *x, unsigned status)
{
    const atedm_http_options *options = &x->http->options;
    options->answered(options->app, x, status, atedm_clock_monotonic() - x->started);
}

static void exchange_destroy(atedm_exchange *x)
{
    atedm_http *http = x->http;
    atedm_peer_go_on(x->peer);
    atedm_peer_end(x->peer);
    atedm_exchange_unwake(x);
    give_up(x);
    if (!x->answered)
        report(x, STATUS_GONE);
    atedm_buffer_finish(&x->body);
    free(x->response.body);
    http->unread -= x->unread;
    if (x->streams)
        x->stream.closed(x->stream.user);
    free(x);
    http->open--;
    if (http->open == 0)
        http->options.idle(http->options.app);
}

// Whether the end of the request is unclear, so that the bytes after it cannot be interpreted.
static bool is_unclear(const atedm_exchange *x)
{
    return !x->handler && x->refusal == ATEDM_REFUSE_FRAMING;
}

// Hands the answer to libmicrohttpd.
static enum MHD_Result answer(atedm_exchange *x)
{
    atedm_response *r = &x->response;
    struct MHD_Response *response =
        x->streams ? atedm_stream_make_response(x)
                   : MHD_create_response_from_buffer(r->size, r->body, MHD_RESPMEM_MUST_FREE);
    if (!response)
        return MHD_NO; // the exchange still owns the body
    r->body = NULL;    // the MHD_Response owns the body now
    enum MHD_Result result = MHD_YES;
    if (r->content_type)
        result = MHD_add_response_header(response, MHD_HTTP_HEADER_CONTENT_TYPE, r->content_type);
    for (size_t i = 0; i < r->n_headers && result == MHD_YES; i++)
        result = MHD_add_response_header(response, r->headers[i].name, r->headers[i].value);
    if (result == MHD_YES)
        result = MHD_add_response_header(response, "X-Request-Id", x->id);
    if (result == MHD_YES && (x->http->quiesced || is_unclear(x)))
        result = MHD_add_response_header(response, MHD_HTTP_HEADER_CONNECTION, "close");
    if (result == MHD_YES) {
        x->answered = true;
        report(x, r->status);
        result = MHD_queue_response(x->connection, r->status, response);
    }
    MHD_destroy_response(response);
    return result;
}

static void refuse(atedm_exchange *x)
{
    const atedm_http_options *options = &x->http->options;
    atedm_exchange_respond(x, options->refuse(options->app, x, x->refusal));
}

void atedm_exchange_abandon(atedm_exchange *x)
{
    x->gone_away = true;
    give_up(x);
    atedm_exchange_resume(x);
}

void atedm_exchange_suspend(atedm_exchange *x)
{
    x->suspended = true;
    MHD_suspend_connection(x->connection);
    atedm_peer_wait(x->peer, x);
}

void atedm_exchange_resume(atedm_exchange *x)
{
    atedm_peer_go_on(x->peer);
    atedm_exchange_unwake(x);
    x->suspended = false;
    MHD_resume_connection(x->connection);
    atedm_http_run_soon(x->http);
}

// The headers have arrived. A refusal waits for the end of the body, because closing a connection
// with unread data may destroy the answer on its way. A refusal goes out at once if the client
// waits for permission to send the body, if it announces more than ATEDM_HTTP_DISCARD_MAX, or if
// the end of the request is unclear.
static enum MHD_Result begin(atedm_exchange *x)
{
    if (x->handler)
        return MHD_YES;
    uint64_t promised = promised_body(x);
    bool waits = atedm_exchange_header(x, MHD_HTTP_HEADER_EXPECT) != NULL;
    bool endless = promised != UINT64_MAX && promised > ATEDM_HTTP_DISCARD_MAX;
    if (!waits && !endless && !is_unclear(x))
        return MHD_YES;
    x->handled = true;
    refuse(x);
    return answer(x);
}

static enum MHD_Result take_body(atedm_exchange *x, const char *data, size_t size)
{
    const atedm_http_options *options = &x->http->options;
    if (atedm_clock_monotonic() - x->started > options->connection_timeout_s)
        return MHD_NO; // the body arrives too slowly
    atedm_status status = x->handler ? atedm_buffer_append(&x->body, data, size) : ATEDM_OK;
    if (status) {
        x->handler = NULL;
        x->refusal = status == ATEDM_ERR_LIMIT ? ATEDM_REFUSE_TOO_LARGE : ATEDM_REFUSE_INTERNAL;
        atedm_buffer_finish(&x->body);
    }
    if (!x->handler)
        x->discarded += size;
    return x->discarded > ATEDM_HTTP_DISCARD_MAX ? MHD_NO : MHD_YES;
}

// The whole request has arrived, or its connection was resumed.
static enum MHD_Result proceed(atedm_exchange *x)
{
    if (x->gone_away || (x->http->closing && !x->responded))
        return MHD_NO;
    if (!x->handled) {
        x->handled = true;
        if (x->handler)
            x->handler(x->http->options.app, x);
        else
            refuse(x);
    }
    if (x->responded)
        return answer(x);
    atedm_exchange_suspend(x); // the handler will answer later
    return MHD_YES;
}

// ---- libmicrohttpd's callbacks

enum MHD_Result atedm_http_on_request(void *user, struct MHD_Connection *connection,
                                      const char *url, const char *method, const char *version,
                                      const char *upload, size_t *upload_size, void **context)
{
    atedm_exchange *x = *context;
    if (!x) {
        x = exchange_create(user, connection, method, url, version);
        *context = x;
        return x ? begin(x) : MHD_NO;
    }
    if (*upload_size > 0) {
        enum MHD_Result result = x->answered ? MHD_YES : take_body(x, upload, *upload_size);
        *upload_size = 0;
        return result;
    }
    return x->answered ? MHD_YES : proceed(x);
}

void atedm_http_on_completed(void *user, struct MHD_Connection *connection, void **context,
                             enum MHD_RequestTerminationCode code)
{
    atedm_exchange *x = *context;
    *context = NULL;
    if (x)
        exchange_destroy(x);
}

// ---- for handlers

const char *atedm_exchange_id(const atedm_exchange *x)
{
    return x->id;
}

const char *atedm_exchange_method(const atedm_exchange *x)
{
    return x->method;
}

const char *atedm_exchange_path(const atedm_exchange *x)
{
    return x->path;
}

const char *atedm_exchange_route(const atedm_exchange *x)
{
    return x->route ? x->route->path : "other";
}

const char *atedm_exchange_client(const atedm_exchange *x)
{
    return x->client;
}

const char *atedm_exchange_parameter(const atedm_exchange *x, size_t i)
{
    return x->parameters[i];
}

const char *atedm_exchange_query(const atedm_exchange *x, const char *name)
{
    return MHD_lookup_connection_value(x->connection, MHD_GET_ARGUMENT_KIND, name);
}

const char *atedm_exchange_header(const atedm_exchange *x, const char *name)
{
    return MHD_lookup_connection_value(x->connection, MHD_HEADER_KIND, name);
}

typedef struct joining {
    const char *name;
    atedm_buffer text;
    bool failed;
} joining;

static enum MHD_Result join(void *user, enum MHD_ValueKind kind, const char *name,
                            const char *value)
{
    joining *j = user;
    if (strcasecmp(name, j->name) == 0 &&
        atedm_buffer_printf(&j->text, "%s%s", j->text.size ? ", " : "", value ? value : ""))
        j->failed = true;
    return MHD_YES;
}

char *atedm_exchange_header_list(const atedm_exchange *x, const char *name)
{
    joining j = {.name = name};
    atedm_buffer_init(&j.text, (size_t)2 * ATEDM_HTTP_HEADERS_MAX);
    MHD_get_connection_values(x->connection, MHD_HEADER_KIND, join, &j);
    if (j.failed)
        atedm_buffer_finish(&j.text);
    return j.text.data;
}

const char *atedm_exchange_body(const atedm_exchange *x, size_t *ret_size)
{
    *ret_size = x->body.size;
    return x->body.data ? x->body.data : "";
}

double atedm_exchange_started(const atedm_exchange *x)
{
    return x->started;
}

void atedm_exchange_respond(atedm_exchange *x, atedm_response take_response)
{
    x->response = take_response;
    x->responded = true;
    x->unread = take_response.size;
    x->http->unread += x->unread;
    x->gone = NULL;
    if (x->suspended) // otherwise the handler is still running
        atedm_exchange_resume(x);
}

void atedm_exchange_wait(atedm_exchange *x, void (*gone)(void *user), void *user)
{
    x->gone = gone;
    x->gone_user = user;
}
