// Writes safetensors files: see safetensors.h. The data goes to PATH.part, which is renamed to PATH
// when it is complete. So a reader never finds half a file under PATH.
#include "core/safetensors.h"

#include "core/base/file.h"
#include "core/base/memory.h"

#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define HEADER_ALIGN 8 // spaces pad the header to a multiple of this, to align the data

struct atedm_safetensors_writer {
    char *path, *part;
    int fd;
    size_t expected, written; // bytes of data
};

static const char *format_dtype(atedm_dtype dtype)
{
    switch (dtype) {
    case ATEDM_F32:
        return "F32";
    case ATEDM_BF16:
        return "BF16";
    case ATEDM_F16:
        return "F16";
    case ATEDM_I64:
        return "I64";
    case ATEDM_I32:
        return "I32";
    case ATEDM_U8:
        return "U8";
    }
    return NULL;
}

static bool tensor_bytes(const atedm_host_tensor *tensor, size_t *ret_bytes)
{
    size_t bytes = atedm_dtype_size(tensor->dtype);
    if (tensor->ndim < 0 || tensor->ndim > ATEDM_MAX_DIMS)
        return false;
    for (int i = 0; i < tensor->ndim; i++)
        if (tensor->shape[i] < 0 || atedm_mul_overflows(bytes, (size_t)tensor->shape[i], &bytes))
            return false;
    *ret_bytes = bytes;
    return bytes <= INT64_MAX;
}

// {"dtype": ..., "shape": [...], "data_offsets": [begin, end]}; NULL: out of memory.
static json_t *describe(const atedm_host_tensor *tensor, size_t begin, size_t end)
{
    json_t *shape = json_array();
    for (int i = 0; i < tensor->ndim; i++)
        if (json_array_append_new(shape, json_integer(tensor->shape[i])) != 0) {
            json_decref(shape);
            return NULL;
        }
    return json_pack("{s:s, s:o, s:[I, I]}", "dtype", format_dtype(tensor->dtype), "shape", shape,
                     "data_offsets", (json_int_t)begin, (json_int_t)end);
}

// Makes the header's text, which the caller frees. *ret_data_bytes gets the size of all tensors.
static atedm_status make_header(const char *path, const atedm_safetensors_entry *entries,
                                size_t n_entries, char **ret_text, size_t *ret_data_bytes,
                                atedm_error *err)
{
    atedm_status status = ATEDM_OK;
    size_t place = 0;
    char *text = NULL;
    // "format": transformers refuses files that lack it.
    json_t *header = json_pack("{s:{s:s}}", "__metadata__", "format", "pt");
    for (size_t i = 0; header && i < n_entries; i++) {
        size_t bytes = 0;
        if (strlen(entries[i].name) > ATEDM_SAFETENSORS_MAX_NAME ||
            json_object_get(header, entries[i].name) || !tensor_bytes(&entries[i].tensor, &bytes) ||
            bytes > INT64_MAX - place) {
            status = atedm_error_set(err, ATEDM_ERR_INVALID,
                                     "%s: tensor \"%.100s\": name or shape cannot be written", path,
                                     entries[i].name);
            goto end;
        }
        json_t *item = describe(&entries[i].tensor, place, place + bytes);
        if (json_object_set_new(header, entries[i].name, item) != 0) {
            status = atedm_error_set(err, ATEDM_ERR_INVALID,
                                     "%s: tensor \"%.100s\": no memory, or a name that is not "
                                     "UTF-8",
                                     path, entries[i].name);
            goto end;
        }
        place += bytes;
    }
    text = header ? json_dumps(header, JSON_COMPACT) : NULL;
    if (!text) {
        status = atedm_error_set(err, ATEDM_ERR_NOMEM, "%s: no memory for the header", path);
        goto end;
    }
    *ret_text = text;
    *ret_data_bytes = place;
end:
    json_decref(header);
    return status;
}

