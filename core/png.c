// PNG files, by libpng: see png.h. No other file uses libpng.
#include "core/png.h"

#include <png.h>
#include <stdlib.h>
#include <string.h>

#define COMPRESSION_LEVEL 6 // fixed, so that the bytes do not depend on a library's default

typedef struct encoder {
    atedm_buffer *out;
    atedm_status status;
    atedm_error *err;
} encoder;

// libpng calls this on every failure; it must not return.
static void fail(png_structp png, png_const_charp message)
{
    encoder *e = png_get_error_ptr(png);
    if (!e->status)
        e->status = atedm_error_set(e->err, ATEDM_ERR_INVALID, "png: %s", message);
    png_longjmp(png, 1);
}

static void ignore_warning(png_structp png, png_const_charp message)
{
    (void)png;
    (void)message;
}

static void append(png_structp png, png_bytep data, size_t size)
{
    encoder *e = png_get_io_ptr(png);
    e->status = atedm_buffer_append(e->out, data, size);
    if (e->status) {
        atedm_error_set(e->err, e->status, "png: more than the limit of %zu bytes, or no memory",
                        e->out->max);
        png_error(png, "output");
    }
}

static void flush(png_structp png)
{
    (void)png; // append() has written everything already
}

static bool is_plain(const char *text)
{
    for (; *text; text++)
        if (((unsigned char)*text < 0x20 && *text != '\n') || (unsigned char)*text > 0x7e)
            return false;
    return true;
}

// Makes a text chunk. It is never compressed: programs that read generation settings search the
// file for the plain bytes.
static png_text chunk_of(const atedm_png_text *text)
{
    static char no_language[] = "";
    png_text chunk = {.key = (char *)text->key, .text = (char *)text->value};
    if (is_plain(text->value)) {
        chunk.compression = PNG_TEXT_COMPRESSION_NONE;
        chunk.text_length = strlen(text->value);
    } else {
        chunk.compression = PNG_ITXT_COMPRESSION_NONE;
        chunk.itxt_length = strlen(text->value);
        chunk.lang = no_language;
        chunk.lang_key = no_language;
    }
    return chunk;
}

static void write_png(png_structp png, png_infop info, const uint8_t *rgb, int64_t width,
                      int64_t height, const png_text *chunks, size_t n_chunks)
{
    png_set_IHDR(png, info, (png_uint_32)width, (png_uint_32)height, 8, PNG_COLOR_TYPE_RGB,
                 PNG_INTERLACE_NONE, PNG_COMPRESSION_TYPE_DEFAULT, PNG_FILTER_TYPE_DEFAULT);
    png_set_compression_level(png, COMPRESSION_LEVEL);
    png_set_text(png, info, chunks, (int)n_chunks);
    png_write_info(png, info);
    for (int64_t y = 0; y < height; y++)
        png_write_row(png, rgb + (size_t)y * (size_t)width * 3);
    png_write_end(png, info);
}

// Writes the file. libpng's failures longjmp into this function's frame, so it owns nothing; the
// caller owns everything that has to be freed.
static atedm_status run(encoder *e, png_structp png, png_infop info, const uint8_t *rgb,
                        int64_t width, int64_t height, const png_text *chunks, size_t n_chunks)
{
    if (setjmp(png_jmpbuf(png)))
        return e->status;
    png_set_write_fn(png, e, append, flush);
    write_png(png, info, rgb, width, height, chunks, n_chunks);
    return ATEDM_OK;
}

static atedm_status check(int64_t width, int64_t height, const atedm_png_text *texts,
                          size_t n_texts, atedm_error *err)
{
    if (width < 1 || height < 1 || width > ATEDM_PNG_MAX_SIDE || height > ATEDM_PNG_MAX_SIDE)
        return atedm_error_set(err, ATEDM_ERR_INVALID,
                               "png: %lld x %lld: both sides must be within 1..%d",
                               (long long)width, (long long)height, ATEDM_PNG_MAX_SIDE);
    if (n_texts > ATEDM_PNG_MAX_TEXTS)
        return atedm_error_set(err, ATEDM_ERR_LIMIT, "png: %zu texts, more than the limit of %d",
                               n_texts, ATEDM_PNG_MAX_TEXTS);
    for (size_t i = 0; i < n_texts; i++) {
        size_t size = strlen(texts[i].key);
        if (size < 1 || size > 79)
            return atedm_error_set(err, ATEDM_ERR_INVALID,
                                   "png: a text's key has %zu characters, not 1..79", size);
    }
    return ATEDM_OK;
}

atedm_status atedm_png_encode(const uint8_t *rgb, int64_t width, int64_t height,
                              const atedm_png_text *texts, size_t n_texts, atedm_buffer *ret_png,
                              atedm_error *err)
{
    encoder e = {.out = ret_png, .err = err};
    size_t size_before = ret_png->size;
    atedm_status status = check(width, height, texts, n_texts, err);
    if (status)
        return status;
    png_text chunks[ATEDM_PNG_MAX_TEXTS];
    for (size_t i = 0; i < n_texts; i++)
        chunks[i] = chunk_of(&texts[i]);
    png_structp png = png_create_write_struct(PNG_LIBPNG_VER_STRING, &e, fail, ignore_warning);
    png_infop info = png ? png_create_info_struct(png) : NULL;
    if (info)
        status = run(&e, png, info, rgb, width, height, chunks, n_texts);
    else
        status = atedm_error_set(err, ATEDM_ERR_NOMEM, "png: no memory");
    png_destroy_write_struct(&png, &info);
    if (status)
        ret_png->size = size_before;
    return status;
}
