// Writes metrics in Prometheus' text format: see metrics.h.
#include "server/metrics_private.h"

#include <inttypes.h>
#include <stdio.h>

// Writes {a="x",b="y"}. `bound` is the label "le" of a bucket; NULL: none.
static atedm_status render_labels(const atedm_metric_family *f, const atedm_series *series,
                                  const char *bound, atedm_buffer *text)
{
    size_t n = atedm_metric_n_labels(f);
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

static atedm_status render_integer(const atedm_metric_family *f, const atedm_series *series,
                                   const char *suffix, const char *bound, uint64_t value,
                                   atedm_buffer *text)
{
    atedm_status status = atedm_buffer_printf(text, "%s%s", f->name, suffix);
    if (!status)
        status = render_labels(f, series, bound, text);
    return status ? status : atedm_buffer_printf(text, " %" PRIu64 "\n", value);
}

static atedm_status render_real(const atedm_metric_family *f, const atedm_series *series,
                                const char *suffix, atedm_buffer *text)
{
    atedm_status status = atedm_buffer_printf(text, "%s%s", f->name, suffix);
    if (!status)
        status = render_labels(f, series, NULL, text);
    return status ? status : atedm_buffer_printf(text, " %.17g\n", series->value);
}

static atedm_status render_histogram(const atedm_metric_family *f, const atedm_series *series,
                                     atedm_buffer *text)
{
    atedm_status status = ATEDM_OK;
    uint64_t sum = 0;
    size_t n = atedm_metric_n_bounds(f);
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
    static const char *const types[] = {[ATEDM_COUNTER] = "counter",
                                        [ATEDM_REAL_COUNTER] = "counter",
                                        [ATEDM_GAUGE] = "gauge",
                                        [ATEDM_HISTOGRAM] = "histogram"};
    const atedm_metric_family *f = &atedm_metric_families[metric];
    atedm_status status = atedm_buffer_printf(text, "# HELP %s %s\n# TYPE %s %s\n", f->name,
                                              f->help, f->name, types[f->type]);
    const atedm_series *series;
    for (size_t i = 0; !status && (series = atedm_metrics_series(metrics, metric, i)); i++) {
        if (f->type == ATEDM_COUNTER)
            status = render_integer(f, series, "", NULL, series->count, text);
        else if (f->type == ATEDM_HISTOGRAM)
            status = render_histogram(f, series, text);
        else
            status = render_real(f, series, "", text);
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
