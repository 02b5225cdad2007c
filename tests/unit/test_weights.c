// core/weights: which files of a component are found, what of them is refused, and the recorder.
#include "core/safetensors.h"
#include "core/weights.h"

#include <criterion/criterion.h>
#include <ftw.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static char dir[64];
static atedm_error err;

static void make_dir(void)
{
    strcpy(dir, "/tmp/atedm-weights-XXXXXX");
    cr_assert_not_null(mkdtemp(dir));
}

static int remove_entry(const char *path, const struct stat *info, int kind, struct FTW *ftw)
{
    (void)info;
    (void)kind;
    (void)ftw;
    return remove(path);
}

static void remove_dir(void)
{
    nftw(dir, remove_entry, 8, FTW_DEPTH | FTW_PHYS);
}

TestSuite(weights, .init = make_dir, .fini = remove_dir);

static void write_text(const char *name, const char *text)
{
    char path[128];
    snprintf(path, sizeof path, "%s/%s", dir, name);
    FILE *file = fopen(path, "w");
    cr_assert_not_null(file);
    fputs(text, file);
    fclose(file);
}

// A file with one F32 tensor [2] for each of the names (NULL-terminated), filled with `value`.
static void write_tensors(const char *file, const char *const *names, float value)
{
    atedm_safetensors_entry entries[8];
    size_t n = 0;
    for (; names[n]; n++)
        entries[n] = (atedm_safetensors_entry){names[n], {NULL, ATEDM_F32, 1, {2}}};
    char path[128];
    snprintf(path, sizeof path, "%s/%s", dir, file);
    atedm_safetensors_writer *writer = NULL;
    cr_assert_eq(atedm_safetensors_writer_create(path, entries, n, &writer, &err), ATEDM_OK, "%s",
                 err.message);
    for (size_t i = 0; i < n; i++)
        cr_assert_eq(atedm_safetensors_writer_put(writer, (float[2]){value, value}, 8, &err),
                     ATEDM_OK);
    cr_assert_eq(atedm_safetensors_writer_finish(writer, &err), ATEDM_OK);
}

#define NAMES(...) ((const char *const[]){__VA_ARGS__, NULL})

static atedm_weights *open_weights(void)
{
    atedm_weights *w = NULL;
    cr_assert_eq(atedm_weights_open(dir, "model", &w, &err), ATEDM_OK, "%s", err.message);
    return w;
}

static void expect_refused(atedm_status status, const char *message)
{
    atedm_weights *w = NULL;
    err.message[0] = '\0';
    cr_assert_eq(atedm_weights_open(dir, "model", &w, &err), status, "for \"%s\": %s", message,
                 err.message);
    cr_assert_null(w);
    cr_assert_not_null(strstr(err.message, message), "\"%s\" is not in \"%s\"", message,
                       err.message);
}

static float first_value(atedm_weights *w, const char *name)
{
    atedm_host_tensor t;
    cr_assert_eq(w->get(w, name, 1, (int64_t[]){2}, false, &t, &err), ATEDM_OK, "%s", err.message);
    float value = *(const float *)t.data;
    w->done(w, &t);
    return value;
}

