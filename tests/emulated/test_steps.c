// Steps on the cuda backend allocate nothing: all memory is there once a request is admitted.
// Copies between host and device keep their order and arrive complete, however many fit into a
// stage. Runs on the emulated backend, whose file is $ATEDM_CUDA_BACKEND.
#include "core/engine.h"
#include "tests/unit/pipeline_bench.h"

#include <criterion/criterion.h>
#include <dlfcn.h>
#include <stdlib.h>
#include <string.h>

// The number of calls so far that allocated or freed device or pinned memory.
static long allocations(void)
{
    void *backend = dlopen(getenv("ATEDM_CUDA_BACKEND"), RTLD_NOW); // is loaded already
    cr_assert_not_null(backend);
    const long *count = dlsym(backend, "atedm_emulated_allocations");
    cr_assert_not_null(count);
    return *count;
}

typedef struct watcher {
    long at_first_step, during_steps;
    int evaluations, pictures, previews;
} watcher;

static void on_evaluated(void *user, size_t images, double seconds)
{
    watcher *w = user;
    if (w->evaluations++ == 0)
        w->at_first_step = allocations();
    if (!w->pictures) // a finished request gives its memory back
        w->during_steps = allocations() - w->at_first_step;
}

static void on_stepped(void *user, uint64_t job, int step)
{
}

static void on_image(void *user, uint64_t job, int image, const atedm_request *request,
                     const atedm_plan *plan, uint8_t *take_rgb)
{
    watcher *w = user;
    w->pictures++;
    free(take_rgb);
}

static void on_preview(void *user, uint64_t job, int step, int64_t width, int64_t height,
                       uint8_t *take_rgb)
{
    watcher *w = user;
    w->previews++;
    free(take_rgb);
}

static void on_done(void *user, uint64_t job, const atedm_engine_report *report)
{
}

static void on_failed(void *user, uint64_t job, atedm_status status, const atedm_error *error)
{
    cr_assert(false, "%s", error->message);
}

static atedm_engine *open_engine(const pipeline_bench *b, watcher *w, size_t memory_limit)
{
    const atedm_engine_options options = {
        .max_batch = 4, .max_requests = 8, .memory_limit = memory_limit};
    const atedm_engine_hooks hooks = {on_evaluated, on_stepped, on_image, on_preview,
                                      on_done,      on_failed,  w};
    atedm_engine *engine = NULL;
    atedm_error err = {""};
    cr_assert_eq(atedm_engine_create(b->model, &options, &hooks, &engine, &err), ATEDM_OK, "%s",
                 err.message);
    return engine;
}

// Three requests: unpruned, pruned by a schedule that changes on the way, and watched.
Test(steps, allocate_nothing, .timeout = 600)
{
    static const char *const presets[] = {"off", "at-edm-b", "at-edm-a"};
    pipeline_bench b = pipeline_bench_open("cuda", ATEDM_BF16);
    watcher w = {0};
    atedm_engine *engine = open_engine(&b, &w, 0);
    for (uint64_t job = 0; job < 3; job++) {
        atedm_request request = pipeline_bench_request(presets[job]);
        request.steps = 6;
        request.width = request.height = 32;
        cr_assert_eq(atedm_engine_admit(engine, job, &request, NULL), ATEDM_OK);
    }
    atedm_engine_watch(engine, 2, true);
    // Texts, the first evaluation of all three, and the memory that previews take once.
    while (w.evaluations < 4)
        cr_assert(atedm_engine_turn(engine));
    w = (watcher){0};
    while (w.pictures == 0 && atedm_engine_turn(engine))
        ;
    cr_expect_geq(w.evaluations, 2);
    cr_expect_eq(w.during_steps, 0, "%ld", w.during_steps);
    cr_expect_gt(w.previews, 0);
    while (atedm_engine_turn(engine))
        ;
    cr_expect_eq(w.pictures, 3);
    atedm_engine_destroy(engine);
    pipeline_bench_close(&b);
}

