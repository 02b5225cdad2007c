// The metrics' registry: arithmetic, the text format, escaping, the limit of series, quantiles.
#include "server/metrics.h"

#include <criterion/criterion.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

static atedm_metrics *metrics;

static void setup(void)
{
    cr_assert_eq(atedm_metrics_create(&metrics), ATEDM_OK);
}

static void teardown(void)
{
    atedm_metrics_destroy(metrics);
}

TestSuite(metrics, .init = setup, .fini = teardown);

static void expect_line(const char *line)
{
    atedm_buffer text;
    atedm_buffer_init(&text, ATEDM_METRICS_TEXT_MAX);
    cr_assert_eq(atedm_metrics_render(metrics, &text), ATEDM_OK);
    char wanted[512];
    snprintf(wanted, sizeof wanted, "\n%s\n", line);
    cr_assert_not_null(strstr(text.data, wanted), "no line \"%s\" in:\n%s", line, text.data);
    atedm_buffer_finish(&text);
}

Test(metrics, counters_add_up_by_labels)
{
    for (int i = 0; i < 3; i++)
        atedm_metrics_count(metrics, ATEDM_METRIC_REQUESTS, 1, ATEDM_LABELS("/generate", "200"));
    atedm_metrics_count(metrics, ATEDM_METRIC_REQUESTS, 1, ATEDM_LABELS("/generate", "422"));
    expect_line("atedm_requests_total{route=\"/generate\",code=\"200\"} 3");
    expect_line("atedm_requests_total{route=\"/generate\",code=\"422\"} 1");
    expect_line("# TYPE atedm_requests_total counter");
}

Test(metrics, counters_keep_every_flop)
{
    // 2^53 + 1 is what a double would lose.
    atedm_metrics_count(metrics, ATEDM_METRIC_FLOPS, 1ULL << 53, ATEDM_LABELS("executed", "unet"));
    atedm_metrics_count(metrics, ATEDM_METRIC_FLOPS, 1, ATEDM_LABELS("executed", "unet"));
    expect_line("atedm_flops_total{kind=\"executed\",stage=\"unet\"} 9007199254740993");
}

Test(metrics, gauges_hold_the_last)
{
    atedm_metrics_set(metrics, ATEDM_METRIC_QUEUE_DEPTH, 5, ATEDM_NO_LABELS);
    atedm_metrics_set(metrics, ATEDM_METRIC_QUEUE_DEPTH, 0, ATEDM_NO_LABELS);
    expect_line("atedm_queue_depth 0");
    expect_line("# TYPE atedm_queue_depth gauge");
    expect_line("# TYPE process_cpu_seconds_total counter");
}

Test(metrics, what_is_removed_is_not_there)
{
    const char *const devices[] = {"a", "b", "c"};
    for (size_t i = 0; i < sizeof devices / sizeof *devices; i++)
        atedm_metrics_set(metrics, ATEDM_METRIC_DEVICE_POWER, (double)i, ATEDM_LABELS(devices[i]));
    atedm_metrics_remove(metrics, ATEDM_METRIC_DEVICE_POWER, ATEDM_LABELS("a"));
    atedm_metrics_remove(metrics, ATEDM_METRIC_DEVICE_POWER, ATEDM_LABELS("a"));
    atedm_metrics_remove(metrics, ATEDM_METRIC_DEVICE_POWER, ATEDM_LABELS("never"));
    cr_assert_null(atedm_metrics_series(metrics, ATEDM_METRIC_DEVICE_POWER, 2));
    expect_line("atedm_device_power_watts{device=\"b\"} 1");
    expect_line("atedm_device_power_watts{device=\"c\"} 2");
    atedm_metrics_set(metrics, ATEDM_METRIC_DEVICE_POWER, 7, ATEDM_LABELS("a"));
    expect_line("atedm_device_power_watts{device=\"a\"} 7");
}

Test(metrics, histograms)
{
    const double sizes[] = {1, 1, 2, 5, 64, 1000};
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++)
        atedm_metrics_observe(metrics, ATEDM_METRIC_BATCH_SIZE, sizes[i], ATEDM_LABELS("cpu"));
    expect_line("atedm_batch_size_bucket{device=\"cpu\",le=\"1\"} 2"); // bounds are inclusive
    expect_line("atedm_batch_size_bucket{device=\"cpu\",le=\"2\"} 3");
    expect_line("atedm_batch_size_bucket{device=\"cpu\",le=\"4\"} 3");
    expect_line("atedm_batch_size_bucket{device=\"cpu\",le=\"6\"} 4");
    expect_line("atedm_batch_size_bucket{device=\"cpu\",le=\"64\"} 5");
    expect_line("atedm_batch_size_bucket{device=\"cpu\",le=\"+Inf\"} 6");
    expect_line("atedm_batch_size_sum{device=\"cpu\"} 1073");
    expect_line("atedm_batch_size_count{device=\"cpu\"} 6");
    atedm_metrics_observe(metrics, ATEDM_METRIC_FLOPS_SAVED, 0.39, ATEDM_NO_LABELS);
    atedm_metrics_observe(metrics, ATEDM_METRIC_FLOPS_SAVED, -0.1, ATEDM_NO_LABELS);
    expect_line("atedm_flops_saved_ratio_bucket{le=\"0.01\"} 1");
    expect_line("atedm_flops_saved_ratio_bucket{le=\"0.4\"} 2");
    expect_line("atedm_flops_saved_ratio_count 2");
}

