// Repeated sequences as CUDA graphs: a replay must give the results of a direct run; when there is
// a graph, when it is given up, and what happens to captures that fail. Runs on the emulated
// backend, whose file is $ATEDM_CUDA_BACKEND.
#include "core/pipeline.h"
#include "tests/unit/pipeline_bench.h"

#include <criterion/criterion.h>
#include <math.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

// As in kernels/cuda/cuda.h.
#define MAX_KEYS 64
#define MAX_GRAPHS 16
#define PAUSE 256 // ATEDM_CUDA_GRAPH_PAUSE

// ---- sequences of few operations

// A group norm over GROWS rows takes more scratch memory than the emulated backend starts with.
enum { COUNT = 64, ROWS = 4, WIDTH = 16, GROWS = 512 };

// A sequence: x += y, `times` times, then the other work that the fields ask for.
typedef struct sequence {
    atedm_device *device;
    atedm_stream *s;
    float *x, *y, *wide; // [device] [COUNT], [COUNT], [1 << 20]
    const atedm_weight *linear, *norm;
    int times;
    int calls;                   // of `enqueue`
    int64_t norm_rows;           // > 0: group norm over as many rows of `wide`
    bool waits, fails, measures; // `measures`: another thread reads the device's figures meanwhile
    const float *uploaded;       // into x first
} sequence;

static double free_memory(atedm_device *device)
{
    atedm_device_figures figures;
    cr_assert(atedm_device_measure(device, &figures));
    return figures.value[ATEDM_FIGURE_MEMORY_FREE];
}

static void *measure(void *user)
{
    const sequence *q = user;
    cr_expect(!isnan(free_memory(q->device)));
    return NULL;
}

static void enqueue(void *user)
{
    sequence *q = user;
    pthread_t other;
    q->calls++;
    if (q->measures) {
        cr_assert_eq(pthread_create(&other, NULL, measure, q), 0);
        pthread_join(other, NULL);
    }
    if (q->uploaded)
        atedm_upload(q->s, q->uploaded, q->x, COUNT * sizeof *q->x);
    for (int i = 0; i < q->times; i++)
        atedm_add(q->s, q->x, q->y, q->x, COUNT);
    atedm_linear(q->s,
                 &(atedm_linear_args){.weight = q->linear, .x = q->y, .y = q->wide, .rows = ROWS});
    if (q->norm_rows)
        atedm_group_norm(q->s, &(atedm_group_norm_args){.weight = q->norm,
                                                        .x = q->wide,
                                                        .y = q->wide,
                                                        .n = q->norm_rows,
                                                        .hw = 1,
                                                        .groups = WIDTH,
                                                        .epsilon = 1e-5f});
    if (q->waits)
        atedm_stream_wait(q->s);
    if (q->fails)
        atedm_add(q->s, NULL, q->y, q->x, COUNT);
}

static atedm_weight *linear_weight(atedm_device *device)
{
    static const float values[WIDTH * WIDTH] = {1};
    const atedm_host_tensor matrix = {values, ATEDM_F32, 2, {WIDTH, WIDTH}};
    atedm_weight *weight = NULL;
    cr_assert_eq(atedm_linear_weight_create(device, ATEDM_F32, &matrix, NULL, 1, &weight, NULL),
                 ATEDM_OK);
    return weight;
}

static atedm_weight *norm_weight(atedm_device *device)
{
    static const float values[WIDTH] = {1};
    const atedm_host_tensor vector = {values, ATEDM_F32, 1, {WIDTH}};
    atedm_weight *weight = NULL;
    cr_assert_eq(atedm_norm_weight_create(device, &vector, &vector, &weight, NULL), ATEDM_OK);
    return weight;
}

static void set(sequence *q, float x, float y)
{
    float values[2][COUNT];
    for (int i = 0; i < COUNT; i++) {
        values[0][i] = x;
        values[1][i] = y;
    }
    atedm_upload(q->s, values[0], q->x, sizeof values[0]);
    atedm_upload(q->s, values[1], q->y, sizeof values[1]);
    cr_assert(atedm_stream_wait(q->s));
}

