// What the files of metrics share: metric_families.c (which metrics there are), metrics.c (their
// values), metrics_text.c (as Prometheus reads them).
#ifndef ATEDM_METRICS_PRIVATE_H
#define ATEDM_METRICS_PRIVATE_H

#include "server/metrics.h"

typedef enum atedm_family_type {
    ATEDM_COUNTER,
    ATEDM_REAL_COUNTER, // of what is counted elsewhere, and in fractions
    ATEDM_GAUGE,
    ATEDM_HISTOGRAM,
} atedm_family_type;

typedef struct atedm_metric_family {
    const char *name, *help;
    atedm_family_type type;
    const char *labels[ATEDM_METRIC_MAX_LABELS];
    double bounds[ATEDM_METRIC_MAX_BUCKETS]; // ascending; 0 ends them
} atedm_metric_family;

extern const atedm_metric_family atedm_metric_families[ATEDM_METRIC_COUNT];

size_t atedm_metric_n_labels(const atedm_metric_family *family);
size_t atedm_metric_n_bounds(const atedm_metric_family *family);

#endif
