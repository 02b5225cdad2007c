// The pipeline as a whole, on a toy model of the goldens: what must not change a picture does not,
// down to the last bit, and what is wrong is refused. The model is model b of ATEDM_GOLDEN_DIR.
#include <criterion/criterion.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tests/unit/pipeline_bench.h"

static void ratio_zero_is_off(const pipeline_bench *b)
{
    atedm_request off = pipeline_bench_request("off"), zero = pipeline_bench_request("at-edm-a");
    zero.prune.ratio = 0;
    uint8_t *x = pipeline_bench_generate(b, &off), *y = pipeline_bench_generate(b, &zero);
    cr_expect(!memcmp(x, y, BYTES));
    free(x);
    free(y);
    atedm_request_finish(&off);
    atedm_request_finish(&zero);
}

Test(pipeline, ratio_zero_is_bit_identical_to_off)
{
    pipeline_bench_everywhere(ratio_zero_is_off);
}

// A preset with random scores.
static atedm_request make_random(const char *preset)
{
    atedm_request request = pipeline_bench_request(preset);
    request.prune.score_map = ATEDM_SCORE_RANDOM;
    return request;
}

static void pruning_matters(const pipeline_bench *b)
{
    atedm_request off = pipeline_bench_request("off"), pruned = pipeline_bench_request("at-edm-a");
    uint8_t *x = pipeline_bench_generate(b, &off), *y = pipeline_bench_generate(b, &pruned);
    cr_expect(memcmp(x, y, BYTES));
    free(x);
    free(y);
    atedm_request_finish(&off);
    atedm_request_finish(&pruned);
}

Test(pipeline, pruning_changes_the_picture)
{
    pipeline_bench_everywhere(pruning_matters);
}

// Six images run in two batches; each is the picture that its seed gives alone.
static void images_are_independent(const pipeline_bench *b, atedm_score_map map)
{
    atedm_request many = pipeline_bench_request("at-edm-a");
    many.prune.score_map = map;
    many.num_images = 6;
    uint8_t *all = pipeline_bench_generate(b, &many);
    for (int i = 0; i < 6; i++) {
        atedm_request one = pipeline_bench_request("at-edm-a");
        one.prune.score_map = map;
        one.seed = many.seed + (uint64_t)i;
        uint8_t *alone = pipeline_bench_generate(b, &one);
        cr_expect(!memcmp(all + (size_t)i * BYTES, alone, BYTES), "image %d differs, %s %s, map %d",
                  i, atedm_device_backend(b->device), atedm_dtype_name(b->model->dtype), (int)map);
        free(alone);
        atedm_request_finish(&one);
    }
    free(all);
    atedm_request_finish(&many);
}

static void ranked_images_are_independent(const pipeline_bench *b)
{
    images_are_independent(b, ATEDM_SCORE_SELF);
}

Test(pipeline, an_image_does_not_depend_on_its_batch)
{
    pipeline_bench_everywhere(ranked_images_are_independent);
}

static void random_images_are_independent(const pipeline_bench *b)
{
    images_are_independent(b, ATEDM_SCORE_RANDOM);
}

Test(pipeline, a_randomly_pruned_image_does_not_depend_on_its_batch)
{
    pipeline_bench_everywhere(random_images_are_independent);
}

static void repeatable(const pipeline_bench *b)
{
    atedm_request requests[2] = {pipeline_bench_request("at-edm"), make_random("at-edm")};
    uint8_t *pictures[2];
    for (int i = 0; i < 2; i++) {
        pictures[i] = pipeline_bench_generate(b, &requests[i]);
        uint8_t *again = pipeline_bench_generate(b, &requests[i]);
        cr_expect(!memcmp(pictures[i], again, BYTES));
        free(again);
    }
    cr_expect(memcmp(pictures[0], pictures[1], BYTES), "chance is as good as a ranking");
    for (int i = 0; i < 2; i++) {
        free(pictures[i]);
        atedm_request_finish(&requests[i]);
    }
}

Test(pipeline, the_same_request_gives_the_same_bytes)
{
    pipeline_bench_everywhere(repeatable);
}

