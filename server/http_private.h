// Shared by the files of HTTP: http.c (exchanges from start to end), http_server.c (libmicrohttpd
// on the loop), http_route.c (which handler answers what), http_stream.c (answers as streams),
// http_peer.c (clients that hang up).
#ifndef ATEDM_HTTP_PRIVATE_H
#define ATEDM_HTTP_PRIVATE_H

#include "core/base/memory.h"
#include "server/accept.h"
#include "server/hangup.h"
#include "server/http.h"

#include <microhttpd.h>
#include <sys/queue.h>

#define ATEDM_ROUTE_PARAMETERS 2     // most {segments} of a route
#define ATEDM_ROUTE_PARAMETER_MAX 64 // bytes, including the terminator

typedef struct atedm_peer atedm_peer;

// One libmicrohttpd daemon. A libmicrohttpd daemon has either only connections with TLS or only
// connections without, so there is one of these for each kind.
typedef struct atedm_http_side {
    atedm_http *http;
    struct MHD_Daemon *mhd; // NULL: no listener has this kind
    uv_poll_t poll;         // polls the epoll descriptor of `mhd`
    bool polled;            // `poll` was initialized
} atedm_http_side;

enum { ATEDM_HTTP_PLAIN, ATEDM_HTTP_TLS, ATEDM_HTTP_SIDES };

struct atedm_http {
    atedm_http_options options;
    atedm_http_side sides[ATEDM_HTTP_SIDES];
    atedm_accept *accepts[ATEDM_ADDRESS_MAX];
    size_t n_accepts; // 0: no new connections are accepted
    atedm_tls *tls;   // for new connections; NULL: none
    uv_timer_t waker;
    uv_timer_t timer; // libmicrohttpd's next timeout; 0 ms: run it soon
    size_t open;      // number of open exchanges
    size_t unread;    // bytes of the answers' bodies of open exchanges
    TAILQ_HEAD(atedm_waking, atedm_exchange) waking; // exchanges that are to be resumed
    uv_timer_t quiet; // goes off when the first quiet peer has had no request for too long
    TAILQ_HEAD(atedm_quiet, atedm_peer) quiet_peers; // without a request, the longest quiet first
    bool quiesced;
    bool closing; // finished answers are still sent, and nothing else happens
};

struct atedm_exchange {
    atedm_http *http;
    struct MHD_Connection *connection;
    atedm_peer *peer; // NULL: the connection is not watched
    char id[ATEDM_HTTP_ID_SIZE];
    char method[16], path[256];
    char client[ATEDM_HTTP_CLIENT_MAX + 1]; // "": anonymous
    const atedm_route *route;               // NULL: no route has this path
    char parameters[ATEDM_ROUTE_PARAMETERS][ATEDM_ROUTE_PARAMETER_MAX];
    atedm_handler handler; // NULL: the request is refused
    atedm_refusal refusal; // why it is refused
    atedm_buffer body;
    size_t discarded;
    double started;
    bool handled;   // the handler has been called
    bool answered;  // libmicrohttpd has the answer
    bool gone_away; // the client has hung up
    bool suspended;
    bool responded; // `response` is set
    size_t unread;  // bytes of the body of `response`
    atedm_response response;
    bool streams; // `response` has no body: `stream` supplies the text
    atedm_stream stream;
    bool waking; // `wake_place` is in the waking list of `http`
    TAILQ_ENTRY(atedm_exchange) wake_place;
    void (*gone)(void *user); // called if the client hangs up; NULL: nobody needs to know
    void *gone_user;
};

// Whether the headers leave no doubt where the request ends, and name exactly one Host.
// http_framing.c says why.
bool atedm_framing_is_clear(struct MHD_Connection *connection, const char *version);

// The path of a request's target, which may also be absolute: "http://host/path" (RFC 9112, section
// 3.2.2).
const char *atedm_route_path(const char *target);
// Finds the route of a path, and the path's segment for each {name}; NULL: no route has this path.
// A route with more than ATEDM_ROUTE_PARAMETERS names never matches.
const atedm_route *atedm_route_find(const atedm_route *routes, const char *path,
                                    char ret_parameters[][ATEDM_ROUTE_PARAMETER_MAX]);
// Writes the methods that the route allows.
void atedm_route_allowed(const atedm_route *route, char ret_text[ATEDM_ALLOWED_SIZE]);
// The route's handler of the method; NULL: the route does not allow the method.
atedm_handler atedm_route_handler(const atedm_route *route, const char *method);
// Whether a Content-Type means JSON in UTF-8; NULL: the header is absent.
bool atedm_content_type_is_json(const char *content_type);

// Makes libmicrohttpd's response for a stream; NULL: out of memory.
struct MHD_Response *atedm_stream_make_response(atedm_exchange *exchange);

// Takes the exchange off the waking list.
void atedm_exchange_unwake(atedm_exchange *exchange);

// Libmicrohttpd's callbacks MHD_AccessHandlerCallback and MHD_RequestCompletedCallback; `user` is
// the atedm_http.
enum MHD_Result atedm_http_on_request(void *user, struct MHD_Connection *connection,
                                      const char *url, const char *method, const char *version,
                                      const char *upload, size_t *upload_size, void **context);
void atedm_http_on_completed(void *user, struct MHD_Connection *connection, void **context,
                             enum MHD_RequestTerminationCode code);

// Runs libmicrohttpd in the loop's next round, because the caller may be inside one of its
// callbacks.
void atedm_http_run_soon(atedm_http *http);
// Resumes the exchanges of the waking list, some in each round of the loop.
void atedm_http_wake_soon(atedm_http *http);
// Nobody will read the answer: calls `gone`, and ends the connection.
void atedm_exchange_abandon(atedm_exchange *exchange);

// Libmicrohttpd's MHD_NotifyConnectionCallback; `user` is the atedm_http.
void atedm_peer_on_connection(void *user, struct MHD_Connection *connection, void **context,
                              enum MHD_ConnectionNotificationCode code);
// The connection's peer. NULL: the connection is not watched; the functions below accept NULL.
atedm_peer *atedm_peer_of(struct MHD_Connection *connection);
// A request begins on the connection; it ends.
void atedm_peer_begin(atedm_peer *peer);
void atedm_peer_end(atedm_peer *peer);
// Abandons the exchange when the client hangs up, or at once if it has. atedm_peer_go_on stops
// this.
void atedm_peer_wait(atedm_peer *peer, atedm_exchange *exchange);
void atedm_peer_go_on(atedm_peer *peer);

// Suspends the connection: libmicrohttpd does not read it until it is resumed, but a hang-up is
// noticed.
void atedm_exchange_suspend(atedm_exchange *exchange);
void atedm_exchange_resume(atedm_exchange *exchange);

#endif
