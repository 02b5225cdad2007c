// The registry of the daemon's metrics: counters, gauges and histograms by family and labels, and
// their rendering in Prometheus' text format (version 0.0.4). One thread uses it.
#ifndef ATEDM_METRICS_H
#define ATEDM_METRICS_H

#include "core/base/memory.h"
#include "core/base/status.h"

#include <stddef.h>
#include <stdint.h>

typedef enum atedm_metric {
    ATEDM_METRIC_REQUESTS,         // counter; route, code
    ATEDM_METRIC_REQUEST_DURATION, // histogram; route
    ATEDM_METRIC_STAGE_DURATION,   // histogram; stage
    ATEDM_METRIC_STEP_DURATION,    // histogram; device
    ATEDM_METRIC_IMAGES,           // counter; sampler, pruning
    ATEDM_METRIC_FLOPS,            // counter; kind, stage
    ATEDM_METRIC_FLOPS_SAVED,      // histogram
    ATEDM_METRIC_TOKENS,           // counter; kind, level
    ATEDM_METRIC_BATCH_SIZE,       // histogram; device
    ATEDM_METRIC_QUEUE_DEPTH,      // gauge
    ATEDM_METRIC_QUEUE_FLOPS,      // gauge
    ATEDM_METRIC_QUEUE_OLDEST,     // gauge
    ATEDM_METRIC_ACTIVE_REQUESTS,  // gauge
    ATEDM_METRIC_QUEUE_REJECTED,   // counter; reason
    ATEDM_METRIC_JOBS,             // counter; state
    ATEDM_METRIC_STORE_ERRORS,     // counter; operation
    ATEDM_METRIC_WORKER_UP,        // gauge; device
    ATEDM_METRIC_WORKER_RESTARTS,  // counter; device
    ATEDM_METRIC_DEVICE_MEMORY,    // gauge; device
    ATEDM_METRIC_DEVICE_MEMORY_FREE,
    ATEDM_METRIC_DEVICE_MEMORY_TOTAL,
    ATEDM_METRIC_DEVICE_MEMORY_USED,
    ATEDM_METRIC_DEVICE_UTILIZATION,
    ATEDM_METRIC_DEVICE_POWER,
    ATEDM_METRIC_DEVICE_TEMPERATURE,
    ATEDM_METRIC_DEVICE_SM_CLOCK,
    ATEDM_METRIC_DEVICE_MEMORY_CLOCK,
    ATEDM_METRIC_MODEL_INFO,          // gauge; model, dtype, backend
    ATEDM_METRIC_BUILD_INFO,          // gauge; version
    ATEDM_METRIC_PROCESS_CPU_SECONDS, // real counter
    ATEDM_METRIC_PROCESS_OPEN_FDS,
    ATEDM_METRIC_PROCESS_MAX_FDS,
    ATEDM_METRIC_PROCESS_VIRTUAL_MEMORY,
    ATEDM_METRIC_PROCESS_RESIDENT_MEMORY,
    ATEDM_METRIC_PROCESS_START_TIME,
    ATEDM_METRIC_COUNT,
} atedm_metric;

#define ATEDM_METRIC_MAX_LABELS 3
#define ATEDM_METRIC_MAX_BUCKETS 17
#define ATEDM_METRIC_MAX_SERIES 256        // of one family; further ones are not counted
#define ATEDM_METRICS_TEXT_MAX (16u << 20) // bytes of the rendered text

typedef struct atedm_metrics atedm_metrics;

// One combination of label values of a family.
typedef struct atedm_series {
    char *labels[ATEDM_METRIC_MAX_LABELS];
    uint64_t count;                                 // counters; histograms: observations
    double value;                                   // gauges, real counters; histograms: sum
    uint64_t buckets[ATEDM_METRIC_MAX_BUCKETS + 1]; // not cumulative; the last: above all bounds
} atedm_series;

ATEDM_MUST_CHECK atedm_status atedm_metrics_create(atedm_metrics **ret_metrics);
void atedm_metrics_destroy(atedm_metrics *metrics); // NULL allowed

// Label values, in the order of the family's labels: ATEDM_LABELS("/generate", "200"). If their
// number is wrong, nothing is counted, and tests/deploy/monitoring.py then misses the value.
#define ATEDM_LABELS(...) ((const char *const[]){__VA_ARGS__, NULL})
#define ATEDM_NO_LABELS ((const char *const[]){NULL})

// If there is no memory, the observation is lost; the caller never fails.
void atedm_metrics_count(atedm_metrics *metrics, atedm_metric metric, uint64_t by,
                         const char *const *labels);
// Sets a gauge, or a real counter to its present total.
void atedm_metrics_set(atedm_metrics *metrics, atedm_metric metric, double value,
                       const char *const *labels);
// Removes the series until it is set again.
void atedm_metrics_remove(atedm_metrics *metrics, atedm_metric metric, const char *const *labels);
// Adds an observation to a histogram.
void atedm_metrics_observe(atedm_metrics *metrics, atedm_metric metric, double value,
                           const char *const *labels);

// Series `i` of a family; NULL: there are not that many.
const atedm_series *atedm_metrics_series(const atedm_metrics *metrics, atedm_metric metric,
                                         size_t i);
// The value below which the share `q` of a histogram's observations lies. Estimated like
// Prometheus' histogram_quantile: linear within a bucket. NAN: there are no observations.
double atedm_metrics_quantile(atedm_metric metric, const atedm_series *series, double q);

ATEDM_MUST_CHECK atedm_status atedm_metrics_render(const atedm_metrics *metrics,
                                                   atedm_buffer *ret_text);

#endif