// A recovery without a map, behind scores without one: no attention map is asked for.
static void mapless(const pipeline_bench *b)
{
    static const atedm_recovery recoveries[] = {ATEDM_RECOVER_ATTENTION, ATEDM_RECOVER_COSINE,
                                                ATEDM_RECOVER_NEAREST, ATEDM_RECOVER_ZERO};
    uint8_t *pictures[4];
    for (int i = 0; i < 4; i++) {
        atedm_request request = make_random("at-edm-a");
        request.prune.recovery = recoveries[i];
        pictures[i] = pipeline_bench_generate(b, &request);
        for (int k = 0; k < i; k++)
            cr_expect(memcmp(pictures[i], pictures[k], BYTES), "recoveries %d and %d", i, k);
        atedm_request_finish(&request);
    }
    for (int i = 0; i < 4; i++)
        free(pictures[i]);
}

Test(pipeline, random_scores_go_with_every_recovery)
{
    pipeline_bench_everywhere(mapless);
}

// ---- random masks: the "kept" of a dump

#define MAX_MASKS 64 // blocks x steps of model b

typedef struct mask {
    char name[ATEDM_BLOCK_NAME_MAX + 16]; // "kept.STEP.BLOCK"
    int64_t rows, kept, tokens;           // rows: negative samples first, then positive ones
    int64_t *places;                      // [rows, kept]
} mask;

typedef struct masks {
    mask items[MAX_MASKS];
    size_t n;
} masks;

static void collect(void *user, const char *name, const atedm_host_tensor *tensor)
{
    masks *m = user;
    if (strncmp(name, "kept.", 5) == 0) {
        cr_assert_lt(m->n, MAX_MASKS);
        mask *item = &m->items[m->n++];
        size_t count = (size_t)atedm_host_tensor_count(tensor);
        *item = (mask){.rows = tensor->shape[0], .kept = tensor->shape[1]};
        snprintf(item->name, sizeof item->name, "%s", name);
        item->places = malloc(count * sizeof *item->places);
        memcpy(item->places, tensor->data, count * sizeof *item->places);
    } else if (strncmp(name, "scores.", 7) == 0) { // comes behind the block's "kept"
        const float *scores = tensor->data;
        for (int64_t i = 0; i < atedm_host_tensor_count(tensor); i++)
            cr_assert(scores[i] >= 0 && scores[i] < 1);
        m->items[m->n - 1].tokens = tensor->shape[1];
    }
}

static masks collect_masks(const pipeline_bench *b, const atedm_request *request)
{
    masks m = {.n = 0};
    uint8_t *rgb = malloc(BYTES * (size_t)request->num_images), *images[8];
    for (int i = 0; i < request->num_images; i++)
        images[i] = rgb + (size_t)i * BYTES;
    atedm_generation *g = NULL;
    atedm_timing timing;
    atedm_error err = {0};
    cr_assert_eq(atedm_generation_create(b->pipeline, request, NULL, collect, &m, &g, &err),
                 ATEDM_OK, "%s", err.message);
    cr_assert_eq(atedm_generation_run(g, NULL, NULL, images, &timing, &err), ATEDM_OK, "%s",
                 err.message);
    atedm_generation_destroy(g);
    free(rgb);
    cr_assert_geq(m.n, 20);
    return m;
}

static void free_masks(masks *m)
{
    for (size_t i = 0; i < m->n; i++)
        free(m->items[i].places);
}

static bool same_rows(const mask *a, int64_t i, const mask *b, int64_t k)
{
    return a->kept == b->kept && !memcmp(a->places + i * a->kept, b->places + k * b->kept,
                                         (size_t)a->kept * sizeof *a->places);
}

// All subsets of the first sample are those of `other`'s sample `row`.
static void expect_same_masks(const masks *m, const masks *other, int64_t row, const char *what)
{
    cr_assert_eq(m->n, other->n);
    for (size_t i = 0; i < m->n; i++)
        cr_expect(same_rows(&m->items[i], 0, &other->items[i], row), "%s: %s", what,
                  m->items[i].name);
}

static atedm_request make_half(int images)
{
    atedm_request request = make_random("at-edm-a");
    request.prune.ratio = 0.5;
    request.num_images = images;
    return request;
}

