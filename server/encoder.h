// Pictures to PNG files on a thread of its own, so that whoever computes does not stand still for
// it. Pictures go in and files come out, in the same order; what a file is for, and whether anybody
// still wants it, is the caller's to know. All calls are of one thread, which owns everything else:
// an encoding belongs to the caller, then to the encoder from the start until it is taken back.
#ifndef ATEDM_ENCODER_H
#define ATEDM_ENCODER_H

#include "core/png_settings.h"
#include "server/worker_message.h"

#include <stdbool.h>

// Bytes of RGB that wait or are being encoded: 21 pictures of 1024 x 1024. One picture alone may
// have more.
#define ATEDM_ENCODER_MAX_BYTES ((size_t)64 << 20)

// A picture on its way to a file.
typedef struct atedm_encoding {
    uint64_t job;
    bool preview; // else a picture of the result, with settings
    int number;   // of the image, or the preview's step
    uint8_t *rgb; // owned, [height, width, 3]; NULL once it is encoded
    int64_t width, height;
    atedm_png_settings settings; // owned

    // The outcome.
    atedm_status status;
    atedm_error error;
    atedm_worker_image file; // owned
    double seconds;          // that it took

    struct atedm_encoding *next;
} atedm_encoding;

// NULL, and nothing taken, where there is no memory.
atedm_encoding *atedm_encoding_create(uint8_t *take_rgb, int64_t width, int64_t height);
void atedm_encoding_destroy(atedm_encoding *encoding); // NULL allowed
// Encodes here and now.
void atedm_encoding_run(atedm_encoding *encoding);

typedef struct atedm_encoder atedm_encoder;

// `wake` is called on the encoder's thread whenever there is something to take.
ATEDM_MUST_CHECK atedm_status atedm_encoder_create(void (*wake)(void *user), void *user,
                                                   atedm_encoder **ret_encoder, atedm_error *err);
// Waits for the picture that is being encoded; all others are gone.
void atedm_encoder_destroy(atedm_encoder *encoder); // NULL allowed

// False where the encoder is full, and nothing is taken then. It never waits: what to do instead,
// the caller knows better (a preview can be left out, a picture be encoded where it is).
ATEDM_MUST_CHECK bool atedm_encoder_start(atedm_encoder *encoder, atedm_encoding *take_encoding);
// The next that is encoded, now the caller's; NULL: none.
atedm_encoding *atedm_encoder_take(atedm_encoder *encoder);
// Nothing of the job comes back from here on.
void atedm_encoder_cancel(atedm_encoder *encoder, uint64_t job);

#endif
