// What `atedm bench serve` sends and what it keeps of answers: arrivals, mixes, lists of options,
// the sieve.
#include "cli/endpoint.h"
#include "cli/load_answer.h"
#include "cli/load_draw.h"
#include "cli/load_lists.h"
#include "cli/load_mix.h"

#include <criterion/criterion.h>
#include <criterion/redirect.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

// ---- chance

#define DRAWS 20000

static int compare(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

// Kolmogorov-Smirnov: the largest difference of the distribution functions. Above 1.95 / sqrt(n)
// one generator of thousand would fail by chance; the seeds here are fixed.
Test(draw, gaps_are_exponential)
{
    static double gaps[DRAWS];
    const double rate = 2.5;
    for (uint64_t seed = 0; seed < 4; seed++) {
        for (int i = 0; i < DRAWS; i++)
            gaps[i] = atedm_load_draw_gap(seed, (uint64_t)i, rate);
        qsort(gaps, DRAWS, sizeof *gaps, compare);
        double worst = 0;
        for (int i = 0; i < DRAWS; i++) {
            double expected = 1 - exp(-rate * gaps[i]);
            worst = fmax(worst, fabs((i + 1.0) / DRAWS - expected));
            worst = fmax(worst, fabs((double)i / DRAWS - expected));
        }
        cr_assert_lt(worst, 1.95 / sqrt(DRAWS), "seed %d", (int)seed);
    }
}

// A Poisson process: the numbers of arrivals in equal spans have a variance equal to their mean.
Test(draw, arrivals_are_poisson)
{
    enum { SPANS = 4000 };
    static int counts[SPANS];
    const double rate = 5;
    double t = atedm_load_draw_gap(9, 0, rate);
    for (uint64_t i = 1; t < SPANS; i++) {
        counts[(int)t]++;
        t += atedm_load_draw_gap(9, i, rate);
    }
    double sum = 0, square = 0;
    for (int s = 0; s < SPANS; s++) {
        sum += counts[s];
        square += (double)counts[s] * counts[s];
    }
    double mean = sum / SPANS, variance = square / SPANS - mean * mean;
    cr_assert_float_eq(mean, rate, 0.15);
    cr_assert_float_eq(variance / mean, 1, 0.08);
}

Test(draw, is_a_function_of_seed_and_number)
{
    const double weights[] = {1, 2, 3};
    cr_assert(atedm_load_draw_gap(1, 7, 3) == atedm_load_draw_gap(1, 7, 3));
    cr_assert(atedm_load_draw_gap(1, 7, 3) != atedm_load_draw_gap(2, 7, 3));
    cr_assert(atedm_load_draw_gap(1, 7, 3) != atedm_load_draw_gap(1, 8, 3));
    cr_assert_float_eq(atedm_load_draw_gap(1, 7, 3) * 3, atedm_load_draw_gap(1, 7, 1), 1e-12);
    cr_assert_eq(atedm_load_draw_seed(1, 7), atedm_load_draw_seed(1, 7));
    cr_assert_neq(atedm_load_draw_seed(1, 7), atedm_load_draw_seed(1, 8));
    cr_assert_neq(atedm_load_draw_seed(1, 7), atedm_load_draw_seed(2, 7));
    for (uint64_t i = 0; i < 100; i++)
        cr_assert_eq(atedm_load_draw_entry(5, i, weights, 3),
                     atedm_load_draw_entry(5, i, weights, 3));
}

Test(draw, entries_follow_their_weights)
{
    const double cumulative[] = {1, 1.5, 4};
    int counts[3] = {0};
    for (uint64_t i = 0; i < DRAWS; i++)
        counts[atedm_load_draw_entry(3, i, cumulative, 3)]++;
    cr_assert_float_eq(counts[0], DRAWS / 4.0, 4 * sqrt(DRAWS / 4.0));
    cr_assert_float_eq(counts[1], DRAWS / 8.0, 4 * sqrt(DRAWS / 8.0));
    cr_assert_float_eq(counts[2], DRAWS * 5 / 8.0, 4 * sqrt(DRAWS));
}

// ---- mixes

static atedm_status parse(const char *text, atedm_load_mix *ret_mix, atedm_error *err)
{
    return atedm_load_mix_parse(text, strlen(text), "mix.json", ret_mix, err);
}

Test(mix, is_read)
{
    atedm_load_mix mix = {.n = 0};
    atedm_error err = {""};
    cr_assert_eq(parse("[{\"weight\": 2.5, \"request\": {\"prompt\": \"a\", \"steps\": 3}},"
                       " {\"request\": {\"prompt\": \"b\", \"seed\": 5}}]",
                       &mix, &err),
                 ATEDM_OK, "%s", err.message);
    cr_assert_eq(mix.n, 2);
    cr_assert(mix.weights[0] == 2.5 && mix.weights[1] == 1 && mix.cumulative[1] == 3.5);
    int found[2] = {0};
    for (uint64_t i = 0; i < 50; i++) {
        char *body = atedm_load_mix_body(&mix, 1, i);
        char expected[96];
        size_t entry = atedm_load_mix_choose(&mix, 1, i);
        if (entry == 0)
            snprintf(expected, sizeof expected, "{\"prompt\":\"a\",\"steps\":3,\"seed\":%u}",
                     atedm_load_draw_seed(1, i));
        else
            snprintf(expected, sizeof expected, "{\"prompt\":\"b\",\"seed\":5}");
        cr_assert_str_eq(body, expected);
        found[entry]++;
        free(body);
    }
    cr_assert(found[0] > found[1] && found[1] > 0);
    atedm_load_mix_finish(&mix);
}

Test(mix, a_seed_of_null_is_drawn_and_the_mix_stays_as_it_was)
{
    atedm_load_mix mix = {.n = 0};
    atedm_error err = {""};
    cr_assert_eq(parse("[{\"request\": {\"seed\": null, \"guidance_scale\": 0.7}}]", &mix, &err),
                 ATEDM_OK);
    char *first = atedm_load_mix_body(&mix, 1, 0), *second = atedm_load_mix_body(&mix, 1, 1);
    cr_assert_null(strstr(first, "null"));
    cr_assert_not_null(strstr(first, "\"guidance_scale\":0.7"), "%s", first);
    cr_assert_str_neq(first, second);
    cr_assert(json_is_null(json_object_get(mix.requests[0], "seed")));
    free(first);
    free(second);
    atedm_load_mix_finish(&mix);
}

Test(mix, says_what_is_wrong)
{
    static const struct {
        const char *text, *message;
    } wrong[] = {
        {"", "mix.json:1"},
        {"[{\"request\": {}]", "mix.json:1:"},
        {"{}", "not an array"},
        {"[]", "not an array"},
        {"[{\"request\": {}}, 3]", "entry 1: not an object"},
        {"[{\"weight\": 1}]", "request"},
        {"[{\"request\": []}]", "\"request\" is not an object"},
        {"[{\"request\": {}, \"weight\": 0}]", "\"weight\" is not a positive number"},
        {"[{\"request\": {}, \"weight\": -1}]", "\"weight\" is not a positive number"},
        {"[{\"request\": {}, \"weight\": \"1\"}]", "\"weight\" is not a positive number"},
        {"[{\"request\": {}, \"weight\": 1e308}, {\"request\": {}, \"weight\": 1e308}]",
         "entry 1: \"weight\""},
        {"[{\"request\": {}, \"wieght\": 1}]", "there is no \"wieght\""},
        {"[{\"request\": {}, \"request\": {}}]", "duplicate"},
    };
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        atedm_load_mix mix = {.n = 0};
        atedm_error err = {""};
        cr_assert_neq(parse(wrong[i].text, &mix, &err), ATEDM_OK, "%s", wrong[i].text);
        cr_assert_not_null(strstr(err.message, wrong[i].message), "%s: %s", wrong[i].text,
                           err.message);
        cr_assert_not_null(strstr(err.message, "mix.json"));
        cr_assert_eq(mix.n, 0, "untouched on failure");
    }
}

