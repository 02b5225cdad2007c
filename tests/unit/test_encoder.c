// The encoder: files are those that are made on the spot, in order; what is canceled never comes;
// what is too much is refused.
#include "server/encoder.h"

#include "core/png.h"

#include <criterion/criterion.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#define SIDE 24
#define MANY 200

// Wakes that were heard.
typedef struct ear {
    pthread_mutex_t mutex; // guards the count
    pthread_cond_t changed;
    size_t count;
} ear;

static void hear(void *user)
{
    ear *e = user;
    pthread_mutex_lock(&e->mutex);
    e->count++;
    pthread_cond_signal(&e->changed);
    pthread_mutex_unlock(&e->mutex);
}

static void wait_for(ear *e, size_t count)
{
    pthread_mutex_lock(&e->mutex);
    while (e->count < count)
        pthread_cond_wait(&e->changed, &e->mutex);
    pthread_mutex_unlock(&e->mutex);
}

static atedm_encoder *open_encoder(ear *e)
{
    atedm_encoder *encoder = NULL;
    *e = (ear){.mutex = PTHREAD_MUTEX_INITIALIZER, .changed = PTHREAD_COND_INITIALIZER};
    cr_assert_eq(atedm_encoder_create(hear, e, &encoder, NULL), ATEDM_OK);
    return encoder;
}

static uint8_t *make_rgb(int number, int64_t width, int64_t height)
{
    size_t bytes = 3 * (size_t)(width * height);
    uint8_t *rgb = malloc(bytes);
    for (size_t i = 0; i < bytes; i++)
        rgb[i] = (uint8_t)(i * i / 7 + (size_t)number);
    return rgb;
}

static atedm_encoding *make(uint64_t job, int number, int64_t side)
{
    atedm_encoding *e = atedm_encoding_create(make_rgb(number, side, side), side, side);
    e->job = job;
    e->number = number;
    e->preview = number % 2;
    if (!e->preview)
        e->settings = (atedm_png_settings){strdup("a fox\nSteps: 4"), strdup("{\"version\":1}")};
    return e;
}

static void start(atedm_encoder *encoder, atedm_encoding *e)
{
    cr_assert(atedm_encoder_start(encoder, e));
}

static void expect_file(const atedm_encoding *e)
{
    const atedm_png_text texts[] = {{"parameters", "a fox\nSteps: 4"},
                                    {"atedm", "{\"version\":1}"}};
    uint8_t *rgb = make_rgb(e->number, e->width, e->height);
    atedm_buffer expected;
    atedm_buffer_init(&expected, 1u << 20);
    cr_assert_eq(
        atedm_png_encode(rgb, e->width, e->height, texts, e->preview ? 0 : 2, &expected, NULL),
        ATEDM_OK);
    cr_expect_eq(e->status, ATEDM_OK);
    cr_assert_eq(e->file.size, expected.size);
    cr_expect(!memcmp(e->file.png, expected.data, expected.size));
    cr_expect_null(e->rgb);
    cr_expect_gt(e->seconds, 0);
    free(rgb);
    atedm_buffer_finish(&expected);
}

Test(encoder, files_come_in_order_and_are_those_of_the_spot)
{
    ear e;
    atedm_encoder *encoder = open_encoder(&e);
    for (int i = 0; i < MANY; i++)
        start(encoder, make(1, i, SIDE));
    wait_for(&e, MANY);
    for (int i = 0; i < MANY; i++) {
        atedm_encoding *done = atedm_encoder_take(encoder);
        cr_assert_not_null(done);
        cr_expect_eq(done->number, i);
        expect_file(done);
        atedm_encoding_destroy(done);
    }
    cr_expect_null(atedm_encoder_take(encoder));
    atedm_encoder_destroy(encoder);
}

