// Files in, and writing all that there is.
#ifndef ATEDM_BASE_FILE_H
#define ATEDM_BASE_FILE_H

#include "core/base/status.h"

#include <stddef.h>

// A regular file for reading; the caller closes. ATEDM_ERR_NOT_FOUND, ATEDM_ERR_IO.
ATEDM_MUST_CHECK atedm_status atedm_file_open(const char *path, int *ret_fd, size_t *ret_size,
                                              atedm_error *err);
// The whole file in fresh memory, NUL-terminated past its end; the caller frees. Files over `max`
// bytes are refused (ATEDM_ERR_LIMIT).
ATEDM_MUST_CHECK atedm_status atedm_file_read(const char *path, size_t max, char **ret_data,
                                              size_t *ret_size, atedm_error *err);
// /dev/null for those of the descriptors 0, 1 and 2 that a program was started without: else a
// socket or a picture would get the number, and what is meant for people. It cannot be written to,
// so that whoever prints to it is still told.
ATEDM_MUST_CHECK atedm_status atedm_standard_files_open(void);
// All of it, in as many writes as it takes. ATEDM_ERR_IO: errno says why, and some may be written.
ATEDM_MUST_CHECK atedm_status atedm_write_all(int fd, const void *data, size_t size);

#endif
