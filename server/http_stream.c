// Answers that are streams. libmicrohttpd asks for their text as the client reads it, and the
// connection sleeps while there is none. Text that a client does not read is never produced, so
// nothing accumulates.
#include "server/http_private.h"

#include <string.h>

static ssize_t read_stream(void *user, uint64_t at, char *data, size_t max)
{
    (void)at;
    atedm_exchange *x = user;
    if (x->gone_away)
        return MHD_CONTENT_READER_END_WITH_ERROR;
    size_t size = 0;
    bool more = x->stream.read(x->stream.user, data, max, &size);
    if (size)
        return (ssize_t)size;
    if (!more)
        return MHD_CONTENT_READER_END_OF_STREAM;
    atedm_exchange_suspend(x);
    return 0;
}

struct MHD_Response *atedm_stream_make_response(atedm_exchange *x)
{
    struct MHD_Response *response = MHD_create_response_from_callback(
        MHD_SIZE_UNKNOWN, ATEDM_STREAM_READ_MAX, read_stream, x, NULL);
    // In chunked encoding libmicrohttpd sends the last chunk even in the answer to HEAD, and the
    // client would take that for the beginning of the next answer. So this answer is not chunked
    // and is the last on its connection.
    if (response && strcmp(x->method, MHD_HTTP_METHOD_HEAD) == 0 &&
        MHD_set_response_options(response, MHD_RF_HTTP_1_0_COMPATIBLE_STRICT, MHD_RO_END) !=
            MHD_YES) {
        MHD_destroy_response(response);
        return NULL;
    }
    return response;
}

void atedm_exchange_stream(atedm_exchange *x, atedm_response take_response, atedm_stream stream)
{
    x->stream = stream;
    x->streams = true;
    atedm_exchange_respond(x, take_response);
}

// Puts the exchange on the waking list. Thousands of streams may follow one job, so each round of
// the loop resumes only some, in the order of the list.
void atedm_exchange_wake(atedm_exchange *x)
{
    atedm_http *http = x->http;
    if (!x->answered || !x->suspended || x->waking)
        return;
    x->waking = true;
    TAILQ_INSERT_TAIL(&http->waking, x, wake_place);
    atedm_http_wake_soon(http);
}

void atedm_exchange_unwake(atedm_exchange *x)
{
    if (!x->waking)
        return;
    x->waking = false;
    TAILQ_REMOVE(&x->http->waking, x, wake_place);
}
