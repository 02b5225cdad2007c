// HTTP on the daemon's loop: runs libmicrohttpd in external epoll mode. Handles exchanges (one
// request and its answer), limits bodies, sends answers later or as streams, and notices clients
// that hang up. The caller's handlers decide what to answer.
#ifndef ATEDM_HTTP_H
#define ATEDM_HTTP_H

#include "core/base/status.h"
#include "server/listen.h"
#include "server/tls.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <uv.h>

// Most bytes of a refused body that the daemon reads and discards, so that the client gets to read
// the answer. A longer body closes the connection.
#define ATEDM_HTTP_DISCARD_MAX (256u << 20)
// Most bytes of a request line and its headers together.
#define ATEDM_HTTP_HEADERS_MAX (32u << 10)
#define ATEDM_HTTP_ID_SIZE 17    // 16 hexadecimal digits and the terminator
#define ATEDM_HTTP_CLIENT_MAX 64 // most bytes of a client's name
#define ATEDM_RESPONSE_MAX_HEADERS 6
#define ATEDM_RESPONSE_VALUE_MAX 768 // bytes of a header's value, including the terminator

typedef struct atedm_http atedm_http;
typedef struct atedm_exchange atedm_exchange;

// An answer. `body` is malloc'ed and belongs to the answer.
typedef struct atedm_response {
    unsigned status;
    const char *content_type; // static storage; NULL: there is no body
    char *body;
    size_t size;
    struct {
        const char *name; // static storage
        char value[ATEDM_RESPONSE_VALUE_MAX];
    } headers[ATEDM_RESPONSE_MAX_HEADERS];
    size_t n_headers;
} atedm_response;

// Adds a header. Cuts a value that does not fit, and drops a header beyond
// ATEDM_RESPONSE_MAX_HEADERS.
void atedm_response_header(atedm_response *response, const char *name, const char *format, ...)
    ATEDM_PRINTF(3, 4);

// Reasons to refuse a request before a handler sees it.
typedef enum atedm_refusal {
    ATEDM_REFUSE_FRAMING, // the request's end is unclear; the connection closes
    ATEDM_REFUSE_NOT_FOUND,
    ATEDM_REFUSE_METHOD,     // the answer has the header Allow
    ATEDM_REFUSE_TOO_LARGE,  // the body is too large
    ATEDM_REFUSE_MEDIA_TYPE, // the body is not JSON in UTF-8
    ATEDM_REFUSE_NO_KEY,
    ATEDM_REFUSE_UNKNOWN_KEY,
    ATEDM_REFUSE_DISABLED_KEY,
    ATEDM_REFUSE_EXPIRED_KEY,
    ATEDM_REFUSE_INTERNAL, // out of memory
} atedm_refusal;

// Who may use a route.
typedef enum atedm_route_access {
    ATEDM_ROUTE_CLIENTS,
    ATEDM_ROUTE_OPEN,
} atedm_route_access;

typedef void (*atedm_handler)(void *app, atedm_exchange *exchange);

// A path and the handlers of its methods; NULL: the method is not allowed. A segment in braces
// stands for any one segment: "/jobs/{id}". GET also serves HEAD. POST accepts only
// application/json. By default (all zeros) a route allows no method and is only for clients with a
// key. An array of routes ends with a path of NULL.
typedef struct atedm_route {
    const char *path;
    atedm_handler get, post, remove;
    atedm_route_access access;
} atedm_route;

typedef struct atedm_http_options {
    uv_loop_t *loop;
    atedm_listeners listeners; // taken over by atedm_http_create
    atedm_tls *tls;            // borrowed; NULL: no listener may use TLS
    const atedm_route *routes;
    size_t max_body;
    unsigned max_connections; // for all listeners together
    double connection_timeout_s;
    void *app; // passed to the handlers and to the functions below
    // Called when the headers of a request have arrived, on routes that are not open. Sets the
    // client's name, "" if it is unknown. False: refuses the request.
    bool (*authorize)(void *app, const atedm_exchange *exchange, const char **ret_client,
                      atedm_refusal *ret_refusal);
    atedm_response (*refuse)(void *app, const atedm_exchange *exchange, atedm_refusal refusal);
    // An answer goes out. Status 499: the connection ended before there was an answer.
    void (*answered)(void *app, const atedm_exchange *exchange, unsigned status, double seconds);
    void (*idle)(void *app);                      // the last open exchange has ended
    void (*message)(void *app, const char *text); // libmicrohttpd's own messages
    void (*starved)(void *app, int why);          // connections wait for resources; `why`: errno
} atedm_http_options;