// Nor do the first steps: admission takes the memory that steps and pixels will need. Only trials
// of new shapes take memory, and give it back.
Test(steps, admission_takes_the_memory, .timeout = 600)
{
    setenv("ATEDM_CUDA_TRIALS", "0", 1);
    pipeline_bench b = pipeline_bench_open("cuda", ATEDM_BF16);
    watcher w = {0};
    atedm_engine *engine = open_engine(&b, &w, SIZE_MAX);
    atedm_request request = pipeline_bench_request("at-edm-b");
    request.num_images = 2;
    request.width = request.height = 32;
    cr_assert_eq(atedm_engine_admit(engine, 1, &request, NULL), ATEDM_OK);
    long before = allocations();
    while (w.pictures < 2) {
        long so_far = allocations();
        cr_assert(atedm_engine_turn(engine));
        if (w.pictures < 2)
            cr_expect_eq(allocations(), so_far, "%ld", allocations() - so_far);
    }
    cr_expect_eq(allocations(), before); // also when the request leaves
    atedm_engine_destroy(engine);
    pipeline_bench_close(&b);
}

static void run_one(atedm_engine *engine, uint64_t job, const char *prompt)
{
    atedm_request request = pipeline_bench_request("at-edm-c");
    request.width = request.height = 32;
    request.steps = 1;
    free(request.prompt);
    request.prompt = strdup(prompt);
    cr_assert_eq(atedm_engine_admit(engine, job, &request, NULL), ATEDM_OK);
    while (atedm_engine_turn(engine))
        ;
}

// Requests like earlier ones use the memory of those.
Test(steps, requests_allocate_nothing, .timeout = 600)
{
    pipeline_bench b = pipeline_bench_open("cuda", ATEDM_F32);
    watcher w = {0};
    atedm_engine *engine = open_engine(&b, &w, SIZE_MAX);
    run_one(engine, 0, "a red fox");
    long before = allocations();
    for (uint64_t job = 1; job < 4; job++)
        run_one(engine, job, "another text");
    cr_expect_eq(allocations(), before, "%ld", allocations() - before);
    cr_expect_eq(w.pictures, 4);
    atedm_engine_destroy(engine);
    pipeline_bench_close(&b);
}

// Memory kept from requests that have left, and recordings, must not make the engine refuse a
// request: limits hold, and the device has room.
Test(steps, spare_memory_is_given_back, .timeout = 600)
{
    pipeline_bench b = pipeline_bench_open("cuda", ATEDM_F32);
    size_t most = 0;
    for (int limited = 0; limited < 2; limited++) {
        watcher w = {0};
        atedm_engine *engine = open_engine(&b, &w, limited ? most : SIZE_MAX);
        for (int64_t side = 32; side >= 16; side -= 16) {
            atedm_request request = pipeline_bench_request("off");
            request.width = request.height = limited ? 48 - side : side; // small, large
            request.steps = 3;
            cr_assert_eq(atedm_engine_admit(engine, 1, &request, NULL), ATEDM_OK);
            if (!limited && side == 32)
                most = atedm_engine_memory(engine);
            while (atedm_engine_turn(engine))
                if (limited)
                    cr_expect_leq(atedm_engine_memory(engine), most);
        }
        cr_expect_eq(w.pictures, 2);
        cr_expect(limited || atedm_engine_repeats(engine)->bytes > 0);
        cr_expect(!limited || atedm_engine_repeats(engine)->dropped > 0);
        atedm_engine_destroy(engine);
    }
    pipeline_bench_close(&b);
}

// ---- staging: the emulation's stages are of 4096 bytes, four of them

static void fill(uint8_t *bytes, size_t n, unsigned salt)
{
    for (size_t i = 0; i < n; i++)
        bytes[i] = (uint8_t)(i * 31 + i / 251 + salt);
}

