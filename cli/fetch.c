// HTTP requests to a daemon: see fetch.h.
#include "cli/fetch.h"

#include "core/base/clock.h"

#include <stdlib.h>
#include <string.h>

struct atedm_fetch {
    const atedm_endpoint *endpoint;
    const volatile sig_atomic_t *interrupted; // NULL: ignored
    CURL *easy;
    bool has_connected;
};

// What the callbacks need while an answer arrives.
typedef struct sink {
    const atedm_fetch *fetch;
    const atedm_fetch_call *call;
    atedm_buffer *body;
    double heard; // time of the last byte, or of the request, s (atedm_clock_monotonic)
    bool silent;  // no byte has come for longer than the call allows
    atedm_status status;
} sink;

atedm_status atedm_fetch_create(const atedm_endpoint *endpoint,
                                const volatile sig_atomic_t *interrupted, atedm_fetch **ret_fetch,
                                atedm_error *err)
{
    if (curl_global_init(CURL_GLOBAL_DEFAULT))
        return atedm_error_set(err, ATEDM_ERR_IO, "libcurl does not start");
    atedm_fetch *fetch = calloc(1, sizeof *fetch);
    CURL *easy = curl_easy_init();
    if (!fetch || !easy) {
        free(fetch);
        curl_easy_cleanup(easy);
        curl_global_cleanup();
        return atedm_error_set(err, ATEDM_ERR_NOMEM, "no memory for a client");
    }
    *fetch = (atedm_fetch){.endpoint = endpoint, .interrupted = interrupted, .easy = easy};
    *ret_fetch = fetch;
    return ATEDM_OK;
}

void atedm_fetch_destroy(atedm_fetch *fetch)
{
    if (!fetch)
        return;
    curl_easy_cleanup(fetch->easy);
    free(fetch);
    curl_global_cleanup();
}

void atedm_fetch_answer_init(atedm_fetch_answer *answer)
{
    *answer = (atedm_fetch_answer){.status = 0};
    atedm_buffer_init(&answer->body, ATEDM_FETCH_MAX_BODY);
}

void atedm_fetch_answer_finish(atedm_fetch_answer *answer)
{
    if (answer)
        atedm_buffer_finish(&answer->body);
}

bool atedm_fetch_has_connected(const atedm_fetch *fetch)
{
    return fetch->has_connected;
}

void atedm_fetch_ignore_interruption(atedm_fetch *fetch)
{
    fetch->interrupted = NULL;
}

static size_t on_data(char *data, size_t size, size_t count, void *user)
{
    sink *s = user;
    long status = 0;
    curl_easy_getinfo(s->fetch->easy, CURLINFO_RESPONSE_CODE, &status);
    s->heard = atedm_clock_monotonic();
    if (s->call->data && status == 200)
        s->call->data(s->call->user, data, size * count);
    else
        s->status = atedm_buffer_append(s->body, data, size * count);
    return s->status ? 0 : size * count;
}

// libcurl calls this about once a second or more often. This measures silence itself, because
// libcurl can only set a minimum speed, and a comment of 3 bytes every 15 s is below any.
static int on_progress(void *user, curl_off_t to_get, curl_off_t got, curl_off_t to_send,
                       curl_off_t sent)
{
    sink *s = user;
    double limit = s->call->silence_s;
    s->silent = limit > 0 && atedm_clock_monotonic() - s->heard > limit;
    return s->silent || (s->fetch->interrupted && *s->fetch->interrupted);
}

