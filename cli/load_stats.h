// The statistics of a run of `atedm bench serve`.
//
// Percentiles are exact: they use all samples, by nearest rank (the smallest value that at least p
// % of the samples do not exceed). Latencies are those of successful requests, because a refusal is
// fast.
#ifndef ATEDM_CLI_LOAD_STATS_H
#define ATEDM_CLI_LOAD_STATS_H

#include "cli/load_mix.h"
#include "cli/load_run.h"
#include "core/base/status.h"

#include <stddef.h>

#define ATEDM_LOAD_TENTHS 10
#define ATEDM_LOAD_MAX_STATUS 1000 // HTTP statuses are below
#define ATEDM_LOAD_MAX_PRESETS 16  // names of prunings told apart; further ones are "other"

// `sorted` ascending, n > 0, percent 1..100.
double atedm_load_percentile(const double *sorted, size_t n, int percent);

typedef struct atedm_load_spread {
    double p50, p95, p99, max, mean; // NAN if there are no samples
} atedm_load_spread;

// A tenth of the time in which requests became due, without the warm-up.
typedef struct atedm_load_tenth {
    double from_s, to_s;     // from the start of the run
    size_t due, ok, failed;  // requests that became due in it
    size_t open;             // requests that are due and not answered at its end
    atedm_load_spread total; // of its requests
    double mean_queue_s;     // NAN if there are none
} atedm_load_tenth;

typedef struct atedm_load_stats {
    size_t sent, ok, failed;                 // counted requests; sent = ok + failed
    size_t unsent;                           // due, but not sent before the user ended the run
    size_t warm_up;                          // sent, not counted
    size_t by_status[ATEDM_LOAD_MAX_STATUS]; // answers
    size_t by_error[ATEDM_LOAD_N_ERRORS];    // requests without a proper answer
    size_t by_entry[ATEDM_LOAD_MAX_MIX];     // sent
    size_t late;                             // sent ATEDM_LOAD_LATE_S or more after their time
    double sent_per_s;                       // arrivals that the daemon saw; NAN: no time at all
    double seconds;                          // from the end of the warm-up to the last answer
    double requests_per_s, images_per_s;     // successful, of all that was answered in `seconds`
    atedm_load_spread total;                 // from when a request was due to its answer
    atedm_load_spread lateness;              // from when it was due until it was sent
    atedm_load_spread queue;                 // in the daemon's queue, as the daemon reports
    atedm_load_spread service;               // from sending to the answer, without the queue
    double images;
    size_t detailed; // answers with their cost, to which the rest refers
    double mean_batch;
    int64_t max_batch;
    double executed, baseline, overhead; // FLOPs
    struct {
        char name[ATEDM_LOAD_PRESET_MAX];
        size_t count;
    } presets[ATEDM_LOAD_MAX_PRESETS];
    size_t n_presets;
    atedm_load_tenth tenths[ATEDM_LOAD_TENTHS];
} atedm_load_stats;

// Fails only if memory is exhausted.
ATEDM_MUST_CHECK atedm_status atedm_load_stats_make(const atedm_load_plan *plan,
                                                    const atedm_load_record *record,
                                                    atedm_load_stats *ret_stats);

#endif
