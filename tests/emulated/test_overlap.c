// Work that runs beside other work of the device: streams of lower priority, and pictures that are
// decoded and handed over during the steps of other requests. Runs on the emulated backend, whose
// file is $ATEDM_CUDA_BACKEND, with streams that run as late as possible.
#include "core/engine.h"
#include "tests/unit/pipeline_bench.h"

#include <criterion/criterion.h>
#include <dlfcn.h>
#include <stdlib.h>
#include <string.h>

// The number of operations that are enqueued and have not run.
static size_t pending(void)
{
    void *backend = dlopen(getenv("ATEDM_CUDA_BACKEND"), RTLD_NOW); // is loaded already
    cr_assert_not_null(backend);
    size_t (*count)(void) = NULL;
    *(void **)&count = dlsym(backend, "atedm_emulated_pending");
    cr_assert_not_null(count);
    return count();
}

// ---- failing allocations: the linker redirects malloc to here

static size_t refused; // the next allocation of this many bytes fails; 0: none

void *__real_malloc(size_t bytes);
void *__wrap_malloc(size_t bytes);

void *__wrap_malloc(size_t bytes)
{
    if (!bytes || bytes != refused)
        return __real_malloc(bytes);
    refused = 0;
    return NULL;
}

// ---- streams

static atedm_stream *open_stream(atedm_device *device)
{
    atedm_stream *s = NULL;
    cr_assert_eq(atedm_stream_create(device, ATEDM_F32, &s, NULL), ATEDM_OK);
    return s;
}

static atedm_device *open_device(const char *backend)
{
    atedm_device *device = NULL;
    atedm_error err = {""};
    cr_assert_eq(atedm_device_create(backend, &device, &err), ATEDM_OK, "%s", err.message);
    return device;
}

Test(overlap, streams_in_the_background)
{
    enum { COUNT = 8 };
    setenv("ATEDM_EMULATED_LATE", "1", 1);
    atedm_device *device = open_device("cuda");
    atedm_stream *s = open_stream(device);
    cr_expect(atedm_stream_set_background(s));
    cr_expect(atedm_stream_idle(s));
    const float values[COUNT] = {3};
    float result[COUNT] = {0};
    void *memory = NULL;
    cr_assert_eq(atedm_device_alloc(device, sizeof values, &memory, NULL), ATEDM_OK);
    atedm_upload(s, values, memory, sizeof values);
    atedm_add(s, memory, memory, memory, COUNT);
    atedm_download(s, memory, result, sizeof result);
    cr_expect(!atedm_stream_idle(s));
    cr_expect_float_eq(result[0], 0, 0);
    while (!atedm_stream_idle(s))
        ;
    cr_expect_eq(atedm_stream_sync(s, NULL), ATEDM_OK); // the download has arrived after the wait
    cr_expect_float_eq(result[0], 6, 0);
    atedm_add(s, memory, memory, memory, COUNT);
    atedm_add(s, NULL, memory, memory, COUNT);
    cr_expect(atedm_stream_idle(s)); // it failed, which only a wait reports
    cr_expect_eq(atedm_stream_sync(s, NULL), ATEDM_ERR_INVALID);
    atedm_device_free(device, memory);
    atedm_stream_destroy(s);
    atedm_device_destroy(device);
}

Test(overlap, backends_that_do_one_thing_at_a_time)
{
    static const char *const backends[] = {"ref", "cpu", "dry"};
    for (int i = 0; i < 3; i++) {
        atedm_device *device = open_device(backends[i]);
        atedm_stream *s = open_stream(device);
        cr_expect(!atedm_stream_set_background(s));
        cr_expect(atedm_stream_idle(s));
        atedm_stream_destroy(s);
        atedm_device_destroy(device);
    }
}

// ---- the engine

#define JOBS 3
#define MOST_IMAGES 3
#define PICTURE_SIDE (SIDE / 4)
#define PICTURE_BYTES ((size_t)3 * PICTURE_SIDE * PICTURE_SIDE)

typedef struct outcome {
    atedm_engine *engine;
    uint8_t *images[JOBS][MOST_IMAGES];
    int stepped[JOBS], steps[JOBS];
    bool done[JOBS];
    atedm_status failed[JOBS];
    size_t pairs;     // evaluations of two images
    size_t under_way; // pictures that were handed over, and failures, with operations pending
    double vae_s, text_s;
} outcome;

