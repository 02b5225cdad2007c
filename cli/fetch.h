// HTTP with a daemon, a request at a time, over one connection that is kept: libcurl.
#ifndef ATEDM_CLI_FETCH_H
#define ATEDM_CLI_FETCH_H

#include "cli/endpoint.h"
#include "core/base/memory.h"
#include "core/base/status.h"

#include <signal.h>
#include <stdbool.h>
#include <stddef.h>

#define ATEDM_FETCH_MAX_BODY (512u * 1024 * 1024) // bytes of an answer that is kept

typedef struct atedm_fetch atedm_fetch;

// `endpoint` is borrowed. `interrupted`, which a signal handler may set, ends what is under way.
ATEDM_MUST_CHECK atedm_status atedm_fetch_create(const atedm_endpoint *endpoint,
                                                 const volatile sig_atomic_t *interrupted,
                                                 atedm_fetch **ret_fetch, atedm_error *err);
void atedm_fetch_destroy(atedm_fetch *fetch); // NULL is allowed

typedef struct atedm_fetch_call {
    const char *method, *path;
    const char *body;           // JSON; NULL: none
    const char *const *headers; // beside those of every request; NULL at the end; NULL: none
    double timeout_s;           // in all; 0: as long as it takes
    double silence_s;           // without a byte; 0: as long as it takes
    // Gets the body of a 200 as it comes, in place of the answer. NULL: it is kept.
    void (*data)(void *user, const char *data, size_t size);
    void *user;
} atedm_fetch_call;

typedef struct atedm_fetch_answer {
    int status;           // HTTP
    double retry_after_s; // 0: the daemon does not say
    atedm_buffer body;
} atedm_fetch_answer;

void atedm_fetch_answer_init(atedm_fetch_answer *answer);
void atedm_fetch_answer_finish(atedm_fetch_answer *answer); // NULL is allowed

// ATEDM_ERR_IO: no (whole) answer. ATEDM_ERR_CANCELED: it was interrupted. The answer is an
// initialised one; what was in it goes.
ATEDM_MUST_CHECK atedm_status atedm_fetch_do(atedm_fetch *fetch, const atedm_fetch_call *call,
                                             atedm_fetch_answer *answer, atedm_error *err);
// Whether anything was ever sent: else there is nobody at that address.
bool atedm_fetch_has_connected(const atedm_fetch *fetch);
// What was interrupted has been seen to: requests go on as before.
void atedm_fetch_ignore_interruption(atedm_fetch *fetch);

#endif
