// Where pictures go: see picture_files.h.
#include "cli/picture_files.h"

#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

atedm_status atedm_picture_check_folder(const char *output, atedm_error *err)
{
    const char *slash = strrchr(output, '/');
    char *folder = slash ? strndup(output, (size_t)(slash - output) + 1) : strdup(".");
    if (!folder)
        return atedm_error_set(err, ATEDM_ERR_NOMEM, "no memory");
    atedm_status status = ATEDM_OK;
    if (access(folder, W_OK))
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

atedm_status atedm_picture_write(const char *path, const void *data, size_t size, atedm_error *err)
{
    FILE *file = fopen(path, "wb");
    if (!file)
        return atedm_error_set(err, ATEDM_ERR_IO, "%s: %s", path, strerror(errno));
    bool written = fwrite(data, 1, size, file) == size;
    if (fclose(file) || !written)
        return atedm_error_set(err, ATEDM_ERR_IO, "%s: %s", path, strerror(errno));
    return ATEDM_OK;
}
