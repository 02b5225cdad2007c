// Bodies of /generate: what is refused before and after parsing, every wrong field at once, what a
// good body becomes; base64; the log's lines, whatever their values hold.
#include "core/base/utf8.h"
#include "core/plan_json.h"
#include "server/generate_json.h"
#include "server/json_body.h"
#include "server/log.h"
#include "server/text.h"

#include <criterion/criterion.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static const atedm_request_limits limits = {.native_width = 128,
                                            .native_height = 64,
                                            .size_multiple = 8,
                                            .max_area = 65536,
                                            .max_images = 4,
                                            .max_steps = 150};

// ---- parsing

static void expect_refused(const char *text, size_t size, const char *part)
{
    json_t *value = NULL;
    atedm_error err = {""};
    cr_assert_neq(atedm_json_body_parse(text, size, &value, &err), ATEDM_OK, "%s", part);
    cr_assert_null(value);
    cr_assert_not_null(strstr(err.message, part), "\"%s\" lacks \"%s\"", err.message, part);
}

Test(json_body, refused)
{
    expect_refused("", 0, "line 1");
    expect_refused("{", 1, "line 1");
    expect_refused("prompt", 6, "line 1");
    expect_refused("{\"a\":1,\"a\":2}", 13, "duplicate");
    expect_refused("\"\xff\"", 3, "not valid UTF-8 at byte 1");
    expect_refused("\xef\xbb\xbf{}", 5, "line 1"); // a byte order mark
    expect_refused("\"a\\u0000\"", 9, "u0000");
    expect_refused("{\"a\":1e999}", 11, "overflow");
    expect_refused("{} {}", 5, "line 1");
}

Test(json_body, depth)
{
    char text[2 * ATEDM_JSON_DEPTH_MAX + 4];
    for (int extra = 0; extra < 2; extra++) {
        size_t depth = ATEDM_JSON_DEPTH_MAX + (size_t)extra;
        memset(text, '[', depth);
        memset(text + depth, ']', depth);
        if (extra) {
            expect_refused(text, 2 * depth, "nested deeper than 16 levels at byte 16");
            continue;
        }
        json_t *value = NULL;
        cr_assert_eq(atedm_json_body_parse(text, 2 * depth, &value, NULL), ATEDM_OK);
        json_decref(value);
    }
}

Test(json_body, a_million_brackets)
{
    size_t size = 1000000;
    char *text = malloc(size);
    cr_assert_not_null(text);
    memset(text, '{', size);
    expect_refused(text, size, "nested deeper");
    free(text);
}

Test(json_body, brackets_in_strings_are_text)
{
    const char *text = "{\"a\":\"[[[[[[[[[[[[[[[[[[[[[[[[\\\"[[[[[[\\\\\"}";
    json_t *value = NULL;
    cr_assert_eq(atedm_json_body_parse(text, strlen(text), &value, NULL), ATEDM_OK);
    json_decref(value);
}

Test(json_body, integers_beyond_64_bits_are_reals)
{
    const char *text = "{\"a\":99999999999999999999,\"b\":7,\"c\":[1,{\"d\":2}]}";
    json_t *value = NULL;
    cr_assert_eq(atedm_json_body_parse(text, strlen(text), &value, NULL), ATEDM_OK);
    cr_assert(json_is_real(json_object_get(value, "a")));
    cr_assert(json_is_integer(json_object_get(value, "b")));
    json_t *c = json_object_get(value, "c");
    cr_assert(json_is_integer(json_array_get(c, 0)));
    cr_assert_eq(json_integer_value(json_object_get(json_array_get(c, 1), "d")), 2);
    json_decref(value);
}

// ---- fields

static atedm_request request;
static atedm_field_errors errors;

