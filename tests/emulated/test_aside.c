// Work aside, on a stream's second queue: it must give the same results as in order, directly and
// by CUDA graphs, and a capture must end well whatever goes wrong. Runs on the emulated backend,
// whose file is $ATEDM_CUDA_BACKEND; its streams run as late as possible, in turns.
#include "kernels/profile.h"
#include "tests/unit/pipeline_bench.h"

#include <criterion/criterion.h>
#include <stdlib.h>
#include <string.h>

// ---- a pruning layer in small

enum { TOKENS = 80, KEPT = 50, WIDTH = 128, INNER = 16, ROUNDS = 6 };

typedef struct outputs {
    uint32_t scores[TOKENS]; // bits of F32
    int32_t kept[KEPT], source[TOKENS];
    uint16_t rows[KEPT * WIDTH], inner[TOKENS * INNER];
} outputs;

typedef struct layer {
    atedm_device *device;
    atedm_stream *s;
    atedm_weight *norm, *linear;
    float *values; // [device] F32 [TOKENS, WIDTH], from which all else is computed
    uint16_t *q, *o, *normed, *inner, *rows;
    float *lse, *scores;
    int32_t *kept, *source;
    int heads;
    bool fails;    // an operation aside
    bool unjoined; // work aside is never joined
} layer;

static void *alloc(const layer *l, size_t bytes)
{
    void *memory = NULL;
    cr_assert_eq(atedm_device_alloc(l->device, bytes, &memory, NULL), ATEDM_OK);
    return memory;
}

static void make_weights(layer *l)
{
    static float values[WIDTH * INNER];
    for (int i = 0; i < WIDTH * INNER; i++)
        values[i] = (float)(i % 7 - 3) / 8;
    const atedm_host_tensor vector = {values, ATEDM_F32, 1, {WIDTH}},
                            matrix = {values, ATEDM_F32, 2, {INNER, WIDTH}};
    cr_assert_eq(atedm_norm_weight_create(l->device, &vector, &vector, &l->norm, NULL), ATEDM_OK);
    cr_assert_eq(
        atedm_linear_weight_create(l->device, ATEDM_BF16, &matrix, NULL, 1, &l->linear, NULL),
        ATEDM_OK);
}

static layer open_layer(const char *backend)
{
    layer l = {.heads = 2};
    atedm_error err = {""};
    cr_assert_eq(atedm_device_create(backend, &l.device, &err), ATEDM_OK, "%s", err.message);
    cr_assert_eq(atedm_stream_create(l.device, ATEDM_BF16, &l.s, &err), ATEDM_OK, "%s",
                 err.message);
    make_weights(&l);
    l.values = alloc(&l, TOKENS * WIDTH * sizeof(float));
    l.q = alloc(&l, TOKENS * WIDTH * sizeof(uint16_t));
    l.o = alloc(&l, TOKENS * WIDTH * sizeof(uint16_t));
    l.normed = alloc(&l, TOKENS * WIDTH * sizeof(uint16_t));
    l.inner = alloc(&l, TOKENS * INNER * sizeof(uint16_t));
    l.rows = alloc(&l, KEPT * WIDTH * sizeof(uint16_t));
    l.lse = alloc(&l, TOKENS * WIDTH * sizeof(float)); // for any number of heads
    l.scores = alloc(&l, TOKENS * sizeof(float));
    l.kept = alloc(&l, KEPT * sizeof(int32_t));
    l.source = alloc(&l, TOKENS * sizeof(int32_t));
    return l;
}

static void close_layer(layer *l)
{
    void *const memory[] = {l->values, l->q,   l->o,      l->normed, l->inner,
                            l->rows,   l->lse, l->scores, l->kept,   l->source};
    for (size_t i = 0; i < sizeof memory / sizeof *memory; i++)
        atedm_device_free(l->device, memory[i]);
    atedm_weight_destroy(l->norm);
    atedm_weight_destroy(l->linear);
    atedm_stream_destroy(l->s);
    atedm_device_destroy(l->device);
}

