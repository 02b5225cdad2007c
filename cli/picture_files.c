// Names and writes picture files: see picture_files.h.
#include "cli/picture_files.h"

#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

// Whether the path exists and is not a regular file, but a device or a pipe, for example.
static bool is_special(const char *path)
{
    struct stat info;
    return stat(path, &info) == 0 && !S_ISREG(info.st_mode);
}

atedm_status atedm_picture_check(const char *output, atedm_error *err)
{
    struct stat info;
    if (stat(output, &info) == 0 && S_ISDIR(info.st_mode))
        return atedm_error_set(err, ATEDM_ERR_IO, "%s: %s", output, strerror(EISDIR));
    const char *slash = strrchr(output, '/');
    char *folder = slash ? strndup(output, (size_t)(slash - output) + 1) : strdup(".");
    if (!folder)
        return atedm_error_set(err, ATEDM_ERR_NOMEM, "no memory");
    atedm_status status = ATEDM_OK;
    if (access(is_special(output) ? output : folder, W_OK))
        status = atedm_error_set(err, ATEDM_ERR_IO, "%s: %s", output, strerror(errno));
    free(folder);
    return status;
}

char *atedm_picture_name(const char *output, int image, int images)
{
    char *name = NULL;
    if (images == 1)
        return strdup(output);
    const char *slash = strrchr(output, '/'), *dot = strrchr(output, '.');
    if (!dot || (slash && dot < slash))
        dot = output + strlen(output);
    if (asprintf(&name, "%.*s-%d%s", (int)(dot - output), output, image, dot) < 0)
        return NULL;
    return name;
}

static atedm_status write_to(const char *path, const void *data, size_t size, atedm_error *err)
{
    FILE *file = fopen(path, "wb");
    if (!file)
        return atedm_error_set(err, ATEDM_ERR_IO, "%s: %s", path, strerror(errno));
    bool written = fwrite(data, 1, size, file) == size;
    if (fclose(file) || !written)
        return atedm_error_set(err, ATEDM_ERR_IO, "%s: %s", path, strerror(errno));
    return ATEDM_OK;
}

atedm_status atedm_picture_write(const char *path, const void *data, size_t size, atedm_error *err)
{
    char *part = NULL;
    if (is_special(path))
        return write_to(path, data, size, err);
    if (asprintf(&part, "%s.part", path) < 0)
        return atedm_error_set(err, ATEDM_ERR_NOMEM, "no memory");
    atedm_status status = write_to(part, data, size, err);
    if (!status && rename(part, path))
        status = atedm_error_set(err, ATEDM_ERR_IO, "%s: %s", path, strerror(errno));
    if (status)
        unlink(part);
    free(part);
    return status;
}
