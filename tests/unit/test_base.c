// core/base: half precision formats, growing buffers, UTF-8, messages.
#include "core/base/file.h"
#include "core/base/memory.h"
#include "core/base/status.h"
#include "core/base/tensor.h"
#include "core/base/utf8.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

Test(tensor, every_half_survives_a_round_trip)
{
    for (uint32_t bits = 0; bits < 0x10000; bits++) {
        float value = atedm_f16_to_f32((uint16_t)bits);
        uint16_t back = atedm_f32_to_f16(value);
        if (isnan(value))
            cr_assert((back & 0x7c00) == 0x7c00 && (back & 0x3ff), "NaN %04x became %04x", bits,
                      back);
        else
            cr_assert(back == bits, "%04x became %04x", bits, back);
    }
}

Test(tensor, every_bfloat_survives_a_round_trip)
{
    for (uint32_t bits = 0; bits < 0x10000; bits++) {
        float value = atedm_bf16_to_f32((uint16_t)bits);
        uint16_t back = atedm_f32_to_bf16(value);
        if (isnan(value))
            cr_assert((back & 0x7f80) == 0x7f80 && (back & 0x7f), "NaN %04x became %04x", bits,
                      back);
        else
            cr_assert(back == bits, "%04x became %04x", bits, back);
    }
}

// Half way between neighbours goes to the even one, a little above goes up.
Test(tensor, halves_round_to_nearest_even)
{
    for (uint32_t bits = 0; bits < 0x7bff; bits++) {
        float low = atedm_f16_to_f32((uint16_t)bits);
        float high = atedm_f16_to_f32((uint16_t)(bits + 1));
        float middle = (low + high) / 2; // exact: one more bit of mantissa
        uint32_t even = bits & 1 ? bits + 1 : bits;
        cr_assert_eq(atedm_f32_to_f16(middle), even);
        cr_assert_eq(atedm_f32_to_f16(nextafterf(middle, INFINITY)), bits + 1);
        cr_assert_eq(atedm_f32_to_f16(nextafterf(middle, 0)), bits);
    }
    cr_assert_eq(atedm_f32_to_f16(65519.996f), 0x7bff);
    cr_assert_eq(atedm_f32_to_f16(65520.0f), 0x7c00);
    cr_assert_eq(atedm_f32_to_f16(-INFINITY), 0xfc00);
}

Test(tensor, bfloats_round_to_nearest_even)
{
    cr_assert_eq(atedm_f32_to_bf16(1.0f + 0x1p-8f), 0x3f80);
    cr_assert_eq(atedm_f32_to_bf16(1.0f + 3 * 0x1p-8f), 0x3f82);
    cr_assert_eq(atedm_f32_to_bf16(1.0f + 0x1p-8f + 0x1p-20f), 0x3f81);
}

// More than one piece of it, from an odd address on and not from the first element.
Test(tensor, convert_a_part_that_is_not_aligned)
{
    enum { ALL = 10000, FIRST = 3 };
    static char bytes[ALL * sizeof(uint16_t) + 1];
    static float found[ALL - FIRST];
    for (int i = 0; i < ALL; i++) {
        uint16_t bits = atedm_f32_to_f16((float)(i % 2048));
        memcpy(bytes + 1 + (size_t)i * sizeof bits, &bits, sizeof bits);
    }
    const atedm_host_tensor t = {.data = bytes + 1, .dtype = ATEDM_F16, .ndim = 1, .shape = {ALL}};
    atedm_host_tensor_convert(&t, FIRST, ALL - FIRST, found, ATEDM_F32);
    for (int i = FIRST; i < ALL; i++)
        cr_assert_eq(found[i - FIRST], (float)(i % 2048));
}

Test(tensor, convert_between_all_pairs)
{
    static const atedm_dtype dtypes[] = {ATEDM_F32, ATEDM_BF16, ATEDM_F16};
    const float values[] = {0, -1.5f, 0.25f, 96, -0.0078125f}; // exact in every one
    for (size_t a = 0; a < 3; a++)
        for (size_t b = 0; b < 3; b++) {
            float from[5], to[5], back[5];
            atedm_convert(values, ATEDM_F32, from, dtypes[a], 5);
            atedm_convert(from, dtypes[a], to, dtypes[b], 5);
            atedm_convert(to, dtypes[b], back, ATEDM_F32, 5);
            cr_assert_arr_eq(back, values, sizeof values);
        }
}

