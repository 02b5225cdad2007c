// PNG files with text chunks.
#ifndef ATEDM_PNG_H
#define ATEDM_PNG_H

#include "core/base/memory.h"
#include "core/base/status.h"

#include <stdint.h>

#define ATEDM_PNG_MAX_SIDE 65536 // pixels
#define ATEDM_PNG_MAX_TEXTS 8    // text chunks of a file

typedef struct atedm_png_text {
    const char *key;   // 1..79 Latin-1 characters
    const char *value; // UTF-8, of any length; written as iTXt (uncompressed) where it is not plain
                       // ASCII, else tEXt
} atedm_png_text;

// RGB, 8 bits, [height, width, 3]. The bytes depend on the input alone. The file is appended to
// `ret_png`, which the caller has initialised with the size that is too much.
ATEDM_MUST_CHECK atedm_status atedm_png_encode(const uint8_t *rgb, int64_t width, int64_t height,
                                               const atedm_png_text *texts, size_t n_texts,
                                               atedm_buffer *ret_png, atedm_error *err);

#endif
