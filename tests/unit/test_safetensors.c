// core/safetensors: what is written is read back, every kind of malformed file is refused with a
// message that says what and where, and thousands of damaged files never do worse than that.
#include "core/safetensors.h"

#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static char path[64];
static atedm_error err;

static void make_path(void)
{
    snprintf(path, sizeof path, "/tmp/atedm-safetensors-%d", (int)getpid());
}

static void remove_path(void)
{
    unlink(path);
}

TestSuite(safetensors, .init = make_path, .fini = remove_path);

static void write_file(const void *data, size_t size)
{
    unlink(path); // ext4 would flush a file whose content is replaced, thousands of times
    FILE *file = fopen(path, "wb");
    cr_assert_not_null(file);
    cr_assert_eq(fwrite(data, 1, size, file), size);
    cr_assert_eq(fclose(file), 0);
}

// A file of the header (with this length in front) and `data_size` bytes 0, 1, 2, ...
static void write_raw(uint64_t length, const char *header, size_t header_size, size_t data_size)
{
    size_t size = 8 + header_size + data_size;
    unsigned char *bytes = malloc(size);
    for (int i = 0; i < 8; i++)
        bytes[i] = (unsigned char)(length >> (8 * i));
    memcpy(bytes + 8, header, header_size);
    for (size_t i = 0; i < data_size; i++)
        bytes[8 + header_size + i] = (unsigned char)i;
    write_file(bytes, size);
    free(bytes);
}

static void write_header(const char *header, size_t data_size)
{
    write_raw(strlen(header), header, strlen(header), data_size);
}

static atedm_status open_status(void)
{
    atedm_safetensors *file = NULL;
    err.message[0] = '\0';
    atedm_status status = atedm_safetensors_open(path, &file, &err);
    if (status)
        cr_assert_null(file, "output touched on failure");
    else
        atedm_safetensors_close(file);
    return status;
}

static void expect_refused(atedm_status status, const char *message)
{
    cr_assert_eq(open_status(), status, "for \"%s\": %s", message, err.message);
    cr_assert_not_null(strstr(err.message, message), "\"%s\" is not in \"%s\"", message,
                       err.message);
    cr_assert_not_null(strstr(err.message, path), "no path in \"%s\"", err.message);
}

Test(safetensors, reads_what_it_wrote)
{
    const float a[6] = {1, 2, 3, 4, 5, -6.5f};
    const uint16_t b[2] = {0x3c00, 0xbc00};
    const int64_t c = 1ll << 40;
    const unsigned char d[3] = {7, 8, 9};
    const atedm_safetensors_entry entries[] = {
        {"layer.weight", {a, ATEDM_F32, 2, {2, 3}}},    {"half", {b, ATEDM_F16, 1, {2}}},
        {"scalar \"quoted\"", {&c, ATEDM_I64, 0, {0}}}, {"bytes", {d, ATEDM_U8, 1, {3}}},
        {"empty", {NULL, ATEDM_BF16, 2, {0, 4}}},
    };
    atedm_safetensors_writer *writer = NULL;
    cr_assert_eq(atedm_safetensors_writer_create(path, entries, 5, &writer, &err), ATEDM_OK, "%s",
                 err.message);
    cr_assert_neq(access(path, F_OK), 0, "not there before it is whole");
    cr_assert_eq(atedm_safetensors_writer_put(writer, a, 5, &err), ATEDM_OK); // any pieces
    cr_assert_eq(atedm_safetensors_writer_put(writer, (const char *)a + 5, 19, &err), ATEDM_OK);
    cr_assert_eq(atedm_safetensors_writer_put(writer, b, 4, &err), ATEDM_OK);
    cr_assert_eq(atedm_safetensors_writer_put(writer, &c, 8, &err), ATEDM_OK);
    cr_assert_eq(atedm_safetensors_writer_put(writer, d, 3, &err), ATEDM_OK);
    cr_assert_eq(atedm_safetensors_writer_finish(writer, &err), ATEDM_OK, "%s", err.message);

    atedm_safetensors *file = NULL;
    cr_assert_eq(atedm_safetensors_open(path, &file, &err), ATEDM_OK, "%s", err.message);
    cr_assert_eq(atedm_safetensors_count(file), 5);
    for (size_t i = 0; i < 5; i++) {
        const atedm_host_tensor *want = &entries[i].tensor;
        const atedm_host_tensor *got = atedm_safetensors_find(file, entries[i].name);
        cr_assert_not_null(got, "%s", entries[i].name);
        cr_assert_eq(got->dtype, want->dtype);
        cr_assert(atedm_host_tensor_has_shape(got, want->ndim, want->shape));
        size_t bytes = (size_t)atedm_host_tensor_count(got) * atedm_dtype_size(got->dtype);
        if (bytes)
            cr_assert_arr_eq(got->data, want->data, bytes);
        atedm_safetensors_drop(file, got);
    }
    cr_assert_str_eq(atedm_safetensors_name(file, 0), "layer.weight");
    cr_assert_eq(atedm_safetensors_tensor(file, 0), atedm_safetensors_find(file, "layer.weight"));
    cr_assert_eq((uintptr_t)atedm_safetensors_tensor(file, 0)->data % 8, 0, "data is aligned");
    cr_assert_null(atedm_safetensors_find(file, "other"));
    atedm_host_tensor foreign = {a, ATEDM_F32, 1, {6}};
    atedm_safetensors_drop(file, &foreign);
    atedm_safetensors_close(file);
    atedm_safetensors_close(NULL);
}

