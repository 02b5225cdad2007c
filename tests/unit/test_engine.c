// The engine: pictures are those of requests that run alone, sizes share the device, requests come
// and go, what does not fit is refused.
#include "core/engine.h"

#include "core/base/splitmix.h"
#include "tests/unit/pipeline_bench.h"

#include <criterion/criterion.h>
#include <stdlib.h>
#include <string.h>

#define MAX_JOBS 64
#define MAX_IMAGES 3

// What came out of an engine.
typedef struct outcome {
    uint8_t *images[MAX_JOBS][MAX_IMAGES];
    size_t bytes[MAX_JOBS];
    int stepped[MAX_JOBS], previewed[MAX_JOBS];
    size_t previews;
    bool done[MAX_JOBS];
    atedm_status failed[MAX_JOBS];
    atedm_engine_report reports[MAX_JOBS];
    size_t evaluations, largest;
} outcome;

// Every third job of a crowd.
static bool is_watched(uint64_t job)
{
    return job % 3 == 1;
}

static void on_evaluated(void *user, size_t images, double seconds)
{
    outcome *o = user;
    o->evaluations++;
    o->largest = images > o->largest ? images : o->largest;
    cr_expect_geq(seconds, 0);
}

static void on_stepped(void *user, uint64_t job, int step)
{
    outcome *o = user;
    cr_expect_eq(step, o->stepped[job] + 1);
    o->stepped[job] = step;
}

static void on_image(void *user, uint64_t job, int image, const atedm_request *request,
                     const atedm_plan *plan, uint8_t *take_rgb)
{
    outcome *o = user;
    cr_expect_null(o->images[job][image]);
    cr_expect_eq(plan != NULL, request->prune.enabled);
    o->images[job][image] = take_rgb;
    o->bytes[job] = 3 * (size_t)(request->width * request->height);
}

// Every step of a watched job has one, from when it is watched.
static void on_preview(void *user, uint64_t job, int step, int64_t width, int64_t height,
                       uint8_t *take_rgb)
{
    outcome *o = user;
    cr_expect(is_watched(job));
    cr_expect_gt(step, o->previewed[job]);
    cr_expect_geq(step, o->stepped[job]);
    cr_expect(width == SIDE / 8 || width == SIDE / 16);
    cr_expect(height == SIDE / 8 || height == SIDE / 16);
    o->previewed[job] = step;
    o->previews++;
    free(take_rgb);
}

static void on_done(void *user, uint64_t job, const atedm_engine_report *report)
{
    outcome *o = user;
    cr_expect(!o->done[job]);
    o->done[job] = true;
    o->reports[job] = *report;
}

static void on_failed(void *user, uint64_t job, atedm_status status, const atedm_error *error)
{
    outcome *o = user;
    cr_expect_neq(error->message[0], '\0');
    o->failed[job] = status;
}

static atedm_engine *open_engine(const pipeline_bench *b, outcome *o, size_t batch, size_t requests)
{
    atedm_engine *engine = NULL;
    atedm_error err = {0};
    cr_assert_eq(atedm_engine_create(b->model,
                                     &(atedm_engine_options){.max_batch = batch,
                                                             .max_requests = requests,
                                                             .memory_limit = SIZE_MAX},
                                     &(atedm_engine_hooks){.evaluated = on_evaluated,
                                                           .stepped = on_stepped,
                                                           .image = on_image,
                                                           .preview = on_preview,
                                                           .done = on_done,
                                                           .failed = on_failed,
                                                           .user = o},
                                     &engine, &err),
                 ATEDM_OK, "%s", err.message);
    return engine;
}

static void free_outcome(outcome *o)
{
    for (int i = 0; i < MAX_JOBS; i++)
        for (int k = 0; k < MAX_IMAGES; k++)
            free(o->images[i][k]);
    free(o);
}

static void drain(atedm_engine *engine)
{
    while (atedm_engine_turn(engine))
        ;
    cr_expect_eq(atedm_engine_requests(engine), 0);
}