Test(pipeline, random_masks_differ_but_for_the_halves_of_guidance)
{
    pipeline_bench b = pipeline_bench_open("cpu", ATEDM_F32);
    atedm_request request = make_half(2);
    masks m = collect_masks(&b, &request);
    size_t large = 0, equal = 0;
    for (size_t i = 0; i < m.n; i++) {
        const mask *x = &m.items[i];
        cr_expect_eq(x->rows, 4);
        cr_expect_eq(x->kept, atedm_prune_keep(0.5, x->tokens));
        cr_expect(same_rows(x, 0, x, 2) && same_rows(x, 1, x, 3), "%s: halves", x->name);
        if (x->kept < 8) // few subsets: chance may well draw one twice
            continue;
        large++;
        cr_expect(!same_rows(x, 0, x, 1), "%s: images", x->name);
        for (size_t k = 0; k < i; k++) // of another step, another block, or both
            equal += same_rows(x, 0, &m.items[k], 0) || same_rows(x, 0, &m.items[k], 1);
    }
    cr_expect_gt(large, 15);
    cr_expect_leq(equal,
                  1); // of 8 of 16 tokens there are 12,870 subsets, and some 2,000 pairs here
    free_masks(&m);
    atedm_request_finish(&request);
    pipeline_bench_close(&b);
}

// The conditional half, which is the second one, chooses for both; by itself it chooses the same.
Test(pipeline, shared_masks_are_the_conditional_half_s)
{
    pipeline_bench b = pipeline_bench_open("cpu", ATEDM_F32);
    atedm_request request = pipeline_bench_request("at-edm-a");
    request.prune.ratio = 0.5;
    masks shared = collect_masks(&b, &request);
    request.prune.masks = ATEDM_MASKS_OWN;
    masks own = collect_masks(&b, &request);
    size_t of_first_step = 0, differ = 0;
    cr_assert_eq(shared.n, own.n);
    for (size_t i = 0; i < shared.n; i++) {
        const mask *x = &shared.items[i], *y = &own.items[i];
        cr_assert_str_eq(x->name, y->name);
        cr_expect(same_rows(x, 0, x, 1), "%s: halves", x->name);
        differ += !same_rows(y, 0, y, 1);
        if (strncmp(x->name, "kept.0.", 7) != 0) // from then on the latents are not the same
            continue;
        of_first_step++;
        cr_expect(same_rows(x, 1, y, 1), "%s: shared and own", x->name);
    }
    cr_expect_gt(of_first_step, 5);
    cr_expect_gt(differ, 5);
    free_masks(&shared);
    free_masks(&own);
    atedm_request_finish(&request);
    pipeline_bench_close(&b);
}

// Which tokens are kept in the first pruned block is decided before anything is copied or weighed.
Test(pipeline, copies_and_weights_change_the_picture_and_not_the_first_choice)
{
    pipeline_bench b = pipeline_bench_open("cpu", ATEDM_F32);
    atedm_request request = pipeline_bench_request("at-edm-a");
    request.prune.ratio = 0.5;
    masks m[3];
    m[0] = collect_masks(&b, &request);
    request.prune.copy = ATEDM_COPY_VALUE;
    m[1] = collect_masks(&b, &request);
    request.prune.copy = ATEDM_COPY_UPDATE;
    request.prune.proportional_attention = false;
    m[2] = collect_masks(&b, &request);
    for (size_t k = 1; k < 3; k++) {
        size_t differ = 0;
        cr_assert_eq(m[0].n, m[k].n);
        cr_expect(same_rows(&m[0].items[0], 1, &m[k].items[0], 1), "%s", m[0].items[0].name);
        for (size_t i = 1; i < m[0].n; i++)
            differ += !same_rows(&m[0].items[i], 1, &m[k].items[i], 1);
        cr_expect_gt(differ, 0, "case %zu", k);
    }
    for (size_t k = 0; k < 3; k++)
        free_masks(&m[k]);
    atedm_request_finish(&request);
    pipeline_bench_close(&b);
}