static void on_evaluated(void *user, size_t images, double seconds)
{
    outcome *o = user;
    o->pairs += images == 2;
}

static void on_stepped(void *user, uint64_t job, int step)
{
    outcome *o = user;
    cr_expect_eq(o->failed[job], ATEDM_OK);
    o->stepped[job] = step;
}

static void on_image(void *user, uint64_t job, int image, const atedm_request *request,
                     const atedm_plan *plan, uint8_t *take_rgb)
{
    outcome *o = user;
    cr_expect_null(o->images[job][image]);
    o->images[job][image] = take_rgb;
    o->under_way += pending() > 0;
}

static void on_done(void *user, uint64_t job, const atedm_engine_report *report)
{
    outcome *o = user;
    o->done[job] = true;
    o->vae_s += report->timing.vae_s;
    o->text_s += report->timing.text_encoder_s;
    cr_expect_gt(atedm_op_counts_flops(&report->counts[2]), 0);
}

static void on_failed(void *user, uint64_t job, atedm_status status, const atedm_error *error)
{
    outcome *o = user;
    cr_expect_eq(o->failed[job], ATEDM_OK);
    o->failed[job] = status;
    o->under_way += pending() > 0;
}

static void open_engine(const pipeline_bench *b, outcome *o, size_t max_batch)
{
    const atedm_engine_options options = {
        .max_batch = max_batch, .max_requests = JOBS, .memory_limit = SIZE_MAX};
    const atedm_engine_hooks hooks = {.evaluated = on_evaluated,
                                      .stepped = on_stepped,
                                      .image = on_image,
                                      .done = on_done,
                                      .failed = on_failed,
                                      .user = o};
    cr_assert_eq(atedm_engine_create(b->model, &options, &hooks, &o->engine, NULL), ATEDM_OK);
}

static atedm_request make_request(int job, int images, int steps)
{
    atedm_request r = pipeline_bench_request(job % 2 ? "at-edm-c" : "off");
    r.seed = (uint64_t)job;
    r.steps = steps;
    r.num_images = images;
    r.guidance_scale = job % 2 ? 4 : 1;
    r.width = r.height = PICTURE_SIDE;
    return r;
}

static void admit_images(outcome *o, int job, int images, int steps)
{
    atedm_request r = make_request(job, images, steps);
    o->steps[job] = steps;
    cr_assert_eq(atedm_engine_admit(o->engine, (uint64_t)job, &r, NULL), ATEDM_OK);
}

static void admit(outcome *o, int job, int steps)
{
    admit_images(o, job, 1, steps);
}

static void expect_images(const pipeline_bench *b, const outcome *o, int job, int images)
{
    atedm_request r = make_request(job, images, o->steps[job]);
    size_t bytes = 3 * (size_t)(r.width * r.height);
    uint8_t *alone = pipeline_bench_generate(b, &r);
    cr_expect(o->done[job]);
    cr_expect_eq(o->failed[job], ATEDM_OK);
    for (int i = 0; i < images; i++)
        cr_expect(o->images[job][i] && !memcmp(alone + (size_t)i * bytes, o->images[job][i], bytes),
                  "job %d, image %d", job, i);
    free(alone);
    atedm_request_finish(&r);
}

static void expect_picture(const pipeline_bench *b, const outcome *o, int job)
{
    expect_images(b, o, job, 1);
}

static void close_engine(outcome *o)
{
    atedm_engine_destroy(o->engine);
    for (int i = 0; i < JOBS; i++)
        for (int k = 0; k < MOST_IMAGES; k++)
            free(o->images[i][k]);
}

Test(overlap, steps_go_on_while_pictures_are_decoded)
{
    setenv("ATEDM_EMULATED_LATE", "1", 1);
    pipeline_bench b = pipeline_bench_open("cuda", ATEDM_F32);
    outcome o = {0};
    open_engine(&b, &o, 4);
    for (int i = 0; i < JOBS; i++)
        admit(&o, i, 2 + 4 * i * i);
    while (atedm_engine_turn(o.engine))
        ;
    cr_expect_geq(o.under_way, 2, "%zu", o.under_way); // all but the last one's
    cr_expect_gt(o.vae_s, 0);
    cr_expect_eq(atedm_engine_requests(o.engine), 0);
    for (int i = 0; i < JOBS; i++)
        expect_picture(&b, &o, i);
    close_engine(&o);
    pipeline_bench_close(&b);
}