// Request i of a crowd: every field by chance.
static atedm_request make_request(uint64_t i)
{
    static const char *const presets[] = {"off", "at-edm-a", "at-edm-b", "at-edm-d",
                                          "at-edm-dagger"};
    uint64_t key = atedm_splitmix(4, i);
    atedm_request r = pipeline_bench_request(presets[atedm_splitmix(key, 0) % 5]);
    r.seed = atedm_splitmix(key, 1) % 1000;
    r.steps = 1 + (int)(atedm_splitmix(key, 2) % 4);
    r.num_images = 1 + (int)(atedm_splitmix(key, 3) % MAX_IMAGES);
    r.guidance_scale = atedm_splitmix(key, 4) % 3 ? 4 : 1;
    r.width = atedm_splitmix(key, 5) % 2 ? SIDE : SIDE / 2;
    r.height = atedm_splitmix(key, 6) % 2 ? SIDE : SIDE / 2;
    r.prune.recovery = (atedm_recovery)(atedm_splitmix(key, 7) % ATEDM_N_RECOVERIES);
    r.prune.score_map = (atedm_score_map)(atedm_splitmix(key, 8) % ATEDM_N_SCORE_MAPS);
    if (atedm_splitmix(key, 9) % 2) {
        free(r.negative_prompt);
        r.negative_prompt = NULL;
    }
    return r;
}

static void admit(atedm_engine *engine, uint64_t job)
{
    atedm_request request = make_request(job);
    atedm_error err = {0};
    cr_assert_eq(atedm_engine_admit(engine, job, &request, &err), ATEDM_OK, "%s", err.message);
    cr_expect_null(request.prompt);
}

// Jobs 0 .. n - 1 join one after the other, all but every fifth stay to the end.
static void run_crowd(const pipeline_bench *b, outcome *o, uint64_t n, size_t batch)
{
    atedm_engine *engine = open_engine(b, o, batch, MAX_JOBS);
    for (uint64_t job = 0; job < n; job++) {
        admit(engine, job);
        atedm_engine_watch(engine, job, is_watched(job));
        for (uint64_t turn = atedm_splitmix(5, job) % 3; turn; turn--)
            atedm_engine_turn(engine);
        if (job % 5 == 4) // gone already, being decoded, or far from it
            atedm_engine_cancel(engine, job - atedm_splitmix(6, job) % 2);
    }
    drain(engine);
    atedm_engine_destroy(engine);
}

static void pictures_are_those_of_requests_alone(const pipeline_bench *b)
{
    bool slow = !strcmp(atedm_device_backend(b->device), "ref");
    uint64_t n = slow ? 16 : MAX_JOBS;
    outcome *crowd = calloc(1, sizeof *crowd);
    run_crowd(b, crowd, n, 8);
    cr_expect_gt(crowd->largest, 4);
    size_t finished = 0;
    for (uint64_t job = 0; job < n; job++) {
        cr_expect_eq(crowd->failed[job], ATEDM_OK);
        if (!crowd->done[job])
            continue;
        finished++;
        cr_expect_eq(crowd->previewed[job], is_watched(job) ? crowd->stepped[job] : 0);
        atedm_request request = make_request(job);
        uint8_t *alone = pipeline_bench_generate(b, &request);
        for (int i = 0; i < request.num_images; i++)
            cr_expect(crowd->images[job][i] &&
                          !memcmp(crowd->images[job][i], alone + (size_t)i * crowd->bytes[job],
                                  crowd->bytes[job]),
                      "job %d, image %d, %s %s", (int)job, i, atedm_device_backend(b->device),
                      atedm_dtype_name(b->model->dtype));
        free(alone);
        atedm_request_finish(&request);
    }
    cr_expect_geq(finished, 3 * n / 4);
    cr_expect_lt(finished, n); // some were canceled
    free_outcome(crowd);
}

Test(engine, a_picture_does_not_depend_on_the_crowd, .timeout = 300)
{
    pipeline_bench_everywhere(pictures_are_those_of_requests_alone);
}

