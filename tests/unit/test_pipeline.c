// The pipeline as a whole, on a toy model of the goldens: what must not change a picture does not,
// down to the last bit, and what is wrong is refused. The model is model b of ATEDM_GOLDEN_DIR.
#include "core/pipeline.h"

#include <criterion/criterion.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define SIDE 64
#define BYTES ((size_t)3 * SIDE * SIDE)

typedef struct bench {
    atedm_device *device;
    atedm_model *model;
    atedm_pipeline *pipeline;
} bench;

static bench open_bench(const char *backend, atedm_dtype dtype)
{
    bench b = {0};
    atedm_error err = {0};
    char dir[4096];
    const char *goldens = getenv("ATEDM_GOLDEN_DIR");
    cr_assert_not_null(goldens);
    snprintf(dir, sizeof dir, "%s/models/b", goldens);
    cr_assert_eq(atedm_device_create(backend, &b.device, &err), ATEDM_OK, "%s", err.message);
    cr_assert_eq(atedm_model_open(dir, b.device, dtype, &b.model, &err), ATEDM_OK, "%s",
                 err.message);
    cr_assert_eq(atedm_pipeline_create(b.model, &b.pipeline, &err), ATEDM_OK, "%s", err.message);
    return b;
}

static void close_bench(bench *b)
{
    atedm_pipeline_destroy(b->pipeline);
    atedm_model_close(b->model);
    atedm_device_destroy(b->device);
}

static atedm_request make_request(const char *preset)
{
    atedm_request_limits limits = {.native_width = SIDE,
                                   .native_height = SIDE,
                                   .size_multiple = 8,
                                   .max_area = SIDE * SIDE,
                                   .max_images = 8,
                                   .max_steps = 50};
    atedm_prune_spec spec;
    cr_assert_eq(atedm_prune_preset(preset, &spec), ATEDM_OK);
    atedm_request request;
    atedm_request_init(&request, &limits, &spec);
    request.prompt = strdup("a red fox in the snow");
    request.negative_prompt = strdup("blurry");
    request.steps = 4;
    request.seed = 7;
    return request;
}

// All images of the request, side by side; the caller frees.
static uint8_t *generate(const bench *b, const atedm_request *request)
{
    uint8_t *rgb = malloc(BYTES * (size_t)request->num_images), *images[8];
    atedm_generation *g = NULL;
    atedm_timing timing;
    atedm_error err = {0};
    for (int i = 0; i < request->num_images; i++)
        images[i] = rgb + (size_t)i * BYTES;
    cr_assert_eq(atedm_generation_create(b->pipeline, request, NULL, NULL, NULL, &g, &err),
                 ATEDM_OK, "%s", err.message);
    cr_assert_eq(atedm_generation_run(g, NULL, NULL, images, &timing, &err), ATEDM_OK, "%s",
                 err.message);
    atedm_generation_destroy(g);
    return rgb;
}

static void check_backend(const char *backend, atedm_dtype dtype, void (*check)(const bench *b))
{
    atedm_device *device = NULL;
    cr_assert_eq(atedm_device_create(backend, &device, NULL), ATEDM_OK);
    bool supported = atedm_device_supports(device, dtype);
    atedm_device_destroy(device);
    if (!supported) // bf16 needs a processor that has it
        return;
    bench b = open_bench(backend, dtype);
    check(&b);
    close_bench(&b);
}

static void everywhere(void (*check)(const bench *b))
{
    check_backend("ref", ATEDM_F32, check);
    check_backend("cpu", ATEDM_F32, check);
    check_backend("cpu", ATEDM_BF16, check);
}

static void ratio_zero_is_off(const bench *b)
{
    atedm_request off = make_request("off"), zero = make_request("at-edm-a");
    zero.prune.ratio = 0;
    uint8_t *x = generate(b, &off), *y = generate(b, &zero);
    cr_expect(!memcmp(x, y, BYTES));
    free(x);
    free(y);
    atedm_request_finish(&off);
    atedm_request_finish(&zero);
}

Test(pipeline, ratio_zero_is_bit_identical_to_off)
{
    everywhere(ratio_zero_is_off);
}

static void pruning_matters(const bench *b)
{
    atedm_request off = make_request("off"), pruned = make_request("at-edm-a");
    uint8_t *x = generate(b, &off), *y = generate(b, &pruned);
    cr_expect(memcmp(x, y, BYTES));
    free(x);
    free(y);
    atedm_request_finish(&off);
    atedm_request_finish(&pruned);
}

Test(pipeline, pruning_changes_the_picture)
{
    everywhere(pruning_matters);
}

