// Steps that images of several requests share: no picture notices, not in one bit; the operations
// count what the requests are told; what does not go together is refused.
#include "tests/unit/pipeline_bench.h"

#include "core/base/splitmix.h"
#include "core/pipeline_private.h"
#include "core/sampler.h"

#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define REQUESTS 6
#define MAX_IMAGES 3

typedef struct party {
    atedm_request requests[REQUESTS];
    atedm_generation *generations[REQUESTS];
} party;

// Requests that have nothing in common but their size.
static void make_party(const pipeline_bench *b, party *p)
{
    static const char *const presets[REQUESTS] = {"off",      "at-edm-a", "at-edm-d",
                                                  "at-edm-b", "off",      "at-edm"};
    atedm_error err = {0};
    size_t samplers;
    const atedm_sampler *sampler = atedm_samplers(&samplers);
    for (int i = 0; i < REQUESTS; i++) {
        atedm_request *r = &p->requests[i];
        *r = pipeline_bench_request(presets[i]);
        r->seed = (uint64_t)(100 * i);
        snprintf(r->sampler, sizeof r->sampler, "%s", sampler[(size_t)i % samplers].name);
        r->steps = 3 + i % 3;
        r->num_images = 1 + i % MAX_IMAGES;
        r->guidance_scale = i % 3 == 2 ? 1 : 3 + i;
        r->prune.recovery = i == 1 ? ATEDM_RECOVER_NEAREST : ATEDM_RECOVER_ATTENTION;
        r->prune.score_map = i == 3   ? ATEDM_SCORE_RANDOM
                             : i == 5 ? ATEDM_SCORE_CROSS
                                      : ATEDM_SCORE_SELF;
        r->prune.score_interval = i == 1 ? 2 : i == 5 ? 3 : 1;
        if (i % 2) {
            free(r->negative_prompt);
            r->negative_prompt = NULL;
        }
        cr_assert_eq(
            atedm_generation_create(b->pipeline, r, NULL, NULL, NULL, &p->generations[i], &err),
            ATEDM_OK, "%s", err.message);
        cr_assert_eq(atedm_generation_encode(p->generations[i], &err), ATEDM_OK, "%s", err.message);
    }
}

static void free_party(party *p)
{
    for (int i = 0; i < REQUESTS; i++) {
        atedm_generation_destroy(p->generations[i]);
        atedm_request_finish(&p->requests[i]);
    }
}

// Images with steps left, each drawn by chance; 0 when all are done.
static size_t draw_lanes(const party *p, uint64_t key, atedm_lane *ret_lanes)
{
    atedm_lane open[REQUESTS * MAX_IMAGES];
    size_t n = 0, drawn = 0;
    for (int i = 0; i < REQUESTS; i++)
        for (int image = 0; image < p->requests[i].num_images; image++)
            if (atedm_generation_steps_done(p->generations[i], image) < p->requests[i].steps)
                open[n++] = (atedm_lane){p->generations[i], image};
    for (size_t i = 0; i < n; i++)
        if (atedm_splitmix(key, i) % 2 == 0)
            ret_lanes[drawn++] = open[i];
    if (n && !drawn)
        ret_lanes[drawn++] = open[0];
    return drawn;
}

static void pictures_are_those_of_requests_alone(const pipeline_bench *b)
{
    party p;
    make_party(b, &p);
    atedm_error err = {0};
    atedm_lane lanes[REQUESTS * MAX_IMAGES];
    uint64_t turn = 0;
    for (size_t n; (n = draw_lanes(&p, turn, lanes)); turn++)
        cr_assert_eq(atedm_pipeline_step(b->pipeline, lanes, n, &err), ATEDM_OK, "%s", err.message);
    cr_expect_gt(turn, 5); // at different steps, then
    uint8_t *rgb = malloc(BYTES);
    for (int i = 0; i < REQUESTS; i++) {
        uint8_t *alone = pipeline_bench_generate(b, &p.requests[i]);
        for (int image = 0; image < p.requests[i].num_images; image++) {
            cr_assert_eq(atedm_generation_decode(p.generations[i], image, rgb, &err), ATEDM_OK,
                         "%s", err.message);
            cr_expect(!memcmp(rgb, alone + (size_t)image * BYTES, BYTES),
                      "request %d, image %d, %s %s", i, image, atedm_device_backend(b->device),
                      atedm_dtype_name(b->model->dtype));
        }
        free(alone);
    }
    free(rgb);
    free_party(&p);
}

static void steps_that_failed_are_made_again(const pipeline_bench *b)
{
    size_t samplers;
    const atedm_sampler *sampler = atedm_samplers(&samplers);
    atedm_error err = {0};
    uint8_t *rgb = malloc(BYTES);
    for (size_t i = 0; i < samplers; i++) {
        atedm_request request = pipeline_bench_request("at-edm");
        request.steps = 3;
        snprintf(request.sampler, sizeof request.sampler, "%s", sampler[i].name);
        uint8_t *undisturbed = pipeline_bench_generate(b, &request);
        atedm_lane lane = {.image = 0};
        cr_assert_eq(atedm_generation_create(b->pipeline, &request, NULL, NULL, NULL,
                                             &lane.generation, &err),
                     ATEDM_OK);
        cr_assert_eq(atedm_generation_encode(lane.generation, &err), ATEDM_OK);
        for (int step = 0; step < request.steps; step++) {
            atedm_stream_fail(b->pipeline->stream, ATEDM_ERR_NOMEM, "no memory");
            cr_expect_eq(atedm_pipeline_step(b->pipeline, &lane, 1, &err), ATEDM_ERR_NOMEM);
            cr_assert_eq(atedm_pipeline_step(b->pipeline, &lane, 1, &err), ATEDM_OK);
        }
        cr_assert_eq(atedm_generation_decode(lane.generation, 0, rgb, &err), ATEDM_OK);
        cr_expect(!memcmp(rgb, undisturbed, BYTES), "%s, %s", sampler[i].name,
                  atedm_device_backend(b->device));
        atedm_generation_destroy(lane.generation);
        atedm_request_finish(&request);
        free(undisturbed);
    }
    free(rgb);
}