static sequence open_sequence(const char *backend)
{
    sequence q = {.times = 1};
    atedm_error err = {""};
    cr_assert_eq(atedm_device_create(backend, &q.device, &err), ATEDM_OK, "%s", err.message);
    cr_assert_eq(atedm_stream_create(q.device, ATEDM_F32, &q.s, &err), ATEDM_OK, "%s", err.message);
    void *memory[3];
    const size_t counts[3] = {COUNT, COUNT, (size_t)1 << 20};
    for (int i = 0; i < 3; i++)
        cr_assert_eq(atedm_device_alloc(q.device, counts[i] * sizeof(float), &memory[i], NULL),
                     ATEDM_OK);
    q.x = memory[0];
    q.y = memory[1];
    q.wide = memory[2];
    q.linear = linear_weight(q.device);
    q.norm = norm_weight(q.device);
    set(&q, 0, 1);
    return q;
}

static void close_sequence(sequence *q)
{
    atedm_weight_destroy((atedm_weight *)(uintptr_t)q->linear);
    atedm_weight_destroy((atedm_weight *)(uintptr_t)q->norm);
    atedm_device_free(q->device, q->x);
    atedm_device_free(q->device, q->y);
    atedm_device_free(q->device, q->wide);
    atedm_stream_destroy(q->s);
    atedm_device_destroy(q->device);
}

static void repeat(sequence *q, int key)
{
    atedm_stream_repeat(q->s, &key, sizeof key, enqueue, q);
}

static void expect_x(sequence *q, float value)
{
    float x[COUNT];
    atedm_error err = {""};
    atedm_download(q->s, q->x, x, sizeof x);
    cr_assert_eq(atedm_stream_sync(q->s, &err), ATEDM_OK, "%s", err.message);
    for (int i = 0; i < COUNT; i++)
        cr_assert(x[i] == value, "element %d is %g, should be %g", i, (double)x[i], (double)value);
}

static void expect_figures(const sequence *q, uint64_t direct, uint64_t recorded, uint64_t replayed,
                           uint64_t dropped)
{
    const atedm_repeat_figures *f = atedm_stream_repeats(q->s);
    cr_expect_eq(f->direct, direct, "%d direct", (int)f->direct);
    cr_expect_eq(f->recorded, recorded, "%d recorded", (int)f->recorded);
    cr_expect_eq(f->replayed, replayed, "%d replayed", (int)f->replayed);
    cr_expect_eq(f->dropped, dropped, "%d dropped", (int)f->dropped);
}

Test(cuda_graphs, recorded_at_the_second_time)
{
    sequence q = open_sequence("cuda");
    for (int i = 1; i <= 5; i++) {
        repeat(&q, 7);
        expect_x(&q, (float)i);
        cr_expect_eq(q.calls, i < 2 ? i : 2);
        cr_expect_eq(atedm_stream_counts(q.s).linear, (uint64_t)i * ROWS * WIDTH * WIDTH);
    }
    expect_figures(&q, 1, 1, 3, 0);
    // The content of memory is not part of a graph.
    set(&q, 10, 0.5f);
    repeat(&q, 7);
    expect_x(&q, 10.5f);
    cr_expect_str_empty(atedm_stream_repeats(q.s)->refusal);
    close_sequence(&q);
}

Test(cuda_graphs, another_key_is_another_sequence)
{
    sequence q = open_sequence("cuda");
    float x = 0;
    for (int i = 0; i < 9; i++) {
        q.times = 1 + i % 3;
        repeat(&q, i % 3);
        expect_x(&q, x += (float)q.times);
    }
    expect_figures(&q, 3, 3, 3, 0);
    // A sequence that begins like a known one.
    const int keys[2] = {0, 0};
    q.times = 5;
    atedm_stream_repeat(q.s, keys, sizeof keys, enqueue, &q);
    expect_x(&q, x + 5);
    expect_figures(&q, 4, 3, 3, 0);
    close_sequence(&q);
}

