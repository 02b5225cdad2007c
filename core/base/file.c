// Whole files: see file.h.
#include "core/base/file.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

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

atedm_status atedm_file_open(const char *path, int *ret_fd, size_t *ret_size, atedm_error *err)
{
    // Not blocking: a pipe in the file's place is refused below, not waited for.
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (fd < 0)
        return atedm_error_set(err, errno == ENOENT ? ATEDM_ERR_NOT_FOUND : ATEDM_ERR_IO, "%s: %s",
                               path, strerror(errno));
    struct stat info;
    if (fstat(fd, &info) != 0 || !S_ISREG(info.st_mode)) {
        close(fd);
        return atedm_error_set(err, ATEDM_ERR_IO, "%s: not a regular file", path);
    }
    *ret_fd = fd;
    *ret_size = (size_t)info.st_size;
    return ATEDM_OK;
}

atedm_status atedm_file_read(const char *path, size_t max, char **ret_data, size_t *ret_size,
                             atedm_error *err)
{
    int fd = -1;
    size_t size = 0;
    atedm_status status = atedm_file_open(path, &fd, &size, err);
    if (status)
        return status;
    char *data = NULL;
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
    close(fd);
    data[size] = '\0';
    *ret_data = data;
    *ret_size = size;
    return ATEDM_OK;
fail:
    close(fd);
    free(data);
    return status;
}

atedm_status atedm_standard_files_open(void)
{
    for (int fd = STDIN_FILENO; fd <= STDERR_FILENO; fd++) {
        if (fcntl(fd, F_GETFD) < 0 && open("/dev/null", O_RDONLY) != fd) // the lowest that is free
            return ATEDM_ERR_IO;
    }
    return ATEDM_OK;
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
