// Status codes and error messages.
//
// Every function that can fail returns an atedm_status. Functions that can say more than the code
// does take an `atedm_error *err` as their last parameter (NULL is allowed) and write one sentence
// there. Outputs (`ret_...`) stand before it and are untouched on failure.
#ifndef ATEDM_BASE_STATUS_H
#define ATEDM_BASE_STATUS_H

#include <stdarg.h>

#define ATEDM_MUST_CHECK __attribute__((warn_unused_result))
#define ATEDM_PRINTF(fmt, args) __attribute__((format(printf, fmt, args)))

typedef enum atedm_status {
    ATEDM_OK = 0,
    ATEDM_ERR_NOMEM = -1,       // memory (host or device) is not to be had
    ATEDM_ERR_INVALID = -2,     // an argument is wrong
    ATEDM_ERR_FORMAT = -3,      // a file's content is malformed
    ATEDM_ERR_IO = -4,          // the operating system refused (open, read, write, map)
    ATEDM_ERR_NOT_FOUND = -5,   // a file, name or tensor does not exist
    ATEDM_ERR_UNSUPPORTED = -6, // well-formed, but not something that this build can do
    ATEDM_ERR_LIMIT = -7,       // over a named limit
    ATEDM_ERR_DEVICE = -8,      // the compute device or its library failed
    ATEDM_ERR_CANCELED = -9,    // stopped on request
} atedm_status;

// Longest message kept, terminator included; longer ones are cut.
#define ATEDM_ERROR_MAX 512

typedef struct atedm_error {
    char message[ATEDM_ERROR_MAX];
} atedm_error;

// A few words for a code, static storage.
const char *atedm_status_name(atedm_status status);

// Writes the message (err may be NULL) and returns `status`, so that it reads
// `return atedm_error_set(err, ATEDM_ERR_FORMAT, "...")`.
atedm_status atedm_error_set(atedm_error *err, atedm_status status, const char *format, ...)
    ATEDM_PRINTF(3, 4);

// Puts "context: " before the message that is there and returns `status`. No-op on the message when
// err is NULL or status is ATEDM_OK.
atedm_status atedm_error_context(atedm_error *err, atedm_status status, const char *format, ...)
    ATEDM_PRINTF(3, 4);

#endif