static CURLcode prepare(atedm_fetch *fetch, const atedm_fetch_call *call, const char *url,
                        const struct curl_slist *headers, sink *s)
{
    CURL *easy = fetch->easy;
    curl_easy_reset(easy); // keeps its connections
    CURLcode code = atedm_endpoint_apply(fetch->endpoint, easy);
    code = code ? code : curl_easy_setopt(easy, CURLOPT_URL, url);
    code = code ? code : curl_easy_setopt(easy, CURLOPT_HTTPHEADER, headers);
    if (call->body)
        code = code ? code : curl_easy_setopt(easy, CURLOPT_POSTFIELDS, call->body);
    code = code ? code : curl_easy_setopt(easy, CURLOPT_CUSTOMREQUEST, call->method);
    code = code ? code : curl_easy_setopt(easy, CURLOPT_WRITEFUNCTION, on_data);
    code = code ? code : curl_easy_setopt(easy, CURLOPT_WRITEDATA, s);
    code = code ? code : curl_easy_setopt(easy, CURLOPT_NOPROGRESS, 0L);
    code = code ? code : curl_easy_setopt(easy, CURLOPT_XFERINFOFUNCTION, on_progress);
    code = code ? code : curl_easy_setopt(easy, CURLOPT_XFERINFODATA, s);
    code = code ? code : curl_easy_setopt(easy, CURLOPT_TIMEOUT_MS, (long)(call->timeout_s * 1e3));
    return code ? code
                : curl_easy_setopt(easy, CURLOPT_MAXFILESIZE_LARGE,
                                   (curl_off_t)ATEDM_FETCH_MAX_BODY); // by its Content-Length
}

static atedm_status perform(atedm_fetch *fetch, const sink *s, atedm_fetch_answer *answer,
                            atedm_error *err)
{
    CURL *easy = fetch->easy;
    CURLcode code = curl_easy_perform(easy);
    long status = 0, sent = 0;
    curl_off_t retry_after = 0;
    curl_easy_getinfo(easy, CURLINFO_RESPONSE_CODE, &status);
    curl_easy_getinfo(easy, CURLINFO_RETRY_AFTER, &retry_after);
    curl_easy_getinfo(easy, CURLINFO_REQUEST_SIZE, &sent);
    fetch->has_connected |= sent > 0;
    answer->status = (int)status;
    answer->retry_after_s = (double)retry_after;
    if (code == CURLE_ABORTED_BY_CALLBACK && s->silent)
        return atedm_error_set(err, ATEDM_ERR_IO, "%s: no data arrived for %g s",
                               fetch->endpoint->url, s->call->silence_s);
    if (code == CURLE_ABORTED_BY_CALLBACK)
        return atedm_error_set(err, ATEDM_ERR_CANCELED, "interrupted");
    if (s->status == ATEDM_ERR_LIMIT || code == CURLE_FILESIZE_EXCEEDED)
        return atedm_error_set(err, ATEDM_ERR_LIMIT, "the answer has more than %u bytes",
                               ATEDM_FETCH_MAX_BODY);
    if (s->status)
        return atedm_error_set(err, s->status, "no memory for an answer");
    return code ? atedm_error_set(err, ATEDM_ERR_IO, "%s: %s", fetch->endpoint->url,
                                  curl_easy_strerror(code))
                : ATEDM_OK;
}

atedm_status atedm_fetch_do(atedm_fetch *fetch, const atedm_fetch_call *call,
                            atedm_fetch_answer *answer, atedm_error *err)
{
    char url[ATEDM_ENDPOINT_MAX_URL];
    if (!atedm_endpoint_address(fetch->endpoint, call->path, sizeof url, url))
        return atedm_error_set(err, ATEDM_ERR_LIMIT, "%s: the address is too long", call->path);
    atedm_fetch_answer_finish(answer);
    atedm_fetch_answer_init(answer);
    struct curl_slist *headers = NULL;
    bool good = atedm_endpoint_add_headers(fetch->endpoint, &headers);
    for (const char *const *h = call->headers; h && *h && good; h++)
        good = atedm_endpoint_add_header(&headers, *h);
    sink s = {
        .fetch = fetch, .call = call, .body = &answer->body, .heard = atedm_clock_monotonic()};
    atedm_status status = good && !prepare(fetch, call, url, headers, &s)
                              ? perform(fetch, &s, answer, err)
                              : atedm_error_set(err, ATEDM_ERR_NOMEM, "no memory for a request");
    curl_slist_free_all(headers);
    return status;
}