Test(engine, reports_say_what_ran)
{
    pipeline_bench b = pipeline_bench_open("cpu", ATEDM_F32);
    outcome *o = calloc(1, sizeof *o);
    atedm_engine *engine = open_engine(&b, o, 2, 4);
    for (uint64_t job = 0; job < 4; job++)
        admit(engine, job);
    drain(engine);
    atedm_engine_destroy(engine);
    for (uint64_t job = 0; job < 4; job++) {
        atedm_request request = make_request(job);
        atedm_plan *plan = NULL;
        atedm_request_cost cost;
        cr_assert_eq(atedm_estimate(&b.model->config, &request, &plan, &cost, NULL), ATEDM_OK);
        const atedm_engine_report *r = &o->reports[job];
        cr_expect(o->done[job]);
        cr_expect_eq(o->stepped[job], request.steps);
        cr_expect_eq(atedm_op_counts_flops(&r->counts[0]), cost.text_encoder);
        cr_expect_eq(atedm_op_counts_flops(&r->counts[1]), cost.unet);
        cr_expect_eq(atedm_op_counts_flops(&r->counts[2]), cost.vae);
        cr_expect_eq(r->encoded[0], strlen(request.prompt));
        cr_expect_geq(r->evaluations, (uint64_t)request.steps);
        cr_expect_geq(r->batch_images, r->evaluations);
        cr_expect_leq(r->max_batch, 2);
        cr_expect_gt(r->timing.vae_s, 0);
        double sum = 0;
        for (int k = 0; k < request.steps; k++) {
            cr_expect_gt(r->timing.steps_s[k], 0);
            sum += r->timing.steps_s[k];
        }
        cr_expect_geq(sum, r->timing.denoise_s - 1e-9);
        atedm_plan_destroy(plan);
        atedm_request_finish(&request);
    }
    free_outcome(o);
    pipeline_bench_close(&b);
}

static atedm_request make_sized(int64_t side, int steps)
{
    atedm_request r = pipeline_bench_request("off");
    r.width = r.height = side;
    r.steps = steps;
    return r;
}

// Where operations are done when they return, nobody waits an evaluation for the sake of overlap.
Test(engine, texts_join_the_next_evaluation)
{
    pipeline_bench b = pipeline_bench_open("cpu", ATEDM_F32);
    outcome *o = calloc(1, sizeof *o);
    atedm_engine *engine = open_engine(&b, o, 4, 4);
    for (uint64_t job = 0; job < 3; job++) {
        atedm_request request = make_sized(SIDE / 2, 4);
        cr_assert_eq(atedm_engine_admit(engine, job, &request, NULL), ATEDM_OK);
        cr_expect(atedm_engine_turn(engine));
        cr_expect_eq(o->evaluations, job + 1);
        cr_expect_eq(o->largest, job + 1);
    }
    drain(engine);
    atedm_engine_destroy(engine);
    free_outcome(o);
    pipeline_bench_close(&b);
}

// A stream of small images beside a large one: the large one's steps cost about as many FLOPs as
// those of the stream meanwhile.
Test(engine, sizes_share_the_device)
{
    pipeline_bench b = pipeline_bench_open("cpu", ATEDM_F32);
    outcome *o = calloc(1, sizeof *o);
    atedm_engine *engine = open_engine(&b, o, 4, 8);
    atedm_request large = make_sized(2 * SIDE, 20), small = {0};
    atedm_plan *plan = NULL;
    atedm_request_cost large_cost = {0}, small_cost = {0};
    cr_assert_eq(atedm_estimate(&b.model->config, &large, &plan, &large_cost, NULL), ATEDM_OK);
    cr_assert_eq(atedm_engine_admit(engine, 0, &large, NULL), ATEDM_OK);
    uint64_t next = 1, steps = 0;
    while (!o->done[0] && next < MAX_JOBS - 1) {
        while (atedm_engine_requests(engine) < 3) {
            small = make_sized(SIDE / 2, 20);
            cr_assert_eq(atedm_estimate(&b.model->config, &small, &plan, &small_cost, NULL),
                         ATEDM_OK);
            cr_assert_eq(atedm_engine_admit(engine, next++, &small, NULL), ATEDM_OK);
        }
        atedm_engine_turn(engine);
    }
    for (uint64_t job = 1; job < next; job++)
        steps += (uint64_t)o->stepped[job];
    double of_small = (double)steps * (double)small_cost.unet / 20;
    double of_large = (double)o->stepped[0] * (double)large_cost.unet / 20;
    cr_expect(o->done[0]);
    cr_expect_gt(of_small, 0.8 * of_large, "%g and %g", of_small, of_large);
    cr_expect_lt(of_small, 1.25 * of_large, "%g and %g", of_small, of_large);
    atedm_engine_destroy(engine); // with requests in it
    free_outcome(o);
    pipeline_bench_close(&b);
}