Test(cuda_graphs, number_of_graphs)
{
    sequence q = open_sequence("cuda");
    for (int i = 0; i < 2 * (MAX_GRAPHS + 1); i++)
        repeat(&q, i / 2);
    expect_figures(&q, MAX_GRAPHS + 1, MAX_GRAPHS + 1, 0, 1);
    repeat(&q, 1);
    expect_figures(&q, MAX_GRAPHS + 1, MAX_GRAPHS + 1, 1, 1);
    repeat(&q, 0); // repeats the dropped one; the one dropped for it is not the one just used
    repeat(&q, 1);
    expect_figures(&q, MAX_GRAPHS + 1, MAX_GRAPHS + 2, 2, 2);
    expect_x(&q, 2 * (MAX_GRAPHS + 1) + 3);
    close_sequence(&q);
}

Test(cuda_graphs, number_of_keys)
{
    sequence q = open_sequence("cuda");
    repeat(&q, -1);
    repeat(&q, -1);
    for (int i = 0; i < MAX_KEYS - 1; i++)
        repeat(&q, i);
    repeat(&q, -1); // the oldest one, still known
    expect_figures(&q, MAX_KEYS, 1, 1, 0);
    for (int i = 0; i < MAX_KEYS; i++)
        repeat(&q, 1000 + i);
    expect_figures(&q, 2 * MAX_KEYS, 1, 1, 1);
    repeat(&q, -1);
    expect_figures(&q, 2 * MAX_KEYS + 1, 1, 1, 1);
    close_sequence(&q);
}

Test(cuda_graphs, long_key)
{
    sequence q = open_sequence("cuda");
    char *key = calloc(1, ATEDM_REPEAT_KEY_MAX + 1);
    for (int i = 0; i < 3; i++)
        atedm_stream_repeat(q.s, key, ATEDM_REPEAT_KEY_MAX + 1, enqueue, &q);
    expect_figures(&q, 3, 0, 0, 0);
    for (int i = 0; i < 3; i++)
        atedm_stream_repeat(q.s, key, ATEDM_REPEAT_KEY_MAX, enqueue, &q);
    expect_figures(&q, 4, 1, 1, 0);
    expect_x(&q, 6);
    free(key);
    close_sequence(&q);
}

// Graphs contain the scratch memory's address. When another operation makes it grow, they are
// dropped.
Test(cuda_graphs, scratch_memory_that_moves)
{
    sequence q = open_sequence("cuda");
    q.norm_rows = 1;
    for (int i = 0; i < 3; i++)
        repeat(&q, 1);
    expect_figures(&q, 1, 1, 1, 0);
    q.norm_rows = GROWS;
    enqueue(&q);
    expect_figures(&q, 1, 1, 1, 1);
    q.norm_rows = 1;
    repeat(&q, 1);
    repeat(&q, 1);
    expect_figures(&q, 1, 2, 2, 1);
    expect_x(&q, 6);
    close_sequence(&q);
}

Test(cuda_graphs, memory)
{
    sequence q = open_sequence("cuda");
    repeat(&q, 1);
    double before = free_memory(q.device);
    repeat(&q, 1);
    size_t bytes = atedm_stream_repeats(q.s)->bytes;
    cr_expect_gt(bytes, 0);
    cr_expect_eq(free_memory(q.device), before - (double)bytes);
    repeat(&q, 2);
    repeat(&q, 2);
    cr_expect_eq(atedm_stream_repeats(q.s)->bytes, 2 * bytes);
    atedm_stream_forget(q.s);
    cr_expect_eq(atedm_stream_repeats(q.s)->bytes, 0);
    cr_expect_eq(free_memory(q.device), before);
    repeat(&q, 1);
    repeat(&q, 1);
    expect_figures(&q, 3, 3, 0, 2);
    expect_x(&q, 6);
    close_sequence(&q);
}

// If scratch memory would have to grow during a capture, the capture is repeated later.
Test(cuda_graphs, scratch_memory_that_grows_in_a_capture)
{
    sequence q = open_sequence("cuda");
    repeat(&q, 1);
    q.norm_rows = GROWS;
    repeat(&q, 1);
    cr_expect_eq(q.calls, 3);
    expect_x(&q, 2);
    expect_figures(&q, 2, 0, 0, 0);
    repeat(&q, 1);
    repeat(&q, 1);
    expect_figures(&q, 2, 1, 1, 0);
    expect_x(&q, 4);
    cr_expect_eq(atedm_stream_counts(q.s).linear, (uint64_t)4 * ROWS * WIDTH * WIDTH);
    cr_expect_str_empty(atedm_stream_repeats(q.s)->refusal);
    close_sequence(&q);
}

