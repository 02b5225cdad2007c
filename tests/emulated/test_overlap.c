// Work that runs beside other work of the device: streams that stand back, and pictures that are
// decoded while the steps of others go on. On the emulated backend, whose file is
// $ATEDM_CUDA_BACKEND, with streams that run as late as they may.
#include "core/engine.h"
#include "tests/unit/pipeline_bench.h"

#include <criterion/criterion.h>
#include <stdlib.h>
#include <string.h>

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
    cr_expect_eq(atedm_stream_sync(s, NULL), ATEDM_OK); // who waits has what was downloaded
    cr_expect_float_eq(result[0], 6, 0);
    atedm_add(s, memory, memory, memory, COUNT);
    atedm_add(s, NULL, memory, memory, COUNT);
    cr_expect(atedm_stream_idle(s)); // to wait is to hear of it
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

typedef struct outcome {
    atedm_engine *engine;
    uint8_t *images[JOBS];
    int stepped[JOBS], steps[JOBS];
    bool done[JOBS];
    size_t beside; // evaluations between a job's last step and its picture
    size_t before; // of one image, while two jobs have steps left
    double vae_s, text_s;
} outcome;

static void on_evaluated(void *user, size_t images, double seconds)
{
    outcome *o = user;
    int going = 0;
    for (int i = 0; i < JOBS; i++)
        going += o->stepped[i] < o->steps[i];
    o->before += going == 2 && images == 1;
    for (int i = 0; i < JOBS; i++)
        o->beside += o->steps[i] && o->stepped[i] == o->steps[i] && !o->images[i];
}

static void on_stepped(void *user, uint64_t job, int step)
{
    outcome *o = user;
    o->stepped[job] = step;
}

static void on_image(void *user, uint64_t job, int image, const atedm_request *request,
                     const atedm_plan *plan, uint8_t *take_rgb)
{
    outcome *o = user;
    cr_expect_null(o->images[job]);
    o->images[job] = take_rgb;
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
    cr_expect_fail("job %d: %s", (int)job, error->message);
}

static void open_engine(const pipeline_bench *b, outcome *o)
{
    const atedm_engine_options options = {
        .max_batch = 4, .max_requests = JOBS, .memory_limit = SIZE_MAX};
    const atedm_engine_hooks hooks = {.evaluated = on_evaluated,
                                      .stepped = on_stepped,
                                      .image = on_image,
                                      .done = on_done,
                                      .failed = on_failed,
                                      .user = o};
    cr_assert_eq(atedm_engine_create(b->model, &options, &hooks, &o->engine, NULL), ATEDM_OK);
}

static atedm_request make_request(int job, int steps)
{
    atedm_request r = pipeline_bench_request(job % 2 ? "at-edm-c" : "off");
    r.seed = (uint64_t)job;
    r.steps = steps;
    r.width = r.height = SIDE / 2;
    return r;
}

static void admit(outcome *o, int job, int steps)
{
    atedm_request r = make_request(job, steps);
    o->steps[job] = steps;
    cr_assert_eq(atedm_engine_admit(o->engine, (uint64_t)job, &r, NULL), ATEDM_OK);
}

static void expect_picture(const pipeline_bench *b, outcome *o, int job)
{
    atedm_request r = make_request(job, o->steps[job]);
    uint8_t *alone = pipeline_bench_generate(b, &r);
    cr_expect(o->done[job]);
    cr_expect(!memcmp(alone, o->images[job], 3 * (size_t)(r.width * r.height)), "job %d", job);
    free(alone);
    atedm_request_finish(&r);
}

static void close_engine(outcome *o)
{
    atedm_engine_destroy(o->engine);
    for (int i = 0; i < JOBS; i++)
        free(o->images[i]);
}

Test(overlap, steps_go_on_while_pictures_are_decoded)
{
    setenv("ATEDM_EMULATED_LATE", "1", 1);
    pipeline_bench b = pipeline_bench_open("cuda", ATEDM_F32);
    outcome o = {0};
    open_engine(&b, &o);
    for (int i = 0; i < JOBS; i++)
        admit(&o, i, 2 + 4 * i);
    while (atedm_engine_turn(o.engine))
        ;
    cr_expect_geq(o.beside, 4, "%zu", o.beside);
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
    open_engine(&b, &o);
    admit(&o, 0, 50);
    while (o.stepped[0] < 1)
        cr_assert(atedm_engine_turn(o.engine));
    cr_expect_eq(o.before, 0);
    admit(&o, 1, 1);
    for (int turn = 0; turn < 2; turn++)
        cr_assert(atedm_engine_turn(o.engine));
    cr_expect_eq(o.before, 2, "%zu", o.before); // its texts are under way
    admit(&o, 2, 1);
    cr_expect(atedm_engine_cancel(o.engine, 1)); // with its texts
    cr_expect(atedm_engine_cancel(o.engine, 0)); // nothing else to do
    while (atedm_engine_turn(o.engine))
        ;
    cr_expect(!o.done[0] && !o.done[1]);
    cr_expect_gt(o.text_s, 0);
    expect_picture(&b, &o, 2);
    admit(&o, 1, 1);
    cr_assert(atedm_engine_turn(o.engine));
    close_engine(&o); // in the middle of it
    pipeline_bench_close(&b);
}

// Who leaves in the middle of it, and an engine that ends then.
Test(overlap, decoding_that_is_not_waited_for)
{
    setenv("ATEDM_EMULATED_LATE", "1", 1);
    pipeline_bench b = pipeline_bench_open("cuda", ATEDM_F32);
    outcome o = {0};
    open_engine(&b, &o);
    for (int i = 0; i < JOBS; i++)
        admit(&o, i, 2 + 2 * i);
    while (o.beside < 1)
        cr_assert(atedm_engine_turn(o.engine));
    cr_expect(atedm_engine_cancel(o.engine, 0));
    while (!o.done[1])
        cr_assert(atedm_engine_turn(o.engine));
    cr_expect_null(o.images[0]);
    expect_picture(&b, &o, 1);
    while (o.stepped[2] < o.steps[2])
        cr_assert(atedm_engine_turn(o.engine));
    close_engine(&o);
    pipeline_bench_close(&b);
}
