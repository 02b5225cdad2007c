// What a run of `atedm bench serve` comes to, from runs that are made up; its options.
#include "cli/cli.h"
#include "cli/load_options.h"
#include "cli/load_report.h"
#include "cli/load_stats.h"

#include <criterion/criterion.h>
#include <criterion/redirect.h>
#include <getopt.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

// ---- percentiles

Test(percentile, is_by_nearest_rank)
{
    // The example of Wikipedia's article "Percentile", whose ranks are worked out by hand.
    const double five[] = {15, 20, 35, 40, 50};
    cr_assert(atedm_load_percentile(five, 5, 5) == 15);
    cr_assert(atedm_load_percentile(five, 5, 30) == 20);
    cr_assert(atedm_load_percentile(five, 5, 40) == 20);
    cr_assert(atedm_load_percentile(five, 5, 50) == 35);
    cr_assert(atedm_load_percentile(five, 5, 100) == 50);
    const double one[] = {3};
    cr_assert(atedm_load_percentile(one, 1, 1) == 3 && atedm_load_percentile(one, 1, 99) == 3);
    double hundred[200];
    for (int i = 0; i < 200; i++)
        hundred[i] = i + 1;
    cr_assert(atedm_load_percentile(hundred, 100, 99) == 99);
    cr_assert(atedm_load_percentile(hundred, 100, 95) == 95);
    cr_assert(atedm_load_percentile(hundred, 101, 99) == 100, "99.99 is rounded up");
    cr_assert(atedm_load_percentile(hundred, 200, 50) == 100);
}

// ---- a run

static atedm_load_mix *mix(void)
{
    static atedm_load_mix m = {.n = 0};
    if (!m.n)
        cr_assert_eq(atedm_load_mix_add(&m, 1, json_object(), NULL), ATEDM_OK);
    return &m;
}

static atedm_load_plan plan(void)
{
    return (atedm_load_plan){.url = "http://a/generate",
                             .mix = mix(),
                             .rate = 1,
                             .max_open = 8,
                             .warm_up_s = 10,
                             .duration_s = 20,
                             .requests = INT64_MAX};
}

static atedm_load_sample good(double due_s, double sent_s, double done_s, double queue_s)
{
    return (atedm_load_sample){.due_s = due_s,
                               .sent_s = sent_s,
                               .done_s = done_s,
                               .status = 200,
                               .ok = true,
                               .detailed = true,
                               .answer = {.queue_s = queue_s,
                                          .mean_batch = 1.5,
                                          .max_batch = 2,
                                          .executed = 60,
                                          .baseline = 100,
                                          .overhead = 5,
                                          .preset = "at-edm",
                                          .images = 2}};
}

static atedm_load_stats *stats_of(const atedm_load_plan *p, atedm_load_sample *samples, size_t n)
{
    static atedm_load_stats stats;
    atedm_load_record record = {.samples = samples, .n = n, .end_s = p->warm_up_s + p->duration_s};
    cr_assert_eq(atedm_load_stats_make(p, &record, &stats), ATEDM_OK);
    return &stats;
}

