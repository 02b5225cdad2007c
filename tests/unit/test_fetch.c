// HTTP with a daemon: how long an answer may be silent. Whole conversations are in
// tests/e2e/cli_request.py.
#include "cli/fetch.h"
#include "core/base/clock.h"

#include <arpa/inet.h>
#include <criterion/criterion.h>
#include <netinet/in.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

// Bytes of an answer, so many seconds apart; then nothing until the client has gone.
typedef struct speaker {
    int listening;
    int bytes;
    double pause_s;
    pthread_t thread; // owns the connection
    char url[64];
} speaker;

static void *speak(void *user)
{
    static const char head[] = "HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\n";
    const speaker *s = user;
    char request[4096];
    int client = accept(s->listening, NULL, NULL);
    if (client < 0 || recv(client, request, sizeof request, 0) <= 0 ||
        send(client, head, strlen(head), MSG_NOSIGNAL) < 0)
        return NULL;
    for (int i = 0; i < s->bytes; i++) {
        usleep((useconds_t)(s->pause_s * 1e6));
        if (send(client, ".", 1, MSG_NOSIGNAL) < 0)
            break;
    }
    while (recv(client, request, sizeof request, 0) > 0)
        continue;
    close(client);
    return NULL;
}

static void start(speaker *s)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t size = sizeof address;
    s->listening = socket(AF_INET, SOCK_STREAM, 0);
    cr_assert(s->listening >= 0 && bind(s->listening, (struct sockaddr *)&address, size) == 0);
    cr_assert_eq(listen(s->listening, 1), 0);
    cr_assert_eq(getsockname(s->listening, (struct sockaddr *)&address, &size), 0);
    snprintf(s->url, sizeof s->url, "http://127.0.0.1:%d", ntohs(address.sin_port));
    cr_assert_eq(pthread_create(&s->thread, NULL, speak, s), 0);
}

static atedm_status ask(speaker *s, double silence_s, size_t *ret_size, atedm_error *err)
{
    start(s);
    atedm_endpoint endpoint = {.url = s->url};
    atedm_fetch *fetch = NULL;
    atedm_fetch_answer answer;
    atedm_fetch_answer_init(&answer);
    cr_assert_eq(atedm_fetch_create(&endpoint, NULL, &fetch, err), ATEDM_OK);
    atedm_status status = atedm_fetch_do(
        fetch, &(atedm_fetch_call){.method = "GET", .path = "/", .silence_s = silence_s}, &answer,
        err);
    *ret_size = answer.body.size;
    atedm_fetch_destroy(fetch);
    atedm_fetch_answer_finish(&answer);
    pthread_join(s->thread, NULL);
    close(s->listening);
    return status;
}

TestSuite(fetch, .timeout = 60);

// As the events of a job that waits.
Test(fetch, a_byte_now_and_then_is_no_silence)
{
    speaker s = {.bytes = 6, .pause_s = 1.5};
    size_t size = 0;
    atedm_error err = {""};
    cr_expect_eq(ask(&s, 5, &size, &err), ATEDM_OK, "%s", err.message);
    cr_expect_eq(size, 6);
}

Test(fetch, silence_ends_an_answer)
{
    speaker s = {.bytes = 2};
    size_t size = 0;
    atedm_error err = {""};
    double start = atedm_clock_monotonic();
    cr_expect_eq(ask(&s, 3, &size, &err), ATEDM_ERR_IO);
    cr_expect_geq(atedm_clock_monotonic() - start, 3.0);
    cr_expect_eq(size, 2);
    cr_expect_not_null(strstr(err.message, "no data arrived for 3 s"), "%s", err.message);
}