static void copy_forth_and_back(const char *late)
{
    static const size_t sizes[] = {1, 63, 64, 65, 4095, 4096, 4097, 16384, 100000};
    enum { MOST = 100000 };
    setenv("ATEDM_EMULATED_LATE", late, 1);
    atedm_device *device = NULL;
    atedm_stream *s = NULL;
    void *memory = NULL;
    uint8_t *from = malloc(MOST), *to = malloc(MOST + 1);
    cr_assert_eq(atedm_device_create("cuda", &device, NULL), ATEDM_OK);
    cr_assert_eq(atedm_stream_create(device, ATEDM_F32, &s, NULL), ATEDM_OK);
    cr_assert_eq(atedm_device_alloc(device, MOST, &memory, NULL), ATEDM_OK);
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        fill(from, sizes[i], (unsigned)i);
        memset(to, 0xee, MOST + 1);
        atedm_upload(s, from, memory, sizes[i]);
        memset(from, 0, sizes[i]); // the stream has copied it
        atedm_download(s, memory, to, sizes[i]);
        cr_assert_eq(atedm_stream_sync(s, NULL), ATEDM_OK);
        fill(from, sizes[i], (unsigned)i);
        cr_expect(memcmp(from, to, sizes[i]) == 0, "%zu bytes", sizes[i]);
        cr_expect_eq(to[sizes[i]], 0xee);
    }
    atedm_device_free(device, memory);
    atedm_stream_destroy(s);
    atedm_device_destroy(device);
    free(from);
    free(to);
}

Test(staging, bytes_arrive)
{
    copy_forth_and_back("0");
}

Test(staging, bytes_arrive_late)
{
    copy_forth_and_back("1");
}

// More downloads than a stage can note: each to its own place, and all to one place.
Test(staging, many_small_ones)
{
    enum { COUNT = 1000 };
    setenv("ATEDM_EMULATED_LATE", "1", 1);
    atedm_device *device = NULL;
    atedm_stream *s = NULL;
    void *memory = NULL;
    int32_t own[COUNT], last = -1;
    cr_assert_eq(atedm_device_create("cuda", &device, NULL), ATEDM_OK);
    cr_assert_eq(atedm_stream_create(device, ATEDM_F32, &s, NULL), ATEDM_OK);
    cr_assert_eq(atedm_device_alloc(device, sizeof(int32_t), &memory, NULL), ATEDM_OK);
    for (int32_t i = 0; i < COUNT; i++) {
        atedm_upload(s, &i, memory, sizeof i);
        atedm_download(s, memory, &own[i], sizeof i);
        atedm_download(s, memory, &last, sizeof i);
    }
    cr_assert_eq(atedm_stream_sync(s, NULL), ATEDM_OK);
    for (int32_t i = 0; i < COUNT; i++)
        cr_assert_eq(own[i], i);
    cr_expect_eq(last, COUNT - 1);
    atedm_device_free(device, memory);
    atedm_stream_destroy(s);
    atedm_device_destroy(device);
}

// Data that was in flight when the device was lost must not count as a result.
Test(staging, nothing_arrives_from_a_lost_device)
{
    atedm_device *device = NULL;
    atedm_stream *s = NULL;
    void *memory = NULL;
    float x = 1;
    setenv("ATEDM_EMULATED_FAIL_AFTER", "3", 1);
    cr_assert_eq(atedm_device_create("cuda", &device, NULL), ATEDM_OK);
    cr_assert_eq(atedm_stream_create(device, ATEDM_F32, &s, NULL), ATEDM_OK);
    cr_assert_eq(atedm_device_alloc(device, sizeof x, &memory, NULL), ATEDM_OK);
    atedm_upload(s, &x, memory, sizeof x);
    x = 7;
    atedm_download(s, memory, &x, sizeof x);
    atedm_add(s, memory, memory, memory, 1); // fails
    cr_expect_eq(atedm_stream_sync(s, NULL), ATEDM_ERR_DEVICE);
    cr_expect_float_eq(x, 7, 0);
    atedm_stream_destroy(s);
    atedm_device_destroy(device);
}
