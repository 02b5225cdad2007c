// The HTTP side of `atedm bench serve`: see load_client.h.
#include "cli/load_client.h"

#include <curl/curl.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/resource.h>

#define WAIT_MS 1000         // the longest wait; libcurl's own timers are checked after it
#define SPARE_DESCRIPTORS 64 // besides the connections

typedef struct client {
    CURL *easy; // made at first use
    char *body;
    atedm_load_sieve sieve;
    size_t sample;
    atedm_status status; // of the sieve
} client;

struct atedm_load_clients {
    const atedm_load_plan *plan;
    CURLM *multi;
    struct curl_slist *headers;
    client *all;
    size_t n;
    client **idle; // a stack
    size_t n_idle;
};

static size_t on_data(char *data, size_t size, size_t count, void *user)
{
    client *c = user;
    if (!c->status)
        c->status = atedm_load_sieve_write(&c->sieve, data, size * count);
    return size * count; // read to the end in any case, so that the connection can be used again
}

static CURL *make_easy(const atedm_load_clients *clients, client *c)
{
    CURL *easy = curl_easy_init();
    if (!easy)
        return NULL;
    CURLcode code = curl_easy_setopt(easy, CURLOPT_URL, clients->plan->url);
    code = code ? code : atedm_endpoint_apply(&clients->plan->endpoint, easy);
    code = code ? code : curl_easy_setopt(easy, CURLOPT_HTTPHEADER, clients->headers);
    code = code ? code : curl_easy_setopt(easy, CURLOPT_POST, 1L);
    code = code ? code : curl_easy_setopt(easy, CURLOPT_WRITEFUNCTION, on_data);
    code = code ? code : curl_easy_setopt(easy, CURLOPT_WRITEDATA, c);
    code = code ? code : curl_easy_setopt(easy, CURLOPT_PRIVATE, c);
    // Whole milliseconds, rounded up, because 0 would mean no timeout.
    long timeout_ms = (long)ceil(clients->plan->timeout_s * 1e3);
    code = code ? code : curl_easy_setopt(easy, CURLOPT_TIMEOUT_MS, timeout_ms);
    if (code) {
        curl_easy_cleanup(easy);
        return NULL;
    }
    return easy;
}

// Raises the limit of descriptors to one for each client, as far as the system allows.
static atedm_status raise_descriptors(size_t n, atedm_error *err)
{
    struct rlimit limit;
    if (getrlimit(RLIMIT_NOFILE, &limit) || limit.rlim_cur >= n + SPARE_DESCRIPTORS)
        return ATEDM_OK;
    limit.rlim_cur = n + SPARE_DESCRIPTORS;
    if (limit.rlim_cur > limit.rlim_max || setrlimit(RLIMIT_NOFILE, &limit))
        return atedm_error_set(err, ATEDM_ERR_LIMIT,
                               "%zu connections are more than this system's limit of %llu open "
                               "files leaves room for",
                               n, (unsigned long long)limit.rlim_max);
    return ATEDM_OK;
}

atedm_status atedm_load_clients_create(const atedm_load_plan *plan,
                                       atedm_load_clients **ret_clients, atedm_error *err)
{
    size_t n = (size_t)plan->max_open;
    atedm_status status = raise_descriptors(n, err);
    if (status)
        return status;
    if (curl_global_init(CURL_GLOBAL_DEFAULT))
        return atedm_error_set(err, ATEDM_ERR_IO, "libcurl does not start");
    atedm_load_clients *clients = calloc(1, sizeof *clients);
    if (clients) {
        clients->plan = plan;
        clients->multi = curl_multi_init();
        clients->all = calloc(n, sizeof *clients->all);
        clients->idle = calloc(n, sizeof(client *));
    }
    if (!clients || !clients->multi || !clients->all || !clients->idle ||
        !atedm_endpoint_add_headers(&plan->endpoint, &clients->headers) ||
        curl_multi_setopt(clients->multi, CURLMOPT_MAXCONNECTS, (long)n)) {
        if (clients)
            atedm_load_clients_destroy(clients);
        else
            curl_global_cleanup();
        return atedm_error_set(err, ATEDM_ERR_NOMEM, "no memory for %zu clients", n);
    }
    clients->n = clients->n_idle = n;
    for (size_t i = 0; i < n; i++) {
        atedm_load_sieve_init(&clients->all[i].sieve);
        clients->idle[i] = &clients->all[n - 1 - i]; // client 0 is on top of the stack
    }
    *ret_clients = clients;
    return ATEDM_OK;
}

void atedm_load_clients_destroy(atedm_load_clients *clients)
{
    if (!clients)
        return;
    for (size_t i = 0; i < clients->n; i++) {
        client *c = &clients->all[i];
        if (c->easy) {
            curl_multi_remove_handle(clients->multi, c->easy); // no effect on an idle one
            curl_easy_cleanup(c->easy);
        }
        free(c->body);
        atedm_load_sieve_finish(&c->sieve);
    }
    if (clients->multi)
        curl_multi_cleanup(clients->multi);
    curl_slist_free_all(clients->headers);
    free(clients->idle);
    free(clients->all);
    free(clients);
    curl_global_cleanup();
}

