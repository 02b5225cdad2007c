// core/rng: equal to PyTorch's CPU generator in every bit (goldens of tests/oracle).
#include "core/rng.h"
#include "core/safetensors.h"

#include <criterion/criterion.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

// Tensors are named "randn.SEED.SIZE", those of a long one "randn.SEED.SIZE.first" and ".last".
static void check(const char *name, const atedm_host_tensor *golden)
{
    cr_assert_eq(strncmp(name, "randn.", 6), 0, "%s", name);
    char *end = NULL;
    uint64_t seed = strtoull(name + 6, &end, 10);
    cr_assert_eq(*end, '.', "%s", name);
    size_t size = strtoull(end + 1, &end, 10);
    cr_assert_gt(size, 0, "%s", name);
    float *values = malloc(size * sizeof *values);
    atedm_rng_normal(seed, values, size);
    size_t count = (size_t)atedm_host_tensor_count(golden);
    cr_assert_leq(count, size);
    const float *from = strcmp(end, ".last") ? values : values + size - count;
    cr_assert_arr_eq(from, golden->data, count * sizeof *from, "%s", name);
    free(values);
}

Test(rng, equals_torch_in_every_bit)
{
    char path[512];
    atedm_error err;
    atedm_safetensors *file = NULL;
    snprintf(path, sizeof path, "%s/rng.safetensors", getenv("ATEDM_GOLDEN_DIR"));
    cr_assert_eq(atedm_safetensors_open(path, &file, &err), ATEDM_OK, "%s", err.message);
    cr_assert_gt(atedm_safetensors_count(file), 50);
    for (size_t i = 0; i < atedm_safetensors_count(file); i++)
        check(atedm_safetensors_name(file, i), atedm_safetensors_tensor(file, i));
    atedm_safetensors_close(file);
}

Test(rng, upper_half_of_the_seed_has_no_effect)
{
    float a[40], b[40];
    atedm_rng_normal(5, a, 40);
    atedm_rng_normal((7ull << 32) + 5, b, 40);
    cr_assert_arr_eq(a, b, sizeof a);
    atedm_rng_normal(6, b, 40);
    cr_assert_neq(a[0], b[0]);
}

Test(rng, moments_of_a_long_draw)
{
    enum { COUNT = 1000003 }; // not a multiple of 16
    float *values = malloc(COUNT * sizeof *values);
    atedm_rng_normal(3, values, COUNT);
    double sum = 0, squares = 0, fourth = 0;
    for (size_t i = 0; i < COUNT; i++) {
        double v = values[i];
        cr_assert(isfinite(v));
        sum += v;
        squares += v * v;
        fourth += v * v * v * v;
    }
    cr_assert(fabs(sum / COUNT) <= 0.005);
    cr_assert(fabs(squares / COUNT - 1) <= 0.007);
    cr_assert(fabs(fourth / COUNT - 3) <= 0.05);
    free(values);
}