// ---- captures that fail

static void expect_refused(sequence *q, const char *reason)
{
    for (int i = 1; i <= 4; i++) {
        repeat(q, 1);
        expect_x(q, (float)i);
        cr_expect_eq(atedm_stream_counts(q->s).linear, (uint64_t)i * ROWS * WIDTH * WIDTH);
    }
    const char *refusal = atedm_stream_repeats(q->s)->refusal;
    cr_expect(strstr(refusal, reason) != NULL, "\"%s\" does not say \"%s\"", refusal, reason);
    cr_expect_eq(atedm_stream_repeats(q->s)->direct, 4);
    cr_expect_eq(atedm_stream_repeats(q->s)->recorded + atedm_stream_repeats(q->s)->replayed, 0);
}

Test(cuda_graphs, refused)
{
    static const char *const calls[] = {"begin", "end", "instantiate", "launch"};
    for (size_t i = 0; i < sizeof calls / sizeof *calls; i++) {
        setenv("ATEDM_EMULATED_REFUSE", calls[i], 1);
        sequence q = open_sequence("cuda");
        expect_refused(&q, i < 3 ? "capturing a graph" : "launching a graph");
        close_sequence(&q);
    }
}

// Other requests may give memory back.
Test(cuda_graphs, no_memory_for_now)
{
    sequence q = open_sequence("cuda");
    for (int i = 0; i < 3; i++)
        repeat(&q, 0);
    expect_figures(&q, 1, 1, 1, 0);
    setenv("ATEDM_EMULATED_REFUSE", "instantiate", 1);
    repeat(&q, 1);
    repeat(&q, 1);
    unsetenv("ATEDM_EMULATED_REFUSE");
    expect_figures(&q, 3, 1, 1, 1); // existing graphs are dropped too
    const char *refusal = atedm_stream_repeats(q.s)->refusal;
    cr_expect(strstr(refusal, "for now: cuda: capturing a graph"), "%s", refusal);
    for (int i = 0; i <= PAUSE; i++) // one more than the pause: then the key counts as new
        repeat(&q, 1);
    expect_figures(&q, 4 + PAUSE, 1, 1, 1);
    repeat(&q, 1);
    repeat(&q, 1);
    expect_figures(&q, 4 + PAUSE, 2, 2, 1);
    cr_expect_str_empty(atedm_stream_repeats(q.s)->refusal);
    expect_x(&q, 8 + PAUSE);
    close_sequence(&q);
}

// Existing graphs are dropped too.
Test(cuda_graphs, refused_later)
{
    sequence q = open_sequence("cuda");
    for (int i = 0; i < 4; i++)
        repeat(&q, i / 2);
    setenv("ATEDM_EMULATED_REFUSE", "launch", 1);
    repeat(&q, 0);
    repeat(&q, 1);
    expect_figures(&q, 4, 2, 0, 2);
    expect_x(&q, 6);
    close_sequence(&q);
}

Test(cuda_graphs, waiting_in_a_capture)
{
    sequence q = open_sequence("cuda");
    q.waits = true;
    expect_refused(&q, "waiting: an emulated error (cudaErrorStreamCaptureUnsupported)");
    cr_expect_eq(q.calls, 5);
    close_sequence(&q);
}

// A separate thread reads the gauges.
Test(cuda_graphs, measuring_in_a_capture)
{
    sequence q = open_sequence("cuda");
    q.measures = true;
    for (int i = 0; i < 3; i++)
        repeat(&q, 1);
    expect_figures(&q, 1, 1, 1, 0);
    expect_x(&q, 3);
    close_sequence(&q);
}

// A caller's mistakes fail the stream, as they do without graphs.
Test(cuda_graphs, mistakes)
{
    sequence q = open_sequence("cuda");
    atedm_error err = {""};
    q.fails = true;
    for (int i = 0; i < 3; i++) {
        repeat(&q, 1);
        cr_expect_eq(atedm_stream_sync(q.s, &err), ATEDM_ERR_INVALID);
        cr_expect(strstr(err.message, "add") != NULL, "%s", err.message);
    }
    expect_figures(&q, 3, 0, 0, 0);
    cr_expect_str_empty(atedm_stream_repeats(q.s)->refusal);
    q.fails = false;
    repeat(&q, 1);
    repeat(&q, 1);
    expect_figures(&q, 3, 1, 1, 0);
    expect_x(&q, 5);
    close_sequence(&q);
}