Test(stats, add_up)
{
    atedm_load_plan p = plan();
    atedm_load_sample samples[] = {
        good(1, 1, 2, 0),          // warm-up, answered before its end
        good(9, 9, 12, 0),         // warm-up, answered behind it
        good(10, 10, 13, 1),       // service 2
        good(14, 14.5, 19.5, 2),   // late by 0.5, total 5.5, service 3
        good(29.9, 29.9, 34, 0.1), // the last answer
        good(20, 20, 21, 0),       // a PNG: no details
        good(21, 21, 21.1, 0),     // 503
        good(22, 22, 23, 0),       // broken
        good(25, 25, 26, 0),       // custom
        {.due_s = 28, .sent_s = NAN, .done_s = NAN},
    };
    samples[0].warm_up = samples[1].warm_up = true;
    samples[5].detailed = false;
    samples[5].answer.images = 1;
    samples[6].ok = samples[6].detailed = false;
    samples[6].status = 503;
    samples[7].ok = samples[7].detailed = false;
    samples[7].error = ATEDM_LOAD_BROKEN;
    samples[7].status = 0;
    snprintf(samples[8].answer.preset, sizeof samples[8].answer.preset, "custom");
    samples[8].answer.max_batch = 7;
    const atedm_load_stats *s = stats_of(&p, samples, sizeof samples / sizeof *samples);

    cr_assert(s->sent == 7 && s->ok == 5 && s->failed == 2 && s->unsent == 1 && s->warm_up == 2);
    cr_assert(s->by_status[200] == 5 && s->by_status[503] == 1 && s->by_status[0] == 0);
    cr_assert(s->by_error[ATEDM_LOAD_BROKEN] == 1 && s->late == 1 && s->by_entry[0] == 7);
    cr_assert_float_eq(s->seconds, 24, 1e-12);
    cr_assert_float_eq(s->requests_per_s, 6 / 24.0, 1e-12, "one of the warm-up");
    cr_assert_float_eq(s->images_per_s, 11 / 24.0, 1e-12);
    cr_assert_float_eq(s->sent_per_s, 7 / 20.0, 1e-12);
    cr_assert(s->images == 9 && s->detailed == 4 && s->max_batch == 7 && s->mean_batch == 1.5);
    cr_assert(s->executed == 240 && s->baseline == 400 && s->overhead == 20);
    cr_assert(s->n_presets == 2 && s->presets[0].count == 3 && s->presets[1].count == 1);
    cr_assert_str_eq(s->presets[1].name, "custom");

    cr_assert_float_eq(s->total.max, 5.5, 1e-12);
    cr_assert_float_eq(s->total.p50, 3, 1e-12, "of 1, 1, 3, 4.1, 5.5");
    cr_assert_float_eq(s->total.mean, 14.6 / 5, 1e-12);
    cr_assert_float_eq(s->lateness.max, 0.5, 1e-12);
    cr_assert_float_eq(s->queue.max, 2, 1e-12);
    cr_assert_float_eq(s->service.p95, 4, 1e-9);
    cr_assert_float_eq(s->service.mean, (2 + 3 + 4 + 1) / 4.0, 1e-9);
}

Test(stats, tenths_show_growth)
{
    atedm_load_plan p = plan();
    atedm_load_sample samples[20];
    for (int i = 0; i < 20; i++) // one each second, each a second slower
        samples[i] = good(10 + i, 10 + i, 10.5 + 2 * i, i);
    const atedm_load_stats *s = stats_of(&p, samples, 20);
    size_t due = 0;
    for (int i = 0; i < ATEDM_LOAD_TENTHS; i++) {
        const atedm_load_tenth *t = &s->tenths[i];
        cr_assert_float_eq(t->from_s, 10 + 2 * i, 1e-9);
        cr_assert_float_eq(t->to_s, 12 + 2 * i, 1e-9);
        cr_assert_float_eq(t->total.max, 2 * i + 1.5, 1e-9);
        cr_assert_float_eq(t->mean_queue_s, 2 * i + 0.5, 1e-9);
        due += t->due;
    }
    cr_assert_eq(due, 20);
    // At 14 s, arrivals 0..4 are due and those answered by then are 10.5 and 12.5.
    cr_assert_eq(s->tenths[1].open, 3);
}

Test(stats, an_arrival_at_the_very_end_is_in_the_last_tenth)
{
    atedm_load_plan p = plan();
    atedm_load_sample samples[] = {good(10, 10, 11, 0), good(30, 30, 31, 0)};
    const atedm_load_stats *s = stats_of(&p, samples, 2);
    cr_assert_eq(s->tenths[0].due, 1);
    cr_assert_eq(s->tenths[ATEDM_LOAD_TENTHS - 1].due, 1);
}

Test(stats, of_nothing_are_nothing)
{
    atedm_load_plan p = plan();
    atedm_load_record record = {.end_s = 0, .interrupted = true};
    static atedm_load_stats s;
    cr_assert_eq(atedm_load_stats_make(&p, &record, &s), ATEDM_OK);
    cr_assert(s.sent == 0 && isnan(s.total.p50) && isnan(s.total.max) && isnan(s.total.mean));
    json_t *report = atedm_load_report_json(&p, &record, &s);
    cr_assert_not_null(report, "no NaN may keep it from being JSON");
    char *text = json_dumps(report, 0);
    cr_assert_not_null(text);
    cr_assert(json_is_null(json_object_get(json_object_get(report, "flops"), "saved_ratio")));
    free(text);
    json_decref(report);
}

