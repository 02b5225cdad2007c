// Runs libmicrohttpd on the daemon's loop: one libmicrohttpd daemon for connections with TLS and
// one for those without, their descriptors and timeouts, and the listeners that supply connections.
// http.c handles the requests.
#include "server/http_private.h"

#include <ctype.h>
#include <gnutls/abstract.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

// Streams that are resumed in one round of the loop.
#define WAKES_AT_ONCE 32

static void on_timer(uv_timer_t *timer);

// ---- running libmicrohttpd

static bool has_room(void *user)
{
    const atedm_http *http = ((const atedm_http_side *)user)->http;
    unsigned connections = 0;
    for (size_t i = 0; i < ATEDM_HTTP_SIDES; i++) {
        struct MHD_Daemon *mhd = http->sides[i].mhd;
        const union MHD_DaemonInfo *info =
            mhd ? MHD_get_daemon_info(mhd, MHD_DAEMON_INFO_CURRENT_CONNECTIONS) : NULL;
        connections += info ? info->num_connections : 0;
    }
    return connections < http->options.max_connections;
}

static void run(atedm_http *http)
{
    for (size_t i = 0; i < ATEDM_HTTP_SIDES; i++) {
        if (http->sides[i].mhd)
            MHD_run(http->sides[i].mhd);
    }
    for (size_t i = 0; i < http->n_accepts; i++)
        atedm_accept_check(http->accepts[i]);
    MHD_UNSIGNED_LONG_LONG soonest = ULLONG_MAX, milliseconds;
    for (size_t i = 0; i < ATEDM_HTTP_SIDES; i++) {
        struct MHD_Daemon *mhd = http->sides[i].mhd;
        if (mhd && MHD_get_timeout(mhd, &milliseconds) == MHD_YES && milliseconds < soonest)
            soonest = milliseconds;
    }
    if (soonest < ULLONG_MAX)
        uv_timer_start(&http->timer, on_timer, soonest, 0);
    else
        uv_timer_stop(&http->timer);
}

static void resume_waking(atedm_http *http, size_t most)
{
    while (most-- && !TAILQ_EMPTY(&http->waking))
        atedm_exchange_resume(TAILQ_FIRST(&http->waking));
}

static void on_timer(uv_timer_t *timer)
{
    run(timer->data);
}

// Resumes some streams. The timer for the others takes 1 ms, because one of 0 ms would go off in
// the same round.
static void on_waker(uv_timer_t *timer)
{
    atedm_http *http = timer->data;
    resume_waking(http, WAKES_AT_ONCE);
    if (!TAILQ_EMPTY(&http->waking))
        uv_timer_start(timer, on_waker, 1, 0);
    run(http);
}

static void on_poll(uv_poll_t *poll, int status, int events)
{
    run(poll->data);
}

void atedm_http_wake_soon(atedm_http *http)
{
    if (!uv_is_active((uv_handle_t *)&http->waker))
        uv_timer_start(&http->waker, on_waker, 0, 0);
}

void atedm_http_run_soon(atedm_http *http)
{
    uv_timer_start(&http->timer, on_timer, 0, 0);
}

// ---- listeners

static void take_connection(void *user, int fd, const struct sockaddr *address, socklen_t size)
{
    const atedm_http_side *side = user;
    if (MHD_add_connection(side->mhd, fd, address, size) == MHD_NO)
        return; // libmicrohttpd has closed the descriptor
}

static void on_taken(void *user)
{
    run(((const atedm_http_side *)user)->http);
}

static void on_starved(void *user, int why)
{
    const atedm_http *http = ((const atedm_http_side *)user)->http;
    http->options.starved(http->options.app, why);
}

