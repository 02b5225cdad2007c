// The cuda backend as a shared object that may be missing, and cases that parity does not draw:
// devices that are missing or lost, and calls with more spans and values than one launch takes.
// Runs on the emulated backend, whose file is $ATEDM_CUDA_BACKEND. Criterion runs each test in a
// process of its own, so each loads the backend anew.
#include "kernels/kernels.h"

#include <criterion/criterion.h>
#include <criterion/new/assert.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

static void expect_missing(const char *reason)
{
    atedm_device *device = NULL;
    atedm_error err = {""};
    cr_assert_eq(atedm_device_create("cuda", &device, &err), ATEDM_ERR_UNSUPPORTED);
    cr_assert_null(device);
    cr_assert(strstr(err.message, reason) != NULL, "\"%s\" does not say \"%s\"", err.message,
              reason);
    cr_assert_str_eq(atedm_backend_of("auto"), "cpu");
    atedm_error missed = {""};
    cr_assert(atedm_cuda_is_missed(&missed)); // because a variable names it
    cr_assert(strstr(missed.message, reason) != NULL, "%s", missed.message);
}

Test(cuda, no_file)
{
    setenv("ATEDM_CUDA_BACKEND", "/nonexistent/atedm-cuda.so", 1);
    expect_missing("/nonexistent/atedm-cuda.so");
}

Test(cuda, another_library)
{
    setenv("ATEDM_CUDA_BACKEND", "libm.so.6", 1);
    expect_missing("is not the cuda backend");
}

Test(cuda, no_device)
{
    setenv("ATEDM_EMULATED_DEVICES", "0", 1);
    expect_missing("no device answers");
}

Test(cuda, old_device)
{
    setenv("ATEDM_EMULATED_SM", "75", 1);
    expect_missing("compute capability 7.5");
}

static atedm_device *open_device(const char *backend)
{
    atedm_device *device = NULL;
    atedm_error err = {""};
    cr_assert_eq(atedm_device_create(backend, &device, &err), ATEDM_OK, "%s", err.message);
    return device;
}

static atedm_stream *open_stream(atedm_device *device, atedm_dtype act)
{
    atedm_stream *stream = NULL;
    atedm_error err = {""};
    cr_assert_eq(atedm_stream_create(device, act, &stream, &err), ATEDM_OK, "%s", err.message);
    return stream;
}

static void *device_memory(atedm_device *device, size_t bytes)
{
    void *memory = NULL;
    cr_assert_eq(atedm_device_alloc(device, bytes, &memory, NULL), ATEDM_OK);
    return memory;
}

Test(cuda, auto_takes_it)
{
    cr_assert_str_eq(atedm_backend_of("auto"), "cuda");
    cr_assert_not(atedm_cuda_is_missed(NULL));
    cr_assert_str_eq(atedm_backend_of("cpu"), "cpu");
    atedm_device *device = open_device(atedm_backend_of("auto"));
    cr_assert_str_eq(atedm_device_backend(device), "cuda");
    atedm_device_destroy(device);
}

// After that every call fails, with a message that says that the process has to end.
Test(cuda, lost_device)
{
    setenv("ATEDM_EMULATED_FAIL_AFTER", "4", 1);
    atedm_device *device = open_device("cuda");
    atedm_stream *s = open_stream(device, ATEDM_BF16);
    void *memory = device_memory(device, 256);
    atedm_error err = {""};
    for (int i = 0; i < 3; i++)
        atedm_add(s, memory, memory, memory, 128);
    cr_assert_eq(atedm_stream_sync(s, &err), ATEDM_OK, "%s", err.message);
    for (int i = 0; i < 2; i++) {
        atedm_add(s, memory, memory, memory, 128);
        cr_assert_eq(atedm_stream_sync(s, &err), ATEDM_ERR_DEVICE);
        cr_assert(strstr(err.message, "lost to this process") != NULL, "%s", err.message);
    }
    atedm_device_free(device, memory);
    atedm_stream_destroy(s);
    atedm_device_destroy(device);
}

// More rows than the scratch memory that a stream has from its start allows.
enum { MANY = 20000 };

