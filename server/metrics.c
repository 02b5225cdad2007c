// The registry of metrics: see metrics.h.
#include "server/metrics.h"

#include <inttypes.h>
#include <math.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef enum family_type { COUNTER, GAUGE, HISTOGRAM } family_type;

typedef struct family {
    const char *name, *help;
    family_type type;
    const char *labels[ATEDM_METRIC_MAX_LABELS];
    double bounds[ATEDM_METRIC_MAX_BUCKETS]; // ascending; 0 ends them
} family;

#define SECONDS_OF_REQUESTS                                                                        \
    {                                                                                              \
        0.01, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 20, 40, 60, 120, 300, 600                       \
    }
#define SECONDS_OF_STEPS                                                                           \
    {                                                                                              \
        0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120        \
    }

static const family families[ATEDM_METRIC_COUNT] = {
    [ATEDM_METRIC_REQUESTS] = {"atedm_requests_total",
                               "Requests answered; code 499: the client went away first.",
                               COUNTER,
                               {"route", "code"},
                               {0}},
    [ATEDM_METRIC_REQUEST_DURATION] = {"atedm_request_duration_seconds",
                                       "From the first line of a request to its answer.",
                                       HISTOGRAM,
                                       {"route"},
                                       SECONDS_OF_REQUESTS},
    [ATEDM_METRIC_STAGE_DURATION] = {"atedm_stage_duration_seconds",
                                     "Stages of finished requests; queue: of started ones.",
                                     HISTOGRAM,
                                     {"stage"},
                                     SECONDS_OF_REQUESTS},
    [ATEDM_METRIC_STEP_DURATION] = {"atedm_step_duration_seconds",
                                    "Denoising steps.",
                                    HISTOGRAM,
                                    {"device"},
                                    SECONDS_OF_STEPS},
    [ATEDM_METRIC_IMAGES] = {"atedm_images_total",
                             "Images made, by sampler and pruning preset.",
                             COUNTER,
                             {"sampler", "pruning"},
                             {0}},
    [ATEDM_METRIC_FLOPS] = {"atedm_flops_total",
                            "FLOPs of finished requests: executed (overhead included), baseline "
                            "(the same without pruning), overhead (what pruning adds).",
                            COUNTER,
                            {"kind", "stage"},
                            {0}},
    [ATEDM_METRIC_FLOPS_SAVED] = {"atedm_flops_saved_ratio",
                                  "1 - executed / baseline FLOPs of each finished request.",
                                  HISTOGRAM,
                                  {NULL},
                                  {0.01, 0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 0.35, 0.4, 0.45, 0.5, 0.6,
                                   0.7, 0.8, 0.9}},
    [ATEDM_METRIC_TOKENS] =
        {"atedm_tokens_total",
         "Tokens of attention blocks that were alive at their end, and that were not, by "
         "feature level.",
         COUNTER,
         {"kind", "level"},
         {0}},
    [ATEDM_METRIC_BATCH_SIZE] = {"atedm_batch_size",
                                 "Images that shared a UNet evaluation.",
                                 HISTOGRAM,
                                 {"device"},
                                 {1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 64}},
    [ATEDM_METRIC_QUEUE_DEPTH] = {"atedm_queue_depth", "Requests that wait.", GAUGE, {NULL}, {0}},
    [ATEDM_METRIC_QUEUE_FLOPS] =
        {"atedm_queue_flops", "FLOPs of the requests that wait.", GAUGE, {NULL}, {0}},
    [ATEDM_METRIC_QUEUE_OLDEST] = {"atedm_queue_oldest_seconds",
                                   "How long the request that waits longest has waited; 0: none.",
                                   GAUGE,
                                   {NULL},
                                   {0}},
    [ATEDM_METRIC_ACTIVE_REQUESTS] =
        {"atedm_active_requests", "Requests that a worker has.", GAUGE, {NULL}, {0}},
    [ATEDM_METRIC_QUEUE_REJECTED] = {"atedm_queue_rejected_total",
                                     "Generations refused or given up: full, draining, deadline, "
                                     "client_gone, canceled, storage, rate, quota.",
                                     COUNTER,
                                     {"reason"},
                                     {0}},
    [ATEDM_METRIC_JOBS] = {"atedm_jobs_total",
                           "Jobs whose end is on disk: done, failed, canceled.",
                           COUNTER,
                           {"state"},
                           {0}},
    [ATEDM_METRIC_STORE_ERRORS] = {"atedm_store_errors_total",
                                   "Times that the job store could not be written: add, end (tried "
                                   "again until it can), expire.",
                                   COUNTER,
                                   {"operation"},
                                   {0}},
    [ATEDM_METRIC_WORKER_UP] =
        {"atedm_worker_up", "1 while the worker takes requests.", GAUGE, {"device"}, {0}},
    [ATEDM_METRIC_WORKER_RESTARTS] = {"atedm_worker_restarts_total",
                                      "Times that the worker was started anew.",
                                      COUNTER,
                                      {"device"},
                                      {0}},
    [ATEDM_METRIC_DEVICE_MEMORY] =
        {"atedm_device_memory_bytes",
         "Memory that the worker holds on its device: weights and scratch.",
         GAUGE,
         {"device"},
         {0}},
    [ATEDM_METRIC_DEVICE_MEMORY_FREE] = {"atedm_device_memory_free_bytes",
                                         "Memory of the device that nobody uses.",
                                         GAUGE,
                                         {"device"},
                                         {0}},
    [ATEDM_METRIC_DEVICE_MEMORY_TOTAL] =
        {"atedm_device_memory_total_bytes", "Memory of the device.", GAUGE, {"device"}, {0}},
    [ATEDM_METRIC_DEVICE_MEMORY_USED] = {"atedm_device_memory_used_bytes",
                                         "Memory of the device that is in use, by whomever.",
                                         GAUGE,
                                         {"device"},
                                         {0}},
    [ATEDM_METRIC_DEVICE_UTILIZATION] = {"atedm_device_utilization_ratio",
                                         "Share of the time in which the device computed lately.",
                                         GAUGE,
                                         {"device"},
                                         {0}},
    [ATEDM_METRIC_DEVICE_POWER] =
        {"atedm_device_power_watts", "Power that the device draws.", GAUGE, {"device"}, {0}},
    [ATEDM_METRIC_DEVICE_TEMPERATURE] =
        {"atedm_device_temperature_celsius", "Temperature of the device.", GAUGE, {"device"}, {0}},
    [ATEDM_METRIC_DEVICE_SM_CLOCK] = {"atedm_device_sm_clock_hertz",
                                      "Clock of the device's processors.",
                                      GAUGE,
                                      {"device"},
                                      {0}},
    [ATEDM_METRIC_DEVICE_MEMORY_CLOCK] = {"atedm_device_memory_clock_hertz",
                                          "Clock of the device's memory.",
                                          GAUGE,
                                          {"device"},
                                          {0}},
    [ATEDM_METRIC_MODEL_INFO] = {"atedm_model_info",
                                 "1; the labels tell the model.",
                                 GAUGE,
                                 {"model", "dtype", "backend"},
                                 {0}},
    [ATEDM_METRIC_BUILD_INFO] =
        {"atedm_build_info", "1; the label tells the version.", GAUGE, {"version"}, {0}},
    // A double, so a gauge in this registry; it never falls, which is what its type promises.
    [ATEDM_METRIC_PROCESS_CPU_SECONDS] =
        {"process_cpu_seconds_total", "Processor time, user and system.", GAUGE, {NULL}, {0}},
    [ATEDM_METRIC_PROCESS_OPEN_FDS] =
        {"process_open_fds", "Open file descriptors.", GAUGE, {NULL}, {0}},
    [ATEDM_METRIC_PROCESS_MAX_FDS] =
        {"process_max_fds", "Limit of open file descriptors.", GAUGE, {NULL}, {0}},
    [ATEDM_METRIC_PROCESS_VIRTUAL_MEMORY] =
        {"process_virtual_memory_bytes", "Virtual memory.", GAUGE, {NULL}, {0}},
    [ATEDM_METRIC_PROCESS_RESIDENT_MEMORY] =
        {"process_resident_memory_bytes", "Resident memory.", GAUGE, {NULL}, {0}},
    [ATEDM_METRIC_PROCESS_START_TIME] = {"process_start_time_seconds",
                                         "Start of the process, seconds since 1970.",
                                         GAUGE,
                                         {NULL},
                                         {0}},
};

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