// What is kept is drawn anew at each step, in the same way again; the largest scores are what they
// are. In the first pruned block of the first step the scores are those of the same latents.
Test(pipeline, sampled_masks)
{
    pipeline_bench b = pipeline_bench_open("cpu", ATEDM_F32);
    atedm_request request = pipeline_bench_request("at-edm-a");
    request.prune.ratio = 0.5;
    masks sampled = collect_masks(&b, &request), again = collect_masks(&b, &request);
    request.seed++;
    masks other = collect_masks(&b, &request);
    request.seed--;
    request.prune.selection = ATEDM_SELECT_TOP;
    masks top = collect_masks(&b, &request);
    cr_assert_eq(sampled.n, top.n);
    expect_same_masks(&again, &sampled, 0, "again");
    cr_expect(!same_rows(&sampled.items[0], 1, &top.items[0], 1), "sampled and top");
    cr_expect(!same_rows(&sampled.items[0], 1, &other.items[0], 1), "another seed");
    size_t pairs = 0, moved = 0; // a block at the first step and at a later one
    for (size_t i = 0; i < sampled.n; i++) {
        cr_expect(same_rows(&sampled.items[i], 0, &sampled.items[i], 1), "halves");
        for (size_t k = i + 1; k < sampled.n; k++) {
            const char *one = strchr(sampled.items[i].name + 5, '.'),
                       *next = strchr(sampled.items[k].name + 5, '.');
            if (strncmp(sampled.items[i].name, "kept.0.", 7) != 0 || strcmp(one, next) != 0 ||
                sampled.items[i].kept < 8) // few subsets, as above
                continue;
            pairs++;
            moved += !same_rows(&sampled.items[i], 1, &sampled.items[k], 1);
        }
    }
    cr_expect(pairs > 8 && moved + 1 >= pairs, "%zu of %zu moved", moved, pairs);
    free_masks(&sampled);
    free_masks(&again);
    free_masks(&other);
    free_masks(&top);
    atedm_request_finish(&request);
    pipeline_bench_close(&b);
}

// Of what a request says, only the seed counts; of where the image stands, nothing.
Test(pipeline, random_masks_are_the_seed_s)
{
    pipeline_bench b = pipeline_bench_open("cpu", ATEDM_F32);
    atedm_request many = make_half(2), one = make_half(1);
    masks batch = collect_masks(&b, &many), alone = collect_masks(&b, &one);
    expect_same_masks(&alone, &batch, 0, "first of two");
    free_masks(&alone);
    one.seed++;
    alone = collect_masks(&b, &one);
    expect_same_masks(&alone, &batch, 1, "second of two");
    one.prompt[0] = 'b';
    one.guidance_scale = 1;
    one.prune.recovery = ATEDM_RECOVER_NEAREST;
    masks other = collect_masks(&b, &one);
    expect_same_masks(&other, &alone, 0, "another request");
    free_masks(&batch);
    free_masks(&alone);
    free_masks(&other);
    atedm_request_finish(&many);
    atedm_request_finish(&one);
    pipeline_bench_close(&b);
}

static masks reference;

static void has_the_reference_s_masks(const pipeline_bench *b)
{
    atedm_request request = make_half(1);
    masks m = collect_masks(b, &request);
    if (!reference.n) {
        reference = m;
    } else {
        expect_same_masks(&m, &reference, 0, atedm_device_backend(b->device));
        free_masks(&m);
    }
    atedm_request_finish(&request);
}

Test(pipeline, random_masks_are_the_same_everywhere)
{
    pipeline_bench_on("ref", ATEDM_F32, has_the_reference_s_masks);
    pipeline_bench_on("ref", ATEDM_F16, has_the_reference_s_masks);
    pipeline_bench_on("cpu", ATEDM_F32, has_the_reference_s_masks);
    pipeline_bench_on("cpu", ATEDM_BF16, has_the_reference_s_masks);
    free_masks(&reference);
}

