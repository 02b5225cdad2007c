// Selection by chance: known values of the generator, the same on every backend; no token, pair of
// draws or number in a key that it favours; with weights, tokens as often as arithmetic says.
#include "core/base/splitmix.h"
#include "core/unet.h"
#include "kernels/kernels.h"

#include <criterion/criterion.h>
#include <math.h>
#include <string.h>

#define TOKENS 64
#define KEEP 19
#define DRAWS 4000

typedef struct fixture {
    atedm_device *device;
    atedm_stream *s;
    float *scores;   // [device] [2 * TOKENS]
    float *weights;  // [device] [2 * TOKENS]
    uint64_t *draws; // [device] [2]
    int32_t *kept;   // [device] [2 * KEEP]
} fixture;

static fixture open_fixture(const char *backend, atedm_dtype dtype)
{
    fixture f = {0};
    void *memory = NULL;
    cr_assert_eq(atedm_device_create(backend, &f.device, NULL), ATEDM_OK);
    cr_assert_eq(atedm_stream_create(f.device, dtype, &f.s, NULL), ATEDM_OK);
    cr_assert_eq(atedm_device_alloc(f.device, 2 * TOKENS * sizeof *f.scores, &memory, NULL),
                 ATEDM_OK);
    f.scores = memory;
    cr_assert_eq(atedm_device_alloc(f.device, 2 * TOKENS * sizeof *f.weights, &memory, NULL),
                 ATEDM_OK);
    f.weights = memory;
    cr_assert_eq(atedm_device_alloc(f.device, 2 * sizeof *f.draws, &memory, NULL), ATEDM_OK);
    f.draws = memory;
    cr_assert_eq(atedm_device_alloc(f.device, 2 * KEEP * sizeof *f.kept, &memory, NULL), ATEDM_OK);
    f.kept = memory;
    return f;
}

static void close_fixture(fixture *f)
{
    atedm_device_free(f->device, f->scores);
    atedm_device_free(f->device, f->weights);
    atedm_device_free(f->device, f->draws);
    atedm_device_free(f->device, f->kept);
    atedm_stream_destroy(f->s);
    atedm_device_destroy(f->device);
}

static void draw(const fixture *f, uint64_t number, uint64_t salt, const float *weights,
                 int64_t first, float ret_scores[TOKENS])
{
    const uint64_t draws[] = {~number, number};
    const atedm_random_span span = {.first = first, .n = TOKENS, .draw = 1, .salt = salt};
    atedm_upload(f->s, draws, f->draws, sizeof draws);
    if (weights)
        atedm_upload(f->s, weights, f->weights + first, TOKENS * sizeof *weights);
    atedm_random_scores(f->s, f->draws, weights ? f->weights : NULL, f->scores, &span, 1);
    atedm_download(f->s, f->scores + first, ret_scores, TOKENS * sizeof *ret_scores);
    cr_assert_eq(atedm_stream_sync(f->s, NULL), ATEDM_OK);
}

// The first outputs from 1234567 that implementations of SplitMix64 are checked with.
static const uint64_t known[] = {6457827717110365317u, 3203168211198807973u, 9817491932198370423u,
                                 4593380528125082431u, 16408922859458223821u};
#define N_KNOWN (sizeof known / sizeof *known)
// What output 37 from it is 1234567 of: SplitMix64 can be undone step by step.
#define NUMBER 14355202054749026949u
#define SALT 37

static void known_values(const char *backend, atedm_dtype dtype)
{
    float scores[TOKENS], moved[TOKENS], weights[TOKENS], weighted[TOKENS];
    fixture f = open_fixture(backend, dtype);
    draw(&f, NUMBER, SALT, NULL, 0, scores);
    for (size_t i = 0; i < N_KNOWN; i++)
        cr_expect_eq((double)scores[i], ((double)(known[i] >> 41) + 0.5) / 8388608, "%s %zu",
                     backend, i);
    draw(&f, NUMBER, SALT, NULL, 5, moved);
    for (int i = 0; i < TOKENS; i++) // where a sample stands does not matter
        cr_expect_eq(scores[i], moved[i], "%s %d", backend, i);
    for (int i = 0; i < TOKENS; i++)
        weights[i] = (float)(i % 7) / 64; // zeros among them
    draw(&f, NUMBER, SALT, weights, 3, weighted);
    for (int i = 0; i < TOKENS; i++) {
        double right = (double)weights[i] / -log((double)scores[i]);
        cr_expect(fabs((double)weighted[i] - right) <= 1e-6 * right, "%s %d", backend, i);
    }
    close_fixture(&f);
}

Test(random_scores, have_the_known_values_everywhere)
{
    known_values("ref", ATEDM_F32);
    known_values("ref", ATEDM_BF16);
    known_values("ref", ATEDM_F16);
    known_values("cpu", ATEDM_F32);
    for (size_t i = 0; i < N_KNOWN; i++)
        cr_expect_eq(atedm_splitmix(1234567, i), known[i]);
    cr_expect_eq(atedm_splitmix(NUMBER, SALT), 1234567);
}

// As core/prune.c makes it.
static atedm_random_span span_of(uint64_t block, uint64_t layer)
{
    return (atedm_random_span){.n = TOKENS, .salt = block * ATEDM_UNET_MAX_LAYERS + layer};
}

