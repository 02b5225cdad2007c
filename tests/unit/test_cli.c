// The command line's own parts: reading option values, options to requests, what is reckoned with
// in place of a device, collecting a dump, and random weights.
#include "cli/bench_options.h"
#include "cli/bench_weights.h"
#include "cli/cli.h"
#include "cli/dump.h"
#include "cli/generate_options.h"
#include "core/safetensors.h"

#include <criterion/criterion.h>
#include <criterion/redirect.h>
#include <getopt.h>
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

// ---- values

Test(values, integers)
{
    int64_t value = 42;
    cr_assert(atedm_cli_parse_int("-7", -10, 10, &value) && value == -7);
    cr_assert(atedm_cli_parse_int("9223372036854775807", 0, INT64_MAX, &value));
    cr_assert(value == INT64_MAX);
    value = 42;
    const char *wrong[] = {"", "x", "1x", "1.5", "11", "-11", "9223372036854775808"};
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++)
        cr_assert(!atedm_cli_parse_int(wrong[i], -10, 10, &value), "%s", wrong[i]);
    cr_assert_eq(value, 42, "untouched on failure");
}

Test(values, reals)
{
    double value = 42;
    cr_assert(atedm_cli_parse_real("7.5", &value) && value == 7.5);
    const char *wrong[] = {"", "x", "1x", "nan", "inf", "1e999"};
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++)
        cr_assert(!atedm_cli_parse_real(wrong[i], &value), "%s", wrong[i]);
    cr_assert(value == 7.5);
}

Test(values, sizes)
{
    int64_t width = 0, height = 0;
    cr_assert(atedm_cli_parse_size("640x512", &width, &height) && width == 640 && height == 512);
    cr_assert(atedm_cli_parse_size("64", &width, &height) && width == 64 && height == 64);
    const char *wrong[] = {
        "", "x", "x64", "64x", "0x64", "64x64x64", "-64x64", "16392x8", "100000000000000000000x8"};
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++)
        cr_assert(!atedm_cli_parse_size(wrong[i], &width, &height), "%s", wrong[i]);
    cr_assert(width == 64 && height == 64);
}

Test(values, dtypes)
{
    bool best = false;
    atedm_dtype dtype = ATEDM_U8;
    cr_assert(atedm_cli_parse_dtype("bf16", &best, &dtype) && !best && dtype == ATEDM_BF16);
    cr_assert(atedm_cli_parse_dtype("auto", &best, &dtype) && best);
    cr_assert(!atedm_cli_parse_dtype("i64", &best, &dtype));
    cr_assert(!atedm_cli_parse_dtype("", &best, &dtype));
}

Test(values, pruning)
{
    atedm_prune_spec spec;
    atedm_field_errors errors = {.count = 0};
    atedm_cli_parse_pruning("off", &spec, &errors);
    cr_assert(errors.count == 0 && !spec.enabled);
    atedm_cli_parse_pruning("{\"preset\": \"at-edm\", \"ratio\": 0.5}", &spec, &errors);
    cr_assert(errors.count == 0 && spec.enabled && spec.ratio == 0.5);
    const char *wrong[] = {"at-edm-z", "{\"ratio\": 2}", "{\"ratio\": ", "{\"ratio\": 0.5} x", "",
                           "\xff"};
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        errors.count = 0;
        atedm_cli_parse_pruning(wrong[i], &spec, &errors);
        cr_assert_eq(errors.count, 1, "%s", wrong[i]);
    }
}

Test(values, field_errors_name_options, .init = cr_redirect_stderr)
{
    atedm_field_errors errors = {.count = 0};
    atedm_field_errors_add(&errors, "/guidance_scale", "too large");
    atedm_field_errors_add(&errors, "/pruning/flops_budget", "too small");
    cr_assert_eq(atedm_cli_field_errors("generate", &errors), ATEDM_EXIT_USAGE);
    cr_assert_stderr_eq_str("atedm generate: --guidance-scale: too large\n"
                            "atedm generate: --pruning/flops_budget: too small\n");
}

// ---- options of generate

static const atedm_model_config *config(void)
{
    static atedm_model_config c = {
        .name = "test",
        .parts.unet = {.levels = 2, .sample_size = 8, .channels = {8, 8}},
        .parts.vae = {.levels = 4, .latent_channels = 4},
    };
    return &c;
}

static bool parse(const char **argv, atedm_generate_options *ret_options, int *ret_exit)
{
    int argc = 0;
    while (argv[argc])
        argc++;
    optind = 0; // glibc: start over
    return atedm_generate_options_parse(argc, (char **)argv, ret_options, ret_exit);
}

