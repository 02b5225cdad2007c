// What the files of HTTP share: http.c (exchanges and their life), http_server.c (libmicrohttpd on
// the loop), http_route.c (who answers what), http_stream.c (answers that go on), http_peer.c
// (clients that hang up).
#ifndef ATEDM_HTTP_PRIVATE_H
#define ATEDM_HTTP_PRIVATE_H

#include "core/base/memory.h"
#include "server/accept.h"
#include "server/hangup.h"
#include "server/http.h"

#include <microhttpd.h>

#define ATEDM_ROUTE_PARAMETERS 2     // {segments} of a route
#define ATEDM_ROUTE_PARAMETER_MAX 64 // bytes, the terminator included

typedef struct atedm_peer atedm_peer;

// Libmicrohttpd has its connections with TLS or without: one of these for each kind.
typedef struct atedm_http_side {
    atedm_http *http;
    struct MHD_Daemon *mhd; // NULL: no listener wants it
    uv_poll_t poll;         // its epoll descriptor
    bool polled;            // `poll` is there
} atedm_http_side;

enum { ATEDM_HTTP_PLAIN, ATEDM_HTTP_TLS, ATEDM_HTTP_SIDES };

struct atedm_http {
    atedm_http_options options;
    atedm_http_side sides[ATEDM_HTTP_SIDES];
    atedm_accept *accepts[ATEDM_ADDRESS_MAX];
    size_t n_accepts; // 0: no more connections are taken
    atedm_tls *tls;   // of connections to come; NULL: none
    uv_timer_t waker;
    uv_timer_t timer;                           // libmicrohttpd's next timeout, or 0: run it
    size_t open;                                // exchanges
    size_t unread;                              // bytes of the bodies that those have
    atedm_exchange *first_waking, *last_waking; // that are to be resumed
    uv_timer_t quiet;                     // the first connection that has no request for too long
    atedm_peer *first_quiet, *last_quiet; // that have none, the longest one first
    bool quiesced;
    bool closing; // what has been answered goes out, and nothing else happens
};

struct atedm_exchange {
    atedm_http *http;
    struct MHD_Connection *connection;
    atedm_peer *peer; // NULL: not watched
    char id[ATEDM_HTTP_ID_SIZE];
    char method[16], path[256];
    char client[ATEDM_HTTP_CLIENT_MAX + 1]; // "": anonymous
    const atedm_route *route;               // NULL: none
    char parameters[ATEDM_ROUTE_PARAMETERS][ATEDM_ROUTE_PARAMETER_MAX];
    atedm_handler handler; // NULL: refused
    atedm_refusal refusal; // why
    atedm_buffer body;
    size_t discarded;
    double started;
    bool handled;   // the handler has been called
    bool answered;  // the answer is libmicrohttpd's
    bool gone_away; // the client
    bool suspended;
    bool responded; // `response` is there
    size_t unread;  // bytes of its body
    atedm_response response;
    bool streams; // `response` has no body: it is read from `stream`
    atedm_stream stream;
    bool waking; // among those of `http`, by the following
    atedm_exchange *wake_before, *wake_after;
    void (*gone)(void *user); // who waits for an answer, NULL: nobody
    void *gone_user;
};

// Whether headers leave no doubt where the request ends, and have one Host. http_framing.c says
// why.
bool atedm_framing_is_clear(struct MHD_Connection *connection, const char *version);

// The path of a request's target, also of one in absolute form, "http://host/path" (RFC 9112,
// section 3.2.2).
const char *atedm_route_path(const char *target);
// The route of a path, and what stands in it for each {name}; NULL where there is none. A route
// with more than ATEDM_ROUTE_PARAMETERS of them is that of no path.
const atedm_route *atedm_route_find(const atedm_route *routes, const char *path,
                                    char ret_parameters[][ATEDM_ROUTE_PARAMETER_MAX]);
// The methods that it allows.
void atedm_route_allowed(const atedm_route *route, char ret_text[ATEDM_ALLOWED_SIZE]);
// NULL where the route does not allow the method.
atedm_handler atedm_route_handler(const atedm_route *route, const char *method);
// Whether a Content-Type (NULL: absent) says JSON in UTF-8.
bool atedm_content_type_is_json(const char *content_type);

// Libmicrohttpd's form of an answer that goes on; NULL where there is no memory.
struct MHD_Response *atedm_stream_make_response(atedm_exchange *exchange);

// It need not be resumed any more.
void atedm_exchange_unwake(atedm_exchange *exchange);

// Libmicrohttpd's callbacks, with the atedm_http: MHD_AccessHandlerCallback and
// MHD_RequestCompletedCallback.
enum MHD_Result atedm_http_on_request(void *user, struct MHD_Connection *connection,
                                      const char *url, const char *method, const char *version,
                                      const char *upload, size_t *upload_size, void **context);
void atedm_http_on_completed(void *user, struct MHD_Connection *connection, void **context,
                             enum MHD_RequestTerminationCode code);

// Runs libmicrohttpd in the loop's next round: the caller may stand in one of its callbacks.
void atedm_http_run_soon(atedm_http *http);
// Resumes those that are waking, some in each round.
void atedm_http_wake_soon(atedm_http *http);
// Nobody will get the answer: tells who works on it, and ends the connection.
void atedm_exchange_abandon(atedm_exchange *exchange);

// Libmicrohttpd's MHD_NotifyConnectionCallback, with the atedm_http.
void atedm_peer_on_connection(void *user, struct MHD_Connection *connection, void **context,
                              enum MHD_ConnectionNotificationCode code);
// NULL: not watched; the following allow that.
atedm_peer *atedm_peer_of(struct MHD_Connection *connection);
// A request has come in; it is over.
void atedm_peer_begin(atedm_peer *peer);
void atedm_peer_end(atedm_peer *peer);
// The exchange is abandoned when the peer hangs up, or at once where it has.
void atedm_peer_wait(atedm_peer *peer, atedm_exchange *exchange);
void atedm_peer_go_on(atedm_peer *peer);

// Nobody reads the connection until it is resumed; a hang-up is noticed.
void atedm_exchange_suspend(atedm_exchange *exchange);
void atedm_exchange_resume(atedm_exchange *exchange);

#endif