Test(pipeline_step, what_failed_for_want_of_memory_is_made_again)
{
    pipeline_bench_everywhere(steps_that_failed_are_made_again);
}

Test(pipeline_step, a_picture_does_not_depend_on_other_requests)
{
    pipeline_bench_everywhere(pictures_are_those_of_requests_alone);
}

// At different steps, pruned and not, by any map.
Test(pipeline_step, no_company_takes_more_than_its_requests_need)
{
    pipeline_bench b = pipeline_bench_open("cpu", ATEDM_F32);
    party p;
    make_party(&b, &p);
    atedm_error err = {0};
    atedm_lane lanes[REQUESTS * MAX_IMAGES];
    for (uint64_t turn = 0; turn < 40; turn++) {
        size_t n = draw_lanes(&p, turn, lanes);
        if (n == 0)
            break;
        atedm_scratch_need need = {0};
        for (size_t i = 0; i < n; i++)
            need.steps += atedm_generation_scratch(lanes[i].generation).steps;
        cr_assert_eq(atedm_pipeline_prepare(b.pipeline, need, &err), ATEDM_OK, "%s", err.message);
        size_t before = atedm_pipeline_device_memory(b.pipeline);
        cr_assert_eq(atedm_pipeline_step(b.pipeline, lanes, n, &err), ATEDM_OK, "%s", err.message);
        cr_expect_eq(atedm_pipeline_device_memory(b.pipeline), before, "turn %d", (int)turn);
    }
    free_party(&p);
    pipeline_bench_close(&b);
}

Test(pipeline_step, operations_count_what_requests_are_told)
{
    pipeline_bench b = pipeline_bench_open("cpu", ATEDM_F32);
    party p;
    make_party(&b, &p);
    atedm_error err = {0};
    atedm_lane lanes[REQUESTS * MAX_IMAGES];
    uint64_t told = 0, turn = 0;
    for (size_t n; (n = draw_lanes(&p, turn, lanes)); turn++)
        cr_assert_eq(atedm_pipeline_step(b.pipeline, lanes, n, &err), ATEDM_OK, "%s", err.message);
    for (int i = 0; i < REQUESTS; i++) {
        atedm_op_counts counts[3];
        atedm_generation_counts(p.generations[i], counts);
        cr_expect_eq(atedm_op_counts_flops(&counts[1]),
                     atedm_generation_cost(p.generations[i])->unet);
        told += atedm_op_counts_flops(&counts[1]);
    }
    atedm_op_counts counted[3];
    atedm_pipeline_counts(b.pipeline, counted);
    cr_expect_eq(atedm_op_counts_flops(&counted[1]), told);
    free_party(&p);
    pipeline_bench_close(&b);
}

Test(pipeline_step, what_does_not_go_together_is_refused)
{
    pipeline_bench b = pipeline_bench_open("cpu", ATEDM_F32);
    party p;
    make_party(&b, &p);
    atedm_error err = {0};
    atedm_lane many[ATEDM_UNET_MAX_SAMPLES / 2 + 1];
    for (size_t i = 0; i < sizeof many / sizeof *many; i++)
        many[i] = (atedm_lane){p.generations[0], 0};
    cr_expect_eq(atedm_pipeline_step(b.pipeline, many, sizeof many / sizeof *many, &err),
                 ATEDM_ERR_LIMIT);
    cr_expect_eq(atedm_pipeline_step(b.pipeline, many, 0, &err), ATEDM_ERR_LIMIT);

    atedm_request small = pipeline_bench_request("off");
    small.width = SIDE / 2;
    atedm_generation *g = NULL;
    cr_assert_eq(atedm_generation_create(b.pipeline, &small, NULL, NULL, NULL, &g, &err), ATEDM_OK);
    cr_assert_eq(atedm_generation_encode(g, &err), ATEDM_OK);
    atedm_lane two[] = {{p.generations[0], 0}, {g, 0}};
    cr_expect_eq(atedm_pipeline_step(b.pipeline, two, 2, &err), ATEDM_ERR_INVALID);
    cr_expect_eq(atedm_generation_steps_done(g, 0), 0);
    for (int k = 0; k < small.steps; k++)
        cr_assert_eq(atedm_pipeline_step(b.pipeline, &two[1], 1, &err), ATEDM_OK, "%s",
                     err.message);
    cr_expect_eq(atedm_pipeline_step(b.pipeline, &two[1], 1, &err), ATEDM_ERR_INVALID);
    atedm_generation_destroy(g);
    atedm_request_finish(&small);
    free_party(&p);
    pipeline_bench_close(&b);
}