#define ARGV(...) ((const char *[]){"atedm generate", __VA_ARGS__, NULL})
#define NEEDED "--model", "m", "--prompt", "a cat", "-o", "x.png"

Test(generate, defaults)
{
    atedm_generate_options options;
    atedm_field_errors errors = {.count = 0};
    atedm_request r;
    int status = -1;
    cr_assert(parse(ARGV(NEEDED), &options, &status));
    atedm_generate_options_request(&options, config(), &r, &errors);
    cr_assert_eq(errors.count, 0, "%s", errors.items[0].detail);
    cr_assert_str_eq(r.prompt, "a cat");
    cr_assert_null(r.negative_prompt);
    cr_assert(r.width == 64 && r.height == 64 && r.steps == 30 && r.num_images == 1);
    cr_assert(r.guidance_scale == 7 && isnan(r.deadline_s));
    cr_assert_str_eq(r.prune.preset, "at-edm-dagger");
    cr_assert_leq(r.seed, ATEDM_SEED_MAX);
    atedm_request_finish(&r);
}

Test(generate, every_field)
{
    atedm_generate_options options;
    atedm_field_errors errors = {.count = 0};
    atedm_request r;
    int status = -1;
    cr_assert(
        parse(ARGV(NEEDED, "--negative-prompt", "", "--width", "128", "--height=96", "--steps", "5",
                   "--guidance-scale", "1.5", "--seed", "9223372036854775807", "--num-images", "1",
                   "--sampler", "euler", "--pruning", "off", "--deadline-s", "60", "--json"),
              &options, &status));
    atedm_generate_options_request(&options, config(), &r, &errors);
    cr_assert_eq(errors.count, 0, "%s: %s", errors.items[0].pointer, errors.items[0].detail);
    cr_assert(options.json);
    cr_assert_str_eq(r.negative_prompt, "");
    cr_assert(r.width == 128 && r.height == 96 && r.steps == 5 && r.guidance_scale == 1.5);
    cr_assert(r.seed == ATEDM_SEED_MAX && r.deadline_s == 60 && !r.prune.enabled);
    atedm_request_finish(&r);
}

Test(generate, names_every_wrong_field)
{
    atedm_generate_options options;
    atedm_field_errors errors = {.count = 0};
    atedm_request r;
    int status = -1;
    cr_assert(parse(ARGV(NEEDED, "--width", "wide", "--steps", "1e3", "--seed", "-1", "--pruning",
                         "no-such", "--guidance-scale", "x", "--height", "63"),
                    &options, &status));
    atedm_generate_options_request(&options, config(), &r, &errors);
    cr_assert_eq(errors.count, 6, "what cannot be read and what is out of range");
    atedm_request_finish(&r);
    errors.count = 0;
    cr_assert(parse(ARGV(NEEDED, "--width", "63", "--steps", "151"), &options, &status));
    atedm_generate_options_request(&options, config(), &r, &errors);
    cr_assert_eq(errors.count, 2);
    atedm_request_finish(&r);
}

