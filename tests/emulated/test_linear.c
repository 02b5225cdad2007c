// When linear_hopper.cu computes a linear layer: if a trial finds it faster with the same bits, or
// if ATEDM_CUDA_LINEAR says so. Runs on the emulated backend, whose file is $ATEDM_CUDA_BACKEND;
// its cuBLASLt counts products and can be made slow.
#include "core/base/splitmix.h"
#include "kernels/kernels.h"

#include <criterion/criterion.h>
#include <criterion/new/assert.h>
#include <dlfcn.h>
#include <stdlib.h>
#include <string.h>

enum { ROWS = 200, IN = 72, OUT = 136, RUNS = 3 };

typedef struct layer {
    atedm_device *device;
    atedm_stream *stream;
    atedm_weight *weight;
    void *x, *residual, *y; // [device] bf16 [ROWS, in], [ROWS, OUT]
    int64_t in;
} layer;

// The number of cuBLASLt's products so far.
static long products(void)
{
    void *backend = dlopen(getenv("ATEDM_CUDA_BACKEND"), RTLD_NOW); // already loaded
    cr_assert_not_null(backend);
    const long *count = dlsym(backend, "atedm_emulated_products");
    cr_assert_not_null(count);
    return *count;
}

// A bf16 value from -1 to 1. Sums of such values round.
static uint16_t random_value(uint64_t key, uint64_t number)
{
    float value = (float)(atedm_splitmix(key, number) >> 40) * 0x1p-23F - 1;
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    return (uint16_t)(bits >> 16);
}

static uint16_t *random_values(uint64_t key, size_t n)
{
    uint16_t *values = calloc(n, sizeof *values);
    cr_assert_not_null(values);
    for (size_t i = 0; i < n; i++)
        values[i] = random_value(key, i);
    return values;
}

static void *on_device(const layer *l, uint64_t key, size_t n)
{
    uint16_t *values = random_values(key, n);
    void *memory = NULL;
    cr_assert_eq(atedm_device_alloc(l->device, n * sizeof *values, &memory, NULL), ATEDM_OK);
    atedm_upload(l->stream, values, memory, n * sizeof *values);
    cr_assert_eq(atedm_stream_sync(l->stream, NULL), ATEDM_OK);
    free(values);
    return memory;
}

static void make_weight(layer *l, const uint16_t *bias_values)
{
    atedm_error err = {""};
    uint16_t *values = random_values(1, (size_t)(OUT * l->in));
    const atedm_host_tensor matrix = {values, ATEDM_BF16, 2, {OUT, l->in}},
                            bias = {bias_values, ATEDM_BF16, 1, {OUT}};
    cr_assert_eq(
        atedm_linear_weight_create(l->device, ATEDM_BF16, &matrix, &bias, 1, &l->weight, &err),
        ATEDM_OK, "%s", err.message);
    free(values);
}

static layer open_layer(const char *choice, const char *sm, int64_t in)
{
    layer l = {.in = in};
    atedm_error err = {""};
    setenv("ATEDM_EMULATED_SM", sm, 1);
    setenv("ATEDM_CUDA_LINEAR", choice, 1);
    cr_assert_eq(atedm_device_create("cuda", &l.device, &err), ATEDM_OK, "%s", err.message);
    cr_assert_eq(atedm_stream_create(l.device, ATEDM_BF16, &l.stream, &err), ATEDM_OK, "%s",
                 err.message);
    uint16_t *bias = random_values(2, OUT);
    make_weight(&l, bias);
    free(bias);
    l.x = on_device(&l, 3, (size_t)(ROWS * in));
    l.residual = on_device(&l, 4, (size_t)(ROWS * OUT));
    l.y = on_device(&l, 5, (size_t)(ROWS * OUT));
    return l;
}

static void close_layer(layer *l)
{
    void *const memory[] = {l->x, l->residual, l->y};
    for (int i = 0; i < 3; i++)
        atedm_device_free(l->device, memory[i]);
    atedm_weight_destroy(l->weight);
    atedm_stream_destroy(l->stream);
    atedm_device_destroy(l->device);
}

static void run_rows(const layer *l, int64_t first, int64_t rows, atedm_activation activation)
{
    atedm_error err = {""};
    const atedm_linear_args args = {.weight = l->weight,
                                    .x = (const char *)l->x + first * l->in * 2,
                                    .residual = (const char *)l->residual + first * OUT * 2,
                                    .y = (char *)l->y + first * OUT * 2,
                                    .rows = rows,
                                    .activation = activation};
    atedm_linear(l->stream, &args);
    cr_assert_eq(atedm_stream_sync(l->stream, &err), ATEDM_OK, "%s", err.message);
}

static void download(const layer *l, uint16_t *ret_y)
{
    atedm_download(l->stream, l->y, ret_y, (size_t)(ROWS * OUT) * sizeof *ret_y);
    cr_assert_eq(atedm_stream_sync(l->stream, NULL), ATEDM_OK);
}

// A bias of -2^20, residuals of 2^20.
static void use_opposed(layer *l)
{
    static uint16_t values[ROWS * OUT];
    for (int i = 0; i < ROWS * OUT; i++)
        values[i] = 0xc980;
    atedm_weight_destroy(l->weight);
    make_weight(l, values);
    for (int i = 0; i < ROWS * OUT; i++)
        values[i] = 0x4980;
    atedm_upload(l->stream, values, l->residual, sizeof values);
    cr_assert_eq(atedm_stream_sync(l->stream, NULL), ATEDM_OK);
}

