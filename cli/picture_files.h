// Where pictures go: names of files, and writing them.
#ifndef ATEDM_CLI_PICTURE_FILES_H
#define ATEDM_CLI_PICTURE_FILES_H

#include "core/base/status.h"

#include <stddef.h>

// Making pictures may take long: that their files cannot be written is told before, where it can
// be.
ATEDM_MUST_CHECK atedm_status atedm_picture_check(const char *output, atedm_error *err);
// "FILE.png", or "FILE-0.png", "FILE-1.png", ... where there are several. The caller frees; NULL:
// no memory.
char *atedm_picture_name(const char *output, int image, int images);
// All of it or nothing: by way of "FILE.part", so that a file which was there stays until then.
ATEDM_MUST_CHECK atedm_status atedm_picture_write(const char *path, const void *data, size_t size,
                                                  atedm_error *err);

#endif