static void attend(const layer *l)
{
    const atedm_span span = {0, TOKENS, 0, TOKENS};
    atedm_attention(l->s, &(atedm_attention_args){.q = l->q,
                                                  .k = l->q,
                                                  .v = l->q,
                                                  .q_stride = WIDTH,
                                                  .k_stride = WIDTH,
                                                  .v_stride = WIDTH,
                                                  .o = l->o,
                                                  .lse = l->lse,
                                                  .lse_stride = TOKENS,
                                                  .spans = &span,
                                                  .n_spans = 1,
                                                  .heads = l->heads,
                                                  .head_dim = WIDTH / l->heads});
}

static void choose(const layer *l)
{
    const atedm_span span = {0, TOKENS, 0, TOKENS};
    const atedm_rank_params params = {ATEDM_HEADS_RMS, 6, 0};
    const atedm_prune_span prune = {0, TOKENS, 0, KEPT};
    const atedm_source_map map = {l->q,   l->q,   WIDTH,    WIDTH,
                                  l->lse, TOKENS, l->heads, WIDTH / l->heads};
    atedm_rank_tokens(l->s, &(atedm_rank_args){.q = map.q,
                                               .k = map.k,
                                               .q_stride = WIDTH,
                                               .k_stride = WIDTH,
                                               .lse = map.lse,
                                               .lse_stride = TOKENS,
                                               .scores = l->scores,
                                               .spans = &span,
                                               .params = &params,
                                               .n_spans = 1,
                                               .heads = map.heads,
                                               .head_dim = map.head_dim});
    atedm_select_tokens(l->s, l->fails ? NULL : l->scores, l->kept, &prune, 1);
    atedm_source_attention(l->s, &(atedm_source_args){l->kept, l->source, &prune, 1}, &map);
}

// Group norms, and a linear layer with an activation, use scratch memory, as ranking does.
static void go_on(const layer *l)
{
    for (int i = 0; i < 3; i++) {
        atedm_group_norm(l->s, &(atedm_group_norm_args){.weight = l->norm,
                                                        .x = l->o,
                                                        .y = l->normed,
                                                        .n = 2,
                                                        .hw = TOKENS / 2,
                                                        .groups = 8,
                                                        .epsilon = 1e-5f});
        atedm_linear(l->s, &(atedm_linear_args){.weight = l->linear,
                                                .x = l->normed,
                                                .y = l->inner,
                                                .rows = TOKENS,
                                                .activation = ATEDM_ACT_GELU});
    }
}

static void enqueue(void *user)
{
    const layer *l = user;
    const atedm_gather_span span = {0, 0, 0, KEPT};
    atedm_scale_input(l->s, l->values, &(double){1}, l->q, 1, TOKENS * WIDTH);
    attend(l);
    atedm_stream_begin_aside(l->s);
    choose(l);
    atedm_stream_end_aside(l->s);
    go_on(l);
    if (!l->unjoined)
        atedm_stream_join_aside(l->s);
    atedm_gather_rows(l->s, l->normed, l->kept, l->rows, WIDTH * sizeof *l->rows, &span, 1);
}

static void set(const layer *l, int round)
{
    static float values[TOKENS * WIDTH];
    uint64_t x = (uint64_t)round + 1;
    for (int i = 0; i < TOKENS * WIDTH; i++) {
        x = x * 6364136223846793005u + 1442695040888963407u;
        values[i] = (float)(int32_t)(x >> 32) / (1u << 30);
    }
    atedm_upload(l->s, values, l->values, sizeof values);
}

static void get(const layer *l, outputs *ret)
{
    atedm_error err = {""};
    atedm_download(l->s, l->scores, ret->scores, sizeof ret->scores);
    atedm_download(l->s, l->kept, ret->kept, sizeof ret->kept);
    atedm_download(l->s, l->source, ret->source, sizeof ret->source);
    atedm_download(l->s, l->rows, ret->rows, sizeof ret->rows);
    atedm_download(l->s, l->inner, ret->inner, sizeof ret->inner);
    cr_assert_eq(atedm_stream_sync(l->s, &err), ATEDM_OK, "%s", err.message);
}

