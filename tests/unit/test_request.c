// Requests: defaults, and every field at and past its limits.
#include "core/request.h"

#include "core/base/utf8.h"
#include "core/sampler.h"

#include <criterion/criterion.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const atedm_request_limits limits = {
    .native_width = 1024,
    .native_height = 768,
    .size_multiple = 32,
    .max_area = 2048 * 1024,
    .max_images = 8,
    .max_steps = 100,
};

static atedm_request make(void)
{
    atedm_prune_spec prune;
    cr_assert_eq(atedm_prune_preset("at-edm", &prune), ATEDM_OK);
    atedm_request request;
    atedm_request_init(&request, &limits, &prune);
    request.prompt = strdup("a cat");
    return request;
}

static atedm_field_errors validate(const atedm_request *request)
{
    atedm_field_errors errors = {.count = 0};
    atedm_request_validate(request, &limits, &errors);
    return errors;
}

static void check_good(const atedm_request *request)
{
    atedm_field_errors errors = validate(request);
    cr_assert_eq(errors.count, 0, "%s %s", errors.items[0].pointer, errors.items[0].detail);
}

// Exactly this field is wrong, and the message holds `part`.
static void check_bad(const atedm_request *request, const char *pointer, const char *part)
{
    atedm_field_errors errors = validate(request);
    cr_assert_eq(errors.count, 1, "%s: %zu errors", pointer, errors.count);
    cr_assert_eq(errors.more, 0);
    cr_assert_str_eq(errors.items[0].pointer, pointer);
    cr_assert_not_null(strstr(errors.items[0].detail, part), "%s", errors.items[0].detail);
}

Test(request, defaults_of_api_md)
{
    atedm_request r = make();
    cr_assert_null(r.negative_prompt);
    cr_assert_eq(r.width, 1024);
    cr_assert_eq(r.height, 768);
    cr_assert_eq(r.steps, 30);
    cr_assert_eq(r.guidance_scale, 7);
    cr_assert_eq(r.num_images, 1);
    cr_assert_str_eq(r.sampler, "euler");
    cr_assert_str_eq(r.prune.preset, "at-edm");
    cr_assert_eq(r.response_format, ATEDM_RESPONSE_B64_JSON);
    cr_assert(isnan(r.deadline_s));
    cr_assert_eq(r.priority, 0);
    check_good(&r);
    atedm_request_finish(&r);
    cr_assert_null(r.prompt);
    atedm_request_finish(&r);
    atedm_request_finish(NULL);
}

static void set_prompt(char **text, char c, size_t size)
{
    free(*text);
    *text = malloc(size + 1);
    memset(*text, c, size);
    (*text)[size] = '\0';
}

Test(request, prompts)
{
    atedm_request r = make();
    free(r.prompt);
    r.prompt = NULL;
    check_bad(&r, "/prompt", "empty");
    set_prompt(&r.prompt, 'x', 0);
    check_bad(&r, "/prompt", "empty");
    set_prompt(&r.prompt, 'x', 1);
    check_good(&r);
    set_prompt(&r.prompt, 'x', ATEDM_PROMPT_MAX);
    check_good(&r);
    set_prompt(&r.prompt, 'x', ATEDM_PROMPT_MAX + 1);
    check_bad(&r, "/prompt", "8193 bytes");
    set_prompt(&r.prompt, (char)0xff, 3);
    check_bad(&r, "/prompt", "UTF-8");
    set_prompt(&r.prompt, 'x', 1);

    set_prompt(&r.negative_prompt, 'x', 0);
    check_good(&r);
    set_prompt(&r.negative_prompt, 'x', ATEDM_PROMPT_MAX);
    check_good(&r);
    set_prompt(&r.negative_prompt, 'x', ATEDM_PROMPT_MAX + 1);
    check_bad(&r, "/negative_prompt", "8193 bytes");
    set_prompt(&r.negative_prompt, (char)0x80, 1);
    check_bad(&r, "/negative_prompt", "UTF-8");
    atedm_request_finish(&r);
}