static uint64_t key_of(uint64_t seed, uint64_t step, uint64_t block, uint64_t layer)
{
    return atedm_splitmix(atedm_splitmix(seed, step), span_of(block, layer).salt);
}

typedef struct statistics {
    int counts[TOKENS]; // how often each token was kept
    bool before[TOKENS];
    double overlap; // of neighbouring draws, summed up
    double places;  // of the kept tokens, summed up
} statistics;

static void tally(const fixture *f, uint64_t number, atedm_random_span span, const float *weights,
                  statistics *sum)
{
    int32_t kept[KEEP];
    bool now[TOKENS] = {false};
    const atedm_prune_span selection = {.first = 0, .n = TOKENS, .kept_first = 0, .keep = KEEP};
    atedm_upload(f->s, &number, f->draws, sizeof number);
    atedm_random_scores(f->s, f->draws, weights, f->scores, &span, 1);
    atedm_select_tokens(f->s, f->scores, f->kept, &selection, 1);
    atedm_download(f->s, f->kept, kept, sizeof kept);
    cr_assert_eq(atedm_stream_sync(f->s, NULL), ATEDM_OK);
    for (int i = 0; i < KEEP; i++) {
        cr_assert(kept[i] > (i ? kept[i - 1] : -1) && kept[i] < TOKENS);
        now[kept[i]] = true;
        sum->counts[kept[i]]++;
        sum->overlap += sum->before[kept[i]];
        sum->places += kept[i];
    }
    memcpy(sum->before, now, sizeof now);
}

// Bounds are five standard deviations or more; the draws are the same each time.
static void check_statistics(const statistics *sum, const char *what)
{
    const double p = (double)KEEP / TOKENS;
    double chi_square = 0; // of TOKENS - 1 degrees of freedom
    for (int i = 0; i < TOKENS; i++) {
        double off = sum->counts[i] - DRAWS * p;
        chi_square += off * off / (DRAWS * p * (1 - p)) * (TOKENS - 1) / TOKENS;
    }
    cr_expect(chi_square >= 20 && chi_square <= 130, "%s: chi-square %g", what, chi_square);
    double place = sum->places / DRAWS / KEEP; // deviation of one draw's mean: 3.6
    cr_expect(fabs(place - (TOKENS - 1) / 2.0) <= 0.3, "%s: mean place %g", what, place);
    double overlap = sum->overlap / (DRAWS - 1); // deviation of one draw's: 2.0
    cr_expect(fabs(overlap - KEEP * p) <= 0.2, "%s: overlap %g", what, overlap);
}

// Neighbours in one of the numbers that a key is made from keep independent subsets.
Test(random_scores, keep_uniformly_random_subsets)
{
    static const char *const names[] = {"seeds", "steps", "blocks", "layers"};
    fixture f = open_fixture("cpu", ATEDM_F32);
    for (size_t which = 0; which < 4; which++) {
        statistics sum = {.overlap = 0};
        for (uint64_t i = 0; i < DRAWS; i++) {
            uint64_t numbers[4] = {42, 3, 2, 0};
            numbers[which] += i;
            tally(&f, atedm_splitmix(numbers[0], numbers[1]), span_of(numbers[2], numbers[3]), NULL,
                  &sum);
        }
        check_statistics(&sum, names[which]);
    }
    close_fixture(&f);
}

// The first token that is taken is token i with a chance of w_i / sum(w).
Test(random_scores, take_tokens_by_their_weights)
{
    float weights[TOKENS], scores[TOKENS];
    int counts[TOKENS] = {0};
    double sum = 0;
    for (int i = 0; i < TOKENS; i++)
        sum += (double)(weights[i] = (float)(i % 5) * 0x1p-10F);
    fixture f = open_fixture("cpu", ATEDM_F32);
    for (uint64_t k = 0; k < DRAWS; k++) {
        int best = 0;
        draw(&f, k, 0, weights, 0, scores);
        for (int i = 1; i < TOKENS; i++)
            best = scores[i] > scores[best] ? i : best;
        counts[best]++;
    }
    for (int i = 0; i < TOKENS; i++) {
        double p = (double)weights[i] / sum, off = counts[i] - DRAWS * p;
        cr_expect(off * off <= 25 * DRAWS * p * (1 - p), "token %d: %d times of %g", i, counts[i],
                  DRAWS * p); // five standard deviations; 0 of those that weigh nothing
    }
    close_fixture(&f);
}

// Numbers that differ in place only, and small ones that add up to the same, make other keys.
Test(random_scores, keys_of_a_request_are_all_different)
{
    enum { SEEDS = 4, STEPS = 12, BLOCKS = 11, LAYERS = 5, ALL = SEEDS * STEPS * BLOCKS * LAYERS };
    static uint64_t keys[ALL];
    size_t n = 0;
    for (uint64_t seed = 0; seed < SEEDS; seed++)
        for (uint64_t step = 0; step < STEPS; step++)
            for (uint64_t block = 0; block < BLOCKS; block++)
                for (uint64_t layer = 0; layer < LAYERS; layer++)
                    keys[n++] = key_of(seed, step, block, layer);
    for (size_t i = 0; i < n; i++)
        for (size_t k = 0; k < i; k++)
            cr_assert_neq(keys[i], keys[k]);
}
