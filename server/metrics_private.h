// Shared by the files of metrics: metric_families.c (the table of metrics), metrics.c (their
// values), metrics_text.c (Prometheus' text).
#ifndef ATEDM_METRICS_PRIVATE_H
#define ATEDM_METRICS_PRIVATE_H

#include "server/metrics.h"

typedef enum atedm_family_type {
    ATEDM_COUNTER,
    ATEDM_REAL_COUNTER, // a counter with fractions, whose total comes from elsewhere
    ATEDM_GAUGE,
    ATEDM_HISTOGRAM,
} atedm_family_type;

typedef struct atedm_metric_family {
    const char *name, *help;
    atedm_family_type type;
    const char *labels[ATEDM_METRIC_MAX_LABELS];
    double bounds[ATEDM_METRIC_MAX_BUCKETS]; // ascending; 0 ends the list
} atedm_metric_family;

extern const atedm_metric_family atedm_metric_families[ATEDM_METRIC_COUNT];

// The number of the family's labels.
size_t atedm_metric_n_labels(const atedm_metric_family *family);
// The number of a histogram's bounds.
size_t atedm_metric_n_bounds(const atedm_metric_family *family);

#endif
