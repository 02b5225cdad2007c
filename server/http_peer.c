// The client's end of each connection. We watch it for a hang-up from accept to close, because
// libmicrohttpd does not watch suspended connections. It also misses a hang-up that arrives
// together with the last data: it waits for the socket to become readable, which it is already.
// With TLS, the peer also holds the certificate that was in force when the connection came, until
// the connection is closed.
#include "server/http_private.h"

#include <stdlib.h>

// When the client has hung up, the connection is closed after this many seconds without progress.
#define GONE_TIMEOUT_S 1

struct atedm_peer {
    atedm_http *http;
    struct MHD_Connection *connection;
    atedm_hangup *hangup;
    atedm_exchange *waiting; // the exchange whose answer comes later: the connection is suspended
    atedm_tls *tls;          // the certificate of the TLS session; NULL: no TLS
    bool gone;               // the client has hung up
};

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
