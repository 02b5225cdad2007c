// The client's end of each connection. We watch it for a hang-up from accept to close, because
// libmicrohttpd does not watch suspended connections. It also misses a hang-up that arrives
// together with the last data: it waits for the socket to become readable, which it is already.
// We also measure how long a connection has had no request, because headers may come byte by byte.
// With TLS, the peer also holds the certificate that was in force when the connection came, until
// the connection is closed.
#include "server/http_private.h"

#include "core/base/clock.h"

#include <math.h>
#include <stdlib.h>
#include <sys/socket.h>

// A connection may be without a request for this many times connection_timeout_s: once while it is
// silent, and once more while headers come.
#define QUIET_TIMEOUTS 2
// When the client has hung up, the connection is closed after this many seconds without progress.
#define GONE_TIMEOUT_S 1

struct atedm_peer {
    atedm_http *http;
    struct MHD_Connection *connection;
    atedm_hangup *hangup;
    atedm_exchange *waiting; // the exchange whose answer comes later: the connection is suspended
    atedm_tls *tls;          // the certificate of the TLS session; NULL: no TLS
    bool gone;               // the client has hung up
    int fd;
    bool quiet;   // no request has come yet; the peer is in the list of `http`
    double since; // monotonic clock: when it came or its last request ended
    TAILQ_ENTRY(atedm_peer) place;
};

// ---- without a request

static void unlist(atedm_peer *peer)
{
    if (!peer->quiet)
        return;
    peer->quiet = false;
    TAILQ_REMOVE(&peer->http->quiet_peers, peer, place);
}

static void on_quiet(uv_timer_t *timer);

static void watch_quiet(atedm_http *http)
{
    const atedm_peer *first = TAILQ_FIRST(&http->quiet_peers);
    if (!first || uv_is_active((uv_handle_t *)&http->quiet) || http->closing)
        return;
    double due = first->since + QUIET_TIMEOUTS * http->options.connection_timeout_s;
    double left = fmax(0, due - atedm_clock_monotonic());
    uv_timer_start(&http->quiet, on_quiet, (uint64_t)ceil(left * 1e3) + 1, 0);
}

// Libmicrohttpd begins to count anew with each byte that comes.
static void on_quiet(uv_timer_t *timer)
{
    atedm_http *http = timer->data;
    double until = atedm_clock_monotonic() - QUIET_TIMEOUTS * http->options.connection_timeout_s;
    atedm_peer *peer;
    while ((peer = TAILQ_FIRST(&http->quiet_peers)) && peer->since <= until) {
        unlist(peer);
        shutdown(peer->fd, SHUT_RDWR);
    }
    watch_quiet(http);
}

static void list(atedm_peer *peer)
{
    atedm_http *http = peer->http;
    unlist(peer);
    peer->quiet = true;
    peer->since = atedm_clock_monotonic();
    TAILQ_INSERT_TAIL(&http->quiet_peers, peer, place);
    watch_quiet(http);
}

void atedm_peer_begin(atedm_peer *peer)
{
    if (peer)
        unlist(peer);
}

void atedm_peer_end(atedm_peer *peer)
{
    if (peer)
        list(peer);
}

// ---- hang-ups

static void on_gone(void *user)
{
    atedm_peer *peer = user;
    peer->gone = true;
    if (peer->waiting)
        atedm_exchange_abandon(peer->waiting);
    else if (MHD_set_connection_option(peer->connection, MHD_CONNECTION_OPTION_TIMEOUT,
                                       GONE_TIMEOUT_S) == MHD_YES)
        atedm_http_run_soon(peer->http);
}

// A connection that cannot be watched is served all the same: a hang-up then shows only when more
// data is sent, or at the connection's timeout.
static atedm_peer *start(atedm_http *http, struct MHD_Connection *connection)
{
    const union MHD_ConnectionInfo *info =
        MHD_get_connection_info(connection, MHD_CONNECTION_INFO_CONNECTION_FD);
    atedm_peer *peer = info ? calloc(1, sizeof *peer) : NULL;
    if (!peer)
        return NULL;
    peer->http = http;
    peer->connection = connection;
    const union MHD_ConnectionInfo *session =
        MHD_get_connection_info(connection, MHD_CONNECTION_INFO_GNUTLS_SESSION);
    if (session && session->tls_session) { // before its handshake
        peer->tls = atedm_tls_ref(http->tls);
        atedm_tls_use(peer->tls, session->tls_session);
    }
    peer->fd = info->connect_fd;
    list(peer);
    peer->hangup = atedm_hangup_start(http->options.loop, info->connect_fd, on_gone, peer);
    return peer;
}

void atedm_peer_on_connection(void *user, struct MHD_Connection *connection, void **context,
                              enum MHD_ConnectionNotificationCode code)
{
    atedm_peer *peer = *context;
    *context = NULL;
    if (code == MHD_CONNECTION_NOTIFY_STARTED)
        *context = start(user, connection);
    else if (peer)
        atedm_hangup_stop(peer->hangup);
    if (code == MHD_CONNECTION_NOTIFY_CLOSED && peer) {
        atedm_tls_unref(peer->tls);
        unlist(peer);
        free(peer);
    }
}

atedm_peer *atedm_peer_of(struct MHD_Connection *connection)
{
    const union MHD_ConnectionInfo *info =
        MHD_get_connection_info(connection, MHD_CONNECTION_INFO_SOCKET_CONTEXT);
    return info ? info->socket_context : NULL;
}

void atedm_peer_wait(atedm_peer *peer, atedm_exchange *x)
{
    if (!peer)
        return;
    peer->waiting = x;
    if (peer->gone)
        atedm_exchange_abandon(x);
}

void atedm_peer_go_on(atedm_peer *peer)
{
    if (peer)
        peer->waiting = NULL;
}