// Starts all listeners. After a failure, closes the remaining ones.
static atedm_status start_accepts(atedm_http *http, atedm_listeners *listeners, atedm_error *err)
{
    atedm_status status = ATEDM_OK;
    for (size_t i = 0; i < listeners->count; i++) {
        atedm_listener *l = &listeners->items[i];
        if (status) {
            atedm_listener_close(l);
            continue;
        }
        atedm_accept_options options = {.loop = http->options.loop,
                                        .listener = *l,
                                        .user = &http->sides[l->tls],
                                        .room = has_room,
                                        .take = take_connection,
                                        .taken = on_taken,
                                        .starved = on_starved};
        status = atedm_accept_create(&options, &http->accepts[http->n_accepts], err);
        http->n_accepts += !status;
    }
    return status;
}

static void close_accepts(atedm_http *http)
{
    while (http->n_accepts)
        atedm_accept_close(http->accepts[--http->n_accepts]);
}

// ---- start and end

static void on_message(void *user, const char *format, va_list args) ATEDM_PRINTF(2, 0);

static void on_message(void *user, const char *format, va_list args)
{
    atedm_http *http = user;
    char text[256];
    vsnprintf(text, sizeof text, format, args);
    text[strcspn(text, "\n")] = '\0';
    http->options.message(http->options.app, text);
}

// Libmicrohttpd insists on a source of certificates. http_peer.c gives each connection its
// certificate before the handshake; a connection that did not get one is refused here.
static int no_certificate(gnutls_session_t session, const struct gnutls_cert_retr_st *info,
                          gnutls_pcert_st **certs, unsigned *count, gnutls_ocsp_data_st **ocsp,
                          unsigned *ocsp_count, gnutls_privkey_t *key, unsigned *flags)
{
    return -1;
}

// Decodes "%HH" in paths and queries. Leaves "%00", which would hide the text after it.
static size_t unescape(void *user, struct MHD_Connection *connection, char *text)
{
    char *to = text;
    for (const char *from = text; *from; from++) {
        char digits[3] = "";
        if (from[0] == '%' && isxdigit((unsigned char)from[1]) && isxdigit((unsigned char)from[2]))
            memcpy(digits, from + 1, 2);
        long byte = strtol(digits, NULL, 16);
        *to++ = byte ? (char)byte : *from;
        from += byte ? 2 : 0;
    }
    *to = '\0';
    return (size_t)(to - text);
}

// Starts a libmicrohttpd daemon. Without TLS the first MHD_OPTION_END ends the list of options, and
// libmicrohttpd ignores the TLS options after it.
static struct MHD_Daemon *start_mhd(atedm_http *http, bool tls)
{
    const atedm_http_options *o = &http->options;
    unsigned flags =
        MHD_USE_EPOLL | MHD_ALLOW_SUSPEND_RESUME | MHD_USE_ERROR_LOG | MHD_USE_NO_LISTEN_SOCKET;
    return MHD_start_daemon(
        flags | (tls ? MHD_USE_TLS : 0), 0, NULL, NULL, atedm_http_on_request, http,
        MHD_OPTION_EXTERNAL_LOGGER, on_message, http, MHD_OPTION_CONNECTION_LIMIT,
        o->max_connections, MHD_OPTION_CONNECTION_TIMEOUT, (unsigned)o->connection_timeout_s,
        MHD_OPTION_CONNECTION_MEMORY_LIMIT, (size_t)ATEDM_HTTP_HEADERS_MAX,
        MHD_OPTION_NOTIFY_COMPLETED, atedm_http_on_completed, http, MHD_OPTION_NOTIFY_CONNECTION,
        atedm_peer_on_connection, http, MHD_OPTION_UNESCAPE_CALLBACK, unescape, http,
        tls ? MHD_OPTION_HTTPS_PRIORITIES : MHD_OPTION_END, ATEDM_TLS_PRIORITIES,
        MHD_OPTION_HTTPS_CERT_CALLBACK2, no_certificate, MHD_OPTION_END);
}