Test(mix, has_a_limit)
{
    atedm_load_mix mix = {.n = 0};
    atedm_error err = {""};
    for (int i = 0; i < ATEDM_LOAD_MAX_MIX; i++)
        cr_assert_eq(atedm_load_mix_add(&mix, 1, json_object(), &err), ATEDM_OK);
    cr_assert_eq(atedm_load_mix_add(&mix, 1, json_object(), &err), ATEDM_ERR_LIMIT);
    cr_assert_eq(mix.n, ATEDM_LOAD_MAX_MIX);
    atedm_load_mix_finish(&mix);
    cr_assert_eq(atedm_load_mix_read("/no/such/file", &mix, &err), ATEDM_ERR_NOT_FOUND);
}

// ---- lists

Test(lists, make_a_cross_product)
{
    atedm_load_lists lists = {.guidance_scale = NAN};
    atedm_load_mix mix = {.n = 0};
    atedm_error err = {""};
    cr_assert(atedm_load_lists_add_prompt(&lists, "a, b"));
    cr_assert(atedm_load_lists_add_sizes(&lists, "64x32,128"));
    cr_assert(atedm_load_lists_add_steps(&lists, "4"));
    cr_assert(atedm_load_lists_add_steps(&lists, "8"));
    cr_assert_eq(
        atedm_load_lists_add_prunings(&lists, "off,{\"preset\":\"at-edm\",\"ratio\":0.5},at-edm-b"),
        0);
    cr_assert_eq(atedm_load_lists_cross(&lists, &mix, &err), ATEDM_OK, "%s", err.message);
    cr_assert_eq(mix.n, 2 * 2 * 3);
    static const struct {
        size_t entry;
        const char *text;
    } some[] = {
        {0, "{'prompt':'a, b','width':64,'height':32,'steps':4,'pruning':'off'}"},
        {4, "{'prompt':'a, "
            "b','width':64,'height':32,'steps':8,'pruning':{'preset':'at-edm','ratio':0.5}}"},
        {11, "{'prompt':'a, b','width':128,'height':128,'steps':8,'pruning':'at-edm-b'}"},
    };
    for (size_t i = 0; i < mix.n; i++)
        cr_assert(mix.weights[i] == 1);
    for (size_t i = 0; i < sizeof some / sizeof *some; i++) {
        char *text = json_dumps(mix.requests[some[i].entry], JSON_COMPACT);
        for (char *at = text; *at; at++)
            *at = *at == '"' ? '\'' : *at;
        cr_assert_str_eq(text, some[i].text);
        free(text);
    }
    atedm_load_mix_finish(&mix);
    atedm_load_lists_finish(&lists);
}