Test(overlap, steps_go_on_while_texts_are_encoded)
{
    setenv("ATEDM_EMULATED_LATE", "1", 1);
    pipeline_bench b = pipeline_bench_open("cuda", ATEDM_F32);
    outcome o = {0};
    open_engine(&b, &o, 4);
    admit(&o, 0, 50);
    while (o.stepped[0] < 1)
        cr_assert(atedm_engine_turn(o.engine));
    admit(&o, 1, 2);
    admit(&o, 2, 2);
    cr_assert(atedm_engine_turn(o.engine)); // with the texts of both
    cr_expect_eq(o.stepped[0], 2);
    cr_expect_eq(o.stepped[1] + o.stepped[2], 0);
    cr_assert(atedm_engine_turn(o.engine));
    cr_expect_eq(o.stepped[1] + o.stepped[2], 2); // they join together
    cr_expect(atedm_engine_cancel(o.engine, 0));
    while (atedm_engine_turn(o.engine))
        ;
    cr_expect(!o.done[0]);
    cr_expect_gt(o.text_s, 0);
    expect_picture(&b, &o, 1);
    expect_picture(&b, &o, 2);
    close_engine(&o);
    pipeline_bench_close(&b);
}

// A request that leaves while its texts are being encoded, and an engine that ends meanwhile.
Test(overlap, encoding_that_is_not_waited_for)
{
    setenv("ATEDM_EMULATED_LATE", "1", 1);
    pipeline_bench b = pipeline_bench_open("cuda", ATEDM_F32);
    outcome o = {0};
    open_engine(&b, &o, 4);
    admit(&o, 0, 1);
    cr_assert(atedm_engine_turn(o.engine));
    cr_expect_gt(pending(), 0);
    cr_expect(atedm_engine_cancel(o.engine, 0));
    admit(&o, 1, 1);
    while (atedm_engine_turn(o.engine))
        ;
    cr_expect(!o.done[0]);
    expect_picture(&b, &o, 1);
    admit(&o, 2, 1);
    cr_assert(atedm_engine_turn(o.engine));
    cr_expect_gt(pending(), 0);
    close_engine(&o);
    pipeline_bench_close(&b);
}

// The same while pictures are being decoded.
Test(overlap, decoding_that_is_not_waited_for)
{
    setenv("ATEDM_EMULATED_LATE", "1", 1);
    pipeline_bench b = pipeline_bench_open("cuda", ATEDM_F32);
    outcome o = {0};
    open_engine(&b, &o, 4);
    admit(&o, 0, 2);
    while (o.stepped[0] < 2)
        cr_assert(atedm_engine_turn(o.engine));
    cr_assert(atedm_engine_turn(o.engine));
    cr_expect_gt(pending(), 0);
    cr_expect(atedm_engine_cancel(o.engine, 0));
    admit(&o, 1, 4);
    while (!o.done[1])
        cr_assert(atedm_engine_turn(o.engine));
    cr_expect_null(o.images[0][0]);
    expect_picture(&b, &o, 1);
    admit(&o, 2, 2);
    while (o.stepped[2] < o.steps[2])
        cr_assert(atedm_engine_turn(o.engine));
    cr_assert(atedm_engine_turn(o.engine));
    cr_expect_gt(pending(), 0);
    close_engine(&o);
    pipeline_bench_close(&b);
}

// Images of one request take turns: one picture is handed over during the steps of the next.
Test(overlap, pieces_are_done_while_an_evaluation_is_under_way)
{
    setenv("ATEDM_EMULATED_LATE", "1", 1);
    pipeline_bench b = pipeline_bench_open("cuda", ATEDM_F32);
    outcome o = {0};
    open_engine(&b, &o, 1);
    admit_images(&o, 0, MOST_IMAGES, 70);
    while (atedm_engine_turn(o.engine))
        ;
    cr_expect_geq(o.under_way, 1);
    expect_images(&b, &o, 0, MOST_IMAGES);
    close_engine(&o);
    pipeline_bench_close(&b);
}