static atedm_status start_side(atedm_http *http, bool tls, atedm_error *err)
{
    atedm_http_side *side = &http->sides[tls];
    side->mhd = start_mhd(http, tls);
    const union MHD_DaemonInfo *info =
        side->mhd ? MHD_get_daemon_info(side->mhd, MHD_DAEMON_INFO_EPOLL_FD) : NULL;
    if (!info || uv_poll_init(http->options.loop, &side->poll, info->epoll_fd))
        return atedm_error_set(err, ATEDM_ERR_IO, "libmicrohttpd does not start%s",
                               tls ? " with TLS" : "");
    side->polled = true;
    side->poll.data = http;
    uv_poll_start(&side->poll, UV_READABLE, on_poll);
    return ATEDM_OK;
}

static atedm_status start_sides(atedm_http *http, const atedm_listeners *listeners,
                                atedm_error *err)
{
    atedm_status status = ATEDM_OK;
    for (size_t i = 0; i < listeners->count && !status; i++) {
        const atedm_listener *l = &listeners->items[i];
        if (l->tls && !http->tls)
            return atedm_error_set(err, ATEDM_ERR_INVALID,
                                   "%s: TLS needs the options tls_cert and tls_key", l->url);
        if (!http->sides[l->tls].mhd)
            status = start_side(http, l->tls, err);
    }
    return status;
}

atedm_status atedm_http_create(const atedm_http_options *options, atedm_http **ret_http,
                               atedm_error *err)
{
    atedm_listeners listeners = options->listeners;
    atedm_http *http = calloc(1, sizeof *http);
    if (!http) {
        atedm_listeners_close(&listeners);
        return atedm_error_set(err, ATEDM_ERR_NOMEM, "no memory for HTTP");
    }
    http->options = *options;
    TAILQ_INIT(&http->waking);
    TAILQ_INIT(&http->quiet_peers);
    for (size_t i = 0; i < ATEDM_HTTP_SIDES; i++)
        http->sides[i].http = http;
    atedm_http_set_tls(http, options->tls);
    uv_timer_init(options->loop, &http->timer); // cannot fail
    uv_timer_init(options->loop, &http->waker);
    uv_timer_init(options->loop, &http->quiet);
    http->timer.data = http;
    http->waker.data = http;
    http->quiet.data = http;
    *ret_http = http; // from here on the loop has handles of `http`
    atedm_status status = start_sides(http, &listeners, err);
    if (status) {
        atedm_listeners_close(&listeners);
        return status;
    }
    return start_accepts(http, &listeners, err);
}

void atedm_http_set_tls(atedm_http *http, atedm_tls *tls)
{
    atedm_tls *old = http->tls;
    http->tls = tls ? atedm_tls_ref(tls) : NULL;
    atedm_tls_unref(old);
}

void atedm_http_quiesce(atedm_http *http)
{
    http->quiesced = true;
    close_accepts(http);
}

size_t atedm_http_open_exchanges(const atedm_http *http)
{
    return http->open;
}

size_t atedm_http_unread(const atedm_http *http)
{
    return http->unread;
}

void atedm_http_close(atedm_http *http)
{
    close_accepts(http);
    http->closing = true;
    resume_waking(http, SIZE_MAX);
    run(http); // sends the last answers,
    run(http); // and the ends of streams
    uv_close((uv_handle_t *)&http->timer, NULL);
    uv_close((uv_handle_t *)&http->waker, NULL);
    uv_close((uv_handle_t *)&http->quiet, NULL);
    for (size_t i = 0; i < ATEDM_HTTP_SIDES; i++) {
        atedm_http_side *side = &http->sides[i];
        if (side->polled)
            uv_close((uv_handle_t *)&side->poll, NULL);
        if (side->mhd)
            MHD_stop_daemon(side->mhd);
        side->mhd = NULL;
    }
}

void atedm_http_destroy(atedm_http *http)
{
    if (!http)
        return;
    atedm_tls_unref(http->tls);
    free(http);
}