static void read_body(const char *text, bool png_wanted)
{
    json_t *value = NULL;
    atedm_error err = {""};
    atedm_prune_spec prune;
    cr_assert_eq(atedm_json_body_parse(text, strlen(text), &value, &err), ATEDM_OK, "%s: %s", text,
                 err.message);
    cr_assert_eq(atedm_prune_preset("at-edm", &prune), ATEDM_OK);
    errors = (atedm_field_errors){.count = 0};
    cr_assert_eq(
        atedm_generate_json_read(value, &limits, &prune, png_wanted, 1234, &request, &errors),
        ATEDM_OK);
    json_decref(value);
}

// The body's only error is at `pointer`, and its text has `part` in it.
static void expect_error(const char *text, const char *pointer, const char *part)
{
    read_body(text, false);
    cr_assert_eq(errors.count, 1, "%s: %zu errors, the last at %s", text, errors.count,
                 errors.count ? errors.items[errors.count - 1].pointer : "-");
    cr_assert_str_eq(errors.items[0].pointer, pointer, "%s", text);
    cr_assert_not_null(strstr(errors.items[0].detail, part), "%s: \"%s\" lacks \"%s\"", text,
                       errors.items[0].detail, part);
    atedm_request_finish(&request);
}

Test(generate_json, defaults)
{
    read_body("{\"prompt\":\"a cat\"}", false);
    cr_assert_eq(errors.count, 0);
    cr_assert_str_eq(request.prompt, "a cat");
    cr_assert_null(request.negative_prompt);
    cr_assert_eq(request.width, 128);
    cr_assert_eq(request.height, 64);
    cr_assert_eq(request.steps, 30);
    cr_assert_float_eq(request.guidance_scale, 7, 0);
    cr_assert_eq(request.seed, 1234);
    cr_assert_eq(request.num_images, 1);
    cr_assert_str_eq(request.sampler, "euler");
    cr_assert_str_eq(request.prune.preset, "at-edm");
    cr_assert_eq(request.response_format, ATEDM_RESPONSE_B64_JSON);
    cr_assert(isnan(request.deadline_s));
    cr_assert_eq(request.priority, 0);
    atedm_request_finish(&request);
}

Test(generate_json, every_field)
{
    read_body(
        "{\"prompt\":\"a\",\"negative_prompt\":\"\",\"width\":64,\"height\":256,\"steps\":150,"
        "\"guidance_scale\":1,\"seed\":9223372036854775807,\"num_images\":1,"
        "\"sampler\":\"euler\",\"pruning\":{\"preset\":\"at-edm-b\",\"ratio\":0.25},"
        "\"response_format\":\"png\",\"deadline_s\":1.5,\"priority\":-10}",
        false);
    cr_assert_eq(errors.count, 0, "%s %s", errors.items[0].pointer, errors.items[0].detail);
    cr_assert_str_eq(request.negative_prompt, "");
    cr_assert_eq(request.width, 64);
    cr_assert_eq(request.height, 256);
    cr_assert_eq(request.steps, 150);
    cr_assert_float_eq(request.guidance_scale, 1, 0);
    cr_assert_eq(request.seed, (uint64_t)INT64_MAX);
    cr_assert_str_eq(request.prune.preset, "at-edm-b");
    cr_assert_float_eq(request.prune.ratio, 0.25, 0);
    cr_assert_eq(request.response_format, ATEDM_RESPONSE_PNG);
    cr_assert_float_eq(request.deadline_s, 1.5, 0);
    cr_assert_eq(request.priority, -10);
    atedm_request_finish(&request);
}

Test(generate_json, null_means_absent_where_api_md_says_so)
{
    read_body("{\"prompt\":\"a\",\"negative_prompt\":null,\"seed\":null,\"deadline_s\":null}",
              false);
    cr_assert_eq(errors.count, 0);
    cr_assert_null(request.negative_prompt);
    cr_assert_eq(request.seed, 1234);
    cr_assert(isnan(request.deadline_s));
    atedm_request_finish(&request);
    expect_error("{\"prompt\":\"a\",\"steps\":null}", "/steps", "not an integer");
    expect_error("{\"prompt\":\"a\",\"pruning\":null}", "/pruning", "");
    expect_error("{\"prompt\":\"a\",\"sampler\":null}", "/sampler", "not a string");
}

