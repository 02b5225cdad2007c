// core/png and core/png_settings: what is written, libpng reads back; the settings are complete
// enough to ask for the same picture again.
#include "core/png.h"
#include "core/png_settings.h"

#include <criterion/criterion.h>
#include <jansson.h>
#include <math.h>
#include <png.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static atedm_error err;

// ---- reading back

typedef struct reader {
    const char *data;
    size_t size, at;
} reader;

static void read_bytes(png_structp png, png_bytep to, size_t size)
{
    reader *r = png_get_io_ptr(png);
    cr_assert_leq(size, r->size - r->at, "the file ends early");
    memcpy(to, r->data + r->at, size);
    r->at += size;
}

static void fail_test(png_structp png, png_const_charp message)
{
    (void)png;
    cr_assert_fail("libpng: %s", message);
    abort();
}

typedef struct picture {
    png_structp png;
    png_infop info;
    png_bytepp rows;
} picture;

static picture read_back(const atedm_buffer *file)
{
    static reader source;
    source = (reader){file->data, file->size, 0};
    picture p;
    p.png = png_create_read_struct(PNG_LIBPNG_VER_STRING, NULL, fail_test, fail_test);
    p.info = png_create_info_struct(p.png);
    png_set_read_fn(p.png, &source, read_bytes);
    png_read_png(p.png, p.info, PNG_TRANSFORM_IDENTITY, NULL);
    p.rows = png_get_rows(p.png, p.info);
    cr_assert_eq(source.at, source.size, "bytes after the end");
    return p;
}

static void free_picture(picture *p)
{
    png_destroy_read_struct(&p->png, &p->info, NULL);
}

// The text of that key; *ret_compression tells tEXt from iTXt.
static const char *find_text(const picture *p, const char *key, int *ret_compression)
{
    png_textp texts = NULL;
    int count = png_get_text(p->png, p->info, &texts, NULL);
    for (int i = 0; i < count; i++) {
        if (strcmp(texts[i].key, key) == 0) {
            *ret_compression = texts[i].compression;
            return texts[i].text;
        }
    }
    cr_assert_fail("no text \"%s\"", key);
    return NULL;
}

// ---- png

Test(png, pixels_and_texts_come_back)
{
    enum { WIDTH = 37, HEIGHT = 11 };
    uint8_t rgb[HEIGHT][WIDTH][3];
    for (int y = 0; y < HEIGHT; y++)
        for (int x = 0; x < WIDTH; x++)
            for (int c = 0; c < 3; c++)
                rgb[y][x][c] = (uint8_t)(x * 7 + y * 31 + c * 97);
    char longer[100001];
    memset(longer, 'x', sizeof longer - 1);
    longer[sizeof longer - 1] = '\0';
    const atedm_png_text texts[] = {{"plain", "one line\nand another"},
                                    {"unicode", "caf\u00e9 \U0001f98a"},
                                    {"empty", ""},
                                    {"long", longer}};
    atedm_buffer a, b;
    atedm_buffer_init(&a, 1u << 20);
    atedm_buffer_init(&b, 1u << 20);
    cr_assert_eq(atedm_png_encode(&rgb[0][0][0], WIDTH, HEIGHT, texts, 4, &a, &err), ATEDM_OK, "%s",
                 err.message);
    cr_assert_eq(atedm_png_encode(&rgb[0][0][0], WIDTH, HEIGHT, texts, 4, &b, &err), ATEDM_OK);
    cr_assert_eq(a.size, b.size);
    cr_assert_arr_eq(a.data, b.data, a.size, "the bytes depend on the input alone");

    picture p = read_back(&a);
    cr_assert_eq(png_get_image_width(p.png, p.info), WIDTH);
    cr_assert_eq(png_get_image_height(p.png, p.info), HEIGHT);
    cr_assert_eq(png_get_bit_depth(p.png, p.info), 8);
    cr_assert_eq(png_get_color_type(p.png, p.info), PNG_COLOR_TYPE_RGB);
    for (int y = 0; y < HEIGHT; y++)
        cr_assert_arr_eq(p.rows[y], rgb[y], WIDTH * 3);
    static const int compressions[] = {PNG_TEXT_COMPRESSION_NONE, PNG_ITXT_COMPRESSION_NONE,
                                       PNG_TEXT_COMPRESSION_NONE, PNG_TEXT_COMPRESSION_NONE};
    for (int i = 0; i < 4; i++) {
        int compression = 99;
        cr_assert_str_eq(find_text(&p, texts[i].key, &compression), texts[i].value);
        cr_assert_eq(compression, compressions[i], "%s", texts[i].key);
    }
    free_picture(&p);
    atedm_buffer_finish(&a);
    atedm_buffer_finish(&b);
}

