// Runs the load of `atedm bench serve`: sends requests when they are due, reads answers, and keeps
// one record for each. load_stats.h evaluates the records.
//
// Open loop: arrivals follow their own clock. If a request becomes due while `max_open` requests
// are open (ATEDM_LOAD_MAX_OPEN at most), it waits here, and its latency counts from the time when
// it was due. Otherwise a slow daemon would hide its slowness by delaying the very requests that
// would have measured it ("coordinated omission").
//
// Closed loop: each of several clients sends its next request when its last one has been answered.
#ifndef ATEDM_CLI_LOAD_RUN_H
#define ATEDM_CLI_LOAD_RUN_H

#include "cli/endpoint.h"
#include "cli/load_answer.h"
#include "cli/load_mix.h"
#include "core/base/status.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define ATEDM_LOAD_MAX_OPEN 4096        // requests open at a time
#define ATEDM_LOAD_MAX_REQUESTS 1000000 // of a run
#define ATEDM_LOAD_LATE_S 0.01          // a request sent this much after its time counts as late
#define ATEDM_LOAD_PAUSE_S 0.1          // a closed loop's pause after a request without an answer

typedef struct atedm_load_plan {
    atedm_endpoint endpoint;
    const char *url; // to which requests are sent
    const atedm_load_mix *mix;
    uint64_t seed;
    double rate;       // requests/s: open loop; 0: closed loop
    int64_t max_open;  // requests open at a time; the clients of a closed loop
    double warm_up_s;  // requests due before it ends are sent, but not counted
    double duration_s; // after the warm-up; INFINITY: until `requests`
    int64_t requests;  // counted ones; INT64_MAX: until `duration_s`
    size_t limit;      // of all requests, warm-up included: ATEDM_LOAD_MAX_REQUESTS
    double timeout_s;  // of one request
    double grace_s;    // left for open requests when the user interrupts
} atedm_load_plan;

// How a request failed to get a proper answer over HTTP.
typedef enum atedm_load_error {
    ATEDM_LOAD_ANSWERED,   // `status` says how
    ATEDM_LOAD_CONNECT,    // no connection
    ATEDM_LOAD_TIMEOUT,    // not within timeout_s
    ATEDM_LOAD_BROKEN,     // the connection ended before the answer did
    ATEDM_LOAD_NOT_HTTP,   // not HTTP, or an answer over a limit
    ATEDM_LOAD_BAD_ANSWER, // 200, but not what the API promises
    ATEDM_LOAD_GIVEN_UP,   // still open when the user ended the wait
    ATEDM_LOAD_N_ERRORS,
} atedm_load_error;
extern const char *const atedm_load_error_names[ATEDM_LOAD_N_ERRORS];

// One request. Times are seconds from the start of the run.
typedef struct atedm_load_sample {
    double due_s;
    double sent_s; // NAN: never
    double done_s; // when its answer or failure was known; NAN: never sent
    size_t entry;  // of the mix
    int status;    // HTTP; 0: none
    atedm_load_error error;
    bool warm_up;
    bool ok;                  // status 200 and an answer as promised, or a PNG
    bool detailed;            // `answer` is complete; a PNG only has its images
    atedm_load_answer answer; // where ok
} atedm_load_sample;

typedef struct atedm_load_record {
    atedm_load_sample *samples; // in the order in which they were due
    size_t n;
    double end_s;     // when sending ended
    bool interrupted; // by the user
    bool full;        // the limit ended the run
} atedm_load_record;

void atedm_load_record_finish(atedm_load_record *record); // NULL is allowed

// Fails if nothing could be sent at all (no memory, no descriptors). The record has the results of
// requests. Draws a progress bar on standard error if that is a terminal. A first SIGINT or SIGTERM
// ends the sending, a second one the waiting. Both and SIGPIPE stay blocked afterwards.
ATEDM_MUST_CHECK atedm_status atedm_load_run(const atedm_load_plan *plan,
                                             atedm_load_record *ret_record, atedm_error *err);

#endif
