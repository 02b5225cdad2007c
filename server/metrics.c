// Keeps the values of metrics: see metrics.h.
#include "server/metrics_private.h"

#include <math.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

struct atedm_metrics {
    struct {
        atedm_series *items;
        size_t count, capacity;
    } series[ATEDM_METRIC_COUNT];
};

atedm_status atedm_metrics_create(atedm_metrics **ret_metrics)
{
    atedm_metrics *metrics = calloc(1, sizeof *metrics);
    if (!metrics)
        return ATEDM_ERR_NOMEM;
    *ret_metrics = metrics;
    return ATEDM_OK;
}

static void series_finish(atedm_series *series)
{
    for (size_t i = 0; i < ATEDM_METRIC_MAX_LABELS; i++)
        free(series->labels[i]);
}

void atedm_metrics_destroy(atedm_metrics *metrics)
{
    if (!metrics)
        return;
    for (size_t m = 0; m < ATEDM_METRIC_COUNT; m++) {
        for (size_t i = 0; i < metrics->series[m].count; i++)
            series_finish(&metrics->series[m].items[i]);
        free(metrics->series[m].items);
    }
    free(metrics);
}

// Whether there are as many label values as the family has labels.
static bool fit(atedm_metric metric, const char *const *labels)
{
    size_t given = 0;
    while (labels[given])
        given++;
    return given == atedm_metric_n_labels(&atedm_metric_families[metric]);
}

static bool has_labels(const atedm_series *series, const char *const *labels, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        if (strcmp(series->labels[i], labels[i]) != 0)
            return false;
    }
    return true;
}

static atedm_series *add_series(atedm_metrics *metrics, atedm_metric metric,
                                const char *const *labels, size_t n)
{
    if (!metrics->series[metric].items ||
        metrics->series[metric].count == metrics->series[metric].capacity) {
        size_t capacity = metrics->series[metric].capacity * 2 + 4;
        atedm_series *items = realloc(metrics->series[metric].items, capacity * sizeof *items);
        if (!items)
            return NULL;
        metrics->series[metric].items = items;
        metrics->series[metric].capacity = capacity;
    }
    atedm_series series = {.count = 0};
    for (size_t i = 0; i < n; i++) {
        series.labels[i] = strdup(labels[i]);
        if (!series.labels[i]) {
            series_finish(&series);
            return NULL;
        }
    }
    atedm_series *added = &metrics->series[metric].items[metrics->series[metric].count++];
    *added = series;
    return added;
}

// Finds a series; NULL: it does not exist.
static atedm_series *find_existing(atedm_metrics *metrics, atedm_metric metric,
                                   const char *const *labels)
{
    if (!fit(metric, labels))
        return NULL;
    size_t n = atedm_metric_n_labels(&atedm_metric_families[metric]);
    for (size_t i = 0; i < metrics->series[metric].count; i++) {
        if (has_labels(&metrics->series[metric].items[i], labels, n))
            return &metrics->series[metric].items[i];
    }
    return NULL;
}

// Finds or creates a series. NULL: the family has too many series, there is no memory, or the
// number of labels is wrong.
static atedm_series *find(atedm_metrics *metrics, atedm_metric metric, const char *const *labels)
{
    size_t n = atedm_metric_n_labels(&atedm_metric_families[metric]);
    atedm_series *existing = find_existing(metrics, metric, labels);
    if (existing)
        return existing;
    if (metrics->series[metric].count >= ATEDM_METRIC_MAX_SERIES || !fit(metric, labels))
        return NULL;
    return add_series(metrics, metric, labels, n);
}

void atedm_metrics_count(atedm_metrics *metrics, atedm_metric metric, uint64_t by,
                         const char *const *labels)
{
    atedm_series *series = find(metrics, metric, labels);
    if (series)
        series->count += by;
}

void atedm_metrics_set(atedm_metrics *metrics, atedm_metric metric, double value,
                       const char *const *labels)
{
    atedm_series *series = find(metrics, metric, labels);
    if (series)
        series->value = value;
}

void atedm_metrics_remove(atedm_metrics *metrics, atedm_metric metric, const char *const *labels)
{
    atedm_series *series = find_existing(metrics, metric, labels);
    if (!series)
        return;
    series_finish(series);
    *series = metrics->series[metric].items[--metrics->series[metric].count];
}

void atedm_metrics_observe(atedm_metrics *metrics, atedm_metric metric, double value,
                           const char *const *labels)
{
    atedm_series *series = find(metrics, metric, labels);
    if (!series)
        return;
    const atedm_metric_family *f = &atedm_metric_families[metric];
    size_t bucket = 0;
    while (bucket < atedm_metric_n_bounds(f) && value > f->bounds[bucket])
        bucket++;
    series->buckets[bucket]++;
    series->count++;
    series->value += value;
}

const atedm_series *atedm_metrics_series(const atedm_metrics *metrics, atedm_metric metric,
                                         size_t i)
{
    return i < metrics->series[metric].count ? &metrics->series[metric].items[i] : NULL;
}

double atedm_metrics_quantile(atedm_metric metric, const atedm_series *series, double q)
{
    const atedm_metric_family *f = &atedm_metric_families[metric];
    size_t n = atedm_metric_n_bounds(f);
    if (series->count == 0 || n == 0)
        return NAN;
    double rank = q * (double)series->count, below = 0;
    for (size_t i = 0; i < n; i++) {
        double here = (double)series->buckets[i];
        if (here > 0 && below + here >= rank) {
            double low = i > 0 ? f->bounds[i - 1] : 0;
            return low + (f->bounds[i] - low) * (rank - below) / here;
        }
        below += here;
    }
    return f->bounds[n - 1];
}