Test(png, refusals_leave_the_buffer_as_it_was)
{
    uint8_t rgb[64 * 64 * 3] = {0};
    for (size_t i = 0; i < sizeof rgb; i++)
        rgb[i] = (uint8_t)(i * i >> 3);
    char long_key[81];
    memset(long_key, 'k', 80);
    long_key[80] = '\0';
    const atedm_png_text too_long = {long_key, "x"}, empty = {"", "x"};
    atedm_png_text many[ATEDM_PNG_MAX_TEXTS + 1];
    for (size_t i = 0; i <= ATEDM_PNG_MAX_TEXTS; i++)
        many[i] = (atedm_png_text){"k", "v"};
    atedm_buffer out;
    atedm_buffer_init(&out, 200);
    cr_assert_eq(atedm_buffer_append(&out, "before", 6), ATEDM_OK);
    cr_assert_eq(atedm_png_encode(rgb, 0, 8, NULL, 0, &out, &err), ATEDM_ERR_INVALID);
    cr_assert_eq(atedm_png_encode(rgb, 8, -1, NULL, 0, &out, &err), ATEDM_ERR_INVALID);
    cr_assert_eq(atedm_png_encode(rgb, ATEDM_PNG_MAX_SIDE + 1, 8, NULL, 0, &out, &err),
                 ATEDM_ERR_INVALID);
    cr_assert_eq(atedm_png_encode(rgb, 8, 8, &too_long, 1, &out, &err), ATEDM_ERR_INVALID);
    cr_assert_eq(atedm_png_encode(rgb, 8, 8, &empty, 1, &out, &err), ATEDM_ERR_INVALID);
    cr_assert_eq(atedm_png_encode(rgb, 8, 8, many, ATEDM_PNG_MAX_TEXTS + 1, &out, &err),
                 ATEDM_ERR_LIMIT);
    cr_assert_eq(atedm_png_encode(rgb, 64, 64, NULL, 0, &out, &err), ATEDM_ERR_LIMIT);
    cr_assert_not_null(strstr(err.message, "limit of 200 bytes"), "%s", err.message);
    cr_assert_eq(out.size, 6);
    cr_assert_arr_eq(out.data, "before", 6);
    atedm_buffer_finish(&out);
}

// ---- settings

static uint8_t grey[16 * 24 * 3];

static atedm_request make_request(void)
{
    atedm_request r = {.prompt = (char *)"a red fox, 8k",
                       .negative_prompt = (char *)"blurry: \"bad\"",
                       .width = 16,
                       .height = 24,
                       .steps = 20,
                       .guidance_scale = 7.5,
                       .seed = 42,
                       .num_images = 3,
                       .sampler = "euler",
                       .deadline_s = NAN};
    cr_assert_eq(atedm_prune_preset("at-edm", &r.prune), ATEDM_OK);
    return r;
}

// Encodes image 2 and hands out both texts; the caller frees.
static void encode_settings(const atedm_request *request, const atedm_plan *plan,
                            const char *model_name, char **ret_parameters, json_t **ret_json)
{
    static atedm_model_config model;
    snprintf(model.name, sizeof model.name, "%s", model_name);
    atedm_buffer out;
    atedm_buffer_init(&out, 1u << 20);
    cr_assert_eq(
        atedm_png_encode_image(grey, request, plan, 2, &model, ATEDM_BF16, "cpu", &out, &err),
        ATEDM_OK, "%s", err.message);
    picture p = read_back(&out);
    cr_assert_eq(png_get_image_height(p.png, p.info), 24);
    int compression;
    *ret_parameters = strdup(find_text(&p, "parameters", &compression));
    const char *text = find_text(&p, "atedm", &compression);
    json_error_t json_err;
    *ret_json = json_loads(text, JSON_REJECT_DUPLICATES, &json_err);
    cr_assert_not_null(*ret_json, "%s in %s", json_err.text, text);
    free_picture(&p);
    atedm_buffer_finish(&out);
}