bool atedm_load_clients_idle(const atedm_load_clients *clients)
{
    return clients->n_idle > 0;
}

size_t atedm_load_clients_open(const atedm_load_clients *clients)
{
    return clients->n - clients->n_idle;
}

atedm_status atedm_load_clients_send(atedm_load_clients *clients, size_t sample, char *take_body,
                                     atedm_error *err)
{
    client *c = clients->idle[clients->n_idle - 1];
    if (take_body && !c->easy)
        c->easy = make_easy(clients, c);
    if (!take_body || !c->easy ||
        curl_easy_setopt(c->easy, CURLOPT_POSTFIELDSIZE, (long)strlen(take_body)) ||
        curl_easy_setopt(c->easy, CURLOPT_POSTFIELDS, take_body) ||
        curl_multi_add_handle(clients->multi, c->easy)) {
        free(take_body);
        return atedm_error_set(err, ATEDM_ERR_NOMEM, "no memory for a request");
    }
    c->body = take_body;
    c->sample = sample;
    c->status = ATEDM_OK;
    atedm_load_sieve_reset(&c->sieve);
    clients->n_idle--;
    return ATEDM_OK;
}

atedm_status atedm_load_clients_work(atedm_load_clients *clients, atedm_error *err)
{
    int running;
    CURLMcode code = curl_multi_perform(clients->multi, &running);
    if (code)
        return atedm_error_set(err, ATEDM_ERR_IO, "%s", curl_multi_strerror(code));
    return ATEDM_OK;
}

static atedm_load_error error_of(CURLcode code)
{
    switch (code) {
    case CURLE_OK:
        return ATEDM_LOAD_ANSWERED;
    case CURLE_COULDNT_CONNECT:
    case CURLE_COULDNT_RESOLVE_HOST:
    case CURLE_SSL_CONNECT_ERROR:
    case CURLE_PEER_FAILED_VERIFICATION:
    case CURLE_SSL_CACERT_BADFILE:
        return ATEDM_LOAD_CONNECT;
    case CURLE_OPERATION_TIMEDOUT:
        return ATEDM_LOAD_TIMEOUT;
    case CURLE_SEND_ERROR:
    case CURLE_RECV_ERROR:
    case CURLE_GOT_NOTHING:
    case CURLE_PARTIAL_FILE:
        return ATEDM_LOAD_BROKEN;
    default:
        return ATEDM_LOAD_NOT_HTTP;
    }
}

static void read_answer(client *c, CURLcode code, atedm_load_sample *s)
{
    long status = 0;
    const char *type = NULL;
    curl_easy_getinfo(c->easy, CURLINFO_RESPONSE_CODE, &status);
    curl_easy_getinfo(c->easy, CURLINFO_CONTENT_TYPE, &type);
    s->error = error_of(code);
    if (s->error)
        return;
    s->status = (int)status;
    if (status != 200)
        return;
    if (type && strcasecmp(type, "image/png") == 0) {
        s->answer = (atedm_load_answer){.images = 1};
        s->ok = true;
    } else if (!c->status &&
               !atedm_load_answer_parse(c->sieve.kept.data, c->sieve.kept.size, &s->answer)) {
        s->ok = s->detailed = true;
    } else {
        s->error = ATEDM_LOAD_BAD_ANSWER;
    }
}

bool atedm_load_clients_next(atedm_load_clients *clients, atedm_load_sample *samples,
                             size_t *ret_sample)
{
    const CURLMsg *message;
    int left;
    do {
        message = curl_multi_info_read(clients->multi, &left);
    } while (message && message->msg != CURLMSG_DONE);
    if (!message)
        return false;
    CURLcode code = message->data.result; // the message does not outlive the removal
    client *c = NULL;
    curl_easy_getinfo(message->easy_handle, CURLINFO_PRIVATE, (char **)&c);
    curl_multi_remove_handle(clients->multi, c->easy);
    read_answer(c, code, &samples[c->sample]);
    free(c->body);
    c->body = NULL;
    clients->idle[clients->n_idle++] = c;
    *ret_sample = c->sample;
    return true;
}

atedm_status atedm_load_clients_wait(atedm_load_clients *clients, int timer, int signals,
                                     atedm_error *err)
{
    struct curl_waitfd extra[] = {{.fd = timer, .events = CURL_WAIT_POLLIN},
                                  {.fd = signals, .events = CURL_WAIT_POLLIN}};
    CURLMcode code = curl_multi_poll(clients->multi, extra, 2, WAIT_MS, NULL);
    if (code)
        return atedm_error_set(err, ATEDM_ERR_IO, "%s", curl_multi_strerror(code));
    return ATEDM_OK;
}