Test(generate_json, response_format_over_accept)
{
    read_body("{\"prompt\":\"a\"}", true);
    cr_assert_eq(request.response_format, ATEDM_RESPONSE_PNG);
    atedm_request_finish(&request);
    read_body("{\"prompt\":\"a\",\"response_format\":\"b64_json\"}", true);
    cr_assert_eq(request.response_format, ATEDM_RESPONSE_B64_JSON);
    atedm_request_finish(&request);
    read_body("{\"prompt\":\"a\",\"num_images\":2}", true);
    cr_assert_eq(errors.count, 1);
    cr_assert_str_eq(errors.items[0].pointer, "/response_format");
    atedm_request_finish(&request);
}

Test(generate_json, wrong_types)
{
    expect_error("[]", "", "not an object");
    expect_error("\"prompt\"", "", "not an object");
    expect_error("{}", "/prompt", "missing");
    expect_error("{\"prompt\":1}", "/prompt", "not a string");
    expect_error("{\"prompt\":null}", "/prompt", "not a string");
    expect_error("{\"prompt\":[\"a\"]}", "/prompt", "not a string");
    expect_error("{\"prompt\":\"a\",\"negative_prompt\":7}", "/negative_prompt", "neither");
    expect_error("{\"prompt\":\"a\",\"width\":\"64\"}", "/width", "not an integer");
    expect_error("{\"prompt\":\"a\",\"height\":64.0}", "/height", "not an integer");
    expect_error("{\"prompt\":\"a\",\"steps\":true}", "/steps", "not an integer");
    expect_error("{\"prompt\":\"a\",\"guidance_scale\":\"7\"}", "/guidance_scale", "not a number");
    expect_error("{\"prompt\":\"a\",\"seed\":1.5}", "/seed", "not an integer");
    expect_error("{\"prompt\":\"a\",\"seed\":\"1\"}", "/seed", "neither an integer nor null");
    expect_error("{\"prompt\":\"a\",\"num_images\":{}}", "/num_images", "not an integer");
    expect_error("{\"prompt\":\"a\",\"sampler\":1}", "/sampler", "not a string");
    expect_error("{\"prompt\":\"a\",\"pruning\":1}", "/pruning", "");
    expect_error("{\"prompt\":\"a\",\"response_format\":1}", "/response_format", "b64_json");
    expect_error("{\"prompt\":\"a\",\"deadline_s\":\"1\"}", "/deadline_s", "neither");
    expect_error("{\"prompt\":\"a\",\"priority\":1e2}", "/priority", "not an integer");
}

