// See pipeline_bench.h.
#include "tests/unit/pipeline_bench.h"

#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

pipeline_bench pipeline_bench_open(const char *backend, atedm_dtype dtype)
{
    pipeline_bench b = {0};
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

void pipeline_bench_close(pipeline_bench *b)
{
    atedm_pipeline_destroy(b->pipeline);
    atedm_model_close(b->model);
    atedm_device_destroy(b->device);
}

atedm_request pipeline_bench_request(const char *preset)
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

uint8_t *pipeline_bench_generate(const pipeline_bench *b, const atedm_request *request)
{
    size_t bytes = 3 * (size_t)(request->width * request->height);
    uint8_t *rgb = malloc(bytes * (size_t)request->num_images), *images[8];
    atedm_generation *g = NULL;
    atedm_timing timing;
    atedm_error err = {0};
    for (int i = 0; i < request->num_images; i++)
        images[i] = rgb + (size_t)i * bytes;
    cr_assert_eq(atedm_generation_create(b->pipeline, request, NULL, NULL, NULL, &g, &err),
                 ATEDM_OK, "%s", err.message);
    cr_assert_eq(atedm_generation_run(g, NULL, NULL, images, &timing, &err), ATEDM_OK, "%s",
                 err.message);
    atedm_generation_destroy(g);
    return rgb;
}

void pipeline_bench_on(const char *backend, atedm_dtype dtype,
                       void (*check)(const pipeline_bench *b))
{
    atedm_device *device = NULL;
    cr_assert_eq(atedm_device_create(backend, &device, NULL), ATEDM_OK);
    bool supported = atedm_device_supports(device, dtype);
    atedm_device_destroy(device);
    if (!supported) // bf16 needs a processor that has it
        return;
    pipeline_bench b = pipeline_bench_open(backend, dtype);
    check(&b);
    pipeline_bench_close(&b);
}

void pipeline_bench_everywhere(void (*check)(const pipeline_bench *b))
{
    pipeline_bench_on("ref", ATEDM_F32, check);
    pipeline_bench_on("cpu", ATEDM_F32, check);
    pipeline_bench_on("cpu", ATEDM_BF16, check);
}