Test(stats, names_of_prunings_have_a_limit)
{
    atedm_load_plan p = plan();
    atedm_load_sample samples[ATEDM_LOAD_MAX_PRESETS + 4];
    size_t n = sizeof samples / sizeof *samples, sum = 0;
    for (size_t i = 0; i < n; i++) {
        samples[i] = good(11, 11, 12, 0);
        snprintf(samples[i].answer.preset, sizeof samples[i].answer.preset, "p%zu", i);
    }
    const atedm_load_stats *s = stats_of(&p, samples, n);
    cr_assert_eq(s->n_presets, ATEDM_LOAD_MAX_PRESETS);
    cr_assert_str_eq(s->presets[ATEDM_LOAD_MAX_PRESETS - 1].name, "other");
    for (size_t i = 0; i < s->n_presets; i++)
        sum += s->presets[i].count;
    cr_assert_eq(sum, n);
}

// ---- options

static bool parse(const char **argv, atedm_load_options *ret_options, int *ret_exit)
{
    int argc = 0;
    while (argv[argc])
        argc++;
    optind = 0; // glibc: start over
    return atedm_load_options_parse(argc, (char **)argv, ret_options, ret_exit);
}

#define ARGV(...) ((const char *[]){"atedm bench serve", __VA_ARGS__, NULL})

Test(options, have_defaults)
{
    static atedm_load_options o;
    int result = -1;
    unsetenv("ATEDM_API_KEY");
    cr_assert(parse(ARGV("--rate", "2.5"), &o, &result));
    cr_assert_eq(result, 0);
    cr_assert_str_eq(o.plan.url, "http://127.0.0.1:8080/generate");
    cr_assert(o.plan.rate == 2.5 && o.plan.duration_s == 60 && o.plan.requests == INT64_MAX);
    cr_assert(o.plan.warm_up_s == 0 && o.plan.seed == 1 && o.plan.max_open == 512);
    cr_assert(o.plan.timeout_s == 600 && o.plan.grace_s == 30 && !o.plan.endpoint.api_key);
    cr_assert(o.mix.n == 1 && !o.json && !o.output && !o.plot && !o.fail_on_errors);
    atedm_load_options_finish(&o);
}

Test(options, are_taken)
{
    static atedm_load_options o;
    int result = -1;
    setenv("ATEDM_API_KEY", "from-outside", 1);
    cr_assert(parse(ARGV("--concurrency", "3", "--requests=7", "--url", "http://b:1/", "--warmup",
                         "0.5", "--seed", "9223372036854775807", "--timeout", "2", "--grace", "0",
                         "--json", "-o", "a", "--plot", "b", "--fail-on-errors", "--size", "8,16",
                         "--prompt", "x", "--prompt", "y"),
                    &o, &result));
    cr_assert_str_eq(o.plan.url, "http://b:1/generate");
    cr_assert(o.plan.rate == 0 && o.plan.max_open == 3 && o.plan.requests == 7);
    cr_assert(isinf(o.plan.duration_s) && o.plan.warm_up_s == 0.5 && o.plan.seed == INT64_MAX);
    cr_assert(o.plan.timeout_s == 2 && o.plan.grace_s == 0 && o.mix.n == 4);
    cr_assert(o.json && o.fail_on_errors);
    cr_assert_str_eq(o.output, "a");
    cr_assert_str_eq(o.plot, "b");
    cr_assert_str_eq(o.plan.endpoint.api_key, "from-outside");
    atedm_load_options_finish(&o);
    cr_assert(parse(ARGV("--rate", "1", "--api-key", "given"), &o, &result));
    cr_assert_str_eq(o.plan.endpoint.api_key, "given", "over the environment");
    atedm_load_options_finish(&o);
    setenv("ATEDM_API_KEY", "", 1);
    cr_assert(parse(ARGV("--rate", "1"), &o, &result));
    cr_assert_null(o.plan.endpoint.api_key, "empty is absent");
    atedm_load_options_finish(&o);
}

