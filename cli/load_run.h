// Runs the load of `atedm bench serve`: requests out when they are due, answers in, one record
// each. What they come to is load_stats.h's.
//
// Open loop: arrivals follow their own clock. A request that is due while ATEDM_LOAD_MAX_OPEN (or
// fewer) are open waits here, and its latency counts from when it was due: else a slow daemon would
// hide how slow it is by holding back those who would have noticed ("coordinated omission").
// Closed loop: each of some clients sends its next request when its last one was answered.
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
#define ATEDM_LOAD_LATE_S 0.01          // sent so much behind its time, a request counts as late
#define ATEDM_LOAD_PAUSE_S 0.1          // a closed loop's rest after a request that got no answer

typedef struct atedm_load_plan {
    atedm_endpoint endpoint;
    const char *url; // that gets the requests
    const atedm_load_mix *mix;
    uint64_t seed;
    double rate;       // requests/s: open loop; 0: closed loop
    int64_t max_open;  // requests open at a time; the clients of a closed loop
    double warm_up_s;  // what is due before is sent, but not counted
    double duration_s; // behind the warm-up; INFINITY: until `requests`
    int64_t requests;  // counted ones; INT64_MAX: until `duration_s`
    size_t limit;      // of all requests, warm-up included: ATEDM_LOAD_MAX_REQUESTS
    double timeout_s;  // of one request
    double grace_s;    // left to what is open when the user interrupts
} atedm_load_plan;

// What became of a request that came to no answer from HTTP.
typedef enum atedm_load_error {
    ATEDM_LOAD_ANSWERED,   // `status` says how
    ATEDM_LOAD_CONNECT,    // no connection
    ATEDM_LOAD_TIMEOUT,    // not within timeout_s
    ATEDM_LOAD_BROKEN,     // the connection ended before the answer did
    ATEDM_LOAD_NOT_HTTP,   // something else than HTTP, or one over a limit
    ATEDM_LOAD_BAD_ANSWER, // 200, but not what the API promises
    ATEDM_LOAD_GIVEN_UP,   // open when the user's patience ended
    ATEDM_LOAD_N_ERRORS,
} atedm_load_error;
extern const char *const atedm_load_error_names[ATEDM_LOAD_N_ERRORS];

// One request. Times are seconds from the start of the run.
typedef struct atedm_load_sample {
    double due_s;
    double sent_s; // NAN: never
    double done_s; // when its answer, or its failure, was there; NAN: never sent
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
    bool full;        // the limit ended it
} atedm_load_record;

void atedm_load_record_finish(atedm_load_record *record); // NULL is allowed

// Fails where nothing could be sent at all (no memory, no descriptors); what requests come to is in
// the record. Draws a progress bar on standard error if that is a terminal. SIGINT and SIGTERM end
// the sending, a second one the waiting; both and SIGPIPE stay blocked afterwards.
ATEDM_MUST_CHECK atedm_status atedm_load_run(const atedm_load_plan *plan,
                                             atedm_load_record *ret_record, atedm_error *err);

#endif
