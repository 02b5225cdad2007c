// Encodes pictures as PNG files on a thread of its own, so that the thread that computes need not
// wait for zlib. Files come out in the order in which their pictures went in. The caller knows what
// a file is for and whether anybody still wants it.
//
// One thread, the caller's, makes all calls. It owns an encoding until atedm_encoder_start gives it
// to the encoder, and again after atedm_encoder_take.
#ifndef ATEDM_ENCODER_H
#define ATEDM_ENCODER_H

#include "core/png_settings.h"
#include "server/worker_message.h"

#include <stdbool.h>

// The most bytes of RGB that may wait or be in work: 21 pictures of 1024 x 1024. A single picture
// may have more.
#define ATEDM_ENCODER_MAX_BYTES ((size_t)64 << 20)

// A picture on its way to a file.
typedef struct atedm_encoding {
    uint64_t job;
    bool preview; // else it is a picture of the result, and its file gets `settings`
    int number;   // the image's number, or the preview's step
    uint8_t *rgb; // owned, [height, width, 3]; NULL once it is encoded
    int64_t width, height;
    atedm_png_settings settings; // owned

    // The outcome.
    atedm_status status;
    atedm_error error;
    atedm_worker_image file; // owned
    double seconds;          // that making the file took

    struct atedm_encoding *next;
} atedm_encoding;

// Returns NULL, and does not take `take_rgb`, if there is no memory.
atedm_encoding *atedm_encoding_create(uint8_t *take_rgb, int64_t width, int64_t height);
void atedm_encoding_destroy(atedm_encoding *encoding); // NULL allowed
// Encodes the picture on the calling thread. The outcome is in `status`, `error` and `file`.
void atedm_encoding_run(atedm_encoding *encoding);

typedef struct atedm_encoder atedm_encoder;

// Starts the thread, which calls `wake` each time a file is ready to be taken. ATEDM_ERR_NOMEM.
ATEDM_MUST_CHECK atedm_status atedm_encoder_create(void (*wake)(void *user), void *user,
                                                   atedm_encoder **ret_encoder, atedm_error *err);
// Waits for the picture in work, and discards all encodings that the encoder has.
void atedm_encoder_destroy(atedm_encoder *encoder); // NULL allowed

// Gives an encoding to the encoder. Returns false, and takes nothing, if the encoder is full. It
// never waits, since the caller knows better what to do then: it can omit a preview, or encode a
// picture itself.
ATEDM_MUST_CHECK bool atedm_encoder_start(atedm_encoder *encoder, atedm_encoding *take_encoding);
// The next finished encoding, which is now the caller's. NULL: none is finished.
atedm_encoding *atedm_encoder_take(atedm_encoder *encoder);
// Discards all encodings of the job: atedm_encoder_take returns none of them from now on.
void atedm_encoder_cancel(atedm_encoder *encoder, uint64_t job);

#endif