Test(generate_json, out_of_range)
{
    expect_error("{\"prompt\":\"\"}", "/prompt", "empty");
    expect_error("{\"prompt\":\"a\",\"width\":0}", "/width", "");
    expect_error("{\"prompt\":\"a\",\"width\":-8}", "/width", "");
    expect_error("{\"prompt\":\"a\",\"width\":63}", "/width", "multiple of 8");
    expect_error("{\"prompt\":\"a\",\"width\":16392}", "/width", "");
    expect_error("{\"prompt\":\"a\",\"width\":9223372036854775807}", "/width",
                 "is 9223372036854775807, not an integer within 8..16384");
    expect_error("{\"prompt\":\"a\",\"width\":99999999999999999999}", "/width", "1e+20");
    expect_error("{\"prompt\":\"a\",\"width\":512,\"height\":512}", "/width", "limit of 65536");
    expect_error("{\"prompt\":\"a\",\"steps\":0}", "/steps", "1..150");
    expect_error("{\"prompt\":\"a\",\"steps\":151}", "/steps", "1..150");
    expect_error("{\"prompt\":\"a\",\"guidance_scale\":-0.1}", "/guidance_scale", "0..30");
    expect_error("{\"prompt\":\"a\",\"guidance_scale\":30.1}", "/guidance_scale", "0..30");
    expect_error("{\"prompt\":\"a\",\"seed\":-1}", "/seed", "0..9223372036854775807");
    expect_error("{\"prompt\":\"a\",\"seed\":9223372036854775808}", "/seed",
                 "not an integer within");
    expect_error("{\"prompt\":\"a\",\"seed\":9223372036854775807,\"num_images\":2}", "/seed", "");
    expect_error("{\"prompt\":\"a\",\"num_images\":0}", "/num_images", "1..4");
    expect_error("{\"prompt\":\"a\",\"num_images\":5}", "/num_images", "1..4");
    expect_error("{\"prompt\":\"a\",\"sampler\":\"ddim\"}", "/sampler", "not one of \"euler\", ");
    expect_error("{\"prompt\":\"a\",\"sampler\":\"a name that is longer than any sampler has\"}",
                 "/sampler", "not one of \"euler\", ");
    expect_error("{\"prompt\":\"a\",\"response_format\":\"gif\"}", "/response_format", "b64_json");
    expect_error("{\"prompt\":\"a\",\"deadline_s\":0}", "/deadline_s", "");
    expect_error("{\"prompt\":\"a\",\"deadline_s\":86401}", "/deadline_s", "");
    expect_error("{\"prompt\":\"a\",\"priority\":11}", "/priority", "-10..10");
    expect_error("{\"prompt\":\"a\",\"pruning\":{\"ratio\":1.5}}", "/pruning/ratio", "");
    expect_error("{\"prompt\":\"a\",\"promt\":\"b\"}", "/promt", "not a known field");
    expect_error("{\"prompt\":\"a\",\"x/y~z\":1}", "/x~1y~0z", "not a known field");
}

Test(generate_json, all_at_once)
{
    read_body(
        "{\"prompt\":5,\"width\":7,\"steps\":-1,\"guidance_scale\":99,\"seed\":-5,\"num_images\":"
        "0,\"sampler\":\"x\",\"pruning\":{\"ratio\":2,\"flops_budget\":0.5,\"nonsense\":1},"
        "\"deadline_s\":-1,\"priority\":99,\"response_format\":\"gif\",\"extra\":1}",
        false);
    const char *const wanted[] = {
        "/prompt",     "/width",      "/steps",           "/guidance_scale",
        "/seed",       "/num_images", "/sampler",         "/pruning/nonsense",
        "/deadline_s", "/priority",   "/response_format", "/extra"};
    for (size_t i = 0; i < sizeof wanted / sizeof *wanted; i++) {
        size_t found = 0;
        for (size_t k = 0; k < errors.count; k++)
            found += strcmp(errors.items[k].pointer, wanted[i]) == 0;
        cr_assert_eq(found, 1, "%s: %zu times", wanted[i], found);
    }
    atedm_request_finish(&request);
}

Test(generate_json, many_unknown_fields_are_counted)
{
    char text[8192];
    int size = snprintf(text, sizeof text, "{\"prompt\":\"a\"");
    for (int i = 0; i < 100; i++)
        size += snprintf(text + size, sizeof text - (size_t)size, ",\"field%d\":1", i);
    snprintf(text + size, sizeof text - (size_t)size, "}");
    read_body(text, false);
    cr_assert_eq(errors.count, ATEDM_FIELD_ERRORS_MAX);
    cr_assert_eq(errors.count + errors.more, 100);
    atedm_request_finish(&request);
}

Test(generate_json, prompt_of_8_kilobytes)
{
    char text[2 * ATEDM_PROMPT_MAX];
    for (size_t bytes = ATEDM_PROMPT_MAX; bytes <= ATEDM_PROMPT_MAX + 4; bytes += 4) {
        int size = snprintf(text, sizeof text, "{\"prompt\":\"");
        for (size_t i = 0; i < bytes; i += 4)
            size += snprintf(text + size, sizeof text - (size_t)size, "\xf0\x9f\x90\xb1");
        snprintf(text + size, sizeof text - (size_t)size, "\"}");
        read_body(text, false);
        cr_assert_eq(errors.count, bytes > ATEDM_PROMPT_MAX);
        atedm_request_finish(&request);
    }
}

