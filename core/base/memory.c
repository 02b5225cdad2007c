// Growing buffer, whole-file reading and writing: see memory.h.
#include "core/base/memory.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

void atedm_buffer_init(atedm_buffer *buffer, size_t max)
{
    *buffer = (atedm_buffer){.max = max};
}

void atedm_buffer_finish(atedm_buffer *buffer)
{
    if (!buffer)
        return;
    free(buffer->data);
    *buffer = (atedm_buffer){.max = buffer->max};
}

static atedm_status reserve(atedm_buffer *buffer, size_t extra)
{
    if (extra > buffer->max || buffer->size > buffer->max - extra)
        return ATEDM_ERR_LIMIT;
    size_t need = buffer->size + extra + 1;
    if (need <= buffer->capacity)
        return ATEDM_OK;
    size_t capacity = buffer->capacity ? buffer->capacity : 256;
    while (capacity < need)
        capacity *= 2;
    char *data = realloc(buffer->data, capacity);
    if (!data)
        return ATEDM_ERR_NOMEM;
    buffer->data = data;
    buffer->capacity = capacity;
    return ATEDM_OK;
}

atedm_status atedm_buffer_append(atedm_buffer *buffer, const void *data, size_t size)
{
    atedm_status status = reserve(buffer, size);
    if (status)
        return status;
    if (size)
        memcpy(buffer->data + buffer->size, data, size);
    buffer->size += size;
    buffer->data[buffer->size] = '\0';
    return ATEDM_OK;
}

atedm_status atedm_buffer_printf(atedm_buffer *buffer, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    int length = vsnprintf(NULL, 0, format, args);
    va_end(args);
    if (length < 0)
        return ATEDM_ERR_INVALID;
    atedm_status status = reserve(buffer, (size_t)length);
    if (status)
        return status;
    va_start(args, format);
    vsnprintf(buffer->data + buffer->size, (size_t)length + 1, format, args);
    va_end(args);
    buffer->size += (size_t)length;
    return ATEDM_OK;
}

static atedm_status read_all(int fd, const char *path, char *data, size_t size, atedm_error *err)
{
    size_t done = 0;
    while (done < size) {
        ssize_t got = read(fd, data + done, size - done);
        if (got < 0 && errno == EINTR)
            continue;
        if (got < 0)
            return atedm_error_set(err, ATEDM_ERR_IO, "%s: %s", path, strerror(errno));
        if (got == 0)
            return atedm_error_set(err, ATEDM_ERR_IO, "%s: file shrank while it was read", path);
        done += (size_t)got;
    }
    return ATEDM_OK;
}

atedm_status atedm_file_read(const char *path, size_t max, char **ret_data, size_t *ret_size,
                             atedm_error *err)
{
    char *data = NULL;
    atedm_status status = ATEDM_OK;
    // Not blocking: a pipe in the file's place is refused below, not waited for.
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (fd < 0)
        return atedm_error_set(err, errno == ENOENT ? ATEDM_ERR_NOT_FOUND : ATEDM_ERR_IO, "%s: %s",
                               path, strerror(errno));
    struct stat info;
    if (fstat(fd, &info) != 0 || !S_ISREG(info.st_mode)) {
        status = atedm_error_set(err, ATEDM_ERR_IO, "%s: not a regular file", path);
        goto fail;
    }
    size_t size = (size_t)info.st_size;
    if (size > max) {
        status = atedm_error_set(err, ATEDM_ERR_LIMIT, "%s: %zu bytes, more than the limit of %zu",
                                 path, size, max);
        goto fail;
    }
    data = malloc(size + 1);
    if (!data) {
        status = atedm_error_set(err, ATEDM_ERR_NOMEM, "%s: no memory for %zu bytes", path, size);
        goto fail;
    }
    status = read_all(fd, path, data, size, err);
    if (status)
        goto fail;
    data[size] = '\0';
    close(fd);
    *ret_data = data;
    *ret_size = size;
    return ATEDM_OK;
fail:
    free(data);
    close(fd);
    return status;
}

atedm_status atedm_write_all(int fd, const void *data, size_t size)
{
    const char *from = data;
    while (size) {
        ssize_t done = write(fd, from, size);
        if (done < 0 && errno == EINTR)
            continue;
        if (done <= 0)
            return ATEDM_ERR_IO;
        from += done;
        size -= (size_t)done;
    }
    return ATEDM_OK;
}