// How many products of cuBLASLt several calls make once the plan exists.
static long products_of(const layer *l, atedm_activation activation)
{
    run_rows(l, 0, ROWS, activation);
    long before = products();
    for (int i = 0; i < RUNS; i++)
        run_rows(l, 0, ROWS, activation);
    return products() - before;
}

// Makes cuBLASLt slower than any emulated product of these sizes.
static void slow_blas(void)
{
    setenv("ATEDM_EMULATED_BLAS_MS", "100", 1);
}

Test(linear, own_where_it_is_faster)
{
    slow_blas();
    layer l = open_layer("tried", "90", IN);
    cr_assert_eq(products_of(&l, ATEDM_ACT_NONE), 0);
    cr_assert_eq(products_of(&l, ATEDM_ACT_GELU), 0, "by way of sums");
    close_layer(&l);
}

Test(linear, cublas_where_asked_for)
{
    slow_blas();
    layer l = open_layer("cublas", "90", IN);
    cr_assert_eq(products_of(&l, ATEDM_ACT_NONE), RUNS);
    close_layer(&l);
}

Test(linear, cublas_elsewhere)
{
    slow_blas();
    layer l = open_layer("tried", "80", IN);
    cr_assert_eq(products_of(&l, ATEDM_ACT_NONE), RUNS);
    close_layer(&l);
}

Test(linear, cublas_without_trials)
{
    slow_blas();
    setenv("ATEDM_CUDA_TRIALS", "0", 1);
    layer l = open_layer("tried", "90", IN);
    cr_assert_eq(products_of(&l, ATEDM_ACT_NONE), RUNS);
    close_layer(&l);
}

// For these rows the heuristic has only an algorithm with other bits than the first plan's. Our
// kernel has the same bits, but is not taken, because it is slower.
Test(linear, cublas_where_it_is_faster)
{
    enum { FEW = 40 };
    setenv("ATEDM_EMULATED_PROPOSALS", "1", 1);
    layer l = open_layer("tried", "90", IN);
    run_rows(&l, 0, FEW, ATEDM_ACT_NONE);
    long before = products();
    run_rows(&l, 0, FEW, ATEDM_ACT_NONE);
    cr_assert_eq(products() - before, 1);
    close_layer(&l);
}

// Copies by tensor maps cannot take rows of 24 bytes.
Test(linear, cublas_for_odd_rows)
{
    slow_blas();
    layer l = open_layer("hopper", "90", 12);
    cr_assert_geq(products_of(&l, ATEDM_ACT_NONE), RUNS); // more if it works in pieces
    close_layer(&l);
}

// Also for few rows, for which there are never trials.
Test(linear, own_without_a_trial)
{
    layer l = open_layer("hopper", "90", IN);
    run_rows(&l, 0, 1, ATEDM_ACT_NONE);
    run_rows(&l, 0, 17, ATEDM_ACT_NONE);
    run_rows(&l, 0, ROWS, ATEDM_ACT_QUICK_GELU);
    cr_assert_eq(products(), 0);
    close_layer(&l);
}

// Of the cuts that would be best some have clusters.
Test(linear, own_without_room_for_clusters)
{
    setenv("ATEDM_EMULATED_MOST_CLUSTER", "1", 1);
    layer l = open_layer("hopper", "90", IN);
    for (int64_t rows = 1; rows <= ROWS; rows *= 2)
        run_rows(&l, 0, rows, ATEDM_ACT_NONE);
    cr_assert_eq(products(), 0);
    close_layer(&l);
}

// Computes all rows at once, or one by one, by either kernel.
static void compute(const char *choice, bool is_alone, uint16_t *ret_y)
{
    layer l = open_layer(choice, "90", IN);
    for (int64_t i = 0; i < (is_alone ? ROWS : 1); i++)
        run_rows(&l, i, is_alone ? 1 : ROWS, ATEDM_ACT_NONE);
    download(&l, ret_y);
    close_layer(&l);
}

Test(linear, same_bits_by_whomever)
{
    static uint16_t y[5][ROWS * OUT];
    compute("hopper", false, y[0]);
    compute("hopper", true, y[1]);
    compute("tried", false, y[2]);
    compute("cublas", false, y[3]);
    compute("cublas", true, y[4]);
    for (int i = 1; i < 5; i++)
        cr_assert_arr_eq(y[i], y[0], sizeof *y, "%d", i);
}

// Bias and residual cancel. What remains of the sum shows the order in which they were added.
static void check_order(void)
{
    static uint16_t y[2][ROWS * OUT];
    slow_blas();
    for (int i = 0; i < 2; i++) {
        layer l = open_layer(i ? "tried" : "cublas", "90", IN);
        use_opposed(&l);
        cr_assert_eq(products_of(&l, ATEDM_ACT_NONE), i ? 0 : RUNS);
        download(&l, y[i]);
        close_layer(&l);
    }
    cr_assert_arr_eq(y[1], y[0], sizeof *y);
}

Test(linear, residual_added_first)
{
    check_order();
}

Test(linear, bias_added_first)
{
    setenv("ATEDM_EMULATED_BLAS_BIAS_FIRST", "1", 1);
    check_order();
}