// Each kind of later call fails too, with its own message: products, scratch memory, new memory and
// new weights. Unfinished ones leave nothing allocated.
Test(cuda, nothing_works_on_a_lost_device)
{
    setenv("ATEDM_EMULATED_FAIL_AFTER", "1", 1);
    const float values[64] = {1, 2, 3};
    const atedm_host_tensor vector = {values, ATEDM_F32, 1, {8}},
                            matrix = {values, ATEDM_F32, 2, {8, 8}},
                            window = {values, ATEDM_F32, 4, {8, 8, 1, 1}};
    atedm_device *device = open_device("cuda");
    atedm_stream *s = open_stream(device, ATEDM_F32);
    float *memory = device_memory(device, sizeof(float) * 2 * MANY * 8);
    atedm_weight *linear = NULL, *norm = NULL, *other = NULL;
    void *more = NULL;
    atedm_error err = {""};
    cr_assert_eq(atedm_linear_weight_create(device, ATEDM_F32, &matrix, &vector, 1, &linear, &err),
                 ATEDM_OK, "%s", err.message);
    cr_assert_eq(atedm_norm_weight_create(device, &vector, &vector, &norm, &err), ATEDM_OK);
    atedm_linear(s,
                 &(atedm_linear_args){.weight = linear, .x = memory, .y = memory + 512, .rows = 4});
    cr_assert_eq(atedm_stream_sync(s, &err), ATEDM_ERR_DEVICE);
    cr_assert(strstr(err.message, "cuda: linear: ") != NULL, "%s", err.message);
    atedm_group_norm(s, &(atedm_group_norm_args){.weight = norm,
                                                 .x = memory,
                                                 .y = memory + MANY * 8,
                                                 .n = MANY,
                                                 .hw = 1,
                                                 .groups = 2,
                                                 .epsilon = 1e-5f});
    cr_assert_eq(atedm_stream_sync(s, &err), ATEDM_ERR_DEVICE);
    cr_assert(strstr(err.message, "scratch") != NULL, "%s", err.message);
    cr_assert_eq(atedm_device_alloc(device, 64, &more, &err), ATEDM_ERR_DEVICE);
    cr_assert(strstr(err.message, "lost to this process") != NULL, "%s", err.message);
    cr_assert_eq(atedm_linear_weight_create(device, ATEDM_F32, &matrix, &vector, 1, &other, &err),
                 ATEDM_ERR_DEVICE);
    cr_assert_eq(atedm_conv_weight_create(device, ATEDM_F32, &window, &vector, 1, &other, &err),
                 ATEDM_ERR_DEVICE);
    cr_assert_eq(atedm_norm_weight_create(device, &vector, &vector, &other, &err),
                 ATEDM_ERR_DEVICE);
    cr_assert_eq(atedm_table_weight_create(device, ATEDM_F32, &matrix, &other, &err),
                 ATEDM_ERR_DEVICE);
    cr_assert(other == NULL && more == NULL, "untouched on failure");
    atedm_weight_destroy(linear);
    atedm_weight_destroy(norm);
    atedm_device_free(device, memory);
    atedm_stream_destroy(s);
    atedm_device_destroy(device);
}

// Ranking and searching stop if there is no scratch memory for them.
Test(cuda, no_scratch_for_tokens)
{
    setenv("ATEDM_EMULATED_FAIL_AFTER", "1", 1);
    enum { N = 4, C = 8 };
    atedm_device *device = open_device("cuda");
    atedm_stream *s = open_stream(device, ATEDM_F32);
    float *x = device_memory(device, sizeof(float) * (2 * C + 2) * MANY);
    float *lse = x + (size_t)2 * C * MANY;
    int32_t *kept = device_memory(device, 64), *source = device_memory(device, 64);
    const atedm_span span = {0, MANY, 0, MANY};
    const atedm_rank_params params = {ATEDM_HEADS_RMS, 2, 0};
    const atedm_prune_span prune = {0, N, 0, 2};
    atedm_error err = {""};
    for (int i = 0; i < 3; i++) {
        if (i == 0)
            atedm_add(s, x, x, x, 8); // this call loses the device
        else if (i == 1)
            atedm_rank_tokens(s, &(atedm_rank_args){x, x + C, 2 * C, 2 * C, lse, MANY, lse + MANY,
                                                    &span, &params, 1, 1, C, false});
        else
            atedm_source_cosine(s, &(atedm_source_args){kept, source, &prune, 1}, x, C);
        cr_assert_eq(atedm_stream_sync(s, &err), ATEDM_ERR_DEVICE);
        cr_assert_eq(strstr(err.message, "scratch") != NULL, i == 1, "%s", err.message);
    }
    atedm_device_free(device, x);
    atedm_device_free(device, kept);
    atedm_device_free(device, source);
    atedm_stream_destroy(s);
    atedm_device_destroy(device);
}