Test(safetensors, dropped_pages_come_back)
{
    size_t count = 100000;
    float *values = malloc(count * sizeof *values);
    for (size_t i = 0; i < count; i++)
        values[i] = (float)i;
    atedm_safetensors_entry entry = {"x", {NULL, ATEDM_F32, 1, {(int64_t)count}}};
    atedm_safetensors_writer *writer = NULL;
    cr_assert_eq(atedm_safetensors_writer_create(path, &entry, 1, &writer, &err), ATEDM_OK);
    cr_assert_eq(atedm_safetensors_writer_put(writer, values, count * 4, &err), ATEDM_OK);
    cr_assert_eq(atedm_safetensors_writer_finish(writer, &err), ATEDM_OK);
    atedm_safetensors *file = NULL;
    cr_assert_eq(atedm_safetensors_open(path, &file, &err), ATEDM_OK);
    const atedm_host_tensor *t = atedm_safetensors_find(file, "x");
    cr_assert_arr_eq(t->data, values, count * 4);
    atedm_safetensors_drop(file, t);
    cr_assert_arr_eq(t->data, values, count * 4);
    atedm_safetensors_close(file);
    free(values);
}

Test(safetensors, writer_refuses_wrong_amounts_and_names)
{
    atedm_safetensors_entry entries[2] = {{"a", {NULL, ATEDM_F32, 1, {2}}},
                                          {"a", {NULL, ATEDM_F32, 1, {2}}}};
    atedm_safetensors_writer *writer = NULL;
    cr_assert_eq(atedm_safetensors_writer_create(path, entries, 2, &writer, &err),
                 ATEDM_ERR_INVALID);
    entries[0].tensor.shape[0] = -1;
    cr_assert_eq(atedm_safetensors_writer_create(path, entries, 1, &writer, &err),
                 ATEDM_ERR_INVALID);
    entries[0].tensor.shape[0] = INT64_MAX;
    cr_assert_eq(atedm_safetensors_writer_create(path, entries, 1, &writer, &err),
                 ATEDM_ERR_INVALID);
    entries[0].tensor.shape[0] = 2;
    cr_assert_eq(atedm_safetensors_writer_create("/nonexistent/x", entries, 1, &writer, &err),
                 ATEDM_ERR_IO);
    cr_assert_null(writer);

    cr_assert_eq(atedm_safetensors_writer_create(path, entries, 1, &writer, &err), ATEDM_OK);
    cr_assert_eq(atedm_safetensors_writer_put(writer, "0123456789", 9, &err), ATEDM_ERR_INVALID);
    cr_assert_eq(atedm_safetensors_writer_put(writer, "0123456789", 7, &err), ATEDM_OK);
    cr_assert_eq(atedm_safetensors_writer_finish(writer, &err), ATEDM_ERR_INVALID);
    char part[80];
    snprintf(part, sizeof part, "%s.part", path);
    cr_assert_neq(access(part, F_OK), 0, "the unfinished file is gone");
    cr_assert_neq(access(path, F_OK), 0);
    cr_assert_eq(atedm_safetensors_writer_create(path, entries, 1, &writer, &err), ATEDM_OK);
    atedm_safetensors_writer_abort(writer);
    cr_assert_neq(access(part, F_OK), 0);
    atedm_safetensors_writer_abort(NULL);
}

