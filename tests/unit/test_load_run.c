// Runs of `atedm bench serve` against a port where nobody listens: limits. Its picture, with more
// requests than it draws. Runs against servers are in tests/e2e/cli_bench_serve.py.
#include "cli/load_plot.h"
#include "cli/load_run.h"
#include "cli/svg.h"

#include <arpa/inet.h>
#include <criterion/criterion.h>
#include <math.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

// ---- runs

static atedm_load_mix mix;
static char url[64];

// The port is taken, so that nobody else listens there, but does not listen either.
static void setup(void)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t size = sizeof address;
    int s = socket(AF_INET, SOCK_STREAM, 0);
    cr_assert(s >= 0 && bind(s, (struct sockaddr *)&address, size) == 0);
    cr_assert_eq(getsockname(s, (struct sockaddr *)&address, &size), 0);
    snprintf(url, sizeof url, "http://127.0.0.1:%d/generate", ntohs(address.sin_port));
    cr_assert_eq(atedm_load_mix_add(&mix, 1, json_object(), NULL), ATEDM_OK);
}

static atedm_load_plan plan(double rate)
{
    return (atedm_load_plan){.url = url,
                             .mix = &mix,
                             .rate = rate,
                             .max_open = 1,
                             .duration_s = 100,
                             .requests = INT64_MAX,
                             .limit = 3,
                             .timeout_s = 10};
}

TestSuite(run, .init = setup, .timeout = 60);

Test(run, ends_at_the_limit_of_requests)
{
    for (int open = 0; open < 2; open++) {
        atedm_load_plan p = plan(open ? 100 : 0);
        atedm_load_record record;
        atedm_error err = {""};
        cr_assert_eq(atedm_load_run(&p, &record, &err), ATEDM_OK, "%s", err.message);
        cr_assert(record.full && !record.interrupted && record.n == 3);
        for (size_t i = 0; i < record.n; i++)
            cr_assert_eq(record.samples[i].error, ATEDM_LOAD_CONNECT);
        cr_assert(record.end_s < 50);
        atedm_load_record_finish(&record);
    }
}

Test(run, counts_requests_without_the_warm_up)
{
    atedm_load_plan p = plan(100);
    p.limit = ATEDM_LOAD_MAX_REQUESTS;
    p.warm_up_s = 0.2;
    p.requests = 5;
    p.duration_s = INFINITY;
    atedm_load_record record;
    cr_assert_eq(atedm_load_run(&p, &record, NULL), ATEDM_OK);
    size_t counted = 0;
    for (size_t i = 0; i < record.n; i++) {
        cr_assert_eq(record.samples[i].warm_up, record.samples[i].due_s < 0.2);
        counted += !record.samples[i].warm_up;
    }
    cr_assert(counted == 5 && record.n > 5 && !record.full);
    cr_assert(record.end_s == record.samples[record.n - 1].due_s);
    atedm_load_record_finish(&record);
}

Test(run, needs_a_descriptor_for_each_client)
{
    struct rlimit few = {.rlim_cur = 40, .rlim_max = 100};
    cr_assert_eq(setrlimit(RLIMIT_NOFILE, &few), 0);
    atedm_load_plan p = plan(100);
    atedm_load_record record = {.n = 42};
    atedm_error err = {""};
    p.max_open = ATEDM_LOAD_MAX_OPEN;
    cr_assert_eq(atedm_load_run(&p, &record, &err), ATEDM_ERR_LIMIT);
    cr_assert_not_null(strstr(err.message, "4096 connections"), "%s", err.message);
    cr_assert_not_null(strstr(err.message, "100 open files"), "%s", err.message);
    cr_assert_eq(record.n, 42, "untouched on failure");
    p.max_open = 20; // takes a higher limit than there is, and not more than there may be
    cr_assert_eq(atedm_load_run(&p, &record, &err), ATEDM_OK, "%s", err.message);
    atedm_load_record_finish(&record);
}

// ---- pictures

