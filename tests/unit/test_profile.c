// A device that is profiled tells which operations ran, and gives what it gave before.
#include "kernels/profile.h"

#include <criterion/criterion.h>
#include <string.h>

static atedm_device *device;
static atedm_stream *stream;

static void setup(void)
{
    cr_assert_eq(atedm_device_create("ref", &device, NULL), ATEDM_OK);
    cr_assert_eq(atedm_stream_create(device, ATEDM_F32, &stream, NULL), ATEDM_OK);
}

static void teardown(void)
{
    atedm_stream_destroy(stream);
    atedm_device_destroy(device);
}

TestSuite(profile, .init = setup, .fini = teardown);

// y = x W^T of 2 rows, 3 values to 4; twice, and two sums.
static void run(atedm_weight *weight, float y[8])
{
    const float x[6] = {1, 2, 3, 4, 5, 6};
    const atedm_linear_args args = {.weight = weight, .x = x, .y = y, .rows = 2};
    float sums[8];
    atedm_linear(stream, &args);
    atedm_linear(stream, &args);
    atedm_add(stream, y, y, sums, 8);
    atedm_add(stream, y, y, sums, 8);
    cr_assert_eq(atedm_stream_sync(stream, NULL), ATEDM_OK);
}

Test(profile, counts_operations_and_their_flops)
{
    const float values[12] = {1, 0, 0, 0, 1, 0, 0, 0, 1, 1, 1, 1};
    const atedm_host_tensor part = {.data = values, .dtype = ATEDM_F32, .ndim = 2, .shape = {4, 3}};
    atedm_weight *weight = NULL;
    cr_assert_eq(atedm_linear_weight_create(device, ATEDM_F32, &part, NULL, 1, &weight, NULL),
                 ATEDM_OK);
    float plain[8], profiled[8];
    run(weight, plain);
    atedm_profile *profile = NULL;
    const atedm_profile_rates rates = {.flops_per_s = 1, .bytes_per_s = 2};
    cr_assert_eq(atedm_profile_start(device, &rates, &profile, NULL), ATEDM_OK);
    for (int i = 0; i < 3; i++) {
        atedm_stream_reset_counts(stream); // between two runs, as benchmarks do
        run(weight, profiled);
    }
    cr_assert_arr_eq(plain, profiled, sizeof plain);
    atedm_profile_op ops[ATEDM_PROFILE_MAX];
    cr_assert_eq(atedm_profile_read(profile, ops), 2);
    for (int i = 0; i < 2; i++) {
        bool linear = strcmp(ops[i].name, "linear") == 0;
        cr_assert(linear || strcmp(ops[i].name, "add") == 0);
        cr_assert_eq(ops[i].calls, 6);
        cr_assert_geq(ops[i].seconds, 0);
        // 2 x rows x in x out, but for the first, which follows the counts of the plain run.
        cr_assert_eq(ops[i].flops, linear ? 6 * 48 : 0);
        // The weight of 12, 6 and 8 values; 3 times 8. FLOPs are slower than the bytes, or absent.
        cr_assert_eq(ops[i].bytes, linear ? 6 * (48 + 24 + 32) : 6 * 96);
        cr_assert_float_eq(ops[i].floor_s, linear ? 6 * 52 : 6 * 48, 1e-9);
    }
    cr_assert_geq(ops[0].seconds, ops[1].seconds);
    atedm_profile_stop(profile);
    atedm_profile_stop(NULL);
    run(weight, plain);
    cr_assert_arr_eq(plain, profiled, sizeof plain);
    atedm_weight_destroy(weight);
}

// Whether counts are reset between operations, and whichever stream they are on.
Test(profile, attributes_flops_to_the_operation_that_counted_them)
{
    const float values[12] = {0}, x[6] = {0};
    const atedm_host_tensor part = {.data = values, .dtype = ATEDM_F32, .ndim = 2, .shape = {4, 3}};
    atedm_weight *weight = NULL;
    atedm_stream *other = NULL;
    atedm_profile *profile = NULL;
    atedm_profile_op ops[ATEDM_PROFILE_MAX];
    float y[8];
    cr_assert_eq(atedm_linear_weight_create(device, ATEDM_F32, &part, NULL, 1, &weight, NULL),
                 ATEDM_OK);
    cr_assert_eq(atedm_stream_create(device, ATEDM_F32, &other, NULL), ATEDM_OK);
    cr_assert_eq(atedm_profile_start(device, NULL, &profile, NULL), ATEDM_OK);
    atedm_linear_args call = {.weight = weight, .x = x, .y = y, .rows = 2};
    atedm_linear(stream, &call);
    atedm_stream_reset_counts(stream);
    atedm_linear(stream, &call); // as many as were counted before the reset
    atedm_linear(other, &call);
    call.rows = 1;
    atedm_linear(stream, &call);
    cr_assert_eq(atedm_profile_read(profile, ops), 1);
    cr_assert_eq(ops[0].calls, 4);
    cr_assert_eq(ops[0].flops, 3 * 48 + 24);
    atedm_profile_stop(profile);
    atedm_weight_destroy(weight);
    atedm_stream_destroy(other);
}

// Its operations are counted as any device's, and it stays a dry one.
Test(profile, dry_devices_take_no_time)
{
    atedm_device *dry = NULL;
    atedm_stream *s = NULL;
    atedm_weight *weight = NULL;
    atedm_profile *profile = NULL;
    char *memory = NULL;
    const atedm_host_tensor shape = {.dtype = ATEDM_F32, .ndim = 2, .shape = {4, 3}};
    const atedm_profile_rates rates = {.flops_per_s = 1, .bytes_per_s = 2};
    cr_assert_eq(atedm_device_create("dry", &dry, NULL), ATEDM_OK);
    cr_assert_eq(atedm_stream_create(dry, ATEDM_F32, &s, NULL), ATEDM_OK);
    cr_assert_eq(atedm_profile_start(dry, &rates, &profile, NULL), ATEDM_OK);
    cr_assert(atedm_device_is_dry(dry));
    cr_assert_eq(atedm_linear_weight_create(dry, ATEDM_F32, &shape, NULL, 1, &weight, NULL),
                 ATEDM_OK);
    cr_assert_eq(atedm_device_alloc(dry, 256, (void **)&memory, NULL), ATEDM_OK);
    atedm_add(s, memory, memory + 64, memory + 128, 8);
    // On a dry device one address may stand for several operands.
    atedm_linear(s, &(atedm_linear_args){.weight = weight, .x = memory, .y = memory, .rows = 2});
    cr_assert_eq(atedm_stream_sync(s, NULL), ATEDM_OK);
    atedm_profile_op ops[ATEDM_PROFILE_MAX];
    cr_assert_eq(atedm_profile_read(profile, ops), 2);
    cr_assert_str_eq(ops[0].name, "linear", "the larger floor first");
    cr_assert_eq(ops[0].flops, 48);
    cr_assert_float_eq(ops[0].floor_s, 52, 1e-9);
    cr_assert_float_eq(ops[1].floor_s, 48, 1e-9);
    cr_assert(ops[0].seconds == 0 && ops[1].seconds == 0);
    atedm_profile_stop(profile);
    cr_assert(atedm_device_is_dry(dry));
    atedm_weight_destroy(weight);
    atedm_stream_destroy(s);
    atedm_device_free(dry, memory);
    atedm_device_destroy(dry);
}