Test(png_settings, automatic1111_text)
{
    atedm_request r = make_request();
    atedm_plan plan = {.spec = r.prune, .ratio = 0.7, .steps = 20};
    char *text = NULL;
    json_t *json = NULL;
    encode_settings(&r, &plan, "sdxl-base", &text, &json);
    cr_assert_str_eq(text, "a red fox, 8k\n"
                           "Negative prompt: blurry: \"bad\"\n"
                           "Steps: 20, Sampler: Euler, CFG scale: 7.5, Seed: 44, Size: 16x24, "
                           "Model: sdxl-base, AT-EDM preset: at-edm, AT-EDM ratio: 0.7, "
                           "AT-EDM schedule: dsap, AT-EDM tau: 0.3, "
                           "Version: atedm " ATEDM_VERSION);
    free(text);
    json_decref(json);

    // What these do not tell stands behind them, as JSON.
    plan.spec.selection = ATEDM_SELECT_TOP;
    encode_settings(&r, &plan, "sdxl-base", &text, &json);
    const char *rest = strstr(text, "AT-EDM tau: 0.3, AT-EDM pruning: ");
    cr_assert_not_null(rest, "%s", text);
    json_t *quoted = json_loads(rest + strlen("AT-EDM tau: 0.3, AT-EDM pruning: "),
                                JSON_DECODE_ANY | JSON_DISABLE_EOF_CHECK, NULL);
    json_t *pruning = json_loads(json_string_value(quoted), 0, NULL);
    cr_assert(json_equal(pruning, json_object_get(json_object_get(json, "generate"), "pruning")));
    json_decref(quoted);
    json_decref(pruning);
    free(text);
    json_decref(json);

    r.negative_prompt = NULL;
    r.guidance_scale = 1;
    encode_settings(&r, NULL, "my, model: \"x\"", &text, &json);
    cr_assert_str_eq(text, "a red fox, 8k\n"
                           "Steps: 20, Sampler: Euler, CFG scale: 1, Seed: 44, Size: 16x24, "
                           "Model: \"my, model: \\\"x\\\"\", Version: atedm " ATEDM_VERSION);
    free(text);
    json_decref(json);
}

static json_t *at(const json_t *object, const char *key)
{
    json_t *value = json_object_get(object, key);
    cr_assert_not_null(value, "no \"%s\"", key);
    return value;
}

Test(png_settings, json_holds_a_complete_body)
{
    atedm_request r = make_request();
    r.guidance_scale = 0.1 + 0.2; // needs 17 digits
    r.seed = INT64_MAX - 2;
    char *text = NULL;
    json_t *json = NULL;
    encode_settings(&r, NULL, "m", &text, &json);
    cr_assert_str_eq(json_string_value(at(json, "model")), "m");
    cr_assert_str_eq(json_string_value(at(json, "dtype")), "bf16");
    cr_assert_str_eq(json_string_value(at(json, "backend")), "cpu");
    cr_assert_str_eq(json_string_value(at(json, "version")), ATEDM_VERSION);
    const json_t *body = at(json, "generate");
    cr_assert_str_eq(json_string_value(at(body, "prompt")), r.prompt);
    cr_assert_str_eq(json_string_value(at(body, "negative_prompt")), r.negative_prompt);
    cr_assert_eq(json_integer_value(at(body, "width")), 16);
    cr_assert_eq(json_integer_value(at(body, "height")), 24);
    cr_assert_eq(json_integer_value(at(body, "steps")), 20);
    cr_assert_eq(json_real_value(at(body, "guidance_scale")), 0.1 + 0.2);
    cr_assert_eq(json_integer_value(at(body, "seed")), INT64_MAX);
    cr_assert_eq(json_integer_value(at(body, "num_images")), 1);
    cr_assert_str_eq(json_string_value(at(body, "sampler")), "euler");
    cr_assert_str_eq(json_string_value(at(body, "pruning")), "off");
    cr_assert_eq(json_object_size(body), 10);
    free(text);
    json_decref(json);

    r.negative_prompt = NULL; // absent is not empty
    encode_settings(&r, NULL, "m", &text, &json);
    cr_assert(json_is_null(at(at(json, "generate"), "negative_prompt")));
    free(text);
    json_decref(json);
    r.negative_prompt = (char *)"";
    encode_settings(&r, NULL, "m", &text, &json);
    cr_assert_str_eq(json_string_value(at(at(json, "generate"), "negative_prompt")), "");
    cr_assert_null(strstr(text, "Negative prompt"));
    free(text);
    json_decref(json);
}

