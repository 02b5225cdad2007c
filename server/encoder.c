// The encoder and its thread: see encoder.h.
//
// The thread, "atedm-encoder", takes an encoding from the list `waiting`, owns it while it works on
// it, and appends it to the list `done`.
#include "server/encoder.h"

#include "core/base/clock.h"
#include "core/png.h"

#include <pthread.h>
#include <stdlib.h>

// A queue: appended at `end`, taken from `first`.
typedef struct list {
    atedm_encoding *first, **end;
} list;

struct atedm_encoder {
    void (*wake)(void *user);
    void *user;
    pthread_t thread;
    pthread_cond_t changed; // `waiting` is not empty, or `ending` is set
    pthread_mutex_t mutex;  // guards all members below
    list waiting, done;
    bool busy;     // the thread is encoding a picture
    uint64_t job;  // the job of that picture
    bool canceled; // discard that picture when it is encoded
    size_t bytes;  // of RGB, waiting or in work
    bool ending;   // atedm_encoder_destroy has been called
};

// ---- one picture

static size_t rgb_bytes(const atedm_encoding *encoding)
{
    return 3 * (size_t)(encoding->width * encoding->height);
}

atedm_encoding *atedm_encoding_create(uint8_t *take_rgb, int64_t width, int64_t height)
{
    atedm_encoding *encoding = calloc(1, sizeof *encoding);
    if (!encoding)
        return NULL;
    encoding->rgb = take_rgb;
    encoding->width = width;
    encoding->height = height;
    return encoding;
}

void atedm_encoding_destroy(atedm_encoding *encoding)
{
    if (!encoding)
        return;
    free(encoding->rgb);
    atedm_png_settings_finish(&encoding->settings);
    free(encoding->file.png);
    free(encoding);
}

void atedm_encoding_run(atedm_encoding *e)
{
    atedm_buffer png;
    double start = atedm_clock_monotonic();
    atedm_buffer_init(&png, (size_t)atedm_worker_image_max(e->width * e->height));
    e->status = e->preview ? atedm_png_encode(e->rgb, e->width, e->height, NULL, 0, &png, &e->error)
                           : atedm_png_encode_settings(e->rgb, e->width, e->height, &e->settings,
                                                       &png, &e->error);
    free(e->rgb);
    e->rgb = NULL;
    e->seconds += atedm_clock_monotonic() - start;
    if (e->status)
        atedm_buffer_finish(&png);
    else
        e->file = (atedm_worker_image){.png = png.data, .size = png.size};
}

// ---- lists

static void clear(list *l)
{
    l->first = NULL;
    l->end = &l->first;
}

static void append(list *l, atedm_encoding *encoding)
{
    encoding->next = NULL;
    *l->end = encoding;
    l->end = &encoding->next;
}

static atedm_encoding *take_first(list *l)
{
    atedm_encoding *first = l->first;
    if (first && !(l->first = first->next))
        l->end = &l->first;
    return first;
}

// Destroys the job's encodings; returns how many bytes of RGB they had.
static size_t drop(list *l, uint64_t job)
{
    size_t bytes = 0;
    atedm_encoding **place = &l->first;
    for (atedm_encoding *e; (e = *place);) {
        if (e->job != job) {
            place = &e->next;
            continue;
        }
        *place = e->next;
        bytes += rgb_bytes(e);
        atedm_encoding_destroy(e);
    }
    l->end = place;
    return bytes;
}

static void destroy_all(list *l)
{
    for (atedm_encoding *e; (e = take_first(l));)
        atedm_encoding_destroy(e);
}

// ---- the thread

// Waits for an encoding, and returns it. NULL: the thread has to end.
static atedm_encoding *wait_for_next(atedm_encoder *encoder)
{
    pthread_mutex_lock(&encoder->mutex);
    while (!encoder->waiting.first && !encoder->ending)
        pthread_cond_wait(&encoder->changed, &encoder->mutex);
    atedm_encoding *next = encoder->ending ? NULL : take_first(&encoder->waiting);
    if (next) {
        encoder->busy = true;
        encoder->job = next->job;
        encoder->canceled = false;
    }
    pthread_mutex_unlock(&encoder->mutex);
    return next;
}