Test(safetensors, legal_oddities_are_read)
{
    // metadata, padding, an order unlike the data's, zero-size tensors, a header of odd length
    write_header("{\"__metadata__\":{\"format\":\"pt\"},"
                 "\"b\":{\"dtype\":\"U8\",\"shape\":[3],\"data_offsets\":[4,7]},"
                 "\"none\":{\"dtype\":\"F32\",\"shape\":[2,0],\"data_offsets\":[4,4]},"
                 "\"a\":{\"shape\":[],\"data_offsets\":[0,4],\"dtype\":\"F32\"}}   ",
                 7);
    atedm_safetensors *file = NULL;
    cr_assert_eq(atedm_safetensors_open(path, &file, &err), ATEDM_OK, "%s", err.message);
    cr_assert_eq(atedm_safetensors_count(file), 3);
    cr_assert_str_eq(atedm_safetensors_name(file, 0), "a");
    cr_assert_str_eq(atedm_safetensors_name(file, 1), "none");
    cr_assert_str_eq(atedm_safetensors_name(file, 2), "b");
    const unsigned char *b = atedm_safetensors_find(file, "b")->data;
    cr_assert_eq(b[0], 4);
    cr_assert_eq(atedm_host_tensor_count(atedm_safetensors_find(file, "a")), 1);
    atedm_safetensors_close(file);
    write_header("{}", 0);
    cr_assert_eq(open_status(), ATEDM_OK, "%s", err.message);
}

Test(safetensors, refuses_what_is_no_file)
{
    expect_refused(ATEDM_ERR_NOT_FOUND, "No such file");
    cr_assert_eq(mkdir(path, 0777), 0);
    expect_refused(ATEDM_ERR_IO, "not a regular file");
    rmdir(path);
}

Test(safetensors, refuses_lying_header_lengths)
{
    write_file("", 0);
    expect_refused(ATEDM_ERR_FORMAT, "too few for the 8-byte header length");
    write_file("1234567", 7);
    expect_refused(ATEDM_ERR_FORMAT, "too few for the 8-byte header length");
    write_raw(0, "", 0, 0);
    expect_refused(ATEDM_ERR_FORMAT, "does not begin with");
    write_raw(3, "{}", 2, 0);
    expect_refused(ATEDM_ERR_FORMAT, "the header length says 3 bytes, the file has 2 after it");
    write_raw(UINT64_MAX, "{}", 2, 0);
    expect_refused(ATEDM_ERR_FORMAT, "the header length says 18446744073709551615 bytes");
    write_raw(1, "{}", 2, 0);
    expect_refused(ATEDM_ERR_FORMAT, "header, byte");
    // A sparse file that is as long as its header length claims.
    write_raw(ATEDM_SAFETENSORS_MAX_HEADER + 1, "{}", 2, 0);
    cr_assert_eq(truncate(path, ATEDM_SAFETENSORS_MAX_HEADER + 9), 0);
    expect_refused(ATEDM_ERR_LIMIT, "more than the limit of 100000000");
}