Test(cuda_graphs, lost_device)
{
    setenv("ATEDM_EMULATED_FAIL_AFTER", "8", 1); // two uploads, two sequences of three launches
    sequence q = open_sequence("cuda");
    atedm_error err = {""};
    repeat(&q, 1);
    repeat(&q, 1);
    repeat(&q, 1);
    cr_expect_eq(atedm_stream_sync(q.s, &err), ATEDM_ERR_DEVICE);
    cr_expect(strstr(err.message, "lost to this process") != NULL, "%s", err.message);
    close_sequence(&q);
}

// ---- off

Test(cuda_graphs, turned_off)
{
    setenv("ATEDM_CUDA_GRAPHS", "0", 1);
    sequence q = open_sequence("cuda");
    for (int i = 0; i < 5; i++)
        repeat(&q, 1);
    expect_figures(&q, 5, 0, 0, 0);
    cr_expect_eq(q.calls, 5);
    expect_x(&q, 5);
    close_sequence(&q);
}

Test(cuda_graphs, backends_without)
{
    static const char *const backends[] = {"ref", "cpu"};
    for (int k = 0; k < 2; k++) {
        sequence q = open_sequence(backends[k]);
        for (int i = 0; i < 3; i++)
            repeat(&q, 1);
        expect_figures(&q, 3, 0, 0, 0);
        expect_x(&q, 3);
        close_sequence(&q);
    }
}

// A graph would copy from a stage of pinned memory that other uploads have filled since.
Test(cuda_graphs, uploads_are_not_recorded)
{
    float values[COUNT] = {0};
    sequence q = open_sequence("cuda");
    q.uploaded = values;
    for (int i = 0; i < 3; i++) {
        for (int k = 0; k < COUNT; k++)
            values[k] = (float)(10 * i);
        repeat(&q, 1);
        expect_x(&q, (float)(10 * i + 1));
    }
    expect_figures(&q, 3, 0, 0, 0);
    close_sequence(&q);
}

// ---- whole requests

#define STEPS 8

static atedm_request make_request(const char *preset, uint64_t seed)
{
    atedm_request r = pipeline_bench_request(preset);
    r.seed = seed;
    r.width = r.height = SIDE / 2;
    r.steps = STEPS;
    return r;
}

#define REQUESTS 3

// Unpruned; with a schedule that changes on the way, both halves choosing their own tokens; with
// rankings that serve two steps.
static void make_requests(atedm_request requests[REQUESTS])
{
    static const char *const presets[REQUESTS] = {"off", "at-edm-b", "at-edm-c"};
    for (int i = 0; i < REQUESTS; i++)
        requests[i] = make_request(presets[i], (uint64_t)i);
    requests[1].prune.score_map = ATEDM_SCORE_CROSS;
    requests[1].prune.recovery = ATEDM_RECOVER_NEAREST;
    requests[1].prune.masks = ATEDM_MASKS_OWN;
    requests[2].prune.score_interval = 2;
}

static size_t picture_bytes(const atedm_request *r)
{
    return 3 * (size_t)(r->width * r->height);
}