static void expect_same_spec(const atedm_prune_spec *a, const atedm_prune_spec *b)
{
    cr_assert_eq(a->enabled, b->enabled);
    cr_assert_str_eq(a->preset, b->preset);
    cr_assert_eq(a->ratio, b->ratio);
    cr_assert(isnan(a->flops_budget) && isnan(b->flops_budget));
    cr_assert_eq(a->schedule, b->schedule);
    if (a->schedule == ATEDM_PRUNE_DSAP)
        cr_assert_eq(a->tau, b->tau);
    if (a->schedule == ATEDM_PRUNE_PHASES) {
        cr_assert_eq(a->n_phases, b->n_phases);
        for (size_t i = 0; i < a->n_phases; i++) {
            const atedm_phase *p = &a->phases[i], *q = &b->phases[i];
            cr_assert_eq(p->until, q->until);
            cr_assert((isnan(p->ratio) && isnan(q->ratio)) || p->ratio == q->ratio);
            cr_assert_eq(p->n_skip, q->n_skip);
            for (size_t k = 0; k < p->n_skip; k++)
                cr_assert_str_eq(p->skip[k], q->skip[k]);
        }
    }
    cr_assert_eq(a->skip_levels, b->skip_levels);
    cr_assert_eq(a->n_prune_after, b->n_prune_after);
    for (size_t i = 0; i < a->n_prune_after; i++)
        cr_assert_eq(a->prune_after[i], b->prune_after[i]);
    cr_assert_eq(a->score_map, b->score_map);
    cr_assert_eq(a->rank.heads, b->rank.heads);
    cr_assert_eq(a->rank.max_iterations, b->rank.max_iterations);
    cr_assert_eq(a->rank.tolerance, b->rank.tolerance);
    cr_assert_eq(a->score_interval, b->score_interval);
    cr_assert_eq(a->selection, b->selection);
    cr_assert_eq(a->recovery, b->recovery);
    cr_assert_eq(a->copy, b->copy);
    cr_assert_eq(a->proportional_attention, b->proportional_attention);
    cr_assert_eq(a->masks, b->masks);
}

// What the PNG says about pruning is read by the parser of requests as the same plan.
static void expect_round_trip(const atedm_prune_spec *spec, double ratio)
{
    atedm_request r = make_request();
    atedm_plan plan = {.spec = *spec, .ratio = ratio, .steps = 20};
    char *text = NULL;
    json_t *json = NULL;
    encode_settings(&r, &plan, "m", &text, &json);
    atedm_prune_spec back;
    atedm_field_errors errors = {.count = 0};
    atedm_prune_spec_from_json(at(at(json, "generate"), "pruning"), "/pruning", &back, &errors);
    cr_assert_eq(errors.count, 0, "%s: %s", errors.items[0].pointer, errors.items[0].detail);
    atedm_prune_spec want = *spec;
    want.ratio = ratio; // a budget has been solved
    want.flops_budget = NAN;
    expect_same_spec(&want, &back);
    free(text);
    json_decref(json);
}

Test(png_settings, pruning_reads_back_as_the_same_plan)
{
    size_t count = 0;
    const char *const *names = atedm_prune_preset_names(&count);
    atedm_prune_spec spec;
    for (size_t i = 0; i < count; i++) {
        cr_assert_eq(atedm_prune_preset(names[i], &spec), ATEDM_OK);
        if (spec.enabled)
            expect_round_trip(&spec, spec.ratio);
    }
    cr_assert_eq(atedm_prune_preset("at-edm-d", &spec), ATEDM_OK);
    spec.ratio = NAN;
    spec.flops_budget = 0.61;
    spec.tau = 0.25;
    spec.skip_levels = 1u << 0 | 1u << 7;
    spec.prune_after[0] = 1;
    spec.prune_after[1] = 3;
    spec.n_prune_after = 2;
    spec.score_map = ATEDM_SCORE_CROSS;
    spec.rank = (atedm_rank_params){ATEDM_HEADS_MEAN, 17, 1.2345678e-5F};
    spec.selection = ATEDM_SELECT_TOP;
    spec.recovery = ATEDM_RECOVER_NEAREST;
    spec.copy = ATEDM_COPY_VALUE;
    spec.proportional_attention = false;
    spec.masks = ATEDM_MASKS_OWN;
    expect_round_trip(&spec, 0.612345);
    spec.schedule = ATEDM_PRUNE_PHASES;
    spec.n_phases = 2;
    spec.phases[0] = (atedm_phase){
        .until = 1.0 / 3, .ratio = 0.1, .skip = {"down.first", "mid", "up.1.2"}, .n_skip = 3};
    spec.phases[1] = (atedm_phase){.until = 1, .ratio = NAN};
    expect_round_trip(&spec, 0.612345);
    spec.schedule = ATEDM_PRUNE_UNIFORM;
    spec.recovery = ATEDM_RECOVER_ZERO;
    expect_round_trip(&spec, 0);
    cr_assert_eq(atedm_prune_preset("at-edm", &spec), ATEDM_OK);
    spec.score_map = ATEDM_SCORE_RANDOM;
    expect_round_trip(&spec, 0.5);
}