Test(safetensors, refuses_headers_that_are_not_json)
{
    write_header("{", 0);
    expect_refused(ATEDM_ERR_FORMAT, "header, byte");
    write_header("[]", 0);
    expect_refused(ATEDM_ERR_FORMAT, "does not begin with");
    write_header("{} x", 0);
    expect_refused(ATEDM_ERR_FORMAT, "header, byte");
    write_header("{\"a\xff\":{}}", 0);
    expect_refused(ATEDM_ERR_FORMAT, "unable to decode byte 0xff");
    write_raw(8, "{\"a\0b\":}", 8, 0);
    expect_refused(ATEDM_ERR_FORMAT, "header, byte");
    write_header("{\"a\\u0000b\":{}}", 0);
    expect_refused(ATEDM_ERR_FORMAT, "header, byte");
    char deep[20000] = "{\"a\":";
    memset(deep + 5, '[', sizeof deep - 5);
    write_raw(sizeof deep, deep, sizeof deep, 0);
    expect_refused(ATEDM_ERR_FORMAT, "header, byte");
    write_header("{\"a\":{\"dtype\":\"U8\",\"shape\":[99999999999999999999],"
                 "\"data_offsets\":[0,1]}}",
                 1);
    expect_refused(ATEDM_ERR_FORMAT, "header, byte");
}

Test(safetensors, refuses_duplicate_names)
{
    write_header("{\"a\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[0,1]},"
                 "\"a\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[1,2]}}",
                 2);
    expect_refused(ATEDM_ERR_FORMAT, "duplicate");
    write_header("{\"a\":{\"dtype\":\"U8\",\"dtype\":\"F16\",\"shape\":[1],"
                 "\"data_offsets\":[0,1]}}",
                 1);
    expect_refused(ATEDM_ERR_FORMAT, "duplicate");
}

typedef struct refusal {
    const char *entry; // what "t" is described by
    size_t data_size;
    atedm_status status;
    const char *message;
} refusal;