// Jobs 0 and 1 take turns; 0 is canceled with some done, one being encoded, and some that wait.
Test(encoder, nothing_of_a_canceled_job_comes)
{
    ear e;
    for (size_t done_before = 0; done_before < 40; done_before += 3) {
        atedm_encoder *encoder = open_encoder(&e);
        for (int i = 0; i < 2 * 40; i++)
            start(encoder, make((uint64_t)i % 2, i / 2, SIDE));
        wait_for(&e, done_before);
        atedm_encoder_cancel(encoder, 0);
        for (int next = 0; next < 40;) {
            atedm_encoding *done = atedm_encoder_take(encoder);
            if (!done)
                continue;
            cr_expect_eq(done->job, 1);
            cr_expect_eq(done->number, next++);
            atedm_encoding_destroy(done);
        }
        // The job may come again.
        start(encoder, make(0, 7, SIDE));
        atedm_encoding *again;
        while (!(again = atedm_encoder_take(encoder)))
            ;
        cr_expect_eq(again->job, 0);
        expect_file(again);
        atedm_encoding_destroy(again);
        atedm_encoder_destroy(encoder);
    }
}

Test(encoder, what_waits_is_bounded)
{
    ear e;
    atedm_encoder *encoder = open_encoder(&e);
    const int64_t side = 1024;
    const size_t each = 3 * (size_t)(side * side), fit = ATEDM_ENCODER_MAX_BYTES / each;
    size_t started = 0;
    atedm_encoding *refused = NULL;
    while (!refused && started < 4 * fit) { // starting is far faster than encoding
        atedm_encoding *next = make(1, 0, side);
        if (atedm_encoder_start(encoder, next))
            started++;
        else
            refused = next;
    }
    cr_assert_not_null(refused);
    cr_expect_geq(started, fit);
    cr_expect_not_null(refused->rgb); // still the caller's
    wait_for(&e, started - fit + 1);  // one more is done than had to be: room again
    start(encoder, refused);
    atedm_encoder_cancel(encoder, 1);
    for (size_t i = 0; i < fit - 1; i++) // but for the one that is being encoded
        start(encoder, make(2, 0, side));
    atedm_encoder_destroy(encoder); // with pictures in it
}

// A picture that alone is over the limit is taken where nothing else waits: it would never be.
Test(encoder, one_alone_may_be_over_the_limit)
{
    ear e;
    atedm_encoder *encoder = open_encoder(&e);
    const int64_t width = 16384, height = (int64_t)(ATEDM_ENCODER_MAX_BYTES / 3 / 16384) + 1;
    atedm_encoding *large =
        atedm_encoding_create(calloc(3, (size_t)(width * height)), width, height);
    large->preview = true;
    start(encoder, large);
    atedm_encoding *small = make(1, 1, SIDE);
    cr_expect(!atedm_encoder_start(encoder, small)); // seconds before the large one is done
    atedm_encoding_destroy(small);
    wait_for(&e, 1);
    atedm_encoding *done = atedm_encoder_take(encoder);
    cr_assert_eq(done, large);
    cr_expect_eq(done->status, ATEDM_OK);
    atedm_encoding_destroy(done);
    atedm_encoder_destroy(encoder);
}

Test(encoder, a_picture_that_cannot_be_encoded_says_why)
{
    ear e;
    atedm_encoder *encoder = open_encoder(&e);
    const int64_t wide = ATEDM_PNG_MAX_SIDE + 1;
    atedm_encoding *picture = atedm_encoding_create(calloc(3, (size_t)wide), wide, 1);
    picture->preview = true;
    start(encoder, picture);
    wait_for(&e, 1);
    atedm_encoding *done = atedm_encoder_take(encoder);
    cr_assert_eq(done, picture);
    cr_expect_eq(done->status, ATEDM_ERR_INVALID);
    cr_expect_neq(done->error.message[0], '\0');
    cr_expect_null(done->file.png);
    atedm_encoding_destroy(done);
    atedm_encoder_destroy(encoder);
}