// A large size has had a step and a small one none: a third one is level with the small one, and
// does not wait until that has caught up.
Test(engine, a_new_size_is_level_with_the_least_served)
{
    pipeline_bench b = pipeline_bench_open("cpu", ATEDM_F32);
    outcome *o = calloc(1, sizeof *o);
    atedm_engine *engine = open_engine(&b, o, 1, 4);
    const int64_t sides[] = {2 * SIDE, SIDE / 2, SIDE};
    for (uint64_t job = 0; job < 3; job++) {
        atedm_request request = make_sized(sides[job], 20);
        if (job == 2) {
            cr_expect(atedm_engine_turn(engine)); // the texts of the first, and a step of it
            cr_assert_eq(o->stepped[0], 1);
            cr_assert_eq(o->stepped[1], 0);
        }
        cr_assert_eq(atedm_engine_admit(engine, job, &request, NULL), ATEDM_OK);
    }
    for (int turn = 0; turn < 4; turn++)
        atedm_engine_turn(engine);
    cr_expect_eq(o->stepped[0], 1);
    cr_expect_geq(o->stepped[1], 1);
    cr_expect_geq(o->stepped[2], 1);
    atedm_engine_destroy(engine);
    free_outcome(o);
    pipeline_bench_close(&b);
}

Test(engine, what_does_not_fit_is_refused)
{
    pipeline_bench b = pipeline_bench_open("cpu", ATEDM_F32);
    outcome *o = calloc(1, sizeof *o);
    atedm_error err = {0};
    atedm_engine *engine = open_engine(&b, o, 1, 2);
    admit(engine, 0);
    admit(engine, 1);
    size_t needed = atedm_engine_memory(engine);
    atedm_request request = make_request(2);
    cr_expect_eq(atedm_engine_admit(engine, 2, &request, &err), ATEDM_ERR_LIMIT);
    cr_expect_not_null(request.prompt); // still the caller's
    cr_expect(atedm_engine_cancel(engine, 1));
    cr_expect(!atedm_engine_cancel(engine, 1));
    cr_expect_eq(atedm_engine_admit(engine, 2, &request, &err), ATEDM_OK);
    drain(engine);
    cr_expect(o->done[0] && o->done[2] && !o->done[1]);
    cr_expect_lt(atedm_engine_memory(engine), needed + (64u << 20));
    atedm_engine_destroy(engine);

    atedm_request wrong = make_request(3);
    engine = open_engine(&b, o, 1, 2);
    wrong.width = 60;
    cr_expect_eq(atedm_engine_admit(engine, 3, &wrong, &err), ATEDM_ERR_INVALID);
    atedm_request_finish(&wrong);
    atedm_engine_destroy(engine);
    free_outcome(o);
    pipeline_bench_close(&b);
}

// Memory for two, of three; and for none.
Test(engine, memory_is_known_before_it_is_taken)
{
    pipeline_bench b = pipeline_bench_open("cpu", ATEDM_F32);
    outcome *o = calloc(1, sizeof *o);
    atedm_error err = {0};
    atedm_request request = make_sized(SIDE, 2);
    atedm_generation *g = NULL;
    cr_assert_eq(atedm_generation_create(b.pipeline, &request, NULL, NULL, NULL, &g, &err),
                 ATEDM_OK);
    atedm_scratch_need scratch = atedm_generation_scratch(g);
    size_t each = atedm_generation_memory(g);
    atedm_generation_destroy(g);
    atedm_engine_options options = {.max_batch = 2, .max_requests = 8};
    atedm_engine_hooks hooks = {on_evaluated, on_stepped, on_image, on_preview,
                                on_done,      on_failed,  o};
    options.memory_limit = b.model->weight_bytes;
    cr_expect_eq(atedm_engine_create(b.model, &options, &hooks, &(atedm_engine *){NULL}, &err),
                 ATEDM_ERR_INVALID);
    cr_expect_not_null(strstr(err.message, "leaves nothing for requests"));
    options.memory_limit =
        b.model->weight_bytes + 2 * each + 2 * scratch.steps + scratch.text + scratch.vae;
    for (int short_of = 0; short_of < 2; short_of++) {
        atedm_engine *engine = NULL;
        if (short_of)
            options.memory_limit =
                b.model->weight_bytes + each + scratch.steps + scratch.text + scratch.vae - 1;
        cr_assert_eq(atedm_engine_create(b.model, &options, &hooks, &engine, &err), ATEDM_OK);
        for (uint64_t job = 0; job < 3; job++) {
            atedm_request copy = make_sized(SIDE, 2);
            atedm_status expected = short_of  ? ATEDM_ERR_NOMEM
                                    : job < 2 ? ATEDM_OK
                                              : ATEDM_ERR_LIMIT;
            cr_expect_eq(atedm_engine_admit(engine, job, &copy, &err), expected);
            atedm_request_finish(&copy);
        }
        drain(engine);
        cr_expect_leq(atedm_engine_memory(engine), options.memory_limit);
        atedm_engine_destroy(engine);
    }
    cr_expect(o->done[0] && o->done[1]);
    atedm_request_finish(&request);
    free_outcome(o);
    pipeline_bench_close(&b);
}