Test(safetensors, refuses_malformed_entries)
{
    static const refusal cases[] = {
        {"3", 0, ATEDM_ERR_FORMAT, "tensor \"t\": not described by an object"},
        {"{}", 0, ATEDM_ERR_FORMAT, "tensor \"t\": \"dtype\" is missing"},
        {"{\"dtype\":1,\"shape\":[1],\"data_offsets\":[0,1]}", 1, ATEDM_ERR_FORMAT,
         "\"dtype\" is missing or not a string"},
        {"{\"dtype\":\"F64\",\"shape\":[1],\"data_offsets\":[0,8]}", 8, ATEDM_ERR_UNSUPPORTED,
         "dtype \"F64\" is not one of"},
        {"{\"dtype\":\"f32\",\"shape\":[1],\"data_offsets\":[0,4]}", 4, ATEDM_ERR_UNSUPPORTED,
         "dtype \"f32\" is not one of"},
        {"{\"dtype\":\"U8\",\"data_offsets\":[0,1]}", 1, ATEDM_ERR_FORMAT,
         "\"shape\" is missing or not an array"},
        {"{\"dtype\":\"U8\",\"shape\":1,\"data_offsets\":[0,1]}", 1, ATEDM_ERR_FORMAT,
         "\"shape\" is missing or not an array"},
        {"{\"dtype\":\"U8\",\"shape\":[1,-1],\"data_offsets\":[0,1]}", 1, ATEDM_ERR_FORMAT,
         "dimension 1 of \"shape\" is not a non-negative integer"},
        {"{\"dtype\":\"U8\",\"shape\":[1.0],\"data_offsets\":[0,1]}", 1, ATEDM_ERR_FORMAT,
         "dimension 0 of \"shape\" is not a non-negative integer"},
        {"{\"dtype\":\"U8\",\"shape\":[1,1,1,1,1],\"data_offsets\":[0,1]}", 1,
         ATEDM_ERR_UNSUPPORTED, "5 dimensions, more than the limit of 4"},
        {"{\"dtype\":\"F32\",\"shape\":[4294967296,4294967296],\"data_offsets\":[0,0]}", 0,
         ATEDM_ERR_FORMAT, "the product of \"shape\" overflows"},
        {"{\"dtype\":\"F32\",\"shape\":[2305843009213693952],\"data_offsets\":[0,0]}", 0,
         ATEDM_ERR_FORMAT, "the product of \"shape\" overflows"},
        {"{\"dtype\":\"U8\",\"shape\":[9223372036854775807,2],\"data_offsets\":[0,1]}", 1,
         ATEDM_ERR_FORMAT, "the product of \"shape\" overflows"},
        {"{\"dtype\":\"U8\",\"shape\":[0,9223372036854775807,3],\"data_offsets\":[0,0]}", 0,
         ATEDM_ERR_FORMAT, "the product of \"shape\" overflows"},
        {"{\"dtype\":\"U8\",\"shape\":[1]}", 1, ATEDM_ERR_FORMAT,
         "\"data_offsets\" is missing or not an array of two integers"},
        {"{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[0]}", 1, ATEDM_ERR_FORMAT,
         "\"data_offsets\" is missing or not an array of two integers"},
        {"{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[0,1,2]}", 1, ATEDM_ERR_FORMAT,
         "\"data_offsets\" is missing or not an array of two integers"},
        {"{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[0,\"1\"]}", 1, ATEDM_ERR_FORMAT,
         "\"data_offsets\" is missing or not an array of two integers"},
        {"{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[-1,0]}", 1, ATEDM_ERR_FORMAT,
         "\"data_offsets\" [-1, 0] are not an ascending range"},
        {"{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[1,0]}", 1, ATEDM_ERR_FORMAT,
         "\"data_offsets\" [1, 0] are not an ascending range"},
        {"{\"dtype\":\"U8\",\"shape\":[2],\"data_offsets\":[0,2]}", 1, ATEDM_ERR_FORMAT,
         "\"data_offsets\" end at 2, the data has 1 bytes"},
        {"{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[9223372036854775806,"
         "9223372036854775807]}",
         1, ATEDM_ERR_FORMAT, "\"data_offsets\" end at 9223372036854775807"},
        {"{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,3]}", 3, ATEDM_ERR_FORMAT,
         "\"data_offsets\" span 3 bytes, dtype and shape need 4"},
        {"{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[0,1]}", 2, ATEDM_ERR_FORMAT,
         "bytes 1..2 at the end of the data belong to no tensor"},
        {"{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[1,2]}", 2, ATEDM_ERR_FORMAT,
         "bytes 0..1 of the data, before tensor \"t\", belong to no tensor"},
        {"{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[0,1],\"x\":1}", 1, ATEDM_ERR_FORMAT,
         "fields other than"},
        {"{\"dtype\":\"U8\",\"shape\":[2],\"data_offsets\":[0,2]},"
         "\"u\":{\"dtype\":\"U8\",\"shape\":[2],\"data_offsets\":[1,3]}",
         3, ATEDM_ERR_FORMAT, "tensor \"u\" begins at 1, inside \"t\""},
        {"{\"dtype\":\"U8\",\"shape\":[2],\"data_offsets\":[0,2]},"
         "\"u\":{\"dtype\":\"U8\",\"shape\":[2],\"data_offsets\":[0,2]}",
         2, ATEDM_ERR_FORMAT, "begins at 0, inside \"t\""},
        {"{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[0,1]},"
         "\"u\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[2,3]}",
         3, ATEDM_ERR_FORMAT, "bytes 1..2 of the data, before tensor \"u\", belong to no tensor"},
        {"{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[0,1]},\"__metadata__\":1", 1,
         ATEDM_ERR_FORMAT, "\"__metadata__\" is not an object"},
        {"{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[0,1]},\"__metadata__\":{\"k\":1}", 1,
         ATEDM_ERR_FORMAT, "\"__metadata__\": \"k\" is not a string"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        char header[1024];
        snprintf(header, sizeof header, "{\"t\":%s}", cases[i].entry);
        write_header(header, cases[i].data_size);
        expect_refused(cases[i].status, cases[i].message);
    }
}

Test(safetensors, refuses_long_names_and_too_many_tensors)
{
    char header[1024], name[ATEDM_SAFETENSORS_MAX_NAME + 2];
    memset(name, 'n', sizeof name - 1);
    name[sizeof name - 1] = '\0';
    snprintf(header, sizeof header,
             "{\"%s\":{\"dtype\":\"U8\",\"shape\":[0],\"data_offsets\":[0,0]}}", name);
    write_header(header, 0);
    expect_refused(ATEDM_ERR_LIMIT, "name of 513 bytes, more than the limit of 512");

    size_t count = ATEDM_SAFETENSORS_MAX_TENSORS + 1, used = 1;
    char *many = malloc(count * 64);
    many[0] = '{';
    for (size_t i = 0; i < count; i++)
        used += (size_t)sprintf(many + used,
                                "%s\"%zu\":{\"dtype\":\"U8\",\"shape\":[0],\"data_offsets\":[0,0]}",
                                i ? "," : "", i);
    many[used++] = '}';
    write_raw(used, many, used, 0);
    free(many);
    expect_refused(ATEDM_ERR_LIMIT, "65537 tensors, more than the limit of 65536");
}

static uint64_t draw(uint64_t *state) // splitmix64
{
    uint64_t z = (*state += 0x9e3779b97f4a7c15u);
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
}

// Reads everything that an opened file offers: a sanitizer sees where it points outside.
static uint64_t touch(const atedm_safetensors *file)
{
    uint64_t sum = 0;
    for (size_t i = 0; i < atedm_safetensors_count(file); i++) {
        const atedm_host_tensor *t = atedm_safetensors_tensor(file, i);
        const unsigned char *bytes = t->data;
        size_t size = (size_t)atedm_host_tensor_count(t) * atedm_dtype_size(t->dtype);
        for (size_t k = 0; k < size; k++)
            sum += bytes[k];
        cr_assert_eq(atedm_safetensors_find(file, atedm_safetensors_name(file, i)), t);
        atedm_safetensors_drop(file, t);
    }
    return sum;
}

Test(safetensors, damaged_files_are_read_or_refused)
{
    static const char header[] =
        "{\"__metadata__\":{\"format\":\"pt\"},"
        "\"weight\":{\"dtype\":\"F32\",\"shape\":[2,3],\"data_offsets\":[0,24]},"
        "\"bias\":{\"dtype\":\"F16\",\"shape\":[3],\"data_offsets\":[24,30]},"
        "\"ids\":{\"dtype\":\"I64\",\"shape\":[1,2],\"data_offsets\":[30,46]}}";
    unsigned char valid[8 + sizeof header - 1 + 46] = {sizeof header - 1};
    memcpy(valid + 8, header, sizeof header - 1);
    uint64_t state = 20240229;
    size_t opened = 0, refused = 0;
    for (int round = 0; round < 20000; round++) {
        unsigned char bytes[sizeof valid];
        memcpy(bytes, valid, sizeof valid);
        size_t size = draw(&state) % 4 ? sizeof valid : draw(&state) % sizeof valid;
        uint64_t flips = draw(&state) % 6;
        for (uint64_t i = 0; i < flips && size; i++) {
            size_t at = draw(&state) % size;
            if (draw(&state) % 2)
                bytes[at] = (unsigned char)draw(&state);
            else // a digit: a number that is still one
                bytes[at] = (unsigned char)('0' + draw(&state) % 10);
        }
        write_file(bytes, size);
        atedm_safetensors *file = NULL;
        err.message[0] = '\0';
        atedm_status status = atedm_safetensors_open(path, &file, &err);
        if (status) {
            refused++;
            cr_assert(err.message[0], "round %d: refused without a message", round);
        } else {
            opened++;
            touch(file);
            atedm_safetensors_close(file);
        }
    }
    cr_assert_gt(opened, 100, "the damage leaves some files whole");
    cr_assert_gt(refused, 10000);
}