// Each candidate is hidden by the one before it.
Test(weights, order_of_the_files)
{
    expect_refused(ATEDM_ERR_NOT_FOUND, "no model.safetensors, nor its .fp16 variant");
    write_tensors("model-e.safetensors", NAMES("x"), 1);
    write_text("model.safetensors.fp16.index.json",
               "{\"weight_map\":{\"x\":\"model-e.safetensors\"}}");
    atedm_weights *w = open_weights();
    cr_assert_eq(first_value(w, "x"), 1);
    atedm_weights_close(w);

    write_tensors("model.fp16-00001-of-00001.safetensors", NAMES("x"), 2);
    write_text("model.safetensors.index.fp16.json",
               "{\"weight_map\":{\"x\":\"model.fp16-00001-of-00001.safetensors\"}}");
    w = open_weights();
    cr_assert_eq(first_value(w, "x"), 2);
    atedm_weights_close(w);

    write_tensors("model.fp16.safetensors", NAMES("x"), 3);
    w = open_weights();
    cr_assert_eq(first_value(w, "x"), 3);
    atedm_weights_close(w);

    write_tensors("model-00001-of-00001.safetensors", NAMES("x"), 4);
    write_text("model.safetensors.index.json",
               "{\"metadata\":{\"total_size\":8},"
               "\"weight_map\":{\"x\":\"model-00001-of-00001.safetensors\"}}");
    w = open_weights();
    cr_assert_eq(first_value(w, "x"), 4);
    atedm_weights_close(w);

    write_tensors("model.safetensors", NAMES("x"), 5);
    w = open_weights();
    cr_assert_eq(first_value(w, "x"), 5);
    cr_assert_eq(atedm_weights_bytes(w), 8);
    cr_assert_eq(atedm_weights_dtype(w), ATEDM_F32);
    atedm_weights_close(w);
    atedm_weights_close(NULL);
}

Test(weights, name_shape_and_dtype_are_checked)
{
    const atedm_safetensors_entry entries[] = {{"w", {NULL, ATEDM_F16, 2, {2, 3}}},
                                               {"ids", {NULL, ATEDM_I64, 1, {1}}}};
    char path[128];
    snprintf(path, sizeof path, "%s/model.safetensors", dir);
    atedm_safetensors_writer *writer = NULL;
    cr_assert_eq(atedm_safetensors_writer_create(path, entries, 2, &writer, &err), ATEDM_OK);
    cr_assert_eq(atedm_safetensors_writer_put(writer, (char[20]){0}, 20, &err), ATEDM_OK);
    cr_assert_eq(atedm_safetensors_writer_finish(writer, &err), ATEDM_OK);

    atedm_weights *w = open_weights();
    atedm_host_tensor t = {.ndim = 9};
    cr_assert_eq(w->get(w, "v", 2, (int64_t[]){2, 3}, false, &t, &err), ATEDM_ERR_FORMAT);
    cr_assert_not_null(strstr(err.message, "parameter \"v\" is missing"), "%s", err.message);
    cr_assert_eq(w->get(w, "w", 2, (int64_t[]){3, 2}, false, &t, &err), ATEDM_ERR_FORMAT);
    cr_assert_not_null(strstr(err.message, "has shape [2, 3], the config implies [3, 2]"), "%s",
                       err.message);
    cr_assert_eq(w->get(w, "w", 1, (int64_t[]){6}, true, &t, &err), ATEDM_ERR_FORMAT);
    cr_assert_eq(w->get(w, "ids", 1, (int64_t[]){1}, false, &t, &err), ATEDM_ERR_UNSUPPORTED);
    cr_assert_not_null(strstr(err.message, "has dtype i64, not f32, f16 or bf16"), "%s",
                       err.message);
    cr_assert_eq(t.ndim, 9, "output untouched on failure");
    cr_assert_eq(w->get(w, "v", 2, (int64_t[]){2, 3}, true, &t, &err), ATEDM_OK);
    cr_assert_eq(t.ndim, -1);
    cr_assert_eq(w->get(w, "w", 2, (int64_t[]){2, 3}, false, &t, &err), ATEDM_OK);
    cr_assert_eq(t.dtype, ATEDM_F16);
    atedm_weights_close(w);
}

