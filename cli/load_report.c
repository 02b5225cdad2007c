// The results of `atedm bench serve`, for people: see load_report.h.
#include "cli/load_report.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>

static void print_head(const atedm_load_plan *plan, const atedm_load_record *record)
{
    printf("%s, ", plan->url);
    if (plan->rate > 0)
        printf("open loop, %g requests/s", plan->rate);
    else
        printf("closed loop, %" PRId64 " client%s", plan->max_open, plan->max_open == 1 ? "" : "s");
    if (plan->requests != INT64_MAX)
        printf(", %" PRId64 " requests", plan->requests);
    else
        printf(", %g s", plan->duration_s);
    if (plan->warm_up_s > 0)
        printf(" after %g s of warm-up", plan->warm_up_s);
    printf(", seed %" PRIu64 "\n", plan->seed);
    if (record->interrupted)
        printf("interrupted after %.1f s\n", record->end_s);
    if (record->full)
        printf("ended at %zu requests\n", plan->limit);
}

static void print_counts(const atedm_load_stats *s)
{
    const char *before = " (";
    printf("\nrequests    sent %zu, ok %zu, failed %zu", s->sent, s->ok, s->failed);
    for (int i = 0; i < ATEDM_LOAD_MAX_STATUS; i++) {
        if (i != 200 && s->by_status[i]) {
            printf("%s%d: %zu", before, i, s->by_status[i]);
            before = ", ";
        }
    }
    for (int i = 0; i < ATEDM_LOAD_N_ERRORS; i++) {
        if (s->by_error[i]) {
            printf("%s%s: %zu", before, atedm_load_error_names[i], s->by_error[i]);
            before = ", ";
        }
    }
    fputs(*before == ',' ? ")" : "", stdout);
    if (s->unsent)
        printf("; not sent %zu", s->unsent);
    if (s->warm_up)
        printf("; in the warm-up %zu", s->warm_up);
    putchar('\n');
}

static void print_rates(const atedm_load_plan *plan, const atedm_load_stats *s)
{
    if (plan->rate > 0)
        printf("arrivals    %.5g requests/s of %.5g asked for; sent late %zu (%g s and more)\n",
               s->sent_per_s, plan->rate, s->late, ATEDM_LOAD_LATE_S);
    printf("throughput  %.4g requests/s, %.4g images/s in %.1f s\n", s->requests_per_s,
           s->images_per_s, s->seconds);
    if (!s->detailed)
        return;
    printf("batch       mean %.2f, largest %" PRId64 "\n", s->mean_batch, s->max_batch);
    printf("FLOPs       executed %.4g, baseline %.4g, saved %.1f %%\n", s->executed, s->baseline,
           100 * (1 - s->executed / s->baseline));
    printf("pruning     ");
    for (size_t i = 0; i < s->n_presets; i++)
        printf("%s%s %zu", i ? ", " : "", s->presets[i].name, s->presets[i].count);
    putchar('\n');
}

static void print_value(double value)
{
    if (isnan(value))
        printf(" %9s", "-");
    else
        printf(" %9.4f", value);
}

static void print_spread(const char *name, const atedm_load_spread *s)
{
    printf("%-10s", name);
    print_value(s->p50);
    print_value(s->p95);
    print_value(s->p99);
    print_value(s->max);
    print_value(s->mean);
    putchar('\n');
}

static void print_tenths(const atedm_load_stats *s)
{
    printf("\n%-19s %7s %7s %7s %7s %9s %9s %9s %9s\n", "due within, s", "due", "ok", "failed",
           "open", "p50", "p95", "max", "queue");
    for (int i = 0; i < ATEDM_LOAD_TENTHS; i++) {
        const atedm_load_tenth *t = &s->tenths[i];
        printf("%8.1f - %8.1f %7zu %7zu %7zu %7zu", t->from_s, t->to_s, t->due, t->ok, t->failed,
               t->open);
        print_value(t->total.p50);
        print_value(t->total.p95);
        print_value(t->total.max);
        print_value(t->mean_queue_s);
        putchar('\n');
    }
}

void atedm_load_report_table(const atedm_load_plan *plan, const atedm_load_record *record,
                             const atedm_load_stats *stats)
{
    print_head(plan, record);
    print_counts(stats);
    print_rates(plan, stats);
    printf("\n%-10s %9s %9s %9s %9s %9s\n", "latency, s", "p50", "p95", "p99", "max", "mean");
    print_spread("total", &stats->total);
    print_spread("late", &stats->lateness);
    print_spread("queue", &stats->queue);
    print_spread("service", &stats->service);
    print_tenths(stats);
}