Test(metrics, labels_are_escaped)
{
    atedm_metrics_set(metrics, ATEDM_METRIC_MODEL_INFO, 1,
                      ATEDM_LABELS("a\"b\\c\nd", "f32", "cpu"));
    expect_line("atedm_model_info{model=\"a\\\"b\\\\c\\nd\",dtype=\"f32\",backend=\"cpu\"} 1");
}

Test(metrics, series_are_limited)
{
    for (int i = 0; i < ATEDM_METRIC_MAX_SERIES + 10; i++) {
        char route[16];
        snprintf(route, sizeof route, "/%d", i);
        atedm_metrics_count(metrics, ATEDM_METRIC_REQUESTS, 1, ATEDM_LABELS(route, "200"));
    }
    cr_assert_not_null(
        atedm_metrics_series(metrics, ATEDM_METRIC_REQUESTS, ATEDM_METRIC_MAX_SERIES - 1));
    cr_assert_null(atedm_metrics_series(metrics, ATEDM_METRIC_REQUESTS, ATEDM_METRIC_MAX_SERIES));
    atedm_metrics_count(metrics, ATEDM_METRIC_REQUESTS, 1, ATEDM_LABELS("/0", "200"));
    cr_assert_eq(atedm_metrics_series(metrics, ATEDM_METRIC_REQUESTS, 0)->count, 2);
}

Test(metrics, quantiles)
{
    // Buckets of batch sizes end at 1, 2, 3, 4, ...: ten in (1, 2], ten in (2, 3].
    for (int i = 0; i < 10; i++) {
        atedm_metrics_observe(metrics, ATEDM_METRIC_BATCH_SIZE, 2, ATEDM_LABELS("cpu"));
        atedm_metrics_observe(metrics, ATEDM_METRIC_BATCH_SIZE, 3, ATEDM_LABELS("cpu"));
    }
    const atedm_series *series = atedm_metrics_series(metrics, ATEDM_METRIC_BATCH_SIZE, 0);
    cr_assert_float_eq(atedm_metrics_quantile(ATEDM_METRIC_BATCH_SIZE, series, 0.5), 2, 1e-12);
    cr_assert_float_eq(atedm_metrics_quantile(ATEDM_METRIC_BATCH_SIZE, series, 0.25), 1.5, 1e-12);
    cr_assert_float_eq(atedm_metrics_quantile(ATEDM_METRIC_BATCH_SIZE, series, 0.9), 2.8, 1e-12);
    atedm_metrics_observe(metrics, ATEDM_METRIC_BATCH_SIZE, 1000, ATEDM_LABELS("big"));
    series = atedm_metrics_series(metrics, ATEDM_METRIC_BATCH_SIZE, 1);
    cr_assert_float_eq(atedm_metrics_quantile(ATEDM_METRIC_BATCH_SIZE, series, 0.5), 64, 0,
                       "above the last bound nothing more is known");
    const atedm_series empty = {.count = 0};
    cr_assert(isnan(atedm_metrics_quantile(ATEDM_METRIC_BATCH_SIZE, &empty, 0.5)));
}

Test(metrics, labels_that_are_too_few_or_too_many)
{
    const char *const *const wrong[] = {ATEDM_NO_LABELS, ATEDM_LABELS("/generate"),
                                        ATEDM_LABELS("/generate", "200", "x")};
    atedm_metrics_count(metrics, ATEDM_METRIC_REQUESTS, 1, ATEDM_LABELS("/generate", "200"));
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        atedm_metrics_count(metrics, ATEDM_METRIC_REQUESTS, 1, wrong[i]);
        atedm_metrics_remove(metrics, ATEDM_METRIC_REQUESTS, wrong[i]);
    }
    atedm_metrics_set(metrics, ATEDM_METRIC_QUEUE_DEPTH, 1, ATEDM_LABELS("x"));
    atedm_metrics_observe(metrics, ATEDM_METRIC_BATCH_SIZE, 1, ATEDM_NO_LABELS);
    cr_assert_eq(atedm_metrics_series(metrics, ATEDM_METRIC_REQUESTS, 0)->count, 1);
    cr_assert_null(atedm_metrics_series(metrics, ATEDM_METRIC_REQUESTS, 1));
    cr_assert_null(atedm_metrics_series(metrics, ATEDM_METRIC_QUEUE_DEPTH, 0));
    cr_assert_null(atedm_metrics_series(metrics, ATEDM_METRIC_BATCH_SIZE, 0));
}

Test(metrics, counters_in_fractions)
{
    atedm_metrics_set(metrics, ATEDM_METRIC_PROCESS_CPU_SECONDS, 1.25, ATEDM_NO_LABELS);
    expect_line("process_cpu_seconds_total 1.25");
    expect_line("# TYPE process_cpu_seconds_total counter");
}

// What is answered from memory takes microseconds.
Test(metrics, quantiles_of_fast_requests)
{
    atedm_metrics_observe(metrics, ATEDM_METRIC_REQUEST_DURATION, 2e-5, ATEDM_LABELS("/healthz"));
    const atedm_series *series = atedm_metrics_series(metrics, ATEDM_METRIC_REQUEST_DURATION, 0);
    cr_assert_leq(atedm_metrics_quantile(ATEDM_METRIC_REQUEST_DURATION, series, 0.5), 1e-4);
    expect_line("atedm_request_duration_seconds_bucket{route=\"/healthz\",le=\"600\"} 1");
}