Test(lists, leave_out_what_is_not_given)
{
    atedm_load_lists lists = {.guidance_scale = NAN};
    atedm_load_mix mix = {.n = 0};
    cr_assert(atedm_load_lists_add_prompt(&lists, "a"));
    cr_assert(atedm_load_lists_add_guidance(&lists, "4.5"));
    cr_assert_eq(atedm_load_lists_cross(&lists, &mix, NULL), ATEDM_OK);
    cr_assert_eq(mix.n, 1);
    cr_assert_eq(json_object_size(mix.requests[0]), 2);
    cr_assert(json_number_value(json_object_get(mix.requests[0], "guidance_scale")) == 4.5);
    atedm_load_mix_finish(&mix);
}

Test(lists, refuse_what_is_wrong, .init = cr_redirect_stderr)
{
    atedm_load_lists lists = {.guidance_scale = NAN};
    static const char *const sizes[] = {"", "64x", "64x64,", ",64x64", "64x64 ,32x32", "16392x8"};
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++)
        cr_assert(!atedm_load_lists_add_sizes(&lists, sizes[i]), "%s", sizes[i]);
    static const char *const steps[] = {"", "0", "151", "4,,8", "4;8"};
    for (size_t i = 0; i < sizeof steps / sizeof *steps; i++)
        cr_assert(!atedm_load_lists_add_steps(&lists, steps[i]), "%s", steps[i]);
    static const char *const prunings[] = {
        "", "off,", "at-edm-z", "{\"ratio\":2}", "{\"ratio\":", "{\"ratio\":0.5} off"};
    for (size_t i = 0; i < sizeof prunings / sizeof *prunings; i++)
        cr_assert_eq(atedm_load_lists_add_prunings(&lists, prunings[i]), 2, "%s", prunings[i]);
    cr_assert(!atedm_load_lists_add_guidance(&lists, "31"));
    cr_assert(!atedm_load_lists_add_guidance(&lists, "-1"));
    cr_assert(!atedm_load_lists_add_prompt(&lists, ""));
    cr_assert(!atedm_load_lists_add_prompt(&lists, "\xff"));
    atedm_load_lists_finish(&lists);
}

