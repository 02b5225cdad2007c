// PNG files with text chunks.
#ifndef ATEDM_PNG_H
#define ATEDM_PNG_H

#include "core/base/memory.h"
#include "core/base/status.h"

#include <stdint.h>

#define ATEDM_PNG_MAX_SIDE 65536 // pixels
#define ATEDM_PNG_MAX_TEXTS 8    // text chunks in a file

typedef struct atedm_png_text {
    const char *key;   // 1..79 Latin-1 characters
    const char *value; // UTF-8, of any length; plain ASCII is written as tEXt, other texts as
                       // uncompressed iTXt
} atedm_png_text;

// Appends a PNG file to `ret_png`, which the caller has initialised with a maximum size. rgb:
// [host] uint8 [height, width, 3]. The bytes depend only on the input. On failure `ret_png` has the
// size it had. ATEDM_ERR_INVALID: width, height or a key out of range. ATEDM_ERR_LIMIT: too many
// texts.
ATEDM_MUST_CHECK atedm_status atedm_png_encode(const uint8_t *rgb, int64_t width, int64_t height,
                                               const atedm_png_text *texts, size_t n_texts,
                                               atedm_buffer *ret_png, atedm_error *err);

#endif
