// Convolutions by cuDNN in the cuda backend: which library is loaded, and the messages about
// others; which shapes it gets; that a shape is planned once; how many calls a batch takes. Runs on
// the emulated backend and the fake cuDNN, whose file is $ATEDM_CUDNN. Parity checks the results of
// all kinds of shapes. Criterion runs each test in a process of its own, so each loads both anew.
#include "kernels/kernels.h"

#include <criterion/criterion.h>
#include <criterion/new/assert.h>
#include <dlfcn.h>
#include <stdlib.h>
#include <string.h>

static atedm_device *open_device(void)
{
    atedm_device *device = NULL;
    atedm_error err = {""};
    cr_assert_eq(atedm_device_create("cuda", &device, &err), ATEDM_OK, "%s", err.message);
    return device;
}

static void expect_refused(const char *reason)
{
    atedm_device *device = NULL;
    atedm_error err = {""};
    cr_assert_eq(atedm_device_create("cuda", &device, &err), ATEDM_ERR_UNSUPPORTED);
    cr_assert_null(device);
    cr_assert(strstr(err.message, reason) != NULL, "\"%s\" does not say \"%s\"", err.message,
              reason);
}

// A count of the fake's; -1 if it is not loaded.
static int counted(const char *what)
{
    void *library = dlopen(getenv("ATEDM_CUDNN"), RTLD_NOW | RTLD_NOLOAD);
    if (!library)
        return -1;
    void *symbol = dlsym(library, what);
    int (*function)(void);
    cr_assert_not_null(symbol);
    memcpy(&function, &symbol, sizeof function);
    int value = function();
    dlclose(library);
    return value;
}

static int count_questions(void)
{
    return counted("atedm_emulated_dnn_questions");
}

static int count_runs(void)
{
    return counted("atedm_emulated_dnn_runs");
}

static int count_plans(void)
{
    return counted("atedm_emulated_dnn_plans");
}

// ---- convolutions of ones by ones, whose sums are known

enum { MOST = 80, SIDE = 3, MOST_N = 40 };

typedef struct setup {
    atedm_device *device;
    atedm_stream *s;
    char *x, *y; // [device] bf16 [MOST_N, SIDE, SIDE, MOST]
} setup;

static void finish(setup *t)
{
    atedm_device_free(t->device, t->x);
    atedm_device_free(t->device, t->y);
    atedm_stream_destroy(t->s);
    atedm_device_destroy(t->device);
}

static setup begin(void)
{
    static uint16_t ones[MOST_N * SIDE * SIDE * MOST];
    setup t = {.device = open_device()};
    void *x = NULL, *y = NULL;
    atedm_error err = {""};
    for (size_t i = 0; i < sizeof ones / sizeof *ones; i++)
        ones[i] = 0x3f80; // 1 in bf16
    cr_assert_eq(atedm_stream_create(t.device, ATEDM_BF16, &t.s, &err), ATEDM_OK, "%s",
                 err.message);
    cr_assert_eq(atedm_device_alloc(t.device, sizeof ones, &x, NULL), ATEDM_OK);
    cr_assert_eq(atedm_device_alloc(t.device, sizeof ones, &y, NULL), ATEDM_OK);
    atedm_upload(t.s, ones, x, sizeof ones);
    t.x = x;
    t.y = y;
    return t;
}

static float bias_value = 1;
static bool varies; // use varying weights and x, whose sums depend on their order

static uint32_t next_random(void)
{
    static uint32_t state = 1;
    return (state = state * 1664525 + 1013904223) >> 8;
}

static atedm_weight *make_weight(const setup *t, int64_t in, int64_t out, int64_t kernel)
{
    static float ones[MOST * MOST * 9];
    for (size_t i = 0; i < sizeof ones / sizeof *ones; i++)
        ones[i] = varies ? (float)(next_random() & 0xffff) / 65536 - 0.5f : 1;
    const atedm_host_tensor matrix = {ones, ATEDM_F32, 4, {out, in, kernel, kernel}};
    float biases[MOST];
    for (int i = 0; i < MOST; i++)
        biases[i] = bias_value;
    const atedm_host_tensor bias = {biases, ATEDM_F32, 1, {out}};
    atedm_weight *weight = NULL;
    cr_assert_eq(atedm_conv_weight_create(t->device, ATEDM_BF16, &matrix, &bias, 1, &weight, NULL),
                 ATEDM_OK);
    return weight;
}