// Lack of memory does not count as a lost device.
Test(cuda, too_much_memory)
{
    atedm_device *device = open_device("cuda");
    void *memory = NULL;
    atedm_error err = {""};
    cr_assert_eq(atedm_device_alloc(device, (size_t)64 << 30, &memory, &err), ATEDM_ERR_NOMEM);
    cr_assert_null(memory);
    cr_assert_null(strstr(err.message, "lost"));
    atedm_device_free(device, device_memory(device, 100));
    atedm_device_destroy(device);
}

Test(cuda, head_too_large)
{
    enum { DIM = 1025 };
    atedm_device *device = open_device("cuda");
    atedm_stream *s = open_stream(device, ATEDM_F32);
    float *q = device_memory(device, 4 * DIM * sizeof *q);
    const atedm_span span = {0, 1, 0, 1};
    const atedm_attention_args args = {.q = q,
                                       .k = q + DIM,
                                       .v = q + 2 * DIM,
                                       .q_stride = DIM,
                                       .k_stride = DIM,
                                       .v_stride = DIM,
                                       .o = q + 3 * DIM,
                                       .spans = &span,
                                       .n_spans = 1,
                                       .heads = 1,
                                       .head_dim = DIM};
    atedm_error err = {""};
    atedm_attention(s, &args);
    cr_assert_eq(atedm_stream_sync(s, &err), ATEDM_ERR_UNSUPPORTED);
    cr_assert(strstr(err.message, "1025") != NULL, "%s", err.message);
    atedm_device_free(device, q);
    atedm_stream_destroy(s);
    atedm_device_destroy(device);
}

// ---- more spans and values than a launch takes, against the reference

// 70 samples of 3 tokens in one head of 8. Queries, keys and values are columns of one matrix.
enum { SPANS = 70, TOKENS = 3, ROWS = SPANS * TOKENS, DIM = 8, KEEP = 2 };

typedef struct many {
    atedm_device *device;
    atedm_stream *s;
    float *x, *y, *lse, *scores, *random; // [device] [ROWS, 3 DIM], [ROWS, DIM], [ROWS]..
    int32_t *kept, *source;               // [device] [SPANS * KEEP], [ROWS]
    uint64_t *draws;                      // [device] [3]
} many;

typedef struct many_results {
    float y[ROWS * DIM], scores[ROWS], random[ROWS], weighted[ROWS], gathered[SPANS * KEEP * DIM];
    float weights[SPANS * KEEP];
    int32_t kept[SPANS * KEEP], source[ROWS];
    float embedded[300 * DIM], sinusoid[300 * DIM];
} many_results;

static void rank_and_select(many *m, many_results *r)
{
    atedm_span spans[SPANS];
    atedm_prune_span prune[SPANS];
    atedm_gather_span gather[SPANS];
    atedm_random_span random[SPANS];
    atedm_rank_params params[SPANS];
    for (int i = 0; i < SPANS; i++) {
        int64_t first = (int64_t)i * TOKENS, kept = (int64_t)i * KEEP;
        spans[i] = (atedm_span){first, TOKENS, first, TOKENS};
        prune[i] = (atedm_prune_span){first, TOKENS, kept, KEEP};
        gather[i] = (atedm_gather_span){first, kept, kept, KEEP};
        random[i] = (atedm_random_span){first, TOKENS, i % 3, (uint64_t)i * 977};
        params[i] = (atedm_rank_params){ATEDM_HEADS_MEAN, 1 + i % 3, 0};
    }
    const atedm_attention_args attention = {.q = m->x,
                                            .k = m->x + DIM,
                                            .v = m->x + 2 * DIM,
                                            .q_stride = 3 * DIM,
                                            .k_stride = 3 * DIM,
                                            .v_stride = 3 * DIM,
                                            .o = m->y,
                                            .lse = m->lse,
                                            .lse_stride = ROWS,
                                            .spans = spans,
                                            .n_spans = SPANS,
                                            .heads = 1,
                                            .head_dim = DIM};
    const atedm_rank_args rank = {m->x,  m->x + DIM, 3 * DIM, 3 * DIM, m->lse, ROWS, m->scores,
                                  spans, params,     SPANS,   1,       DIM,    false};
    const atedm_source_args source = {m->kept, m->source, prune, SPANS};
    atedm_attention(m->s, &attention);
    atedm_download(m->s, m->y, r->y, sizeof r->y);
    atedm_rank_tokens(m->s, &rank);
    atedm_random_scores(m->s, m->draws, NULL, m->random, random, SPANS);
    atedm_select_tokens(m->s, m->random, m->kept, prune, SPANS);
    atedm_source_cosine(m->s, &source, m->x, 3 * DIM);
    atedm_download(m->s, m->scores, r->scores, sizeof r->scores);
    atedm_download(m->s, m->random, r->random, sizeof r->random);
    atedm_download(m->s, m->kept, r->kept, sizeof r->kept);
    atedm_download(m->s, m->source, r->source, sizeof r->source);
    atedm_random_scores(m->s, m->draws, m->scores, m->random, random, SPANS);
    atedm_download(m->s, m->random, r->weighted, sizeof r->weighted);
    atedm_source_weights(m->s, m->source, NULL, m->scores, prune, SPANS);
    atedm_download(m->s, m->scores, r->weights, sizeof r->weights);
    atedm_gather_rows(m->s, m->x, m->kept, m->y, DIM * sizeof(float), gather, SPANS);
    atedm_add_rows(m->s, m->x, m->kept, -0.5f, m->y, DIM, gather, SPANS);
    atedm_download(m->s, m->y, r->gathered, sizeof r->gathered);
}

