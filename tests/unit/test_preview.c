// Previews: the map's arithmetic; the fit, by what it shows of the demo model's pictures; what is
// refused.
#include "core/preview.h"
#include "core/sampler.h"

#include "core/base/splitmix.h"
#include "core/png.h"
#include "tests/unit/pipeline_bench.h"

#include <criterion/criterion.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define DEMO_SIDE (CELL * CELLS) // the smallest that the model knows
#define CELL 8
#define CELLS 24
#define VALUES (3 * CELLS * CELLS)

Test(preview, a_pixel_is_the_map_of_its_cell)
{
    atedm_preview p = {.channels = 2};
    const double map[3][3] = {{10, 0, 100}, {0, -20, 50.4}, {1, 1, 0}}; // the last is b
    for (int k = 0; k < 3; k++) {
        memcpy(p.map[k], map[k], 2 * sizeof(double));
        p.map[k][ATEDM_VAE_MAX_LATENT_CHANNELS] = map[k][2];
    }
    const float latents[] = {0, 0, 1, 2, -11, 3, 16, -16, NAN, 1, 1e30f, -1e30f};
    const uint8_t expected[] = {100, 50, 0, 110, 10, 3, 0, 0, 0, 255, 255, 0};
    uint8_t rgb[3 * 6];
    atedm_preview_render(&p, latents, 2, 3, rgb);
    for (size_t i = 0; i < sizeof expected; i++)
        cr_expect_eq(rgb[i], expected[i], "%zu: %d, not %d", i, rgb[i], expected[i]);
    cr_expect_eq(rgb[12], 0); // NaN
    cr_expect_eq(rgb[15], 255);
    cr_expect_eq(rgb[16], 255);
}

Test(preview, shows_fewer_latents_where_they_are_many)
{
    static const struct {
        int64_t h, w;
        atedm_preview_grid grid;
    } cases[] = {
        {1, 1, {1, 1, 1}},           {512, 512, {1, 512, 512}}, // the most
        {512, 513, {2, 256, 257}},   {513, 512, {2, 257, 256}},      {1, 262144, {1, 1, 262144}},
        {2048, 2048, {4, 512, 512}}, {16384, 16384, {32, 512, 512}},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        const atedm_preview_grid g = atedm_preview_grid_of(cases[i].h, cases[i].w);
        cr_expect(g.stride == cases[i].grid.stride && g.h == cases[i].grid.h &&
                      g.w == cases[i].grid.w,
                  "%zu: %d, %d x %d", i, (int)g.stride, (int)g.h, (int)g.w);
    }
    enum { LONG = 513 };
    atedm_preview p = {.channels = 1, .map = {{1}, {0}, {0}}};
    float *latents = malloc(sizeof *latents * LONG * LONG);
    uint8_t *rgb = malloc((size_t)3 * 257 * 257 + 1);
    for (int i = 0; i < LONG * LONG; i++)
        latents[i] = (float)(i % LONG % 100 + i / LONG % 100);
    rgb[3 * 257 * 257] = 77;
    atedm_preview_render(&p, latents, LONG, LONG, rgb);
    for (int y = 0; y < 257; y++)
        for (int x = 0; x < 257; x++)
            cr_assert_eq(rgb[3 * (y * 257 + x)], 2 * x % 100 + 2 * y % 100, "%d, %d", y, x);
    cr_expect_eq(rgb[3 * 257 * 257], 77);
    free(latents);
    free(rgb);
}

// What zlib can save nothing of, in the shape that has most rows.
Test(preview, its_file_is_within_the_limit)
{
    const size_t bytes = 3 * (size_t)ATEDM_PREVIEW_MAX_PIXELS;
    uint8_t *rgb = malloc(bytes);
    for (size_t i = 0; i < bytes; i++)
        rgb[i] = (uint8_t)(atedm_splitmix(1, i) >> 56);
    atedm_buffer png;
    atedm_buffer_init(&png, 2 * (size_t)ATEDM_PREVIEW_MAX_BYTES);
    atedm_error err = {""};
    cr_assert_eq(atedm_png_encode(rgb, ATEDM_PREVIEW_MAX_PIXELS / ATEDM_PNG_MAX_SIDE,
                                  ATEDM_PNG_MAX_SIDE, NULL, 0, &png, &err),
                 ATEDM_OK);
    cr_expect_leq(png.size, (size_t)ATEDM_PREVIEW_MAX_BYTES);
    cr_expect_geq(png.size, bytes);
    atedm_buffer_finish(&png);
    free(rgb);
}

static pipeline_bench open_demo(void)
{
    pipeline_bench b = {0};
    atedm_error err = {0};
    char dir[4096];
    snprintf(dir, sizeof dir, "%s/models/demo", getenv("ATEDM_SOURCE_DIR"));
    cr_assert_eq(atedm_device_create("cpu", &b.device, &err), ATEDM_OK, "%s", err.message);
    cr_assert_eq(atedm_model_open(dir, b.device, ATEDM_F32, &b.model, &err), ATEDM_OK, "%s",
                 err.message);
    cr_assert_eq(atedm_pipeline_create(b.model, &b.pipeline, &err), ATEDM_OK, "%s", err.message);
    return b;
}