// What a body asks for, whatever else is wrong with it: -1 where no answer can be made for it.
static int format_of(const char *text, bool png_wanted)
{
    json_t *body = json_loads(text, JSON_DECODE_ANY, NULL);
    atedm_response_format format = ATEDM_RESPONSE_B64_JSON;
    bool known = atedm_generate_json_format(body, png_wanted, &format);
    json_decref(body);
    return known ? (int)format : -1;
}

Test(generate_json, format_of_a_body_that_is_wrong_otherwise)
{
    cr_expect_eq(format_of("{}", false), ATEDM_RESPONSE_B64_JSON);
    cr_expect_eq(format_of("{\"steps\":0}", true), ATEDM_RESPONSE_PNG);
    cr_expect_eq(format_of("{\"response_format\":\"b64_json\"}", true), ATEDM_RESPONSE_B64_JSON);
    cr_expect_eq(format_of("{\"response_format\":\"url\",\"num_images\":2}", true),
                 ATEDM_RESPONSE_URL);
    cr_expect_eq(format_of("{\"response_format\":\"png\",\"num_images\":1}", false),
                 ATEDM_RESPONSE_PNG);
    cr_expect_eq(format_of("{\"response_format\":\"png\",\"num_images\":2}", false), -1);
    cr_expect_eq(format_of("{\"num_images\":2}", true), -1);
    cr_expect_eq(format_of("{\"response_format\":\"jpeg\"}", false), -1);
    cr_expect_eq(format_of("{\"response_format\":null}", false), -1);
    cr_expect_eq(format_of("[]", false), -1);
    cr_expect_eq(format_of("7", false), -1);
}

Test(generate_json, accept)
{
    cr_assert_not(atedm_accept_prefers_png(NULL));
    cr_assert_not(atedm_accept_prefers_png(""));
    cr_assert_not(atedm_accept_prefers_png("*/*"));
    cr_assert_not(atedm_accept_prefers_png("application/json"));
    cr_assert_not(atedm_accept_prefers_png("application/json, image/png"));
    cr_assert_not(atedm_accept_prefers_png("image/png;q=0.5, application/json"));
    cr_assert_not(atedm_accept_prefers_png("image/png;q=0"));
    cr_assert_not(atedm_accept_prefers_png("image/pngx"));
    cr_assert_not(atedm_accept_prefers_png("image/*, application/*"));
    cr_assert(atedm_accept_prefers_png("image/png"));
    cr_assert(atedm_accept_prefers_png("IMAGE/PNG"));
    cr_assert(atedm_accept_prefers_png("image/*"));
    cr_assert(atedm_accept_prefers_png("image/avif,image/webp,image/png,*/*;q=0.8"));
    cr_assert(atedm_accept_prefers_png("application/json; q=0.5 , image/png ; q=0.9"));
    cr_assert_not(
        atedm_accept_prefers_png("image/*;q=0.9, image/png;q=0.1, application/json;q=0.5"));
}

// ---- text

static void expect_base64(const char *data, const char *wanted)
{
    atedm_buffer text;
    atedm_buffer_init(&text, 1024);
    cr_assert_eq(atedm_base64_append(data, strlen(data), &text), ATEDM_OK);
    cr_assert_str_eq(text.data, wanted);
    atedm_buffer_finish(&text);
}

Test(text, base64)
{
    // RFC 4648, section 10.
    expect_base64("f", "Zg==");
    expect_base64("fo", "Zm8=");
    expect_base64("foo", "Zm9v");
    expect_base64("foob", "Zm9vYg==");
    expect_base64("fooba", "Zm9vYmE=");
    expect_base64("foobar", "Zm9vYmFy");
    expect_base64("\xff\xfe\xfb", "//77");
}