static void embed(many *m, many_results *r)
{
    float values[5 * DIM];
    int64_t ids[300];
    double numbers[300];
    for (int i = 0; i < 5 * DIM; i++)
        values[i] = (float)i;
    for (int i = 0; i < 300; i++) {
        ids[i] = i * 7 % 5;
        numbers[i] = i;
    }
    const atedm_host_tensor table = {values, ATEDM_F32, 2, {5, DIM}};
    atedm_weight *weight = NULL;
    cr_assert_eq(atedm_table_weight_create(m->device, ATEDM_F32, &table, &weight, NULL), ATEDM_OK);
    float *y = device_memory(m->device, sizeof r->embedded);
    atedm_embed_tokens(m->s, weight, weight, ids, 300, 5, y);
    atedm_download(m->s, y, r->embedded, sizeof r->embedded);
    atedm_sinusoid(m->s, numbers, 300, DIM, y);
    atedm_download(m->s, y, r->sinusoid, sizeof r->sinusoid);
    cr_assert(atedm_stream_wait(m->s));
    atedm_device_free(m->device, y);
    atedm_weight_destroy(weight);
}

static void compute_many(const char *backend, many_results *r)
{
    static float x[ROWS * 3 * DIM];
    for (int i = 0; i < ROWS * 3 * DIM; i++)
        x[i] = (float)(i * 37 % 101) / 50 - 1;
    const uint64_t draws[3] = {0, 42, UINT64_MAX};
    many m = {.device = open_device(backend)};
    m.s = open_stream(m.device, ATEDM_F32);
    m.x = device_memory(m.device, sizeof x);
    m.y = device_memory(m.device, sizeof r->y);
    m.lse = device_memory(m.device, ROWS * sizeof(float));
    m.scores = device_memory(m.device, ROWS * sizeof(float));
    m.random = device_memory(m.device, ROWS * sizeof(float));
    m.draws = device_memory(m.device, sizeof draws);
    m.kept = device_memory(m.device, sizeof r->kept);
    m.source = device_memory(m.device, sizeof r->source);
    atedm_error err = {""};
    atedm_upload(m.s, x, m.x, sizeof x);
    atedm_upload(m.s, draws, m.draws, sizeof draws);
    rank_and_select(&m, r);
    cr_assert_eq(atedm_stream_sync(m.s, &err), ATEDM_OK, "%s", err.message);
    embed(&m, r);
    void *memory[] = {m.x, m.y, m.lse, m.scores, m.random, m.kept, m.source, m.draws};
    for (size_t i = 0; i < sizeof memory / sizeof *memory; i++)
        atedm_device_free(m.device, memory[i]);
    atedm_stream_destroy(m.s);
    atedm_device_destroy(m.device);
}

static void expect_close(const float *right, const float *value, size_t n, const char *what)
{
    for (size_t i = 0; i < n; i++)
        cr_assert(value[i] - right[i] <= 1e-5f && right[i] - value[i] <= 1e-5f,
                  "%s: element %zu is %g, should be %g", what, i, (double)value[i],
                  (double)right[i]);
}