Test(request, sizes)
{
    atedm_request r = make();
    static const int64_t bad[] = {0, -32, INT64_MIN, INT64_MAX, ATEDM_SIZE_MAX + 32};
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        r.width = bad[i];
        check_bad(&r, "/width", "not within 32..16384");
        r.width = 1024;
        r.height = bad[i];
        check_bad(&r, "/height", "not within 32..16384");
        r.height = 768;
    }
    r.width = 1000;
    check_bad(&r, "/width", "is 1000, not a multiple of 32");
    r.width = 32;
    r.height = 16;
    check_bad(&r, "/height", "multiple");
    r.height = 32;
    check_good(&r);
    r.width = 2048;
    r.height = 1024;
    check_good(&r);
    r.height = 1056;
    check_bad(&r, "/width", "limit of 2097152 pixels");
    r.width = ATEDM_SIZE_MAX;
    r.height = 128;
    check_good(&r);
    atedm_request_finish(&r);
}

Test(request, counts)
{
    atedm_request r = make();
    r.steps = 0;
    check_bad(&r, "/steps", "is 0, not within 1..100");
    r.steps = 101;
    check_bad(&r, "/steps", "is 101");
    r.steps = 1;
    check_good(&r);
    r.steps = 100;
    check_good(&r);

    r.num_images = 0;
    check_bad(&r, "/num_images", "1..8");
    r.num_images = 9;
    check_bad(&r, "/num_images", "1..8");
    r.num_images = -1;
    check_bad(&r, "/num_images", "1..8");
    r.num_images = 8;
    check_good(&r);
    r.response_format = ATEDM_RESPONSE_PNG;
    check_bad(&r, "/response_format", "one image, not 8");
    r.num_images = 1;
    check_good(&r);

    r.priority = -11;
    check_bad(&r, "/priority", "-10..10");
    r.priority = 11;
    check_bad(&r, "/priority", "-10..10");
    r.priority = -10;
    check_good(&r);
    r.priority = 10;
    check_good(&r);
    atedm_request_finish(&r);
}

Test(request, seeds)
{
    atedm_request r = make();
    r.seed = ATEDM_SEED_MAX;
    check_good(&r);
    r.num_images = 2; // image 1 would have seed 2^63
    check_bad(&r, "/seed", "last of 2 images");
    r.seed = ATEDM_SEED_MAX - 1;
    check_good(&r);
    r.seed = (uint64_t)ATEDM_SEED_MAX + 1;
    r.num_images = 1;
    check_bad(&r, "/seed", "9223372036854775808");
    r.seed = UINT64_MAX;
    check_bad(&r, "/seed", "more than");
    atedm_request_finish(&r);
}

Test(request, numbers)
{
    atedm_request r = make();
    static const double bad_guidance[] = {-0.001, 30.001, NAN, INFINITY, -INFINITY};
    for (size_t i = 0; i < 5; i++) {
        r.guidance_scale = bad_guidance[i];
        check_bad(&r, "/guidance_scale", "0..30");
    }
    r.guidance_scale = 0;
    check_good(&r);
    r.guidance_scale = 30;
    check_good(&r);

    static const double bad_deadline[] = {0, -1, 86400.1, INFINITY, -INFINITY};
    for (size_t i = 0; i < 5; i++) {
        r.deadline_s = bad_deadline[i];
        check_bad(&r, "/deadline_s", "86400");
    }
    r.deadline_s = 0.001;
    check_good(&r);
    r.deadline_s = 86400;
    check_good(&r);
    atedm_request_finish(&r);
}

Test(request, sampler)
{
    atedm_request r = make();
    snprintf(r.sampler, sizeof r.sampler, "eulerr");
    check_bad(&r, "/sampler", "eulerr");
    r.sampler[0] = '\0';
    check_bad(&r, "/sampler", "not one of \"euler\", ");
    atedm_request_finish(&r);
}