// The results of each round when everything runs in order.
static outputs *run_in_order(int heads)
{
    static outputs all[ROUNDS];
    setenv("ATEDM_CUDA_ASIDE", "0", 1);
    layer l = open_layer("cuda");
    l.heads = heads;
    for (int i = 0; i < ROUNDS; i++) {
        set(&l, i);
        enqueue(&l);
        get(&l, &all[i]);
    }
    close_layer(&l);
    unsetenv("ATEDM_CUDA_ASIDE");
    return all;
}

// Expects the same results, directly or under a key.
static void expect_rounds(layer *l, const outputs *expected, bool repeats)
{
    outputs got;
    for (int i = 0; i < ROUNDS; i++) {
        set(l, i);
        if (repeats)
            atedm_stream_repeat(l->s, &l->heads, sizeof l->heads, enqueue, l);
        else
            enqueue(l);
        get(l, &got);
        cr_assert(!memcmp(got.scores, expected[i].scores, sizeof got.scores), "round %d", i);
        cr_assert(!memcmp(got.kept, expected[i].kept, sizeof got.kept), "round %d", i);
        cr_assert(!memcmp(got.source, expected[i].source, sizeof got.source), "round %d", i);
        cr_assert(!memcmp(got.rows, expected[i].rows, sizeof got.rows), "round %d", i);
        cr_assert(!memcmp(got.inner, expected[i].inner, sizeof got.inner), "round %d", i);
    }
}

static void go_by_turns(const char *schedule)
{
    setenv("ATEDM_EMULATED_LATE", "1", 1);
    setenv("ATEDM_EMULATED_SCHEDULE", schedule, 1);
}

// ---- what it gives

static void check_schedule(const char *schedule)
{
    go_by_turns(schedule);
    const outputs *expected = run_in_order(2);
    layer l = open_layer("cuda");
    expect_rounds(&l, expected, false);
    expect_rounds(&l, expected, true);
    const atedm_repeat_figures *f = atedm_stream_repeats(l.s);
    cr_expect_eq(f->recorded, 1);
    cr_expect_eq(f->replayed, ROUNDS - 2);
    cr_expect_str_empty(f->refusal);
    close_layer(&l);
}

Test(aside, as_in_order)
{
    check_schedule("forward");
}

Test(aside, as_in_order_the_other_one_first)
{
    check_schedule("reverse");
}

Test(aside, as_in_order_by_chance)
{
    check_schedule("random:3");
}

// A persistent ranking that uses fewer multiprocessors than there are; also in the main queue's
// priority.
Test(aside, on_some_multiprocessors)
{
    setenv("ATEDM_EMULATED_SM", "90", 1);
    setenv("ATEDM_EMULATED_MULTIPROCESSORS", "7", 1);
    const outputs *expected = run_in_order(WIDTH / 64);
    static const char *const ways[] = {"2", "3 first"};
    for (size_t i = 0; i < sizeof ways / sizeof *ways; i++) {
        setenv("ATEDM_CUDA_ASIDE", ways[i], 1);
        layer l = open_layer("cuda");
        l.heads = WIDTH / 64;
        expect_rounds(&l, expected, false);
        expect_rounds(&l, expected, true);
        close_layer(&l);
    }
}

Test(aside, in_the_background)
{
    go_by_turns("random:4");
    const outputs *expected = run_in_order(2);
    layer l = open_layer("cuda");
    cr_expect(atedm_stream_set_background(l.s));
    expect_rounds(&l, expected, true);
    enqueue(&l);
    cr_expect(!atedm_stream_idle(l.s));
    while (!atedm_stream_idle(l.s))
        ;
    cr_expect_eq(atedm_stream_sync(l.s, NULL), ATEDM_OK);
    close_layer(&l);
}

// More heads need more scratch memory than there is, and graphs contain its address.
Test(aside, scratch_memory_that_grows)
{
    go_by_turns("random:5");
    outputs few[ROUNDS];
    memcpy(few, run_in_order(2), sizeof few);
    const outputs *many = run_in_order(32);
    layer l = open_layer("cuda");
    expect_rounds(&l, few, true);
    l.heads = 32;
    expect_rounds(&l, many, true);
    cr_expect_eq(atedm_stream_repeats(l.s)->dropped, 1);
    l.heads = 2;
    expect_rounds(&l, few, true);
    cr_expect_eq(atedm_stream_repeats(l.s)->recorded, 3);
    close_layer(&l);
}