Test(cuda, many_spans)
{
    static many_results right, value;
    memset(&value, 0xff, sizeof value);
    compute_many("ref", &right);
    compute_many("cuda", &value);
    expect_close(right.y, value.y, ROWS * DIM, "attention");
    expect_close(right.scores, value.scores, ROWS, "rank_tokens");
    expect_close(right.embedded, value.embedded, 300 * DIM, "embed_tokens");
    expect_close(right.sinusoid, value.sinusoid, 300 * DIM, "sinusoid");
    cr_assert_arr_eq(right.random, value.random, sizeof right.random, "random_scores");
    for (int i = 0; i < ROWS; i++) // relative errors: the values may have any size
        cr_assert(fabsf(value.weighted[i] / right.weighted[i] - 1) <= 1e-5f, "row %d", i);
    cr_assert_arr_eq(right.kept, value.kept, sizeof right.kept, "select_tokens");
    cr_assert_arr_eq(right.source, value.source, sizeof right.source, "source_cosine");
    expect_close(right.weights, value.weights, SPANS * KEEP, "source_weights");
    cr_assert_arr_eq(right.gathered, value.gathered, sizeof right.gathered, "gather and add");
}

// ---- numbers of rows that cuBLASLt's algorithms refuse

// More than twice the rows that a plan's algorithm takes (ATEDM_CUDA_PLAN_ROWS).
enum { MOST_ROWS = 2 * 1024 + 3, LAYER = 8 };

typedef struct layer {
    atedm_device *device;
    atedm_stream *s;
    atedm_weight *weight;
    float *x, *y; // [device] [MOST_ROWS, LAYER]
} layer;

static layer open_layer(void)
{
    static float values[MOST_ROWS * LAYER];
    for (int i = 0; i < MOST_ROWS * LAYER; i++)
        values[i] = (float)(i * 37 % 101) / 50 - 1;
    const atedm_host_tensor matrix = {values, ATEDM_F32, 2, {LAYER, LAYER}},
                            vector = {values + 7, ATEDM_F32, 1, {LAYER}};
    layer l = {.device = open_device("cuda")};
    l.s = open_stream(l.device, ATEDM_F32);
    l.x = device_memory(l.device, sizeof values);
    l.y = device_memory(l.device, sizeof values);
    cr_assert_eq(
        atedm_linear_weight_create(l.device, ATEDM_F32, &matrix, &vector, 1, &l.weight, NULL),
        ATEDM_OK);
    atedm_upload(l.s, values, l.x, sizeof values);
    cr_assert(atedm_stream_wait(l.s));
    return l;
}

static void close_layer(const layer *l)
{
    atedm_device_free(l->device, l->x);
    atedm_device_free(l->device, l->y);
    atedm_weight_destroy(l->weight);
    atedm_stream_destroy(l->s);
    atedm_device_destroy(l->device);
}

// y = x w^T + bias, with an activation, or with the previous y as a residual.
static void run_layer(const layer *l, int64_t rows, atedm_activation activation, float *ret_y)
{
    size_t bytes = (size_t)rows * LAYER * sizeof(float);
    bool adds = activation == ATEDM_ACT_NONE;
    atedm_error err = {""};
    atedm_add(l->s, l->x, l->x, l->y, rows * LAYER);
    atedm_linear(l->s, &(atedm_linear_args){.weight = l->weight,
                                            .x = l->x,
                                            .residual = adds ? l->y : NULL,
                                            .y = l->y,
                                            .rows = rows,
                                            .activation = activation});
    atedm_download(l->s, l->y, ret_y, bytes);
    cr_assert_eq(atedm_stream_sync(l->s, &err), ATEDM_OK, "%s", err.message);
}

// Such rows are computed by an algorithm for another number of rows, with the same bits.
Test(cuda, rows_that_algorithms_refuse)
{
    static const int64_t rows[] = {1, 20, 1024, 1025, MOST_ROWS};
    static const atedm_activation activations[] = {ATEDM_ACT_NONE, ATEDM_ACT_GELU};
    static float right[MOST_ROWS * LAYER], value[MOST_ROWS * LAYER];
    layer l = open_layer();
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
        for (int k = 0; k < 2; k++) {
            unsetenv("ATEDM_EMULATED_ROWS");
            run_layer(&l, rows[i], activations[k], right);
            setenv("ATEDM_EMULATED_ROWS", "1024", 1);
            run_layer(&l, rows[i], activations[k], value);
            cr_expect_eq(memcmp(right, value, (size_t)rows[i] * LAYER * sizeof(float)), 0,
                         "%d rows, %d", (int)rows[i], k);
        }
    close_layer(&l);
}