// The picture of `n` requests, the last of which failed; the caller frees.
static char *picture(size_t n)
{
    char path[] = "/tmp/atedm-test-XXXXXX";
    static char text[1 << 20];
    static atedm_load_stats stats;
    atedm_load_plan p = {
        .url = "http://a/?<\"&>", .mix = &mix, .rate = 1, .duration_s = 10, .requests = INT64_MAX};
    atedm_load_record record = {.n = n, .end_s = 10};
    atedm_error err = {""};
    record.samples = calloc(n, sizeof *record.samples);
    for (size_t i = 0; i < n; i++)
        record.samples[i] =
            (atedm_load_sample){.done_s = 1 + (double)i / (double)n, .ok = i + 1 < n};
    int file = mkstemp(path);
    cr_assert(file >= 0);
    cr_assert_eq(atedm_load_stats_make(&p, &record, &stats), ATEDM_OK);
    cr_assert_eq(atedm_load_plot_write(path, &p, &record, &stats, &err), ATEDM_OK, "%s",
                 err.message);
    ssize_t size = read(file, text, sizeof text - 1);
    cr_assert(size > 0 && size < (ssize_t)sizeof text - 1);
    text[size] = '\0';
    close(file);
    unlink(path);
    atedm_load_record_finish(&record);
    return text;
}

static size_t count(const char *text, const char *what)
{
    size_t n = 0;
    while ((text = strstr(text, what))) {
        n++;
        text++;
    }
    return n;
}

Test(picture, has_a_dot_for_each_request_up_to_the_limit)
{
    cr_assert_eq(count(picture(50), "<circle"), 49);
    cr_assert_eq(count(picture(ATEDM_LOAD_MAX_DOTS), "<circle"), ATEDM_LOAD_MAX_DOTS - 1);
    const char *many = picture(2 * ATEDM_LOAD_MAX_DOTS + 1);
    cr_assert_eq(count(many, "<circle"), (2 * ATEDM_LOAD_MAX_DOTS + 1 + 2) / 3);
    cr_assert_eq(count(many, "one request of 3"), 1);
}

Test(picture, escapes_text)
{
    cr_assert_eq(count(picture(2), "http://a/?&lt;\"&amp;&gt;"), 1);
    char *text = NULL;
    size_t size = 0;
    FILE *file = open_memstream(&text, &size);
    atedm_svg_text(file, 1, 2, "", "%s", "a\x01z\xff");
    fclose(file);
    cr_assert_str_eq(text, "<text x=\"1.0\" y=\"2.0\" >a?z?</text>\n");
    free(text);
}

Test(picture, cannot_be_written_everywhere)
{
    atedm_load_plan p = {.url = "u", .mix = &mix};
    atedm_load_record record = {.n = 0};
    static atedm_load_stats stats;
    atedm_error err = {""};
    cr_assert_eq(atedm_load_plot_write("/no/such/file.svg", &p, &record, &stats, &err),
                 ATEDM_ERR_IO);
    cr_assert_not_null(strstr(err.message, "/no/such/file.svg"));
    cr_assert_eq(atedm_load_plot_write("/dev/full", &p, &record, &stats, &err), ATEDM_ERR_IO);
}

Test(svg, steps_are_1_2_5)
{
    cr_assert_float_eq(atedm_svg_step(10, 10), 1, 1e-12);
    cr_assert_float_eq(atedm_svg_step(16, 10), 2, 1e-12);
    cr_assert_float_eq(atedm_svg_step(0.7, 10), 0.05, 1e-12);
    cr_assert_float_eq(atedm_svg_step(9000, 10), 1000, 1e-9);
    cr_assert_float_eq(atedm_svg_ceil(7.3, 5), 8, 1e-12, "steps of 1");
    cr_assert_float_eq(atedm_svg_ceil(8, 5), 8, 1e-12);
    atedm_svg_panel panel = {
        .left = 10, .top = 20, .width = 100, .height = 50, .x_max = 4, .y_max = 2};
    cr_assert(atedm_svg_x(&panel, 1) == 35 && atedm_svg_y(&panel, 0) == 70);
    cr_assert(atedm_svg_y(&panel, 2) == 20);
}