Test(aside, backends_without)
{
    static const char *const backends[] = {"ref", "cpu", "dry"};
    for (int i = 0; i < 3; i++) {
        atedm_device *device = NULL;
        cr_assert_eq(atedm_device_create(backends[i], &device, NULL), ATEDM_OK);
        bool supported = atedm_device_supports(device, ATEDM_BF16);
        atedm_device_destroy(device);
        if (!supported)
            continue;
        layer l = open_layer(backends[i]);
        set(&l, 0);
        for (int k = 0; k < 2; k++)
            atedm_stream_repeat(l.s, &k, sizeof k, enqueue, &l);
        cr_expect_eq(atedm_stream_sync(l.s, NULL), ATEDM_OK);
        close_layer(&l);
    }
}

// ---- mistakes

// The stream works as before, with graphs.
static void expect_as_before(layer *l, const outputs *expected)
{
    expect_rounds(l, expected, true);
    cr_expect_gt(atedm_stream_repeats(l->s)->replayed, 0);
    cr_expect_str_empty(atedm_stream_repeats(l->s)->refusal);
}

static void expect_failure(layer *l, const char *reason)
{
    atedm_error err = {""};
    for (int i = 0; i < 4; i++) {
        atedm_stream_repeat(l->s, &l->heads, sizeof l->heads, enqueue, l);
        cr_assert_eq(atedm_stream_sync(l->s, &err), ATEDM_ERR_INVALID);
        cr_assert(strstr(err.message, reason), "%s", err.message);
    }
    cr_expect_eq(atedm_stream_repeats(l->s)->direct, 4);
}

Test(aside, operations_that_fail)
{
    go_by_turns("random:6");
    const outputs *expected = run_in_order(2);
    layer l = open_layer("cuda");
    l.fails = true;
    expect_failure(&l, "select_tokens: scores is NULL");
    l.fails = false;
    expect_as_before(&l, expected);
    close_layer(&l);
}

Test(aside, sequences_that_do_not_join)
{
    go_by_turns("random:7");
    const outputs *expected = run_in_order(2);
    layer l = open_layer("cuda");
    l.unjoined = true;
    expect_failure(&l, "repeat: work aside has not been joined");
    l.unjoined = false;
    expect_as_before(&l, expected);
    close_layer(&l);
}

static void check_lost(const char *after)
{
    setenv("ATEDM_EMULATED_FAIL_AFTER", after, 1);
    layer l = open_layer("cuda");
    atedm_error err = {""};
    set(&l, 0);
    for (int i = 0; i < 3; i++)
        atedm_stream_repeat(l.s, &l.heads, sizeof l.heads, enqueue, &l);
    cr_expect_eq(atedm_stream_sync(l.s, &err), ATEDM_ERR_DEVICE);
    cr_expect(strstr(err.message, "lost to this process"), "%s", err.message);
    close_layer(&l);
}

Test(aside, a_device_that_is_lost_at_the_start)
{
    check_lost("7"); // after three pieces of an upload, a conversion, attention and an event
}

Test(aside, a_device_that_is_lost_on_the_way)
{
    check_lost("12");
}

Test(aside, a_device_that_is_lost_in_a_capture)
{
    check_lost("60");
}

// ---- whole requests

#define REQUESTS 5