Test(pipeline, random_masks_depend_on_the_layer)
{
    pipeline_bench b = pipeline_bench_open("cpu", ATEDM_F32);
    atedm_request request = make_half(1);
    masks first = collect_masks(&b, &request);
    request.prune.prune_after[0] = 1;
    masks second = collect_masks(&b, &request);
    size_t compared = 0;
    for (size_t i = 0; i < second.n; i++) // blocks of one layer are not among them
        for (size_t k = 0; k < first.n; k++)
            if (!strcmp(second.items[i].name, first.items[k].name) && second.items[i].kept >= 8) {
                cr_expect(!same_rows(&second.items[i], 0, &first.items[k], 0));
                compared++;
            }
    cr_expect_gt(compared, 8);
    free_masks(&first);
    free_masks(&second);
    atedm_request_finish(&request);
    pipeline_bench_close(&b);
}

// ---- progress and refusals

static bool stop_after_two(void *user, int step, int steps)
{
    *(int *)user = step;
    return step < 2;
}

Test(pipeline, a_canceled_request_stops_between_steps)
{
    pipeline_bench b = pipeline_bench_open("cpu", ATEDM_F32);
    atedm_request request = pipeline_bench_request("off");
    atedm_generation *g = NULL;
    atedm_timing timing;
    atedm_error err = {0};
    uint8_t *rgb = malloc(BYTES);
    int last = -1;
    cr_assert_eq(atedm_generation_create(b.pipeline, &request, NULL, NULL, NULL, &g, &err),
                 ATEDM_OK);
    cr_expect_eq(atedm_generation_run(g, stop_after_two, &last, &rgb, &timing, &err),
                 ATEDM_ERR_CANCELED);
    cr_expect_eq(last, 2);
    cr_expect_eq(atedm_generation_steps_done(g, 0), 2);
    atedm_generation_destroy(g);
    free(rgb);
    atedm_request_finish(&request);
    pipeline_bench_close(&b);
}

static void expect_refused(const pipeline_bench *b, const atedm_request *request, const char *word)
{
    atedm_generation *g = NULL;
    atedm_error err = {0};
    cr_expect_neq(atedm_generation_create(b->pipeline, request, NULL, NULL, NULL, &g, &err),
                  ATEDM_OK);
    cr_expect(strstr(err.message, word), "\"%s\" does not say \"%s\"", err.message, word);
    cr_expect_null(g);
}

Test(pipeline, wrong_requests_are_refused)
{
    pipeline_bench b = pipeline_bench_open("cpu", ATEDM_F32);
    atedm_request request = pipeline_bench_request("off");
    request.width = 60;
    expect_refused(&b, &request, "multiples of 8");
    request.width = SIDE;
    request.height = 0;
    expect_refused(&b, &request, "multiples of 8");
    request.height = SIDE;
    snprintf(request.sampler, sizeof request.sampler, "ddim");
    expect_refused(&b, &request, "ddim");
    atedm_request_finish(&request);
    request = pipeline_bench_request("at-edm");
    request.prune.ratio = NAN;
    request.prune.flops_budget = 0.01;
    expect_refused(&b, &request, "budget");
    atedm_request_finish(&request);
    pipeline_bench_close(&b);
}

// A long text is cut, and the caller learns where.
Test(pipeline, a_long_prompt_is_cut)
{
    pipeline_bench b = pipeline_bench_open("cpu", ATEDM_F32);
    atedm_request request = pipeline_bench_request("off");
    free(request.prompt);
    request.prompt = malloc(4001);
    for (int i = 0; i < 4000; i++)
        request.prompt[i] = i % 5 ? 'a' : ' ';
    request.prompt[4000] = '\0';
    atedm_generation *g = NULL;
    atedm_error err = {0};
    cr_assert_eq(atedm_generation_create(b.pipeline, &request, NULL, NULL, NULL, &g, &err),
                 ATEDM_OK);
    cr_assert_eq(atedm_generation_encode(g, &err), ATEDM_OK, "%s", err.message);
    cr_expect_lt(atedm_generation_encoded(g, 0), 4000);
    cr_expect_gt(atedm_generation_encoded(g, 0), 10);
    cr_expect_eq(atedm_generation_encoded(g, 1), strlen("blurry"));
    atedm_generation_destroy(g);
    atedm_request_finish(&request);
    pipeline_bench_close(&b);
}
