// Writes what requests cost into the metrics. accounts.c decides which event counts in which
// metric.
#ifndef ATEDM_ACCOUNTS_H
#define ATEDM_ACCOUNTS_H

#include "server/dispatch.h"
#include "server/metrics.h"

// Why the daemon refuses or abandons a generation. The enumerators are the values of the metric's
// label "reason".
typedef enum atedm_rejection {
    ATEDM_REJECTED_FULL, // the queue is full
    ATEDM_REJECTED_DRAINING,
    ATEDM_REJECTED_DEADLINE,
    ATEDM_REJECTED_CLIENT_GONE,
    ATEDM_REJECTED_CANCELED,
    ATEDM_REJECTED_STORAGE,
    ATEDM_REJECTED_RATE,
    ATEDM_REJECTED_QUOTA,
    ATEDM_N_REJECTIONS,
} atedm_rejection;

// Creates the series of every reason with the value 0, so that a first rejection is visible as an
// increase.
void atedm_account_start_rejections(atedm_metrics *metrics);
// Counts a rejection.
void atedm_account_rejected(atedm_metrics *metrics, atedm_rejection why);

// Records the seconds that a request waited in the queue.
void atedm_account_start(atedm_metrics *metrics, double queue_s);
// Counts one UNet evaluation on the device: `images` images, `seconds` long.
void atedm_account_evaluation(atedm_metrics *metrics, const char *device, size_t images,
                              double seconds);
// Records a finished request: the duration of its stages, its images, FLOPs and tokens.
void atedm_account_done(atedm_metrics *metrics, const atedm_job *job,
                        const atedm_worker_result *result);

// Computes the request's cost for the answer: the job's analytic baseline, and the FLOPs that the
// operations of the result's stages counted.
atedm_request_cost atedm_account_cost(const atedm_job *job, const atedm_worker_result *result);

#endif
