// The results of `atedm bench serve` as JSON: see load_report.h. Missing figures are null.
#include "cli/load_report.h"

#include <math.h>
#include <stdio.h>

static json_t *real(double value)
{
    return isfinite(value) ? json_real(value) : json_null();
}

// A count that may be larger than an integer of JSON's libraries.
static json_t *count(double value)
{
    return value < 0x1p53 ? json_integer((json_int_t)value) : json_real(value);
}

static json_t *spread_json(const atedm_load_spread *s)
{
    return json_pack("{s:o, s:o, s:o, s:o, s:o}", "p50", real(s->p50), "p95", real(s->p95), "p99",
                     real(s->p99), "max", real(s->max), "mean", real(s->mean));
}

static json_t *requests_json(const atedm_load_stats *s)
{
    json_t *by_status = json_object(), *by_error = json_object();
    for (int i = 0; i < ATEDM_LOAD_MAX_STATUS; i++) {
        char name[16];
        snprintf(name, sizeof name, "%d", i);
        if (s->by_status[i])
            json_object_set_new(by_status, name, json_integer((json_int_t)s->by_status[i]));
    }
    for (int i = 0; i < ATEDM_LOAD_N_ERRORS; i++)
        if (s->by_error[i])
            json_object_set_new(by_error, atedm_load_error_names[i],
                                json_integer((json_int_t)s->by_error[i]));
    return json_pack("{s:I, s:I, s:I, s:I, s:I, s:o, s:o}", "sent", (json_int_t)s->sent, "ok",
                     (json_int_t)s->ok, "failed", (json_int_t)s->failed, "unsent",
                     (json_int_t)s->unsent, "warm_up", (json_int_t)s->warm_up, "by_status",
                     by_status, "by_error", by_error);
}

static json_t *presets_json(const atedm_load_stats *s)
{
    json_t *out = json_object();
    for (size_t i = 0; i < s->n_presets; i++)
        json_object_set_new(out, s->presets[i].name, json_integer((json_int_t)s->presets[i].count));
    return out;
}

static json_t *mix_json(const atedm_load_mix *mix, const atedm_load_stats *s)
{
    json_t *out = json_array();
    for (size_t i = 0; i < mix->n; i++)
        json_array_append_new(out,
                              json_pack("{s:f, s:I, s:O}", "weight", mix->weights[i], "sent",
                                        (json_int_t)s->by_entry[i], "request", mix->requests[i]));
    return out;
}

static json_t *tenths_json(const atedm_load_stats *s)
{
    json_t *out = json_array();
    for (int i = 0; i < ATEDM_LOAD_TENTHS; i++) {
        const atedm_load_tenth *t = &s->tenths[i];
        json_array_append_new(
            out, json_pack("{s:f, s:f, s:I, s:I, s:I, s:I, s:o, s:o}", "from_s", t->from_s, "to_s",
                           t->to_s, "due", (json_int_t)t->due, "ok", (json_int_t)t->ok, "failed",
                           (json_int_t)t->failed, "open", (json_int_t)t->open, "total_s",
                           spread_json(&t->total), "mean_queue_s", real(t->mean_queue_s)));
    }
    return out;
}

static json_t *plan_json(const atedm_load_plan *plan)
{
    return json_pack("{s:s, s:s, s:o, s:I, s:I, s:f, s:o, s:o, s:f, s:f}", "url", plan->url, "loop",
                     plan->rate > 0 ? "open" : "closed", "rate",
                     plan->rate > 0 ? json_real(plan->rate) : json_null(), "max_open",
                     (json_int_t)plan->max_open, "seed", (json_int_t)plan->seed, "warm_up_s",
                     plan->warm_up_s, "duration_s", real(plan->duration_s), "requests",
                     plan->requests == INT64_MAX ? json_null()
                                                 : json_integer((json_int_t)plan->requests),
                     "timeout_s", plan->timeout_s, "grace_s", plan->grace_s);
}

static json_t *flops_json(const atedm_load_stats *s)
{
    return json_pack("{s:o, s:o, s:o, s:o}", "executed", count(s->executed), "baseline",
                     count(s->baseline), "overhead", count(s->overhead), "saved_ratio",
                     real(1 - s->executed / s->baseline));
}

json_t *atedm_load_report_json(const atedm_load_plan *plan, const atedm_load_record *record,
                               const atedm_load_stats *s)
{
    json_t *latency = json_pack("{s:o, s:o, s:o, s:o}", "total", spread_json(&s->total), "late",
                                spread_json(&s->lateness), "queue", spread_json(&s->queue),
                                "service", spread_json(&s->service));
    json_t *arrivals = json_pack("{s:o, s:I, s:f}", "per_s", real(s->sent_per_s), "late",
                                 (json_int_t)s->late, "late_from_s", ATEDM_LOAD_LATE_S);
    json_t *throughput = json_pack("{s:o, s:o, s:f}", "requests_per_s", real(s->requests_per_s),
                                   "images_per_s", real(s->images_per_s), "seconds", s->seconds);
    json_t *batch = json_pack("{s:o, s:o}", "mean_size", real(s->detailed ? s->mean_batch : NAN),
                              "max_size", s->detailed ? json_integer(s->max_batch) : json_null());
    return json_pack("{s:o, s:b, s:b, s:o, s:o, s:o, s:o, s:o, s:o, s:o, s:o, s:o, s:o}", "plan",
                     plan_json(plan), "interrupted", record->interrupted, "full", record->full,
                     "requests", requests_json(s), "arrivals", arrivals, "throughput", throughput,
                     "images", count(s->images), "latency_s", latency, "batch", batch, "flops",
                     flops_json(s), "pruning", presets_json(s), "mix", mix_json(plan->mix, s),
                     "tenths", tenths_json(s));
}