Test(lists, have_limits, .init = cr_redirect_stderr)
{
    atedm_load_lists lists = {.guidance_scale = NAN};
    atedm_load_mix mix = {.n = 0};
    for (int i = 0; i < ATEDM_LOAD_MAX_LIST; i++) {
        cr_assert(atedm_load_lists_add_prompt(&lists, "a"));
        cr_assert(atedm_load_lists_add_sizes(&lists, "8"));
        cr_assert(atedm_load_lists_add_steps(&lists, "1"));
        cr_assert_eq(atedm_load_lists_add_prunings(&lists, "off"), 0);
    }
    cr_assert(!atedm_load_lists_add_prompt(&lists, "a"));
    cr_assert(!atedm_load_lists_add_sizes(&lists, "8"));
    cr_assert(!atedm_load_lists_add_steps(&lists, "1"));
    cr_assert_eq(atedm_load_lists_add_prunings(&lists, "off"), 2);
    cr_assert_eq(atedm_load_lists_cross(&lists, &mix, NULL), ATEDM_ERR_LIMIT);
    atedm_load_lists_finish(&lists);
}

// ---- addresses

static bool address(const char *base, size_t size, char *ret_url)
{
    return atedm_endpoint_address(&(atedm_endpoint){.url = base}, "/generate", size, ret_url);
}

Test(url, becomes_that_of_generate)
{
    char url[64] = "";
    cr_assert(address("http://127.0.0.1:8080", sizeof url, url));
    cr_assert_str_eq(url, "http://127.0.0.1:8080/generate");
    cr_assert(address("https://[::1]/v1//", sizeof url, url));
    cr_assert_str_eq(url, "https://[::1]/v1/generate");
    static const char *const wrong[] = {
        "",           "127.0.0.1:8080",
        "ftp://a",    "http://",
        "http://a?b", "http://a#b",
        "http://a b", "http://a:99999",
        "file:///a",  "http://a-name-that-is-too-long-for-the-place-where-it-has-to-go"};
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++)
        cr_assert(!address(wrong[i], sizeof url, url), "%s", wrong[i]);
}

// ---- answers

static void sift(atedm_load_sieve *sieve, const char *text, size_t piece)
{
    size_t size = strlen(text);
    atedm_load_sieve_reset(sieve);
    for (size_t i = 0; i < size; i += piece)
        cr_assert_eq(atedm_load_sieve_write(sieve, text + i, size - i < piece ? size - i : piece),
                     ATEDM_OK);
}

Test(sieve, drops_long_strings_only)
{
    static char text[3 * ATEDM_LOAD_MAX_STRING + 100], most[ATEDM_LOAD_MAX_STRING + 1];
    static char more[2 * ATEDM_LOAD_MAX_STRING];
    memset(most, 'x', sizeof most - 1);
    memset(more, 'y', ATEDM_LOAD_MAX_STRING + 20);
    more[ATEDM_LOAD_MAX_STRING + 1] = more[ATEDM_LOAD_MAX_STRING + 3] = '\\';
    more[ATEDM_LOAD_MAX_STRING + 2] = '"'; // escapes within what is dropped
    more[ATEDM_LOAD_MAX_STRING + 4] = '\\';
    snprintf(text, sizeof text, "{\"a\":\"%s\",\"b\":[\"%s\",\"\\\\\",\"\\\"\"],\"c\":1}", most,
             more);
    static char expected[2 * ATEDM_LOAD_MAX_STRING];
    snprintf(expected, sizeof expected, "{\"a\":\"%s\",\"b\":[\"\",\"\\\\\",\"\\\"\"],\"c\":1}",
             most);
    atedm_load_sieve sieve;
    atedm_load_sieve_init(&sieve);
    static const size_t pieces[] = {1, 2, 7, 1000, sizeof text};
    for (size_t i = 0; i < sizeof pieces / sizeof *pieces; i++) {
        sift(&sieve, text, pieces[i]);
        cr_assert_str_eq(sieve.kept.data, expected, "pieces of %zu", pieces[i]);
    }
    atedm_load_sieve_finish(&sieve);
}