Test(tensor, shapes_as_text)
{
    char text[32];
    cr_assert_str_eq(atedm_shape_text(2, (int64_t[]){2, 3}, text, sizeof text), "[2, 3]");
    cr_assert_str_eq(atedm_shape_text(0, NULL, text, sizeof text), "[]");
    char small[5]; // cut, never overrun
    atedm_shape_text(3, (int64_t[]){1000000, 2, 3}, small, sizeof small);
    cr_assert_lt(strlen(small), sizeof small);
}

Test(buffer, grows_to_its_maximum_and_no_further)
{
    atedm_buffer buffer;
    atedm_buffer_init(&buffer, 1000);
    for (int i = 0; i < 100; i++)
        cr_assert_eq(atedm_buffer_append(&buffer, "0123456789", 10), ATEDM_OK);
    cr_assert_eq(buffer.size, 1000);
    cr_assert_eq(atedm_buffer_append(&buffer, "x", 1), ATEDM_ERR_LIMIT);
    cr_assert_eq(atedm_buffer_printf(&buffer, "%d", 1), ATEDM_ERR_LIMIT);
    cr_assert_eq(atedm_buffer_append(&buffer, "", SIZE_MAX), ATEDM_ERR_LIMIT);
    cr_assert_eq(buffer.size, 1000);
    cr_assert_eq(buffer.data[1000], '\0');
    atedm_buffer_finish(&buffer);
    atedm_buffer_finish(NULL);
}

static void *read_slowly(void *user)
{
    const int *fd = user;
    char some[1000];
    size_t *total = calloc(1, sizeof *total);
    for (ssize_t size; (size = read(*fd, some, sizeof some)) > 0; *total += (size_t)size)
        for (ssize_t i = 0; i < size; i++)
            cr_assert_eq((unsigned char)some[i], (*total + (size_t)i) % 251);
    return total;
}

Test(file, write_all_takes_as_many_writes_as_it_needs)
{
    enum { BYTES = 1 << 20 }; // more than a pipe holds
    int ends[2];
    cr_assert_eq(pipe(ends), 0);
    unsigned char *data = malloc(BYTES);
    for (size_t i = 0; i < BYTES; i++)
        data[i] = (unsigned char)(i % 251);
    pthread_t reader;
    void *total;
    cr_assert_eq(pthread_create(&reader, NULL, read_slowly, &ends[0]), 0);
    cr_assert_eq(atedm_write_all(ends[1], data, BYTES), ATEDM_OK);
    close(ends[1]);
    pthread_join(reader, &total);
    cr_assert_eq(*(size_t *)total, (size_t)BYTES);
    free(total);
    close(ends[0]);
    // A pipe that nobody reads, and that does not wait: some is written, and errno says why no
    // more.
    cr_assert_eq(pipe2(ends, O_NONBLOCK), 0);
    cr_assert_eq(atedm_write_all(ends[1], data, BYTES), ATEDM_ERR_IO);
    cr_assert_eq(errno, EAGAIN);
    cr_assert_eq(atedm_write_all(ends[1], data, 0), ATEDM_OK);
    close(ends[0]);
    close(ends[1]);
    free(data);
}

Test(file, read_refuses_what_is_too_large_or_no_file)
{
    char path[] = "/tmp/atedm-base-XXXXXX";
    int fd = mkstemp(path);
    cr_assert_geq(fd, 0);
    cr_assert_eq(write(fd, "abc", 3), 3);
    close(fd);
    char *data = NULL;
    size_t size = 0;
    atedm_error err;
    cr_assert_eq(atedm_file_read(path, 3, &data, &size, &err), ATEDM_OK);
    cr_assert_eq(size, 3);
    cr_assert_str_eq(data, "abc");
    free(data);
    cr_assert_eq(atedm_file_read(path, 2, &data, &size, &err), ATEDM_ERR_LIMIT);
    unlink(path);
    cr_assert_eq(atedm_file_read(path, 3, &data, &size, &err), ATEDM_ERR_NOT_FOUND);
    cr_assert_eq(atedm_file_read("/tmp", 3, &data, &size, &err), ATEDM_ERR_IO);
}