// Job 1's first image is ahead of its second. There is no memory for the first one's picture while
// an evaluation of the second is running, together with an image of job 2 or alone.
static void fail_meanwhile(bool alone)
{
    setenv("ATEDM_EMULATED_LATE", "1", 1);
    pipeline_bench b = pipeline_bench_open("cuda", ATEDM_F32);
    outcome o = {0};
    int steps = alone ? 4 : 50; // long enough for job 2's texts
    open_engine(&b, &o, 2);
    admit(&o, 0, 50);
    admit_images(&o, 1, 2, steps);
    while (o.pairs < 2)
        cr_assert(atedm_engine_turn(o.engine));
    cr_expect(atedm_engine_cancel(o.engine, 0));
    if (!alone)
        admit(&o, 2, 3);
    refused = PICTURE_BYTES;
    while (!o.failed[1])
        cr_assert(atedm_engine_turn(o.engine));
    cr_expect_eq(o.failed[1], ATEDM_ERR_NOMEM);
    cr_expect_eq(o.under_way, 1);
    cr_expect_eq(o.stepped[1], steps - 2); // it gets no more reports on its second image
    cr_expect_eq(o.stepped[2], alone ? 0 : 1);
    cr_expect_eq(pending(), 0);
    if (alone)
        admit(&o, 2, 3);
    while (atedm_engine_turn(o.engine))
        ;
    cr_expect_eq(atedm_engine_requests(o.engine), 0);
    expect_picture(&b, &o, 2);
    close_engine(&o);
    pipeline_bench_close(&b);
}

Test(overlap, a_job_fails_while_an_evaluation_of_it_is_under_way)
{
    fail_meanwhile(true);
}

Test(overlap, a_job_fails_while_an_evaluation_of_it_and_another_is_under_way)
{
    fail_meanwhile(false);
}

// ---- the pipeline

static atedm_generation *encode(const pipeline_bench *b, const atedm_request *r)
{
    atedm_generation *g = NULL;
    cr_assert_eq(atedm_generation_create(b->pipeline, r, NULL, NULL, NULL, &g, NULL), ATEDM_OK);
    cr_assert_eq(atedm_generation_encode(g, NULL), ATEDM_OK);
    return g;
}

// A request ends in the middle of a shared step. It gives back the memory to which the device and
// the downloads of a watched image write. Meanwhile another request's texts are encoded.
Test(overlap, a_step_in_two_halves)
{
    setenv("ATEDM_EMULATED_LATE", "1", 1);
    pipeline_bench b = pipeline_bench_open("cuda", ATEDM_F32);
    atedm_pipeline *p = b.pipeline;
    atedm_error err = {""};
    outcome o = {.steps = {2, 2, 2}, .done = {false, true, true}};
    atedm_request requests[JOBS];
    atedm_generation *g[JOBS];
    for (int i = 0; i < JOBS; i++) {
        requests[i] = make_request(i, 1, o.steps[i]);
        g[i] = i < 2 ? encode(&b, &requests[i]) : NULL;
    }
    cr_expect(atedm_pipeline_overlaps(p));
    cr_assert_eq(atedm_generation_watch(g[0], true, NULL), ATEDM_OK);
    const atedm_lane lanes[] = {{g[0], 0}, {g[1], 0}};
    cr_assert_eq(atedm_pipeline_step_begin(p, lanes, 2, &err), ATEDM_OK, "%s", err.message);
    cr_expect_eq(atedm_pipeline_step_begin(p, lanes, 2, &err), ATEDM_ERR_INVALID);
    cr_expect_gt(pending(), 0);
    cr_expect_eq(atedm_generation_steps_done(g[1], 0), 0);
    g[2] = encode(&b, &requests[2]);
    cr_expect_gt(pending(), 0);
    atedm_pipeline_step_wait(p);
    cr_expect_eq(pending(), 0);
    atedm_generation_destroy(g[0]);
    cr_assert_eq(atedm_pipeline_step_end(p, &lanes[1], 1, &err), ATEDM_OK, "%s", err.message);
    cr_expect_eq(atedm_generation_steps_done(g[1], 0), 1);
    cr_assert_eq(atedm_generation_step(g[1], NULL), ATEDM_OK);
    for (int step = 0; step < 2; step++)
        cr_assert_eq(atedm_generation_step(g[2], NULL), ATEDM_OK);
    for (int i = 1; i < JOBS; i++) {
        o.images[i][0] = malloc(PICTURE_BYTES);
        cr_assert_eq(atedm_generation_decode(g[i], 0, o.images[i][0], NULL), ATEDM_OK);
        expect_picture(&b, &o, i);
        atedm_generation_destroy(g[i]);
        free(o.images[i][0]);
    }
    for (int i = 0; i < JOBS; i++)
        atedm_request_finish(&requests[i]);
    pipeline_bench_close(&b);
}