static size_t n_labels(const family *f)
{
    size_t n = 0;
    while (n < ATEDM_METRIC_MAX_LABELS && f->labels[n])
        n++;
    return n;
}

static size_t n_bounds(const family *f)
{
    size_t n = 0;
    while (n < ATEDM_METRIC_MAX_BUCKETS && f->bounds[n] > 0)
        n++;
    return n;
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

// NULL where there is none.
static atedm_series *find_existing(atedm_metrics *metrics, atedm_metric metric,
                                   const char *const *labels)
{
    size_t n = n_labels(&families[metric]);
    for (size_t i = 0; i < metrics->series[metric].count; i++) {
        if (has_labels(&metrics->series[metric].items[i], labels, n))
            return &metrics->series[metric].items[i];
    }
    return NULL;
}

// NULL past the limit of series, or where there is no memory.
static atedm_series *find(atedm_metrics *metrics, atedm_metric metric, const char *const *labels)
{
    size_t n = n_labels(&families[metric]);
    atedm_series *existing = find_existing(metrics, metric, labels);
    if (existing)
        return existing;
    if (metrics->series[metric].count >= ATEDM_METRIC_MAX_SERIES)
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
    const family *f = &families[metric];
    size_t bucket = 0;
    while (bucket < n_bounds(f) && value > f->bounds[bucket])
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
    const family *f = &families[metric];
    size_t n = n_bounds(f);
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

// ---- rendering

// {a="x",b="y"}; `bound` (NULL: none) is the label "le" of a bucket.
static atedm_status render_labels(const family *f, const atedm_series *series, const char *bound,
                                  atedm_buffer *text)
{
    size_t n = n_labels(f);
    if (n == 0 && !bound)
        return ATEDM_OK;
    atedm_status status = ATEDM_OK;
    for (size_t i = 0; i < n && !status; i++) {
        status = atedm_buffer_printf(text, "%c%s=\"", i ? ',' : '{', f->labels[i]);
        for (const char *c = series->labels[i]; *c && !status; c++) {
            if (*c == '\n')
                status = atedm_buffer_append(text, "\\n", 2);
            else if (*c == '"' || *c == '\\')
                status = atedm_buffer_printf(text, "\\%c", *c);
            else
                status = atedm_buffer_append(text, c, 1);
        }
        if (!status)
            status = atedm_buffer_append(text, "\"", 1);
    }
    if (bound && !status)
        status = atedm_buffer_printf(text, "%cle=\"%s\"", n ? ',' : '{', bound);
    return status ? status : atedm_buffer_append(text, "}", 1);
}

static atedm_status render_integer(const family *f, const atedm_series *series, const char *suffix,
                                   const char *bound, uint64_t value, atedm_buffer *text)
{
    atedm_status status = atedm_buffer_printf(text, "%s%s", f->name, suffix);
    if (!status)
        status = render_labels(f, series, bound, text);
    return status ? status : atedm_buffer_printf(text, " %" PRIu64 "\n", value);
}

static atedm_status render_real(const family *f, const atedm_series *series, const char *suffix,
                                atedm_buffer *text)
{
    atedm_status status = atedm_buffer_printf(text, "%s%s", f->name, suffix);
    if (!status)
        status = render_labels(f, series, NULL, text);
    return status ? status : atedm_buffer_printf(text, " %.17g\n", series->value);
}

static atedm_status render_histogram(const family *f, const atedm_series *series,
                                     atedm_buffer *text)
{
    atedm_status status = ATEDM_OK;
    uint64_t sum = 0;
    size_t n = n_bounds(f);
    for (size_t i = 0; i <= n && !status; i++) {
        char bound[32] = "+Inf";
        if (i < n)
            snprintf(bound, sizeof bound, "%g", f->bounds[i]);
        sum += series->buckets[i];
        status = render_integer(f, series, "_bucket", bound, sum, text);
    }
    if (!status)
        status = render_real(f, series, "_sum", text);
    return status ? status : render_integer(f, series, "_count", NULL, series->count, text);
}

static atedm_status render_family(const atedm_metrics *metrics, atedm_metric metric,
                                  atedm_buffer *text)
{
    static const char *const types[] = {"counter", "gauge", "histogram"};
    const family *f = &families[metric];
    bool cpu = metric == ATEDM_METRIC_PROCESS_CPU_SECONDS;
    atedm_status status = atedm_buffer_printf(text, "# HELP %s %s\n# TYPE %s %s\n", f->name,
                                              f->help, f->name, types[cpu ? COUNTER : f->type]);
    for (size_t i = 0; i < metrics->series[metric].count && !status; i++) {
        const atedm_series *series = &metrics->series[metric].items[i];
        if (f->type == COUNTER)
            status = render_integer(f, series, "", NULL, series->count, text);
        else if (f->type == GAUGE)
            status = render_real(f, series, "", text);
        else
            status = render_histogram(f, series, text);
    }
    return status;
}

atedm_status atedm_metrics_render(const atedm_metrics *metrics, atedm_buffer *ret_text)
{
    atedm_status status = ATEDM_OK;
    for (int m = 0; m < ATEDM_METRIC_COUNT && !status; m++)
        status = render_family(metrics, (atedm_metric)m, ret_text);
    return status;
}