Test(request, pruning_numbers)
{
    atedm_request r = make();
    static const double bad[] = {-0.1, 0.99995, 1, NAN, INFINITY};
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        r.prune.ratio = bad[i];
        check_bad(&r, "/pruning/ratio", "0..0.9999");
    }
    r.prune.ratio = ATEDM_RATIO_MAX;
    check_good(&r);
    static const double bad_budget[] = {0, -1, 1.001, INFINITY};
    for (size_t i = 0; i < sizeof bad_budget / sizeof bad_budget[0]; i++) {
        r.prune.flops_budget = bad_budget[i];
        check_bad(&r, "/pruning/flops_budget", "up to 1");
    }
    r.prune.ratio = NAN;
    r.prune.flops_budget = 1;
    check_good(&r);
    r.prune.flops_budget = NAN;
    r.prune.enabled = false;
    check_good(&r);
    atedm_request_finish(&r);
}

Test(request, every_wrong_field_is_named_at_once)
{
    atedm_request r = make();
    set_prompt(&r.prompt, 'x', 0);
    set_prompt(&r.negative_prompt, (char)0xff, 1);
    r.width = 1;
    r.height = 0;
    r.steps = 0;
    r.guidance_scale = NAN;
    r.seed = UINT64_MAX;
    r.num_images = 100;
    snprintf(r.sampler, sizeof r.sampler, "x");
    r.prune.ratio = 2;
    r.response_format = ATEDM_RESPONSE_PNG;
    r.deadline_s = -1;
    r.priority = 99;
    atedm_field_errors errors = validate(&r);
    static const char *const wanted[] = {"/prompt",        "/negative_prompt", "/width",
                                         "/height",        "/steps",           "/guidance_scale",
                                         "/seed",          "/num_images",      "/sampler",
                                         "/pruning/ratio", "/response_format", "/deadline_s",
                                         "/priority"};
    cr_assert_eq(errors.count, sizeof wanted / sizeof wanted[0]);
    for (size_t i = 0; i < errors.count; i++)
        cr_assert_str_eq(errors.items[i].pointer, wanted[i]);
    atedm_request_finish(&r);
}

Test(request, errors_beyond_the_limit_are_counted)
{
    atedm_field_errors errors = {.count = 0};
    for (int i = 0; i < ATEDM_FIELD_ERRORS_MAX + 3; i++)
        atedm_field_errors_add(&errors, "/x", "%d", i);
    cr_assert_eq(errors.count, ATEDM_FIELD_ERRORS_MAX);
    cr_assert_eq(errors.more, 3);
    cr_assert_str_eq(errors.items[ATEDM_FIELD_ERRORS_MAX - 1].detail, "31");
}

Test(request, error_texts_are_cut_and_stay_utf8)
{
    atedm_field_errors errors = {.count = 0};
    char text[400];
    for (size_t shift = 0; shift < 4; shift++) {
        memset(text, 'x', shift);
        for (size_t i = shift; i + 4 < sizeof text; i += 4)
            memcpy(text + i, "\xf0\x9f\x98\x80", 5); // an emoji
        atedm_field_errors_add(&errors, text, "%s", text);
        const atedm_field_error *error = &errors.items[shift];
        cr_assert(atedm_utf8_is_valid(error->pointer, strlen(error->pointer)));
        cr_assert(atedm_utf8_is_valid(error->detail, strlen(error->detail)));
        cr_assert_geq(strlen(error->pointer), sizeof error->pointer - 4);
        cr_assert_geq(strlen(error->detail), sizeof error->detail - 4);
    }
    atedm_field_errors_add(&errors, "/x", "\"%s\" is odd",
                           "a\xff"
                           "b\xc3");
    cr_assert_str_eq(errors.items[4].detail, "\"a?b?\" is odd");
    atedm_field_errors_add(&errors, "/x", "\xff");
    cr_assert_str_eq(errors.items[5].detail, "?");
}

Test(request, seeds_are_drawn)
{
    uint64_t seeds[64], all = 0;
    for (size_t i = 0; i < 64; i++) {
        cr_assert_eq(atedm_draw_seed(&seeds[i], NULL), ATEDM_OK);
        all |= seeds[i];
    }
    cr_assert_neq(seeds[0], seeds[1]);
    cr_assert_eq(all, UINT32_MAX); // each bit, but once in 2^59
}