// Convolves `n` samples. The window of the middle pixel lies within the image: its sum is in *
// kernel^2 ones, plus the bias.
static atedm_status convolve(setup *t, int64_t in, int64_t out, int64_t kernel, int64_t n,
                             size_t shift, atedm_error *err)
{
    static uint16_t result[MOST_N * SIDE * SIDE * MOST];
    atedm_weight *weight = make_weight(t, in, out, kernel);
    const atedm_conv_args args = {
        .weight = weight, .x = t->x + shift, .y = t->y, .n = n, .h = SIDE, .w = SIDE};
    atedm_conv(t->s, &args);
    atedm_download(t->s, t->y, result, (size_t)(n * SIDE * SIDE * out) * sizeof *result);
    atedm_status status = atedm_stream_sync(t->s, err);
    atedm_weight_destroy(weight);
    for (int64_t i = 0; !status && i < n; i++) {
        uint32_t bits = (uint32_t)result[((i * SIDE + SIDE / 2) * SIDE + SIDE / 2) * out] << 16;
        float value, right = (float)(in * kernel * kernel + 1);
        memcpy(&value, &bits, sizeof value);
        cr_assert(value >= right * 0.996f && value <= right * 1.004f, "%g, should be %g",
                  (double)value, (double)right);
    }
    return status;
}

static void expect_convolved(setup *t, int64_t in, int64_t out, int64_t kernel, int64_t n,
                             size_t shift)
{
    atedm_error err = {""};
    cr_assert_eq(convolve(t, in, out, kernel, n, shift, &err), ATEDM_OK, "%s", err.message);
}

// ---- which library

Test(cudnn, auto_takes_it)
{
    unsetenv("ATEDM_CUDA_CONV");
    setup t = begin();
    expect_convolved(&t, 32, 64, 3, 1, 0);
    cr_assert_gt(count_runs(), 0);
    finish(&t);
}

Test(cudnn, own_does_not_load_it)
{
    setenv("ATEDM_CUDA_CONV", "own", 1);
    setup t = begin();
    expect_convolved(&t, 32, 64, 3, 1, 0);
    cr_assert_eq(count_runs(), -1);
    finish(&t);
}

Test(cudnn, unknown_choice)
{
    setenv("ATEDM_CUDA_CONV", "cudann", 1);
    expect_refused("\"cudann\": auto, hopper, cudnn or own");
}

Test(cudnn, missing)
{
    setenv("ATEDM_CUDNN", "/nonexistent/libcudnn.so.9", 1);
    setenv("ATEDM_CUDA_CONV", "cudnn", 1);
    expect_refused("/nonexistent/libcudnn.so.9");
    setenv("ATEDM_CUDA_CONV", "auto", 1);
    setup t = begin();
    expect_convolved(&t, 32, 64, 3, 1, 0);
    finish(&t);
}

Test(cudnn, another_library)
{
    setenv("ATEDM_CUDNN", "libm.so.6", 1);
    setenv("ATEDM_CUDA_CONV", "cudnn", 1);
    expect_refused("has no cudnnGetVersion");
    setenv("ATEDM_CUDA_CONV", "auto", 1);
    setup t = begin();
    expect_convolved(&t, 32, 64, 3, 1, 0);
    finish(&t);
}

static void expect_other_version(const char *version, const char *reason)
{
    setenv("ATEDM_EMULATED_DNN_VERSION", version, 1);
    setenv("ATEDM_CUDA_CONV", "cudnn", 1);
    expect_refused(reason);
    setenv("ATEDM_CUDA_CONV", "auto", 1);
    setup t = begin();
    expect_convolved(&t, 32, 64, 3, 1, 0);
    cr_assert(count_runs() <= 0);
    finish(&t);
}

Test(cudnn, older_version)
{
    expect_other_version("8907", "8907 (8), not 9");
}

Test(cudnn, newer_version)
{
    expect_other_version("100000", "100000 (10), not 9");
}

Test(cudnn, does_not_start)
{
    setenv("ATEDM_EMULATED_DNN_FAILS", "create", 1);
    setenv("ATEDM_CUDA_CONV", "auto", 1);
    setup t = begin();
    expect_convolved(&t, 32, 64, 3, 1, 0);
    cr_assert_eq(count_runs(), 0);
    finish(&t);
    setenv("ATEDM_CUDA_CONV", "cudnn", 1);
    atedm_device *device = open_device();
    atedm_stream *s = NULL;
    atedm_error err = {""};
    cr_assert_eq(atedm_stream_create(device, ATEDM_BF16, &s, &err), ATEDM_ERR_DEVICE);
    cr_assert_null(s);
    cr_assert(strstr(err.message, "cuDNN does not start: CUDNN_STATUS_NOT_INITIALIZED") != NULL,
              "%s", err.message);
    atedm_device_destroy(device);
}