Test(weights, leftovers_are_named)
{
    write_tensors("model.safetensors", NAMES("a", "b", "encoder.x", "c", "d", "e", "f", "g"), 1);
    atedm_weights *w = open_weights();
    first_value(w, "a");
    const char *const ignore[] = {"encoder.", NULL};
    cr_assert_eq(atedm_weights_check_all_used(w, ignore, &err), ATEDM_ERR_FORMAT);
    cr_assert_not_null(strstr(err.message, "6 parameters that this architecture does not have: "
                                           "\"b\", \"c\", \"d\", \"e\", \"f\", ..."),
                       "%s", err.message);
    static const char *const rest[] = {"b", "c", "d", "e", "f", "g"};
    for (size_t i = 0; i < 6; i++)
        first_value(w, rest[i]);
    cr_assert_eq(atedm_weights_check_all_used(w, ignore, &err), ATEDM_OK);
    cr_assert_eq(atedm_weights_check_all_used(w, NULL, &err), ATEDM_ERR_FORMAT);
    cr_assert_not_null(strstr(err.message, "1 parameters"), "%s", err.message);
    atedm_weights_close(w);
}

Test(weights, shards_make_one_source)
{
    write_tensors("model-00001-of-00002.safetensors", NAMES("b", "a"), 1);
    write_tensors("model-00002-of-00002.safetensors", NAMES("c"), 2);
    write_text("model.safetensors.index.json",
               "{\"weight_map\":{\"a\":\"model-00001-of-00002.safetensors\","
               "\"b\":\"model-00001-of-00002.safetensors\","
               "\"c\":\"model-00002-of-00002.safetensors\"}}");
    atedm_weights *w = open_weights();
    cr_assert_eq(atedm_weights_bytes(w), 24);
    cr_assert_eq(first_value(w, "a"), 1);
    cr_assert_eq(first_value(w, "c"), 2);
    cr_assert_eq(atedm_weights_check_all_used(w, NULL, &err), ATEDM_ERR_FORMAT);
    cr_assert_eq(first_value(w, "b"), 1);
    cr_assert_eq(atedm_weights_check_all_used(w, NULL, &err), ATEDM_OK);
    atedm_weights_close(w);
}

static void expect_index_refused(const char *index, atedm_status status, const char *message)
{
    write_text("model.safetensors.index.json", index);
    expect_refused(status, message);
}

Test(weights, malformed_indexes_are_refused)
{
    write_tensors("one.safetensors", NAMES("a"), 1);
    write_tensors("two.safetensors", NAMES("a", "b"), 2);
    static const char *const escapes[] = {
        "../one.safetensors",
        "/etc/x.safetensors",
        "sub/one.safetensors",
        "..",
        "",
        ".safetensors",
        ".one.safetensors",
        "one.bin",
    };
    for (size_t i = 0; i < sizeof escapes / sizeof escapes[0]; i++) {
        char index[128];
        snprintf(index, sizeof index, "{\"weight_map\":{\"a\":\"%s\"}}", escapes[i]);
        expect_index_refused(index, ATEDM_ERR_FORMAT,
                             "is not the name of a .safetensors file beside the index");
    }
    expect_index_refused("{\"weight_map\":{\"a\":1}}", ATEDM_ERR_FORMAT, "(no string)");
    expect_index_refused("{}", ATEDM_ERR_FORMAT, "\"weight_map\" is missing or not an object");
    expect_index_refused("{\"weight_map\":[]}", ATEDM_ERR_FORMAT, "\"weight_map\" is missing");
    expect_index_refused("[]", ATEDM_ERR_FORMAT, "not a JSON object");
    expect_index_refused("{\"weight_map\":{\"a\":\"one.safetensors\"", ATEDM_ERR_FORMAT, "json:1:");
    expect_index_refused("{\"weight_map\":{\"a\":\"one.safetensors\",\"a\":\"one.safetensors\"}}",
                         ATEDM_ERR_FORMAT, "duplicate");
    expect_index_refused("{\"weight_map\":{\"a\":\"gone.safetensors\"}}", ATEDM_ERR_NOT_FOUND,
                         "gone.safetensors");
    expect_index_refused("{\"weight_map\":{\"c\":\"one.safetensors\"}}", ATEDM_ERR_FORMAT,
                         "parameter \"c\" is not in one.safetensors");
    expect_index_refused("{\"weight_map\":{\"b\":\"two.safetensors\"}}", ATEDM_ERR_FORMAT,
                         "parameter \"a\" of a shard is not in the index");
    expect_index_refused("{\"weight_map\":{\"a\":\"one.safetensors\",\"b\":\"two.safetensors\"}}",
                         ATEDM_ERR_FORMAT, "parameter \"a\" is in more than one shard");
    write_text("one.safetensors", "no tensors");
    expect_index_refused("{\"weight_map\":{\"a\":\"one.safetensors\"}}", ATEDM_ERR_FORMAT,
                         "the header length says");
}

