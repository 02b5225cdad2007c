// What requests cost, written into the metrics: which event counts where.
#ifndef ATEDM_ACCOUNTS_H
#define ATEDM_ACCOUNTS_H

#include "server/dispatch.h"
#include "server/metrics.h"

// Why a generation is refused, or given up.
typedef enum atedm_rejection {
    ATEDM_REJECTED_FULL, // the queue
    ATEDM_REJECTED_DRAINING,
    ATEDM_REJECTED_DEADLINE,
    ATEDM_REJECTED_CLIENT_GONE,
    ATEDM_REJECTED_CANCELED,
    ATEDM_REJECTED_STORAGE,
    ATEDM_REJECTED_RATE,
    ATEDM_REJECTED_QUOTA,
    ATEDM_N_REJECTIONS,
} atedm_rejection;

// All reasons are there from the start, at 0.
void atedm_account_start_rejections(atedm_metrics *metrics);
void atedm_account_rejected(atedm_metrics *metrics, atedm_rejection why);

void atedm_account_start(atedm_metrics *metrics, double queue_s);
// One UNet evaluation.
void atedm_account_evaluation(atedm_metrics *metrics, const char *device, size_t images,
                              double seconds);
void atedm_account_done(atedm_metrics *metrics, const atedm_job *job,
                        const atedm_worker_result *result);

// FLOPs that a result's stages executed, and the cost that goes with them: the analytic baseline
// beside what the operations counted.
atedm_request_cost atedm_account_cost(const atedm_job *job, const atedm_worker_result *result);

#endif