static atedm_status put(int fd, const char *path, const void *data, size_t size, atedm_error *err)
{
    atedm_status status = atedm_write_all(fd, data, size);
    return status ? atedm_error_set(err, status, "%s: %s", path, strerror(errno)) : ATEDM_OK;
}

static atedm_status write_header(atedm_safetensors_writer *writer, const char *text,
                                 atedm_error *err)
{
    static const char spaces[HEADER_ALIGN + 1] = "        ";
    size_t size = strlen(text);
    size_t padding = (HEADER_ALIGN - size % HEADER_ALIGN) % HEADER_ALIGN;
    unsigned char length[8];
    for (int i = 0; i < 8; i++)
        length[i] = (unsigned char)((uint64_t)(size + padding) >> (8 * i));
    atedm_status status = put(writer->fd, writer->part, length, sizeof length, err);
    if (!status)
        status = put(writer->fd, writer->part, text, size, err);
    if (!status)
        status = put(writer->fd, writer->part, spaces, padding, err);
    return status;
}

atedm_status atedm_safetensors_writer_create(const char *path,
                                             const atedm_safetensors_entry *entries,
                                             size_t n_entries,
                                             atedm_safetensors_writer **ret_writer,
                                             atedm_error *err)
{
    atedm_status status;
    char *header = NULL;
    atedm_safetensors_writer *writer = calloc(1, sizeof *writer);
    if (!writer)
        return atedm_error_set(err, ATEDM_ERR_NOMEM, "%s: no memory", path);
    writer->fd = -1;
    size_t part_size = strlen(path) + sizeof ".part";
    writer->path = strdup(path);
    writer->part = malloc(part_size);
    if (!writer->path || !writer->part) {
        status = atedm_error_set(err, ATEDM_ERR_NOMEM, "%s: no memory", path);
        goto fail;
    }
    snprintf(writer->part, part_size, "%s.part", path);
    status = make_header(path, entries, n_entries, &header, &writer->expected, err);
    if (status)
        goto fail;
    writer->fd = open(writer->part, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
    if (writer->fd < 0) {
        status = atedm_error_set(err, ATEDM_ERR_IO, "%s: %s", writer->part, strerror(errno));
        goto fail;
    }
    status = write_header(writer, header, err);
    if (status)
        goto fail;
    free(header);
    *ret_writer = writer;
    return ATEDM_OK;
fail:
    free(header);
    atedm_safetensors_writer_abort(writer);
    return status;
}

atedm_status atedm_safetensors_writer_put(atedm_safetensors_writer *writer, const void *data,
                                          size_t size, atedm_error *err)
{
    if (size > writer->expected - writer->written)
        return atedm_error_set(err, ATEDM_ERR_INVALID,
                               "%s: more data than the %zu bytes of its tensors", writer->path,
                               writer->expected);
    atedm_status status = put(writer->fd, writer->part, data, size, err);
    if (!status)
        writer->written += size;
    return status;
}

atedm_status atedm_safetensors_writer_finish(atedm_safetensors_writer *writer, atedm_error *err)
{
    atedm_status status = ATEDM_OK;
    if (writer->written != writer->expected) {
        status = atedm_error_set(err, ATEDM_ERR_INVALID,
                                 "%s: %zu bytes of data were written, its tensors need %zu",
                                 writer->path, writer->written, writer->expected);
        goto fail;
    }
    int closed = close(writer->fd);
    writer->fd = -1;
    if (closed != 0 || rename(writer->part, writer->path) != 0) {
        status = atedm_error_set(err, ATEDM_ERR_IO, "%s: %s", writer->path, strerror(errno));
        unlink(writer->part);
    }
fail:
    atedm_safetensors_writer_abort(writer);
    return status;
}

void atedm_safetensors_writer_abort(atedm_safetensors_writer *writer)
{
    if (!writer)
        return;
    if (writer->fd >= 0) {
        close(writer->fd);
        unlink(writer->part);
    }
    free(writer->part);
    free(writer->path);
    free(writer);
}