// Requests whose tokens are chosen aside, and requests whose choice needs the cross-attention map
// or the layer's result, so that it cannot be.
static void make_requests(atedm_request requests[REQUESTS])
{
    static const struct {
        const char *preset;
        atedm_score_map map;
        atedm_selection selection;
        atedm_recovery recovery;
        atedm_masks masks;
    } kinds[REQUESTS] = {
        {"at-edm-c", ATEDM_SCORE_SELF, ATEDM_SELECT_SAMPLED, ATEDM_RECOVER_ATTENTION,
         ATEDM_MASKS_SHARED},
        {"at-edm-b", ATEDM_SCORE_SELF, ATEDM_SELECT_TOP, ATEDM_RECOVER_NEAREST, ATEDM_MASKS_OWN},
        {"at-edm-c", ATEDM_SCORE_SELF, ATEDM_SELECT_SAMPLED, ATEDM_RECOVER_COSINE,
         ATEDM_MASKS_SHARED},
        {"at-edm-b", ATEDM_SCORE_CROSS, ATEDM_SELECT_SAMPLED, ATEDM_RECOVER_ATTENTION,
         ATEDM_MASKS_SHARED},
        {"at-edm-b", ATEDM_SCORE_RANDOM, ATEDM_SELECT_SAMPLED, ATEDM_RECOVER_ZERO,
         ATEDM_MASKS_SHARED},
    };
    for (int i = 0; i < REQUESTS; i++) {
        atedm_request *r = &requests[i];
        *r = pipeline_bench_request(kinds[i].preset);
        r->seed = (uint64_t)i;
        r->width = r->height = SIDE / 2;
        r->steps = 4;
        r->prune.score_map = kinds[i].map;
        r->prune.selection = kinds[i].selection;
        r->prune.recovery = kinds[i].recovery;
        r->prune.masks = kinds[i].masks;
    }
}

typedef struct results {
    uint8_t *rgb[REQUESTS];
    atedm_op_counts counts[3];
    uint64_t hash; // of a dump
    size_t dumped;
} results;

static void add_to_hash(void *user, const char *name, const atedm_host_tensor *tensor)
{
    results *r = user;
    size_t bytes = atedm_dtype_size(tensor->dtype);
    for (int i = 0; i < tensor->ndim; i++)
        bytes *= (size_t)tensor->shape[i];
    for (size_t i = 0; i < bytes; i++) // FNV-1a
        r->hash = (r->hash ^ ((const uint8_t *)tensor->data)[i]) * 0x100000001b3u;
    r->dumped++;
}

static void dump(const pipeline_bench *b, const atedm_request *request, results *ret)
{
    atedm_generation *g = NULL;
    cr_assert_eq(atedm_generation_create(b->pipeline, request, NULL, add_to_hash, ret, &g, NULL),
                 ATEDM_OK);
    cr_assert_eq(atedm_generation_encode(g, NULL), ATEDM_OK);
    cr_assert_eq(atedm_generation_step(g, NULL), ATEDM_OK);
    atedm_generation_destroy(g);
}

// The first `n` requests.
static results generate_some(const char *aside, bool profiled, int n)
{
    atedm_request requests[REQUESTS];
    atedm_profile *profile = NULL;
    results r = {.hash = 0xcbf29ce484222325u};
    setenv("ATEDM_CUDA_ASIDE", aside, 1);
    make_requests(requests);
    pipeline_bench b = pipeline_bench_open("cuda", ATEDM_BF16);
    if (profiled)
        cr_assert_eq(atedm_profile_start(b.device, NULL, &profile, NULL), ATEDM_OK);
    for (int i = 0; i < n; i++)
        r.rgb[i] = pipeline_bench_generate(&b, &requests[i]);
    atedm_pipeline_counts(b.pipeline, r.counts);
    cr_expect_eq(atedm_pipeline_repeats(b.pipeline)->replayed > 0, !profiled);
    cr_expect_str_empty(atedm_pipeline_repeats(b.pipeline)->refusal);
    dump(&b, &requests[0], &r);
    for (int i = 0; i < REQUESTS; i++)
        atedm_request_finish(&requests[i]);
    atedm_profile_stop(profile);
    pipeline_bench_close(&b);
    return r;
}

static void expect_same(results *a, results *b)
{
    for (int i = 0; i < REQUESTS && b->rgb[i]; i++) {
        cr_expect(!memcmp(a->rgb[i], b->rgb[i], BYTES / 4), "request %d", i);
        free(b->rgb[i]);
    }
    cr_expect_eq(a->hash, b->hash);
    cr_expect_gt(a->dumped, 0);
}

Test(aside_requests, pictures, .timeout = 600)
{
    results in_order = generate_some("0", false, REQUESTS);
    results aside = generate_some("1", false, REQUESTS);
    results profiled = generate_some("1", true, 1);
    expect_same(&in_order, &aside);
    expect_same(&in_order, &profiled);
    cr_expect(!memcmp(in_order.counts, aside.counts, sizeof aside.counts));
    for (int i = 0; i < REQUESTS; i++)
        free(in_order.rgb[i]);
}
