// Picture files: their names, and writing them.
#ifndef ATEDM_CLI_PICTURE_FILES_H
#define ATEDM_CLI_PICTURE_FILES_H

#include "core/base/status.h"

#include <stddef.h>

// Checks that `output` can probably be written. Making pictures may take long, so a command calls
// this before. ATEDM_ERR_IO: it cannot.
ATEDM_MUST_CHECK atedm_status atedm_picture_check(const char *output, atedm_error *err);
// The name of image `image` of `images`: "FILE.png" if there is one image, else "FILE-0.png",
// "FILE-1.png", ... The caller frees it. NULL: out of memory.
char *atedm_picture_name(const char *output, int image, int images);
// Writes "FILE.part" and renames it, so that an existing file remains until the new one is
// complete. A device or pipe is written directly. ATEDM_ERR_IO: writing failed.
ATEDM_MUST_CHECK atedm_status atedm_picture_write(const char *path, const void *data, size_t size,
                                                  atedm_error *err);

#endif