Test(options, at_their_bounds)
{
    static atedm_load_options o;
    static const char *const right[][4] = {
        {"--rate", "100000", "--requests", "1000000"},
        {"--concurrency", "4096"},
        {"--rate", "1", "--max-open", "4096"},
        {"--rate", "1", "--duration", "1000000"},
        {"--rate", "100", "--duration", "10000"},
        {"--concurrency", "1", "--duration", "1e6"},
        {"--concurrency", "1", "--warmup", "1e6"},
        {"--rate", "1", "--timeout", "1000000"},
        {"--rate", "1", "--grace", "1000000"},
        {"--rate", "1", "--guidance-scale", "30"},
        {"--rate", "1", "--steps", "150"},
        {"--rate", "1", "--size", "16384x16384"},
    };
    unsetenv("ATEDM_API_KEY");
    for (size_t i = 0; i < sizeof right / sizeof *right; i++) {
        const char *argv[6] = {"atedm bench serve"};
        for (size_t k = 0; k < 4 && right[i][k]; k++)
            argv[k + 1] = right[i][k];
        int result = -1;
        cr_assert(parse(argv, &o, &result), "case %zu", i);
        atedm_load_options_finish(&o);
    }
    char key[ATEDM_ENDPOINT_MAX_KEY + 1], path[ATEDM_ENDPOINT_MAX_SOCKET + 2];
    memset(key, 'k', sizeof key - 1);
    memset(path, 'p', sizeof path - 1);
    key[sizeof key - 1] = path[sizeof path - 1] = '\0';
    int result = -1;
    cr_assert(parse(ARGV("--rate", "1", "--api-key", key), &o, &result));
    atedm_load_options_finish(&o);
    cr_redirect_stderr();
    cr_assert(!parse(ARGV("--rate", "1", "--unix-socket", path), &o, &result));
    path[ATEDM_ENDPOINT_MAX_SOCKET] = '\0';
    cr_assert(parse(ARGV("--rate", "1", "--unix-socket", path), &o, &result));
    atedm_load_options_finish(&o);
}

Test(options, are_refused, .init = cr_redirect_stderr)
{
    static atedm_load_options o;
    static const char *const wrong[][6] = {
        {"--json"},
        {"--rate", "1", "--concurrency", "1"},
        {"--rate", "1", "--duration", "1", "--requests"},
        {"--rate", "1", "--requests", "1", "--duration=1"},
        {"--concurrency", "1", "--max-open", "1"},
        {"--rate", "1", "--mix", "a", "--steps=1"},
        {"--rate", "0"},
        {"--rate", "-1"},
        {"--rate", "nan"},
        {"--rate", "100001"},
        {"--concurrency", "0"},
        {"--concurrency", "4097"},
        {"--rate", "1", "--max-open", "4097"},
        {"--rate", "1", "--requests", "1000001"},
        {"--rate", "1", "--requests", "0"},
        {"--rate", "1", "--duration", "0"},
        {"--rate", "1", "--duration", "1000001"},
        {"--rate", "100", "--duration", "10001"},
        {"--rate", "1", "--warmup", "1", "--requests=1000000"},
        {"--rate", "1", "--warmup", "-1"},
        {"--rate", "1", "--seed", "-1"},
        {"--rate", "1", "--timeout", "0"},
        {"--rate", "1", "--grace", "x"},
        {"--rate", "1", "--url", "8080"},
        {"--rate", "1", "--api-key", ""},
        {"--rate", "1", "--api-key", "a\r\nX: b"},
        {"--rate", "1", "--mix", "/no/such/file"},
        {"--rate", "1", "--pruning", "none"},
        {"--rate", "1", "stray"},
        {"--no-such-option"},
    };
    unsetenv("ATEDM_API_KEY");
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        const char *argv[8] = {"atedm bench serve"};
        for (size_t k = 0; k < 6 && wrong[i][k]; k++)
            argv[k + 1] = wrong[i][k];
        int result = -1;
        cr_assert(!parse(argv, &o, &result), "case %zu", i);
        cr_assert_eq(result, ATEDM_EXIT_USAGE, "case %zu", i);
    }
    char key[ATEDM_ENDPOINT_MAX_KEY + 2];
    memset(key, 'k', sizeof key - 1);
    key[sizeof key - 1] = '\0';
    int result = -1;
    cr_assert(!parse(ARGV("--rate", "1", "--api-key", key), &o, &result));
    setenv("ATEDM_API_KEY", "a b", 1);
    cr_assert(!parse(ARGV("--rate", "1"), &o, &result), "the environment's too");
    char url[ATEDM_ENDPOINT_MAX_URL + 16];
    memset(url, 'u', sizeof url - 1);
    memcpy(url, "http://a/", 9);
    url[sizeof url - 1] = '\0';
    unsetenv("ATEDM_API_KEY");
    cr_assert(!parse(ARGV("--rate", "1", "--url", url), &o, &result));
}