Test(weights, too_many_shards_are_refused)
{
    char *index = malloc(65536 * 2);
    size_t used = (size_t)sprintf(index, "{\"weight_map\":{");
    for (int i = 0; i <= ATEDM_WEIGHTS_MAX_SHARDS; i++) {
        char file[32], name[16];
        snprintf(file, sizeof file, "s%d.safetensors", i);
        snprintf(name, sizeof name, "p%d", i);
        write_tensors(file, NAMES(name), 1);
        used += (size_t)sprintf(index + used, "%s\"%s\":\"%s\"", i ? "," : "", name, file);
    }
    snprintf(index + used, 3, "}}");
    expect_index_refused(index, ATEDM_ERR_LIMIT, "more shards than the limit of 1024");
    free(index);
}

// A header of odd length puts the data at an odd address: modules still get aligned tensors.
Test(weights, unaligned_tensors_are_copied)
{
    const char header[] = "{\"x\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8]}} ";
    size_t length = (sizeof header - 2) | 1; // with the space or without it
    char bytes[8 + sizeof header + 8] = {(char)length};
    memcpy(bytes + 8, header, length);
    const float values[2] = {1.5f, -2};
    memcpy(bytes + 8 + length, values, sizeof values);
    char path[128];
    snprintf(path, sizeof path, "%s/model.safetensors", dir);
    FILE *file = fopen(path, "wb");
    cr_assert_eq(fwrite(bytes, 1, 8 + length + 8, file), 8 + length + 8);
    fclose(file);

    atedm_weights *w = open_weights();
    atedm_host_tensor first, second;
    cr_assert_eq(w->get(w, "x", 1, (int64_t[]){2}, false, &first, &err), ATEDM_OK);
    cr_assert_eq((uintptr_t)first.data % sizeof(float), 0);
    cr_assert_arr_eq(first.data, values, sizeof values);
    w->done(w, &first);
    cr_assert_eq(w->get(w, "x", 1, (int64_t[]){2}, false, &second, &err), ATEDM_OK);
    cr_assert_arr_eq(second.data, values, sizeof values);
    atedm_weights_close(w); // frees the copy that nobody was done with
}

Test(weights, recorder_writes_down_what_is_asked_for)
{
    atedm_recorder *recorder = NULL;
    cr_assert_eq(atedm_recorder_create(&recorder), ATEDM_OK);
    atedm_weights *w = atedm_recorder_weights(recorder);
    cr_assert_null(w->done);
    atedm_host_tensor t;
    for (int i = 0; i < 3000; i++) {
        char name[16];
        snprintf(name, sizeof name, "p%d", i);
        cr_assert_eq(w->get(w, name, 2, (int64_t[]){i, 7}, i % 2, &t, &err), ATEDM_OK);
        cr_assert_null(t.data);
        cr_assert(atedm_host_tensor_has_shape(&t, 2, (int64_t[]){i, 7}));
    }
    size_t count = 0;
    const atedm_recorded *entries = atedm_recorder_entries(recorder, &count);
    cr_assert_eq(count, 3000);
    cr_assert_str_eq(entries[2999].name, "p2999");
    cr_assert_eq(entries[2999].ndim, 2);
    cr_assert_eq(entries[2999].shape[0], 2999);
    atedm_recorder_destroy(recorder);
    atedm_recorder_destroy(NULL);
}