// Runs all requests in one pipeline. One of them starts a step later, so that batches change on the
// way.
static void run_together(const pipeline_bench *b, const atedm_request requests[REQUESTS],
                         uint8_t *ret_rgb[REQUESTS])
{
    atedm_generation *g[REQUESTS];
    atedm_lane lanes[REQUESTS];
    atedm_error err = {""};
    for (int i = 0; i < REQUESTS; i++) {
        cr_assert_eq(
            atedm_generation_create(b->pipeline, &requests[i], NULL, NULL, NULL, &g[i], &err),
            ATEDM_OK, "%s", err.message);
        cr_assert_eq(atedm_generation_encode(g[i], &err), ATEDM_OK, "%s", err.message);
        lanes[i] = (atedm_lane){g[i], 0};
    }
    for (int turn = 0; turn < requests[0].steps + 1; turn++) {
        const atedm_lane *going = turn == 0 ? lanes + 1 : lanes;
        size_t n = turn == 0 ? REQUESTS - 1 : turn < requests[0].steps ? REQUESTS : 1;
        cr_assert_eq(atedm_pipeline_step(b->pipeline, going, n, &err), ATEDM_OK, "%s", err.message);
    }
    for (int i = 0; i < REQUESTS; i++) {
        ret_rgb[i] = malloc(picture_bytes(&requests[i]));
        cr_assert_eq(atedm_generation_decode(g[i], 0, ret_rgb[i], &err), ATEDM_OK, "%s",
                     err.message);
        atedm_generation_destroy(g[i]);
    }
}

// Each picture equals that of the request alone without graphs: in any batch, alone with a plan
// left by another request, and when repeated.
Test(cuda_graphs, pictures_are_those_of_direct_runs)
{
    atedm_request requests[REQUESTS];
    uint8_t *alone[REQUESTS], *together[REQUESTS], *again;
    atedm_op_counts direct[3], replayed[3];
    make_requests(requests);
    setenv("ATEDM_CUDA_GRAPHS", "0", 1);
    pipeline_bench b = pipeline_bench_open("cuda", ATEDM_F32);
    for (int i = 0; i < REQUESTS; i++)
        alone[i] = pipeline_bench_generate(&b, &requests[i]);
    atedm_pipeline_counts(b.pipeline, direct);
    cr_expect_eq(atedm_pipeline_repeats(b.pipeline)->direct, STEPS * REQUESTS);
    pipeline_bench_close(&b);
    unsetenv("ATEDM_CUDA_GRAPHS");
    b = pipeline_bench_open("cuda", ATEDM_F32);
    const atedm_repeat_figures *f = atedm_pipeline_repeats(b.pipeline);
    run_together(&b, requests, together);
    atedm_pipeline_counts(b.pipeline, replayed);
    cr_expect(!memcmp(direct, replayed, sizeof direct));
    cr_expect_gt(f->replayed, 0, "%d", (int)f->replayed);
    uint64_t before = f->replayed;
    again = pipeline_bench_generate(&b, &requests[REQUESTS - 1]);
    cr_expect_gt(f->replayed, before, "%d", (int)f->replayed);
    cr_expect_str_empty(f->refusal);
    for (int i = 0; i < REQUESTS; i++) {
        cr_expect(!memcmp(alone[i], together[i], picture_bytes(&requests[i])), "request %d", i);
        if (i == REQUESTS - 1)
            cr_expect(!memcmp(alone[i], again, picture_bytes(&requests[i])));
        free(alone[i]);
        free(together[i]);
        atedm_request_finish(&requests[i]);
    }
    free(again);
    pipeline_bench_close(&b);
}

// A dump's traces wait between operations.
static void ignore(void *user, const char *name, const atedm_host_tensor *tensor)
{
    size_t *n = user;
    cr_expect(name[0] && tensor->data);
    ++*n;
}

Test(cuda_graphs, dumps_run_directly)
{
    pipeline_bench b = pipeline_bench_open("cuda", ATEDM_F32);
    atedm_request request = make_request("at-edm-c", 3);
    atedm_generation *g = NULL;
    atedm_error err = {""};
    size_t dumped = 0;
    cr_assert_eq(atedm_generation_create(b.pipeline, &request, NULL, ignore, &dumped, &g, &err),
                 ATEDM_OK, "%s", err.message);
    cr_assert_eq(atedm_generation_encode(g, &err), ATEDM_OK, "%s", err.message);
    for (int i = 0; i < request.steps; i++)
        cr_assert_eq(atedm_generation_step(g, &err), ATEDM_OK, "%s", err.message);
    cr_expect_gt(dumped, 6);
    cr_expect_eq(atedm_pipeline_repeats(b.pipeline)->recorded, 0);
    cr_expect_str_empty(atedm_pipeline_repeats(b.pipeline)->refusal);
    atedm_generation_destroy(g);
    atedm_request_finish(&request);
    pipeline_bench_close(&b);
}