static void put_back(atedm_encoder *encoder, atedm_encoding *encoding)
{
    pthread_mutex_lock(&encoder->mutex);
    bool wanted = !encoder->canceled;
    encoder->busy = false;
    encoder->bytes -= rgb_bytes(encoding);
    if (wanted)
        append(&encoder->done, encoding);
    pthread_mutex_unlock(&encoder->mutex);
    if (wanted)
        encoder->wake(encoder->user);
    else
        atedm_encoding_destroy(encoding);
}

static void *encoder_main(void *user)
{
    atedm_encoder *encoder = user;
    for (atedm_encoding *e; (e = wait_for_next(encoder));) {
        atedm_encoding_run(e);
        put_back(encoder, e);
    }
    return NULL;
}

// ---- the caller's side

atedm_status atedm_encoder_create(void (*wake)(void *user), void *user, atedm_encoder **ret_encoder,
                                  atedm_error *err)
{
    atedm_encoder *encoder = calloc(1, sizeof *encoder);
    if (!encoder)
        return atedm_error_set(err, ATEDM_ERR_NOMEM, "no memory for an encoder");
    encoder->wake = wake;
    encoder->user = user;
    clear(&encoder->waiting);
    clear(&encoder->done);
    pthread_mutex_init(&encoder->mutex, NULL); // these cannot fail
    pthread_cond_init(&encoder->changed, NULL);
    if (pthread_create(&encoder->thread, NULL, encoder_main, encoder)) {
        pthread_cond_destroy(&encoder->changed);
        pthread_mutex_destroy(&encoder->mutex);
        free(encoder);
        return atedm_error_set(err, ATEDM_ERR_NOMEM, "no thread to encode with");
    }
    pthread_setname_np(encoder->thread, "atedm-encoder");
    *ret_encoder = encoder;
    return ATEDM_OK;
}

void atedm_encoder_destroy(atedm_encoder *encoder)
{
    if (!encoder)
        return;
    pthread_mutex_lock(&encoder->mutex);
    encoder->ending = true;
    pthread_cond_signal(&encoder->changed);
    pthread_mutex_unlock(&encoder->mutex);
    pthread_join(encoder->thread, NULL);
    destroy_all(&encoder->waiting);
    destroy_all(&encoder->done);
    pthread_cond_destroy(&encoder->changed);
    pthread_mutex_destroy(&encoder->mutex);
    free(encoder);
}

bool atedm_encoder_start(atedm_encoder *encoder, atedm_encoding *take_encoding)
{
    size_t bytes = rgb_bytes(take_encoding);
    pthread_mutex_lock(&encoder->mutex);
    bool fits = encoder->bytes == 0 || (encoder->bytes < ATEDM_ENCODER_MAX_BYTES &&
                                        bytes <= ATEDM_ENCODER_MAX_BYTES - encoder->bytes);
    if (fits) {
        encoder->bytes += bytes;
        append(&encoder->waiting, take_encoding);
        pthread_cond_signal(&encoder->changed);
    }
    pthread_mutex_unlock(&encoder->mutex);
    return fits;
}

atedm_encoding *atedm_encoder_take(atedm_encoder *encoder)
{
    pthread_mutex_lock(&encoder->mutex);
    atedm_encoding *encoding = take_first(&encoder->done);
    pthread_mutex_unlock(&encoder->mutex);
    return encoding;
}

void atedm_encoder_cancel(atedm_encoder *encoder, uint64_t job)
{
    pthread_mutex_lock(&encoder->mutex);
    encoder->bytes -= drop(&encoder->waiting, job);
    drop(&encoder->done, job);
    if (encoder->busy && encoder->job == job)
        encoder->canceled = true;
    pthread_mutex_unlock(&encoder->mutex);
}