Test(sieve, has_a_limit)
{
    static char text[ATEDM_LOAD_MAX_ANSWER + 1];
    memset(text, ' ', sizeof text);
    atedm_load_sieve sieve;
    atedm_load_sieve_init(&sieve);
    cr_assert_eq(atedm_load_sieve_write(&sieve, text, sizeof text - 1), ATEDM_OK);
    cr_assert_eq(atedm_load_sieve_write(&sieve, text, 1), ATEDM_ERR_LIMIT);
    atedm_load_sieve_finish(&sieve);
}

#define GOOD                                                                                       \
    "{\"pruning\": {\"preset\": \"at-edm\"}, \"flops\": {\"executed\": 5, \"baseline\": 9, "       \
    "\"overhead\": 1}, \"latency\": {\"queue_s\": 0.25}, \"batch\": {\"mean_size\": 1.5, "         \
    "\"max_size\": 2}, \"images\": [{}, {}]}"

Test(answer, is_read)
{
    atedm_load_answer a;
    cr_assert_eq(atedm_load_answer_parse(GOOD, strlen(GOOD), &a), ATEDM_OK);
    cr_assert(a.executed == 5 && a.baseline == 9 && a.overhead == 1 && a.queue_s == 0.25);
    cr_assert(a.mean_batch == 1.5 && a.max_batch == 2 && a.images == 2);
    cr_assert_str_eq(a.preset, "at-edm");
}

// The good answer with one place changed.
static atedm_status parse_changed(const char *from, const char *to, atedm_load_answer *ret_answer)
{
    char text[512];
    const char *at = strstr(GOOD, from);
    cr_assert_not_null(at);
    snprintf(text, sizeof text, "%.*s%s%s", (int)(at - GOOD), GOOD, to, at + strlen(from));
    return atedm_load_answer_parse(text, strlen(text), ret_answer);
}

Test(answer, is_refused_where_something_is_missing)
{
    atedm_load_answer a = {.images = 42};
    static const char *const parts[] = {"preset",  "executed",  "baseline", "overhead",
                                        "queue_s", "mean_size", "max_size", "images"};
    for (size_t i = 0; i < sizeof parts / sizeof *parts; i++)
        cr_assert_eq(parse_changed(parts[i], "other", &a), ATEDM_ERR_FORMAT, "%s", parts[i]);
    cr_assert_eq(parse_changed("[{}, {}]", "[]", &a), ATEDM_ERR_FORMAT);
    cr_assert_eq(parse_changed("\"queue_s\": 0.25", "\"queue_s\": \"0.25\"", &a), ATEDM_ERR_FORMAT);
    cr_assert_eq(parse_changed("\"max_size\": 2", "\"max_size\": 1e300", &a), ATEDM_ERR_FORMAT);
    cr_assert_eq(atedm_load_answer_parse(NULL, 0, &a), ATEDM_ERR_FORMAT);
    cr_assert_eq(atedm_load_answer_parse(GOOD, strlen(GOOD) - 1, &a), ATEDM_ERR_FORMAT);
    cr_assert_eq(a.images, 42, "untouched on failure");
    cr_assert_eq(parse_changed("\"at-edm\"", "null", &a), ATEDM_OK);
    cr_assert_str_eq(a.preset, "custom");
}