// Six images run in two batches; each is the picture that its seed gives alone.
static void images_are_independent(const bench *b)
{
    atedm_request many = make_request("at-edm-a");
    many.num_images = 6;
    uint8_t *all = generate(b, &many);
    for (int i = 0; i < 6; i++) {
        atedm_request one = make_request("at-edm-a");
        one.seed = many.seed + (uint64_t)i;
        uint8_t *alone = generate(b, &one);
        cr_expect(!memcmp(all + (size_t)i * BYTES, alone, BYTES), "image %d differs, %s %s", i,
                  atedm_device_backend(b->device), atedm_dtype_name(b->model->dtype));
        free(alone);
        atedm_request_finish(&one);
    }
    free(all);
    atedm_request_finish(&many);
}

Test(pipeline, an_image_does_not_depend_on_its_batch)
{
    everywhere(images_are_independent);
}

static void repeatable(const bench *b)
{
    atedm_request request = make_request("at-edm");
    uint8_t *x = generate(b, &request), *y = generate(b, &request);
    cr_expect(!memcmp(x, y, BYTES));
    free(x);
    free(y);
    atedm_request_finish(&request);
}

Test(pipeline, the_same_request_gives_the_same_bytes)
{
    everywhere(repeatable);
}

static bool stop_after_two(void *user, int step, int steps)
{
    *(int *)user = step;
    return step < 2;
}

Test(pipeline, a_canceled_request_stops_between_steps)
{
    bench b = open_bench("cpu", ATEDM_F32);
    atedm_request request = make_request("off");
    atedm_generation *g = NULL;
    atedm_timing timing;
    atedm_error err = {0};
    uint8_t *rgb = malloc(BYTES);
    int last = -1;
    cr_assert_eq(atedm_generation_create(b.pipeline, &request, NULL, NULL, NULL, &g, &err),
                 ATEDM_OK);
    cr_expect_eq(atedm_generation_run(g, stop_after_two, &last, &rgb, &timing, &err),
                 ATEDM_ERR_CANCELED);
    cr_expect_eq(last, 2);
    cr_expect_eq(atedm_generation_steps_done(g), 2);
    atedm_generation_destroy(g);
    free(rgb);
    atedm_request_finish(&request);
    close_bench(&b);
}

static void expect_refused(const bench *b, const atedm_request *request, const char *word)
{
    atedm_generation *g = NULL;
    atedm_error err = {0};
    cr_expect_neq(atedm_generation_create(b->pipeline, request, NULL, NULL, NULL, &g, &err),
                  ATEDM_OK);
    cr_expect(strstr(err.message, word), "\"%s\" does not say \"%s\"", err.message, word);
    cr_expect_null(g);
}

Test(pipeline, wrong_requests_are_refused)
{
    bench b = open_bench("cpu", ATEDM_F32);
    atedm_request request = make_request("off");
    request.width = 60;
    expect_refused(&b, &request, "multiples of 8");
    request.width = SIDE;
    request.height = 0;
    expect_refused(&b, &request, "multiples of 8");
    request.height = SIDE;
    snprintf(request.sampler, sizeof request.sampler, "ddim");
    expect_refused(&b, &request, "ddim");
    atedm_request_finish(&request);
    request = make_request("at-edm");
    request.prune.ratio = NAN;
    request.prune.flops_budget = 0.01;
    expect_refused(&b, &request, "budget");
    atedm_request_finish(&request);
    close_bench(&b);
}

// A long text is cut, and the caller learns where.
Test(pipeline, a_long_prompt_is_cut)
{
    bench b = open_bench("cpu", ATEDM_F32);
    atedm_request request = make_request("off");
    free(request.prompt);
    request.prompt = malloc(4001);
    for (int i = 0; i < 4000; i++)
        request.prompt[i] = i % 5 ? 'a' : ' ';
    request.prompt[4000] = '\0';
    atedm_generation *g = NULL;
    atedm_error err = {0};
    cr_assert_eq(atedm_generation_create(b.pipeline, &request, NULL, NULL, NULL, &g, &err),
                 ATEDM_OK);
    cr_assert_eq(atedm_generation_encode(g, &err), ATEDM_OK, "%s", err.message);
    cr_expect_lt(atedm_generation_encoded(g, 0), 4000);
    cr_expect_gt(atedm_generation_encoded(g, 0), 10);
    cr_expect_eq(atedm_generation_encoded(g, 1), strlen("blurry"));
    atedm_generation_destroy(g);
    atedm_request_finish(&request);
    close_bench(&b);
}