// ---- which shapes

Test(cudnn, plans_once)
{
    setenv("ATEDM_CUDA_CONV", "cudnn", 1);
    setup t = begin();
    expect_convolved(&t, 32, 64, 3, 1, 0);
    int plans = count_plans(), runs = count_runs();
    cr_assert_gt(plans, 0);
    cr_assert_gt(runs, 1); // trials, and the call
    expect_convolved(&t, 32, 64, 3, 1, 0);
    cr_assert_eq(count_plans(), plans);
    cr_assert_eq(count_runs(), runs + 1);
    expect_convolved(&t, 32, 64, 1, 1, 0);
    cr_assert_gt(count_plans(), plans);
    finish(&t);
}

// Only the slower heuristics have an engine for these.
Test(cudnn, fallback_heuristics)
{
    setenv("ATEDM_CUDA_CONV", "cudnn", 1);
    setup t = begin();
    expect_convolved(&t, 32, 24, 3, 1, 0);
    cr_assert_gt(count_runs(), 0);
    finish(&t);
}

// cuDNN would round such a bias.
Test(cudnn, bias_that_bf16_does_not_hold)
{
    setenv("ATEDM_CUDA_CONV", "cudnn", 1);
    setup t = begin();
    bias_value = 1 + 0x1p-20f;
    expect_convolved(&t, 32, 64, 3, 1, 0);
    cr_assert_eq(count_runs(), 0);
    finish(&t);
}

// Padded rows of weights, for which the fake has no engine. Each kind of heuristics is asked once,
// for one sample.
Test(cudnn, refused_shape)
{
    setenv("ATEDM_CUDA_CONV", "cudnn", 1);
    setup t = begin();
    expect_convolved(&t, 8, 16, 3, 2, 0);
    expect_convolved(&t, 8, 16, 3, 1, 0);
    cr_assert_eq(count_questions(), 2);
    cr_assert_eq(count_runs(), 0);
    expect_convolved(&t, 32, 16, 3, 1, 0);
    cr_assert_gt(count_runs(), 0);
    finish(&t);
}

Test(cudnn, odd_channels_and_addresses_are_own)
{
    setenv("ATEDM_CUDA_CONV", "cudnn", 1);
    setup t = begin();
    expect_convolved(&t, 20, 64, 3, 1, 0);
    expect_convolved(&t, 32, 20, 3, 1, 0);
    expect_convolved(&t, 32, 32, 3, 1, 2);
    cr_assert_eq(count_runs(), 0);
    cr_assert_eq(count_plans(), 0);
    finish(&t);
}

Test(cudnn, f32_is_own)
{
    setenv("ATEDM_CUDA_CONV", "cudnn", 1);
    atedm_device *device = open_device();
    atedm_stream *s = NULL;
    cr_assert_eq(atedm_stream_create(device, ATEDM_F32, &s, NULL), ATEDM_OK);
    static float ones[32 * 32];
    const atedm_host_tensor matrix = {ones, ATEDM_F32, 4, {32, 32, 1, 1}};
    atedm_weight *weight = NULL;
    void *x = NULL;
    cr_assert_eq(atedm_conv_weight_create(device, ATEDM_F32, &matrix, NULL, 1, &weight, NULL),
                 ATEDM_OK);
    cr_assert_eq(atedm_device_alloc(device, 64 * sizeof *ones, &x, NULL), ATEDM_OK);
    atedm_upload(s, ones, x, 64 * sizeof *ones);
    const atedm_conv_args args = {
        .weight = weight, .x = x, .y = (float *)x + 32, .n = 1, .h = 1, .w = 1};
    atedm_conv(s, &args);
    cr_assert(atedm_stream_wait(s));
    cr_assert_eq(count_runs(), 0);
    atedm_weight_destroy(weight);
    atedm_device_free(device, x);
    atedm_stream_destroy(s);
    atedm_device_destroy(device);
}

Test(cudnn, failure_is_a_status)
{
    setenv("ATEDM_CUDA_CONV", "cudnn", 1);
    setenv("ATEDM_EMULATED_DNN_FAILS", "execute", 1);
    setup t = begin();
    atedm_error err = {""};
    cr_assert_eq(convolve(&t, 32, 64, 3, 1, 0, &err), ATEDM_ERR_DEVICE);
    cr_assert(strstr(err.message, "conv: cuDNN: CUDNN_STATUS_EXECUTION_FAILED") != NULL, "%s",
              err.message);
    finish(&t);
}

// ---- batches

