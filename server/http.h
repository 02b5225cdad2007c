// HTTP on the daemon's loop: libmicrohttpd in external epoll mode, its exchanges (one request and
// its answer), bodies with a limit, answers that come later, clients that hang up. What is asked
// for and answered is the business of the handlers that it is given.
#ifndef ATEDM_HTTP_H
#define ATEDM_HTTP_H

#include "core/base/status.h"
#include "server/listen.h"
#include "server/tls.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <uv.h>

// Bytes of a refused body that are read and thrown away so that the client gets to see the answer;
// past them the connection is closed.
#define ATEDM_HTTP_DISCARD_MAX (256u << 20)
// Bytes of a request's line and headers together.
#define ATEDM_HTTP_HEADERS_MAX (32u << 10)
#define ATEDM_HTTP_ID_SIZE 17    // 16 hexadecimal digits and the terminator
#define ATEDM_HTTP_CLIENT_MAX 64 // bytes of a client's name
#define ATEDM_RESPONSE_MAX_HEADERS 6
#define ATEDM_RESPONSE_VALUE_MAX 768 // bytes of a header's value, with the terminator

typedef struct atedm_http atedm_http;
typedef struct atedm_exchange atedm_exchange;

// An answer. `body` is malloc'ed and goes with it.
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

// Adds a header; what does not fit in `value` is cut, one header too many is dropped.
void atedm_response_header(atedm_response *response, const char *name, const char *format, ...)
    ATEDM_PRINTF(3, 4);

// What is answered where no handler comes into play.
typedef enum atedm_refusal {
    ATEDM_REFUSE_FRAMING, // the connection is closed
    ATEDM_REFUSE_NOT_FOUND,
    ATEDM_REFUSE_METHOD,     // the answer has the header Allow
    ATEDM_REFUSE_TOO_LARGE,  // the body
    ATEDM_REFUSE_MEDIA_TYPE, // the body's
    ATEDM_REFUSE_NO_KEY,
    ATEDM_REFUSE_UNKNOWN_KEY,
    ATEDM_REFUSE_DISABLED_KEY,
    ATEDM_REFUSE_EXPIRED_KEY,
    ATEDM_REFUSE_INTERNAL, // no memory
} atedm_refusal;

// Whether a route asks who the client is.
typedef enum atedm_route_access {
    ATEDM_ROUTE_CLIENTS,
    ATEDM_ROUTE_OPEN,
} atedm_route_access;

typedef void (*atedm_handler)(void *app, atedm_exchange *exchange);

// A path and who answers its methods; NULL: not allowed. A segment in braces stands for any
// segment, "/jobs/{id}". GET serves HEAD as well, POST takes application/json. What a route does
// not say is refused, and it is for clients with a key. An array of them ends with a path of NULL.
typedef struct atedm_route {
    const char *path;
    atedm_handler get, post, remove;
    atedm_route_access access;
} atedm_route;

typedef struct atedm_http_options {
    uv_loop_t *loop;
    atedm_listeners listeners; // taken
    atedm_tls *tls;            // borrowed; NULL: none of them may ask for it
    const atedm_route *routes;
    size_t max_body;
    unsigned max_connections; // of all listeners together
    double connection_timeout_s;
    void *app; // goes to the handlers and to the following
    // With the headers, on routes that are not open: whose request it is, "" where that is not
    // known. False: refused.
    bool (*authorize)(void *app, const atedm_exchange *exchange, const char **ret_client,
                      atedm_refusal *ret_refusal);
    atedm_response (*refuse)(void *app, const atedm_exchange *exchange, atedm_refusal refusal);
    // An answer was handed over for sending; 499: the connection ended before that.
    void (*answered)(void *app, const atedm_exchange *exchange, unsigned status, double seconds);
    void (*idle)(void *app);                      // the last open exchange has ended
    void (*message)(void *app, const char *text); // libmicrohttpd's own messages
    void (*starved)(void *app, int why); // errno: connections wait, as the system has no more
} atedm_http_options;

// On failure, too, there may be a *ret_http: it is closed and destroyed like any other.
ATEDM_MUST_CHECK atedm_status atedm_http_create(const atedm_http_options *options,
                                                atedm_http **ret_http, atedm_error *err);
// The certificate of connections from now on; borrowed.
void atedm_http_set_tls(atedm_http *http, atedm_tls *tls);
// Accepts no more connections; open ones are told to close behind their next answer.
void atedm_http_quiesce(atedm_http *http);
size_t atedm_http_open_exchanges(const atedm_http *http);
// Bytes of bodies that were answered with, and that clients have yet to read.
size_t atedm_http_unread(const atedm_http *http);
// Ends all connections. Run the loop until its handles are closed afterwards, then call the second.
void atedm_http_close(atedm_http *http);
void atedm_http_destroy(atedm_http *http); // NULL allowed

// ---- for handlers

const char *atedm_exchange_id(const atedm_exchange *exchange);
const char *atedm_exchange_method(const atedm_exchange *exchange);
// Of its target, decoded; for the log.
const char *atedm_exchange_path(const atedm_exchange *exchange);
// The route's path, "other" where there is none: a label of bounded variety.
const char *atedm_exchange_route(const atedm_exchange *exchange);
// The client's name as `authorize` told it; "": anonymous.
const char *atedm_exchange_client(const atedm_exchange *exchange);
// Methods that the route allows, "GET, HEAD, POST".
#define ATEDM_ALLOWED_SIZE 32
void atedm_exchange_allowed(const atedm_exchange *exchange, char ret_text[ATEDM_ALLOWED_SIZE]);
// What stands in the path for the i-th {name} of the route.
const char *atedm_exchange_parameter(const atedm_exchange *exchange, size_t i);
// The value of ?name=, decoded; "" or NULL where there is none.
const char *atedm_exchange_query(const atedm_exchange *exchange, const char *name);
// NULL where the request has no such header.
const char *atedm_exchange_header(const atedm_exchange *exchange, const char *name);
// All of a header's lines with commas between them (RFC 9110, section 5.3), for free(). NULL: there
// is none, or no memory.
char *atedm_exchange_header_list(const atedm_exchange *exchange, const char *name);
const char *atedm_exchange_body(const atedm_exchange *exchange, size_t *ret_size);
double atedm_exchange_started(const atedm_exchange *exchange); // monotonic clock

// Answers, at once or later; takes the response's body.
void atedm_exchange_respond(atedm_exchange *exchange, atedm_response take_response);
// Called by a handler that returns without an answer: `gone` tells once that nobody waits for it
// any more; the exchange must not be touched from then on.
void atedm_exchange_wait(atedm_exchange *exchange, void (*gone)(void *user), void *user);

#define ATEDM_STREAM_READ_MAX 16384 // bytes of a stream that are asked for at a time

// Where the text of an answer comes from that goes on.
typedef struct atedm_stream {
    // Up to `max` bytes of what there is; 0 where there is nothing now. False: that was the end.
    bool (*read)(void *user, char *data, size_t max, size_t *ret_size);
    void (*closed)(void *user); // always the last call, once
    void *user;
} atedm_stream;

// Answers with a stream; of the response only status and headers count.
void atedm_exchange_stream(atedm_exchange *exchange, atedm_response take_response,
                           atedm_stream stream);
// There is more to read.
void atedm_exchange_wake(atedm_exchange *exchange);

#endif
