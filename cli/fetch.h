// HTTP with a daemon by libcurl: one request at a time, over a connection that is kept.
#ifndef ATEDM_CLI_FETCH_H
#define ATEDM_CLI_FETCH_H

#include "cli/endpoint.h"
#include "core/base/memory.h"
#include "core/base/status.h"

#include <signal.h>
#include <stdbool.h>
#include <stddef.h>

#define ATEDM_FETCH_MAX_BODY (512u * 1024 * 1024) // most bytes of an answer's body

typedef struct atedm_fetch atedm_fetch;

// `endpoint` and `interrupted` are borrowed until destroy. A signal handler may set *interrupted,
// which ends the request under way.
ATEDM_MUST_CHECK atedm_status atedm_fetch_create(const atedm_endpoint *endpoint,
                                                 const volatile sig_atomic_t *interrupted,
                                                 atedm_fetch **ret_fetch, atedm_error *err);
void atedm_fetch_destroy(atedm_fetch *fetch); // NULL is allowed

typedef struct atedm_fetch_call {
    const char *method, *path;
    const char *body;           // JSON; NULL: none
    const char *const *headers; // additional headers, ending with NULL; NULL: none
    double timeout_s;           // for the whole request; 0: no limit
    double silence_s;           // longest time without a byte; 0: no limit
    // Gets the body of a 200 in pieces as it arrives; the answer's body then stays empty. NULL: the
    // answer gets the body.
    void (*data)(void *user, const char *data, size_t size);
    void *user;
} atedm_fetch_call;

typedef struct atedm_fetch_answer {
    int status;           // HTTP status
    double retry_after_s; // from Retry-After; 0: not given
    atedm_buffer body;
} atedm_fetch_answer;

void atedm_fetch_answer_init(atedm_fetch_answer *answer);
void atedm_fetch_answer_finish(atedm_fetch_answer *answer); // NULL is allowed

// Makes a request. `answer` must be initialised; its former content is freed. ATEDM_ERR_IO: no
// answer, or only a part of one. ATEDM_ERR_CANCELED: interrupted. ATEDM_ERR_LIMIT: the answer or
// the URL is too long.
ATEDM_MUST_CHECK atedm_status atedm_fetch_do(atedm_fetch *fetch, const atedm_fetch_call *call,
                                             atedm_fetch_answer *answer, atedm_error *err);
// Whether any request has ever been sent. If not, nobody listens at the address.
bool atedm_fetch_has_connected(const atedm_fetch *fetch);
// From now on requests are not interrupted any more.
void atedm_fetch_ignore_interruption(atedm_fetch *fetch);

#endif