// Starts HTTP. If *ret_http is set after a failure, close and destroy it too.
ATEDM_MUST_CHECK atedm_status atedm_http_create(const atedm_http_options *options,
                                                atedm_http **ret_http, atedm_error *err);
// Sets the certificate for new connections. HTTP keeps a reference of its own.
void atedm_http_set_tls(atedm_http *http, atedm_tls *tls);
// Accepts no more connections. Open connections close after their next answer.
void atedm_http_quiesce(atedm_http *http);
// The number of exchanges that have not ended.
size_t atedm_http_open_exchanges(const atedm_http *http);
// Bytes of all answers' bodies that clients have yet to read.
size_t atedm_http_unread(const atedm_http *http);
// atedm_http_close ends all connections. Then run the loop until the handles are closed, and call
// atedm_http_destroy.
void atedm_http_close(atedm_http *http);
void atedm_http_destroy(atedm_http *http); // NULL allowed

// ---- for handlers

// The request's id, as in X-Request-Id and in the log.
const char *atedm_exchange_id(const atedm_exchange *exchange);
const char *atedm_exchange_method(const atedm_exchange *exchange);
// The path of the request's target, decoded; for the log.
const char *atedm_exchange_path(const atedm_exchange *exchange);
// The path of the request's route, "other" if there is none. As a label it has few values.
const char *atedm_exchange_route(const atedm_exchange *exchange);
// The client's name from `authorize`; "": anonymous.
const char *atedm_exchange_client(const atedm_exchange *exchange);
// Writes the methods that the route allows: "GET, HEAD, POST".
#define ATEDM_ALLOWED_SIZE 32
void atedm_exchange_allowed(const atedm_exchange *exchange, char ret_text[ATEDM_ALLOWED_SIZE]);
// The path's segment for the i-th {name} of the route.
const char *atedm_exchange_parameter(const atedm_exchange *exchange, size_t i);
// The decoded value of ?name=; "" or NULL: there is none.
const char *atedm_exchange_query(const atedm_exchange *exchange, const char *name);
// A header's value; NULL: the request does not have this header.
const char *atedm_exchange_header(const atedm_exchange *exchange, const char *name);
// Joins all lines of a header with commas (RFC 9110, section 5.3); free() the result. NULL: the
// header is absent, or there is no memory.
char *atedm_exchange_header_list(const atedm_exchange *exchange, const char *name);
// The request's body; valid until the exchange ends.
const char *atedm_exchange_body(const atedm_exchange *exchange, size_t *ret_size);
double atedm_exchange_started(const atedm_exchange *exchange); // monotonic clock

// Answers the exchange, from inside the handler or later. Takes the response's body.
void atedm_exchange_respond(atedm_exchange *exchange, atedm_response take_response);
// A handler that returns without an answer calls this. If the client hangs up before the answer,
// `gone` is called once; the exchange must not be used from then on.
void atedm_exchange_wait(atedm_exchange *exchange, void (*gone)(void *user), void *user);

#define ATEDM_STREAM_READ_MAX 16384 // most bytes of a stream that are read at a time

// The source of an answer's text that is not complete yet.
typedef struct atedm_stream {
    // Gets up to `max` bytes; *ret_size 0: there is nothing at present. False: the stream has
    // ended.
    bool (*read)(void *user, char *data, size_t max, size_t *ret_size);
    void (*closed)(void *user); // always the last call, made once
    void *user;
} atedm_stream;

// Answers with a stream. Of the response, only status and headers are used.
void atedm_exchange_stream(atedm_exchange *exchange, atedm_response take_response,
                           atedm_stream stream);
// Call it when the stream has more to read.
void atedm_exchange_wake(atedm_exchange *exchange);

#endif