Test(error, context_stands_before_the_message)
{
    atedm_error err;
    atedm_status status = atedm_error_set(&err, ATEDM_ERR_IO, "%s", "inner");
    cr_assert_eq(atedm_error_context(&err, status, "outer %d", 1), ATEDM_ERR_IO);
    cr_assert_str_eq(err.message, "outer 1: inner");
    cr_assert_eq(atedm_error_set(NULL, ATEDM_ERR_IO, "x"), ATEDM_ERR_IO);
    char longer[2 * ATEDM_ERROR_MAX];
    memset(longer, 'x', sizeof longer);
    longer[sizeof longer - 1] = '\0';
    status = atedm_error_set(&err, ATEDM_ERR_IO, "%s", longer);
    cr_assert_eq(atedm_error_context(&err, status, "%s", longer), ATEDM_ERR_IO);
    cr_assert_eq(strlen(err.message), ATEDM_ERROR_MAX - 1);
}

typedef struct utf8_case {
    const char *text;
    size_t size, valid;
} utf8_case;

Test(utf8, valid_prefix)
{
    static const utf8_case cases[] = {
        {"", 0, 0},
        {"abc", 3, 3},
        {"a\0b", 3, 3},
        {"\xc2\x80", 2, 2},
        {"\xdf\xbf", 2, 2},
        {"\xe0\xa0\x80", 3, 3},
        {"\xed\x9f\xbf", 3, 3},
        {"\xee\x80\x80", 3, 3},
        {"\xef\xbf\xbf", 3, 3},
        {"\xf0\x90\x80\x80", 4, 4},
        {"\xf4\x8f\xbf\xbf", 4, 4},
        {"a\x80", 2, 1},             // continuation without lead
        {"\xc0\xaf", 2, 0},          // overlong
        {"\xc1\xbf", 2, 0},          // overlong
        {"\xe0\x9f\xbf", 3, 0},      // overlong
        {"\xf0\x8f\xbf\xbf", 4, 0},  // overlong
        {"\xed\xa0\x80", 3, 0},      // surrogate
        {"\xf4\x90\x80\x80", 4, 0},  // past U+10FFFF
        {"\xf5\x80\x80\x80", 4, 0},  // past U+10FFFF
        {"\xff", 1, 0},              // never
        {"ab\xe2\x82", 4, 2},        // cut
        {"ab\xe2", 3, 2},            // cut
        {"\xf0\x9f\x98", 3, 0},      // cut
        {"\xe2\x82\x41", 3, 0},      // third byte is no continuation
        {"\xf0\x9f\x98\x41z", 5, 0}, // fourth byte is no continuation
        {"\xe2\x41\x80", 3, 0},      // second byte is no continuation
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        const utf8_case *c = &cases[i];
        char *exact = malloc(c->size + 1); // no byte past the end, for the sanitizer
        memcpy(exact, c->text, c->size);
        exact = realloc(exact, c->size ? c->size : 1);
        cr_assert_eq(atedm_utf8_valid_prefix(exact, c->size), c->valid, "case %zu", i);
        cr_assert_eq(atedm_utf8_is_valid(exact, c->size), c->valid == c->size, "case %zu", i);
        free(exact);
    }
}

Test(utf8, cut_never_splits_a_character)
{
    const char *text = "a\xe2\x82\xac\xf0\x9f\x98\x80z"; // 1, 3, 4, 1 bytes
    static const size_t expected[] = {0, 1, 1, 1, 4, 4, 4, 4, 8, 9, 9};
    for (size_t limit = 0; limit < sizeof expected / sizeof expected[0]; limit++)
        cr_assert_eq(atedm_utf8_cut(text, 9, limit), expected[limit], "limit %zu", limit);
}