// If no algorithm takes even the number of rows for which the first was proposed, the stream's
// message states the number.
Test(cuda, no_algorithm_for_any_rows)
{
    static float y[MOST_ROWS * LAYER];
    layer l = open_layer();
    atedm_error err = {""};
    setenv("ATEDM_EMULATED_ROWS", "5000", 1);
    atedm_linear(l.s, &(atedm_linear_args){.weight = l.weight, .x = l.x, .y = l.y, .rows = 20});
    cr_assert_eq(atedm_stream_sync(l.s, &err), ATEDM_ERR_DEVICE);
    cr_assert(strstr(err.message, "cuBLASLt status 15 on 20 rows, 8 to 8") != NULL, "%s",
              err.message);
    unsetenv("ATEDM_EMULATED_ROWS");
    run_layer(&l, 20, ATEDM_ACT_NONE, y); // the stream still works
    close_layer(&l);
}

// ---- ATEDM_CUDA_ATTENTION, ATEDM_CUDA_CONV, ATEDM_CUDA_LINEAR

static void expect_choice(const char *name, const char *choice, const char *sm, const char *message)
{
    atedm_device *device = NULL;
    atedm_error err = {""};
    setenv(name, choice, 1);
    setenv("ATEDM_EMULATED_SM", sm, 1);
    atedm_status status = atedm_device_create("cuda", &device, &err);
    cr_assert_eq(status, message ? ATEDM_ERR_UNSUPPORTED : ATEDM_OK, "%s", err.message);
    if (message)
        cr_assert_not_null(strstr(err.message, message), "%s", err.message);
    atedm_device_destroy(device);
}

static void expect_attention(const char *choice, const char *sm, const char *message)
{
    expect_choice("ATEDM_CUDA_ATTENTION", choice, sm, message);
}

static void expect_linear(const char *choice, const char *sm, const char *message)
{
    expect_choice("ATEDM_CUDA_LINEAR", choice, sm, message);
}

static void expect_conv(const char *choice, const char *sm, const char *message)
{
    expect_choice("ATEDM_CUDA_CONV", choice, sm, message);
}

Test(attention, no_such_choice)
{
    expect_attention("hoper", "90", "ATEDM_CUDA_ATTENTION is \"hoper\": auto, portable or hopper");
}

Test(attention, hopper_elsewhere)
{
    expect_attention("hopper", "80",
                     "ATEDM_CUDA_ATTENTION is \"hopper\": the device is of compute capability 8");
}

Test(attention, hopper_after)
{
    expect_attention("hopper", "100", "the device is of compute capability 10, not 9");
}

Test(attention, hopper_there)
{
    expect_attention("hopper", "90", NULL);
}

Test(attention, auto_everywhere)
{
    expect_attention("auto", "80", NULL);
}

Test(attention, portable_everywhere)
{
    expect_attention("portable", "90", NULL);
}

Test(conv, hopper_elsewhere)
{
    expect_conv("hopper", "80",
                "ATEDM_CUDA_CONV is \"hopper\": the device is of compute capability 8, not 9");
}

Test(conv, hopper_there)
{
    expect_conv("hopper", "90", NULL);
}

// The switch for attention does not matter to convolutions.
Test(conv, hopper_beside_portable_attention)
{
    setenv("ATEDM_CUDA_ATTENTION", "portable", 1);
    expect_conv("hopper", "90", NULL);
}

Test(linear, no_such_choice)
{
    expect_linear("cuBLAS", "90", "ATEDM_CUDA_LINEAR is \"cuBLAS\": auto, cublas, tried or hopper");
}

Test(linear, hopper_elsewhere)
{
    expect_linear("hopper", "80",
                  "ATEDM_CUDA_LINEAR is \"hopper\": the device is of compute capability 8, not 9");
}

Test(linear, hopper_there)
{
    expect_linear("hopper", "90", NULL);
}

Test(linear, auto_and_cublas_everywhere)
{
    expect_linear("auto", "80", NULL);
    expect_linear("cublas", "90", NULL);
}
