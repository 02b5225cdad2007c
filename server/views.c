// Three views of the metrics: GET /metrics for Prometheus; /metrics/flops and /metrics/latency, as
// JSON, for people and scripts.
#include "server/daemon.h"
#include "server/gauges.h"
#include "server/handlers.h"
#include "server/problem.h"

#include <jansson.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

void atedm_handle_metrics(void *app, atedm_exchange *x)
{
    atedm_daemon *d = app;
    atedm_gauges_measure(d);
    atedm_buffer text;
    atedm_buffer_init(&text, ATEDM_METRICS_TEXT_MAX);
    if (atedm_metrics_render(d->metrics, &text)) {
        atedm_buffer_finish(&text);
        atedm_exchange_respond(x, atedm_problem_no_memory(atedm_exchange_id(x)));
        return;
    }
    atedm_exchange_respond(
        x, (atedm_response){.status = 200,
                            .content_type = "text/plain; version=0.0.4; charset=utf-8",
                            .body = text.data,
                            .size = text.size});
}

// ---- FLOPs

// Sum of the series whose first label is `first` and, unless `second` is NULL, whose second label
// is `second`.
static uint64_t sum(const atedm_metrics *metrics, atedm_metric metric, const char *first,
                    const char *second)
{
    uint64_t total = 0;
    const atedm_series *series;
    for (size_t i = 0; (series = atedm_metrics_series(metrics, metric, i)); i++) {
        if (strcmp(series->labels[0], first) == 0 &&
            (!second || strcmp(series->labels[1], second) == 0))
            total += series->count;
    }
    return total;
}

static json_t *ratio_json(uint64_t part, uint64_t whole)
{
    return whole ? json_real((double)part / (double)whole) : json_null();
}

static json_t *flops_of(const atedm_metrics *metrics, const char *stage)
{
    uint64_t executed = sum(metrics, ATEDM_METRIC_FLOPS, "executed", stage);
    uint64_t baseline = sum(metrics, ATEDM_METRIC_FLOPS, "baseline", stage);
    uint64_t overhead = sum(metrics, ATEDM_METRIC_FLOPS, "overhead", stage);
    // If little was pruned, the overhead can outweigh the saving, which is then negative.
    double saved = 1 - (double)executed / (double)baseline;
    return json_pack("{s:I, s:I, s:I, s:o}", "executed", (json_int_t)executed, "baseline",
                     (json_int_t)baseline, "overhead", (json_int_t)overhead, "saved_ratio",
                     baseline ? json_real(saved) : json_null());
}

static json_t *tokens_of(const atedm_metrics *metrics)
{
    json_t *levels = json_object();
    const atedm_series *series;
    for (size_t i = 0; (series = atedm_metrics_series(metrics, ATEDM_METRIC_TOKENS, i)); i++) {
        const char *level = series->labels[1];
        uint64_t kept = sum(metrics, ATEDM_METRIC_TOKENS, "kept", level);
        uint64_t pruned = sum(metrics, ATEDM_METRIC_TOKENS, "pruned", level);
        json_object_set_new(levels, level,
                            json_pack("{s:I, s:I, s:o}", "kept", (json_int_t)kept, "pruned",
                                      (json_int_t)pruned, "pruned_ratio",
                                      ratio_json(pruned, kept + pruned)));
    }
    return levels;
}

void atedm_handle_flops(void *app, atedm_exchange *x)
{
    const atedm_daemon *d = app;
    const atedm_metrics *metrics = d->metrics;
    const atedm_series *saved = atedm_metrics_series(metrics, ATEDM_METRIC_FLOPS_SAVED, 0);
    atedm_dispatch_state state = atedm_dispatch_get_state(d->dispatch);
    json_t *total = flops_of(metrics, NULL);
    json_t *value =
        json_pack("{s:I, s:o, s:{s:o, s:o, s:o}, s:o, s:o, s:I}", "requests",
                  (json_int_t)(saved ? saved->count : 0), "total", total, "stages", "text_encoder",
                  flops_of(metrics, "text_encoder"), "unet", flops_of(metrics, "unet"), "vae",
                  flops_of(metrics, "vae"), "tokens", tokens_of(metrics), "flops_per_s",
                  isnan(state.rate) ? json_null() : json_real(state.rate), "queue_flops",
                  (json_int_t)state.queue_flops);
    atedm_exchange_respond(x, atedm_json_response(200, atedm_exchange_id(x), value));
}

// ---- latency

static json_t *quantile_json(atedm_metric metric, const atedm_series *series, double q)
{
    double value = atedm_metrics_quantile(metric, series, q);
    return isnan(value) ? json_null() : json_real(value);
}

// The histograms of a family that has one label, by the label's value.
static json_t *histograms_json(const atedm_metrics *metrics, atedm_metric metric)
{
    json_t *object = json_object();
    const atedm_series *series;
    for (size_t i = 0; (series = atedm_metrics_series(metrics, metric, i)); i++) {
        json_t *figures = json_pack(
            "{s:I, s:f, s:o, s:o, s:o, s:o}", "count", (json_int_t)series->count, "sum_s",
            series->value, "mean_s",
            series->count ? json_real(series->value / (double)series->count) : json_null(), "p50_s",
            quantile_json(metric, series, 0.5), "p90_s", quantile_json(metric, series, 0.9),
            "p99_s", quantile_json(metric, series, 0.99));
        json_object_set_new(object, series->labels[0], figures);
    }
    return object;
}

void atedm_handle_latency(void *app, atedm_exchange *x)
{
    const atedm_daemon *d = app;
    atedm_dispatch_state state = atedm_dispatch_get_state(d->dispatch);
    double wait = atedm_dispatch_expected_wait(d->dispatch, 0);
    json_t *value = json_pack("{s:o, s:o, s:o, s:{s:I, s:I, s:o}}", "requests",
                              histograms_json(d->metrics, ATEDM_METRIC_REQUEST_DURATION), "stages",
                              histograms_json(d->metrics, ATEDM_METRIC_STAGE_DURATION), "steps",
                              histograms_json(d->metrics, ATEDM_METRIC_STEP_DURATION), "queue",
                              "depth", (json_int_t)state.depth, "active", (json_int_t)state.active,
                              "expected_wait_s", isnan(wait) ? json_null() : json_real(wait));
    atedm_exchange_respond(x, atedm_json_response(200, atedm_exchange_id(x), value));
}