typedef enum addend { NOTHING, CHANNELS, RESIDUAL, IN_PLACE } addend;

// Enqueues samples from `first` on. The addend is in the first half of y's memory, or is y itself.
static void enqueue(const setup *t, const atedm_weight *weight, addend what, const char *added,
                    int64_t first, int64_t n)
{
    int64_t out = atedm_weight_out(weight), bytes = SIDE * SIDE * out * 2;
    const atedm_conv_args args = {
        .weight = weight,
        .x = t->x + first * SIDE * SIDE * atedm_weight_in(weight) * 2,
        .channel_add = what == CHANNELS ? added + first * out * 2 : NULL,
        .residual = what == RESIDUAL   ? added + first * bytes
                    : what == IN_PLACE ? t->y + first * bytes
                                       : NULL,
        .y = t->y + first * bytes,
        .n = n,
        .h = SIDE,
        .w = SIDE,
    };
    atedm_conv(t->s, &args);
}

// The number of calls that cuDNN gets for `n` samples. Each sample must have the bits that it has
// alone.
static int calls_for(setup *t, int64_t out, addend what, int64_t n)
{
    static uint16_t values[MOST_N * SIDE * SIDE * MOST], together[MOST_N * SIDE * SIDE * MOST],
        alone[MOST_N * SIDE * SIDE * MOST];
    const size_t bytes = (size_t)(n * SIDE * SIDE * out) * sizeof *values;
    void *added = NULL;
    atedm_error err = {""};
    for (size_t i = 0; i < sizeof values / sizeof *values; i++)
        values[i] = (uint16_t)(0x3f00 | (next_random() & 0x80ff)); // 0.5 to 2, and negative ones
    varies = true;
    cr_assert_eq(atedm_device_alloc(t->device, sizeof values, &added, NULL), ATEDM_OK);
    atedm_weight *weight = make_weight(t, 32, out, 3);
    atedm_upload(t->s, values, t->x, sizeof values);
    atedm_upload(t->s, values, added, sizeof values);
    atedm_upload(t->s, values, t->y, bytes);
    for (int64_t i = 0; i < n; i++)
        enqueue(t, weight, what, added, i, 1);
    atedm_download(t->s, t->y, alone, bytes);
    enqueue(t, weight, what, added, 0, n); // plans are tried
    atedm_upload(t->s, values, t->y, bytes);
    cr_assert_eq(atedm_stream_sync(t->s, &err), ATEDM_OK, "%s", err.message);
    int before = count_runs();
    enqueue(t, weight, what, added, 0, n);
    atedm_download(t->s, t->y, together, bytes);
    cr_assert_eq(atedm_stream_sync(t->s, &err), ATEDM_OK, "%s", err.message);
    cr_assert_eq(memcmp(together, alone, bytes), 0, "%d channels, addend %d", (int)out, what);
    atedm_weight_destroy(weight);
    atedm_device_free(t->device, added);
    return count_runs() - before;
}

// 21 is 16, 4 and 1. A shape has five plans at most.
Test(cudnn, batches)
{
    setenv("ATEDM_CUDA_CONV", "cudnn", 1);
    setup t = begin();
    for (int what = NOTHING; what <= IN_PLACE; what++) {
        cr_assert_eq(calls_for(&t, 64, (addend)what, 1), 1);
        cr_assert_eq(calls_for(&t, 64, (addend)what, 21), 3);
        cr_assert_eq(calls_for(&t, 64, (addend)what, 31), 5);
        cr_assert_eq(calls_for(&t, 64, (addend)what, 40), 3);
        int plans = count_plans();
        for (int n = 1; n <= MOST_N; n++)
            (void)calls_for(&t, 64, (addend)what, n);
        cr_assert_eq(count_plans(), plans);
    }
    finish(&t);
}

Test(cudnn, no_trials)
{
    setenv("ATEDM_CUDA_CONV", "cudnn", 1);
    setenv("ATEDM_CUDA_TRIALS", "0", 1);
    setup t = begin();
    cr_assert_eq(calls_for(&t, 64, NOTHING, 11), 11);
    finish(&t);
}

// For 24 channels the fake has only a kernel that gives other bits in batches.
Test(cudnn, batches_with_other_bits_are_not_taken)
{
    setenv("ATEDM_CUDA_CONV", "cudnn", 1);
    setup t = begin();
    cr_assert_eq(calls_for(&t, 24, NOTHING, 11), 11);
    int plans = count_plans(); // a refused shape is not asked for again
    cr_assert_eq(calls_for(&t, 24, NOTHING, 11), 11);
    cr_assert_eq(count_plans(), plans);
    finish(&t);
}