Test(text, base64_of_many_chunks)
{
    atedm_buffer text;
    char data[10000];
    memset(data, 0, sizeof data);
    atedm_buffer_init(&text, 20000);
    cr_assert_eq(atedm_base64_append(data, sizeof data, &text), ATEDM_OK);
    cr_assert_eq(text.size, (sizeof data + 2) / 3 * 4);
    cr_assert_eq(strspn(text.data, "A"), text.size - 2);
    cr_assert_str_eq(text.data + text.size - 2, "==");
    atedm_buffer_finish(&text);
    atedm_buffer_init(&text, 5000);
    cr_assert_eq(atedm_base64_append(data, sizeof data, &text), ATEDM_ERR_LIMIT);
    atedm_buffer_finish(&text);
}

Test(text, clean)
{
    char text[] = "a\xff\xc3 b\xc3\xa9\xe2\x82";
    atedm_utf8_clean(text, false);
    cr_assert_str_eq(text, "a?? b\xc3\xa9??");
}

// ---- pruning

// The fields of a spec that have no meaning with its score map are null.
static void expect_score(const char *body, const char *map, bool iterations)
{
    read_body(body, false);
    cr_assert_eq(errors.count, 0);
    json_t *spec = atedm_prune_spec_json(&request.prune);
    json_t *score = json_object_get(spec, "score");
    cr_assert_str_eq(json_string_value(json_object_get(score, "map")), map);
    cr_assert_eq(json_object_size(score), 5);
    cr_assert_eq(json_is_string(json_object_get(score, "heads")), iterations);
    cr_assert_eq(json_is_integer(json_object_get(score, "max_iterations")), iterations);
    cr_assert_eq(json_is_real(json_object_get(score, "tolerance")), iterations);
    cr_assert_eq(json_is_integer(json_object_get(score, "interval")), iterations);
    json_decref(spec);
    atedm_request_finish(&request);
}

Test(generate_json, score_of_a_spec)
{
    expect_score("{\"prompt\":\"a\"}", "self", true);
    expect_score("{\"prompt\":\"a\",\"pruning\":{\"score\":{\"map\":\"cross\"}}}", "cross", true);
    expect_score("{\"prompt\":\"a\",\"pruning\":{\"score\":{\"map\":\"random\"}}}", "random",
                 false);
}

// What a log line becomes.
static char *log_line(bool json, const char *value)
{
    static char line[2 * ATEDM_LOG_LINE_MAX];
    int ends[2];
    cr_assert_eq(pipe(ends), 0);
    int64_t lost = 0;
    atedm_log log = {.fd = ends[1], .json = json, .level = ATEDM_LOG_INFO, .lost = &lost};
    ATEDM_LOG(&log, ATEDM_LOG_DEBUG, "not written", atedm_log_integer("n", 1));
    ATEDM_LOG(&log, ATEDM_LOG_INFO, "it happened", atedm_log_text("value", value),
              atedm_log_integer("n", -5), atedm_log_real("x", 0.25), atedm_log_real("y", NAN));
    close(ends[1]);
    ssize_t size = read(ends[0], line, sizeof line - 1);
    cr_assert_gt(size, 0);
    line[size] = '\0';
    close(ends[0]);
    return line;
}

Test(log, json_whatever_it_holds)
{
    json_t *object = json_loads(log_line(true, "a\"b\\c\nd\x01\xff"), 0, NULL);
    cr_assert_not_null(object);
    cr_assert_str_eq(json_string_value(json_object_get(object, "message")), "it happened");
    cr_assert_str_eq(json_string_value(json_object_get(object, "level")), "info");
    cr_assert_str_eq(json_string_value(json_object_get(object, "value")), "a\"b\\c\nd\x01?");
    cr_assert_eq(json_integer_value(json_object_get(object, "n")), -5);
    cr_assert(json_is_null(json_object_get(object, "y")));
    json_decref(object);
}

Test(log, one_line_however_long)
{
    static char value[100000];
    memset(value, '\n', sizeof value - 1);
    for (int json = 0; json < 2; json++) {
        char *line = log_line(json, value);
        cr_assert_leq(strlen(line), ATEDM_LOG_LINE_MAX);
        cr_assert_eq(strchr(line, '\n'), line + strlen(line) - 1);
        cr_assert_not_null(strstr(line, "it happened"));
    }
}