// The previews behind the middle one of 8 steps and behind the last one, and the picture at an
// eighth.
static void make_three(const pipeline_bench *b, const atedm_preview *p, const char *prompt,
                       const char *sampler, uint8_t *middle, uint8_t *preview, double *small)
{
    atedm_error err = {0};
    atedm_generation *g = NULL;
    atedm_request request = pipeline_bench_request("off");
    uint8_t *rgb = malloc((size_t)3 * DEMO_SIDE * DEMO_SIDE);
    free(request.prompt);
    request.prompt = strdup(prompt);
    request.width = request.height = DEMO_SIDE;
    request.steps = 8;
    request.guidance_scale = 4;
    snprintf(request.sampler, sizeof request.sampler, "%s", sampler);
    cr_assert_eq(atedm_generation_create(b->pipeline, &request, NULL, NULL, NULL, &g, &err),
                 ATEDM_OK, "%s", err.message);
    cr_assert_eq(atedm_generation_watch(g, true, &err), ATEDM_OK);
    cr_expect_null(atedm_generation_clean(g)); // no step yet
    cr_assert_eq(atedm_generation_encode(g, &err), ATEDM_OK);
    for (int k = 0; k < request.steps; k++) {
        cr_assert_eq(atedm_generation_step(g, &err), ATEDM_OK);
        cr_assert_not_null(atedm_generation_clean(g));
        if (k == request.steps / 2 || k == request.steps - 1)
            atedm_preview_render(p, atedm_generation_clean(g), CELLS, CELLS,
                                 k == request.steps / 2 ? middle : preview);
    }
    cr_assert_eq(atedm_generation_decode(g, 0, rgb, &err), ATEDM_OK);
    memset(small, 0, VALUES * sizeof *small);
    for (int y = 0; y < DEMO_SIDE; y++)
        for (int x = 0; x < DEMO_SIDE; x++)
            for (int k = 0; k < 3; k++)
                small[(y / CELL * CELLS + x / CELL) * 3 + k] +=
                    rgb[(y * DEMO_SIDE + x) * 3 + k] / (double)(CELL * CELL);
    atedm_generation_destroy(g);
    atedm_request_finish(&request);
    free(rgb);
}

static double correlate(const uint8_t *preview, const double *small)
{
    double n = VALUES, a = 0, b = 0, aa = 0, bb = 0, ab = 0;
    for (int i = 0; i < VALUES; i++) {
        a += preview[i];
        b += small[i];
        aa += preview[i] * preview[i];
        bb += small[i] * small[i];
        ab += preview[i] * small[i];
    }
    return (ab - a * b / n) / sqrt((aa - a * a / n) * (bb - b * b / n));
}

static double psnr(const uint8_t *preview, const double *small)
{
    double sum = 0;
    for (int i = 0; i < VALUES; i++)
        sum += (preview[i] - small[i]) * (preview[i] - small[i]);
    return 10 * log10(255. * 255 * VALUES / sum);
}

Test(preview, shows_what_the_demo_model_draws)
{
    static const char *const prompts[] = {
        "a big red circle on a white background",
        "a green heart on a red to blue gradient",
        "an orange cross on a purple and cyan striped background",
    };
    pipeline_bench b = open_demo();
    atedm_preview p;
    cr_assert_eq(atedm_preview_fit(b.model, SIZE_MAX, &p, NULL), ATEDM_OK);
    size_t samplers;
    const atedm_sampler *sampler = atedm_samplers(&samplers);
    for (size_t i = 0; i < samplers * sizeof prompts / sizeof *prompts; i++) {
        uint8_t middle[VALUES], preview[VALUES];
        double small[VALUES];
        const char *name = sampler[i % samplers].name, *prompt = prompts[i / samplers];
        make_three(&b, &p, prompt, name, middle, preview, small);
        double correlation = correlate(preview, small), db = psnr(preview, small);
        cr_expect(correlation >= 0.93 && db >= 19, "%s, %s: correlation %.4f, PSNR %.1f dB", prompt,
                  name, correlation, db);
        double then = correlate(middle, small);
        cr_expect_geq(then, 0.92, "%s, %s: in the middle %.4f", prompt, name, then);
    }
    pipeline_bench_close(&b);
}

// Twice the same, whatever the model: one of random weights too.
static void fits_twice_the_same(const pipeline_bench *b)
{
    atedm_preview p = {0}, again = {0};
    atedm_error err = {0};
    cr_assert_eq(atedm_preview_fit(b->model, SIZE_MAX, &p, &err), ATEDM_OK, "%s", err.message);
    cr_assert_eq(atedm_preview_fit(b->model, SIZE_MAX, &again, &err), ATEDM_OK);
    cr_expect_eq(p.channels, b->model->config.parts.vae.latent_channels);
    for (int k = 0; k < 3; k++)
        for (int i = 0; i <= ATEDM_VAE_MAX_LATENT_CHANNELS; i++) {
            cr_expect(isfinite(p.map[k][i]));
            cr_expect(p.map[k][i] == again.map[k][i]);
        }
}

Test(preview, the_fit_is_the_same_each_time)
{
    pipeline_bench_everywhere(fits_twice_the_same);
}

Test(preview, what_does_not_fit_is_refused)
{
    pipeline_bench b = pipeline_bench_open("cpu", ATEDM_F32);
    atedm_preview p = {.channels = -1};
    atedm_error err = {0};
    cr_expect_eq(atedm_preview_fit(b.model, 1000, &p, &err), ATEDM_ERR_NOMEM);
    cr_expect(strstr(err.message, "device memory"), "%s", err.message);
    atedm_model wide = *b.model;
    wide.config.parts.vae.latent_channels = ATEDM_VAE_MAX_LATENT_CHANNELS + 1;
    cr_expect_eq(atedm_preview_fit(&wide, SIZE_MAX, &p, &err), ATEDM_ERR_UNSUPPORTED);
    cr_expect_eq(p.channels, -1);
    pipeline_bench_close(&b);
}
