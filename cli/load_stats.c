// The statistics of a run of `atedm bench serve`: see load_stats.h.
#include "cli/load_stats.h"

#include "cli/cli.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

// ---- spreads

double atedm_load_percentile(const double *sorted, size_t n, int percent)
{
    size_t rank = (n * (size_t)percent + 99) / 100; // 1..n: percent of n, rounded up
    return sorted[rank - 1];
}

// Sorts `values`.
static atedm_load_spread spread_of(double *values, size_t n)
{
    if (!n)
        return (atedm_load_spread){.p50 = NAN, .p95 = NAN, .p99 = NAN, .max = NAN, .mean = NAN};
    double sum = 0;
    for (size_t i = 0; i < n; i++)
        sum += values[i];
    atedm_cli_sort(values, n);
    return (atedm_load_spread){.p50 = atedm_load_percentile(values, n, 50),
                               .p95 = atedm_load_percentile(values, n, 95),
                               .p99 = atedm_load_percentile(values, n, 99),
                               .max = values[n - 1],
                               .mean = sum / (double)n};
}

// Each is NAN where the sample has no such time.
typedef double time_fn(const atedm_load_sample *s);

static double total_of(const atedm_load_sample *s)
{
    return s->ok ? s->done_s - s->due_s : NAN;
}

static double lateness_of(const atedm_load_sample *s)
{
    return s->sent_s - s->due_s;
}

static double queue_of(const atedm_load_sample *s)
{
    return s->detailed ? s->answer.queue_s : NAN;
}

static double service_of(const atedm_load_sample *s)
{
    return s->detailed ? s->done_s - s->sent_s - s->answer.queue_s : NAN;
}

// The spread over the counted samples that became due in [from_s, to_s). `values` has room for all.
static atedm_load_spread spread(const atedm_load_record *record, double from_s, double to_s,
                                time_fn *time, double *values)
{
    size_t n = 0;
    for (size_t i = 0; i < record->n; i++) {
        const atedm_load_sample *s = &record->samples[i];
        if (s->warm_up || s->due_s < from_s || s->due_s >= to_s)
            continue;
        double value = time(s);
        if (!isnan(value))
            values[n++] = value;
    }
    return spread_of(values, n);
}

// ---- counts

static void count_preset(atedm_load_stats *stats, const char *name)
{
    size_t i = 0;
    while (i < stats->n_presets && strcmp(stats->presets[i].name, name) != 0)
        i++;
    if (i == ATEDM_LOAD_MAX_PRESETS) {
        i--;
        snprintf(stats->presets[i].name, sizeof stats->presets[i].name, "other");
    } else if (i == stats->n_presets) {
        snprintf(stats->presets[i].name, sizeof stats->presets[i].name, "%s", name);
        stats->n_presets++;
    }
    stats->presets[i].count++;
}

static void count_answer(atedm_load_stats *stats, const atedm_load_sample *s)
{
    stats->images += (double)s->answer.images;
    if (!s->detailed)
        return;
    stats->detailed++;
    stats->mean_batch += s->answer.mean_batch; // a sum so far
    if (s->answer.max_batch > stats->max_batch)
        stats->max_batch = s->answer.max_batch;
    stats->executed += s->answer.executed;
    stats->baseline += s->answer.baseline;
    stats->overhead += s->answer.overhead;
    count_preset(stats, s->answer.preset);
}

static void count_sample(atedm_load_stats *stats, const atedm_load_sample *s)
{
    if (isnan(s->sent_s)) {
        stats->unsent += !s->warm_up;
        return;
    }
    if (s->warm_up) {
        stats->warm_up++;
        return;
    }
    stats->sent++;
    stats->by_entry[s->entry]++;
    stats->late += lateness_of(s) >= ATEDM_LOAD_LATE_S;
    if (s->error)
        stats->by_error[s->error]++;
    else if (s->status >= 0 && s->status < ATEDM_LOAD_MAX_STATUS)
        stats->by_status[s->status]++;
    if (s->ok) {
        stats->ok++;
        count_answer(stats, s);
    } else {
        stats->failed++;
    }
}

// ---- rates and tenths

static void make_rates(const atedm_load_plan *plan, const atedm_load_record *record,
                       atedm_load_stats *stats)
{
    double start = plan->warm_up_s, last = record->end_s;
    size_t in_time = 0, ok = 0;
    double images = 0;
    for (size_t i = 0; i < record->n; i++) {
        const atedm_load_sample *s = &record->samples[i];
        in_time += !s->warm_up && s->sent_s < record->end_s + ATEDM_LOAD_LATE_S;
        if (s->done_s > last)
            last = s->done_s;
        // Warm-up requests that are answered later count too: the daemon worked on them instead of
        // on counted ones.
        if (s->ok && s->done_s >= start) {
            ok++;
            images += (double)s->answer.images;
        }
    }
    stats->seconds = fmax(last - start, 0);
    stats->requests_per_s = (double)ok / stats->seconds;
    stats->images_per_s = images / stats->seconds;
    stats->sent_per_s = plan->rate > 0 ? (double)in_time / (record->end_s - start)
                                       : (double)stats->sent / stats->seconds;
}

static void make_tenth(const atedm_load_record *record, atedm_load_tenth *tenth, bool last,
                       double *values)
{
    double to_s = last ? INFINITY : tenth->to_s; // the last tenth includes its end
    double sum = 0;
    size_t n = 0;
    for (size_t i = 0; i < record->n; i++) {
        const atedm_load_sample *s = &record->samples[i];
        tenth->open += s->due_s <= tenth->to_s && !(s->done_s <= tenth->to_s);
        if (s->warm_up || s->due_s < tenth->from_s || s->due_s >= to_s)
            continue;
        tenth->due++;
        tenth->ok += s->ok;
        tenth->failed += !s->ok && !isnan(s->sent_s);
        sum += s->detailed ? s->answer.queue_s : 0;
        n += s->detailed;
    }
    tenth->mean_queue_s = n ? sum / (double)n : NAN;
    tenth->total = spread(record, tenth->from_s, to_s, total_of, values);
}

atedm_status atedm_load_stats_make(const atedm_load_plan *plan, const atedm_load_record *record,
                                   atedm_load_stats *ret_stats)
{
    double *values = calloc(record->n + 1, sizeof *values);
    if (!values)
        return ATEDM_ERR_NOMEM;
    atedm_load_stats *stats = ret_stats;
    memset(stats, 0, sizeof *stats);
    for (size_t i = 0; i < record->n; i++)
        count_sample(stats, &record->samples[i]);
    if (stats->detailed)
        stats->mean_batch /= (double)stats->detailed;
    make_rates(plan, record, stats);
    stats->total = spread(record, 0, INFINITY, total_of, values);
    stats->lateness = spread(record, 0, INFINITY, lateness_of, values);
    stats->queue = spread(record, 0, INFINITY, queue_of, values);
    stats->service = spread(record, 0, INFINITY, service_of, values);
    double width = fmax(record->end_s - plan->warm_up_s, 0) / ATEDM_LOAD_TENTHS;
    for (int i = 0; i < ATEDM_LOAD_TENTHS; i++) {
        stats->tenths[i].from_s = plan->warm_up_s + i * width;
        stats->tenths[i].to_s = plan->warm_up_s + (i + 1) * width;
        make_tenth(record, &stats->tenths[i], i == ATEDM_LOAD_TENTHS - 1, values);
    }
    free(values);
    return ATEDM_OK;
}