Test(generate, images_and_area_at_their_bounds)
{
    static const struct {
        const char *images, *width, *height, *wrong;
    } cases[] = {
        {"256", "8192", "8192", NULL},
        {"257", "64", "64", "/num_images"},
        {"1", "8192", "8200", "/width"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        atedm_generate_options options;
        atedm_field_errors errors = {.count = 0};
        atedm_request r;
        int status = -1;
        cr_assert(parse(ARGV(NEEDED, "--seed", "1", "--num-images", cases[i].images, "--width",
                             cases[i].width, "--height", cases[i].height),
                        &options, &status));
        atedm_generate_options_request(&options, config(), &r, &errors);
        cr_assert_eq(errors.count, cases[i].wrong ? 1 : 0, "case %zu", i);
        if (cases[i].wrong)
            cr_expect_str_eq(errors.items[0].pointer, cases[i].wrong);
        atedm_request_finish(&r);
    }
    cr_expect_eq(ATEDM_CLI_MAX_AREA, 8192 * 8192);
    cr_expect_eq(ATEDM_CLI_MAX_IMAGES, 256);
}

Test(generate, usage_errors, .init = cr_redirect_stderr)
{
    atedm_generate_options options;
    int status = -1;
    cr_assert(!parse(ARGV("--prompt", "a", "-o", "x.png"), &options, &status));
    cr_assert_eq(status, ATEDM_EXIT_USAGE);
    cr_assert(!parse(ARGV(NEEDED, "--no-such-option"), &options, &status));
    cr_assert_eq(status, ATEDM_EXIT_USAGE);
    cr_assert(!parse(ARGV(NEEDED, "stray"), &options, &status));
    cr_assert_eq(status, ATEDM_EXIT_USAGE);
}

// ---- options of bench step

static bool parse_bench(const char **argv, atedm_bench_options *ret_options, int *ret_exit)
{
    int argc = 0;
    while (argv[argc])
        argc++;
    optind = 0; // glibc: start over
    return atedm_bench_options_parse(argc, (char **)argv, ret_options, ret_exit);
}

#define BENCH(...) ((const char *[]){"atedm bench step", "--model", "m", __VA_ARGS__, NULL})

Test(bench_step, rates_of_a_device_that_is_reckoned_with)
{
    atedm_bench_options o;
    int result;
    cr_assert(parse_bench(BENCH("--backend", "dry", "--rates", "989e12,4.8e12"), &o, &result));
    cr_assert(o.dry && o.rates.flops_per_s == 989e12 && o.rates.bytes_per_s == 4.8e12);
    cr_assert(parse_bench(BENCH("--rates", "1,1e24", "--backend", "dry"), &o, &result));
    cr_assert(o.rates.flops_per_s == ATEDM_BENCH_MIN_RATE);
    cr_assert(o.rates.bytes_per_s == ATEDM_BENCH_MAX_RATE);
    cr_assert(parse_bench(BENCH("--backend", "dry"), &o, &result));
    cr_assert(o.dry && o.rates.flops_per_s == 0 && o.rates.bytes_per_s == 0);
    cr_assert(parse_bench(BENCH("--stages", "ceilings"), &o, &result));
    cr_assert(!o.dry && o.ceilings);
}

Test(bench_step, numbers_at_their_bounds, .init = cr_redirect_stderr)
{
    static const struct {
        const char *option;
        int64_t most;
    } cases[] = {
        {"--batch", ATEDM_UNET_MAX_SAMPLES},  {"--images", ATEDM_UNET_MAX_SAMPLES / 2},
        {"--matrix", ATEDM_BENCH_MAX_MATRIX}, {"--copy", ATEDM_BENCH_MAX_COPY_MIB},
        {"--steps", ATEDM_MAX_STEPS},         {"--repeat", ATEDM_BENCH_MAX_REPEAT},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        for (int over = 0; over < 2; over++) {
            atedm_bench_options o;
            int result = 0;
            char number[24];
            snprintf(number, sizeof number, "%" PRId64, cases[i].most + over);
            cr_expect_eq(parse_bench(BENCH(cases[i].option, number), &o, &result), !over, "%s %s",
                         cases[i].option, number);
            cr_expect_eq(result, over ? ATEDM_EXIT_USAGE : 0, "%s %s", cases[i].option, number);
        }
}

Test(bench_step, lists_at_their_bounds, .init = cr_redirect_stderr)
{
    static const char *const cases[][2] = {
        {"--size", "64x64"}, {"--batch", "1"}, {"--images", "1"}, {"--pruning", "off"}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        for (int over = 0; over < 2; over++) {
            atedm_bench_options o;
            int result = 0, n = 3;
            const char *argv[2 * ATEDM_BENCH_MAX_LIST + 6] = {"atedm bench step", "--model", "m"};
            for (int k = 0; k < ATEDM_BENCH_MAX_LIST + over; k++) {
                argv[n++] = cases[i][0];
                argv[n++] = cases[i][1];
            }
            cr_expect_eq(parse_bench(argv, &o, &result), !over, "%s", cases[i][0]);
            cr_expect_eq(result, over ? ATEDM_EXIT_USAGE : 0, "%s", cases[i][0]);
        }
}

Test(bench_step, wrong_rates, .init = cr_redirect_stderr)
{
    atedm_bench_options o;
    int result;
    const char *wrong[] = {"",       "1",      "1,",    ",1",     "0,1",    "1,0",  "1,-1",
                           "0.99,1", "1,1e25", "1,inf", "nan,1",  "1,2,3",  "1 ,1", "x,1",
                           "1;1",    "0x,1",   "1,1x",  "1e24,,", "1e999,1"};
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        cr_assert(!parse_bench(BENCH("--backend", "dry", "--rates", wrong[i]), &o, &result), "%s",
                  wrong[i]);
        cr_assert_eq(result, ATEDM_EXIT_USAGE, "%s", wrong[i]);
    }
    char wide[64]; // a number that is right but for its length
    snprintf(wide, sizeof wide, "%040d,1", 7);
    cr_assert(!parse_bench(BENCH("--backend", "dry", "--rates", wide), &o, &result));
    cr_assert(!parse_bench(BENCH("--backend", "ref", "--rates", "1,1"), &o, &result));
    cr_assert(!parse_bench(BENCH("--backend", "dry", "--stages", "text,ceilings"), &o, &result));
    cr_assert_eq(result, ATEDM_EXIT_USAGE);
}

// ---- dumps

Test(dump, writes_what_was_collected)
{
    char dir[] = "/tmp/atedm-test-XXXXXX";
    cr_assert_not_null(mkdtemp(dir));
    char inner[64], path[128];
    snprintf(inner, sizeof inner, "%s/dump", dir);
    snprintf(path, sizeof path, "%s/stages.safetensors", inner);

    atedm_dump dump = {0};
    atedm_error err = {""};
    char name[32];
    for (int i = 0; i < 200; i++) { // more than the list starts with
        float data[6] = {(float)i, 1, 2, 3, 4, 5};
        snprintf(name, sizeof name, "latents.%d", i);
        atedm_dump_add(
            &dump, name,
            &(atedm_host_tensor){.data = data, .dtype = ATEDM_F32, .ndim = 2, .shape = {2, 3}});
    }
    cr_assert_eq(atedm_dump_write(&dump, inner, &err), ATEDM_OK, "%s", err.message);
    atedm_dump_finish(&dump);

    atedm_safetensors *file = NULL;
    cr_assert_eq(atedm_safetensors_open(path, &file, &err), ATEDM_OK, "%s", err.message);
    cr_assert_eq(atedm_safetensors_count(file), 200);
    const atedm_host_tensor *last = atedm_safetensors_find(file, "latents.199");
    cr_assert_not_null(last);
    cr_assert(atedm_host_tensor_has_shape(last, 2, (int64_t[]){2, 3}));
    float first;
    memcpy(&first, last->data, sizeof first);
    cr_assert_eq(first, 199);
    atedm_safetensors_close(file);
    unlink(path);
    rmdir(inner);
    rmdir(dir);
}

Test(dump, tells_where_it_cannot_write)
{
    atedm_dump dump = {0};
    atedm_error err = {""};
    cr_assert_eq(atedm_dump_write(&dump, "/no/such/folder", &err), ATEDM_ERR_IO);
    cr_assert_not_null(strstr(err.message, "/no/such/folder"));
}

// ---- random weights

Test(random_weights, variance_follows_fan_in)
{
    atedm_weights *weights = NULL;
    cr_assert_eq(atedm_random_weights_create(ATEDM_F32, &weights), ATEDM_OK);
    atedm_host_tensor t;
    const int64_t shape[4] = {300, 40, 3, 3};
    cr_assert_eq(weights->get(weights, "conv.weight", 4, shape, false, &t, NULL), ATEDM_OK);
    cr_assert(atedm_host_tensor_has_shape(&t, 4, shape));
    double sum = 0, square = 0;
    int64_t count = atedm_host_tensor_count(&t);
    for (int64_t i = 0; i < count; i++) {
        double value = ((const float *)t.data)[i];
        sum += value;
        square += value * value;
    }
    weights->done(weights, &t);
    cr_assert_float_eq(sum / (double)count, 0, 1e-3);
    cr_assert_float_eq(square / (double)count * 360, 1, 0.02);
    atedm_random_weights_destroy(weights);
}

Test(random_weights, norms_scale_by_one)
{
    atedm_weights *weights = NULL;
    cr_assert_eq(atedm_random_weights_create(ATEDM_BF16, &weights), ATEDM_OK);
    atedm_host_tensor scale, shift;
    const int64_t shape[1] = {5};
    cr_assert_eq(weights->get(weights, "norm.weight", 1, shape, false, &scale, NULL), ATEDM_OK);
    cr_assert_eq(weights->get(weights, "norm.bias", 1, shape, true, &shift, NULL), ATEDM_OK);
    for (int i = 0; i < 5; i++) {
        cr_assert_eq(atedm_bf16_to_f32(((const uint16_t *)scale.data)[i]), 1);
        cr_assert_eq(atedm_bf16_to_f32(((const uint16_t *)shift.data)[i]), 0);
    }
    weights->done(weights, &scale);
    weights->done(weights, &shift);
    atedm_random_weights_destroy(weights);
}