static void watch_and_drain(const pipeline_bench *b, outcome *o, bool off_again)
{
    atedm_engine *engine = open_engine(b, o, 1, 4);
    atedm_request request = make_sized(SIDE, 6);
    request.num_images = 2;              // they take turns
    atedm_engine_watch(engine, 1, true); // nobody is there
    cr_assert_eq(atedm_engine_admit(engine, 1, &request, NULL), ATEDM_OK);
    atedm_engine_watch(engine, 1, true);
    atedm_engine_watch(engine, 1, true);
    if (off_again) {
        while (o->previews < 3)
            cr_assert(atedm_engine_turn(engine));
        atedm_engine_watch(engine, 1, false);
    }
    drain(engine);
    atedm_engine_destroy(engine);
}

Test(engine, previews_come_while_somebody_watches)
{
    pipeline_bench b = pipeline_bench_open("cpu", ATEDM_F32);
    for (int off = 0; off < 2; off++) {
        outcome *o = calloc(1, sizeof *o);
        watch_and_drain(&b, o, off);
        cr_expect(o->done[1]);
        cr_expect_eq(o->stepped[1], 6);
        cr_expect_eq(o->previews, off ? 3 : 6); // of the first image only
        free_outcome(o);
    }
    pipeline_bench_close(&b);
}

// Pictures come all the same.
Test(engine, where_there_is_no_memory_for_previews_there_are_none)
{
    pipeline_bench b = pipeline_bench_open("cpu", ATEDM_F32);
    outcome *o = calloc(1, sizeof *o);
    atedm_engine *engine = NULL;
    atedm_engine_options options = {.max_batch = 1, .max_requests = 1};
    atedm_engine_hooks hooks = {on_evaluated, on_stepped, on_image, on_preview,
                                on_done,      on_failed,  o};
    atedm_request request = make_sized(8, 2);
    atedm_generation *g = NULL;
    cr_assert_eq(atedm_generation_create(b.pipeline, &request, NULL, NULL, NULL, &g, NULL),
                 ATEDM_OK);
    atedm_scratch_need scratch = atedm_generation_scratch(g);
    options.memory_limit = b.model->weight_bytes + atedm_generation_memory(g) + scratch.steps +
                           scratch.text + scratch.vae;
    atedm_generation_destroy(g);
    cr_assert_eq(atedm_engine_create(b.model, &options, &hooks, &engine, NULL), ATEDM_OK);
    cr_assert_eq(atedm_engine_admit(engine, 1, &request, NULL), ATEDM_OK);
    atedm_engine_watch(engine, 1, true);
    drain(engine);
    cr_expect(o->done[1]);
    cr_expect_eq(o->previews, 0);
    atedm_engine_destroy(engine);
    free_outcome(o);
    pipeline_bench_close(&b);
}

Test(engine, options_are_checked)
{
    pipeline_bench b = pipeline_bench_open("cpu", ATEDM_F32);
    static const atedm_engine_options wrong[] = {
        {.max_batch = 0, .max_requests = 1},
        {.max_batch = ATEDM_ENGINE_MAX_BATCH + 1, .max_requests = 1},
        {.max_batch = 1, .max_requests = 0}};
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        atedm_engine *engine = NULL;
        cr_expect_eq(
            atedm_engine_create(b.model, &wrong[i], &(atedm_engine_hooks){0}, &engine, NULL),
            ATEDM_ERR_INVALID);
        cr_expect_null(engine);
    }
    pipeline_bench_close(&b);
}
