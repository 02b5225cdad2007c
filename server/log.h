// The daemon's log: each event is one line on standard error, plain or JSON, whatever bytes its
// values hold. If nobody reads the log (a pipe is full, a terminal is halted), lines are lost,
// because the daemon must not wait. A later line then says how many.
#ifndef ATEDM_LOG_H
#define ATEDM_LOG_H

#include <stdbool.h>
#include <stdint.h>

typedef enum atedm_log_level {
    ATEDM_LOG_DEBUG,
    ATEDM_LOG_INFO,
    ATEDM_LOG_WARNING,
    ATEDM_LOG_ERROR,
} atedm_log_level;

#define ATEDM_LOG_LINE_MAX 4096 // bytes of a line; fields past them are left out
#define ATEDM_LOG_TEXT_MAX 512  // bytes of a text value; longer ones are cut

typedef struct atedm_log {
    int fd;                // borrowed
    bool json;             // else plain text
    atedm_log_level level; // events of a lower severity are not written
    int64_t *lost;         // lines lost since the last written one; borrowed
} atedm_log;

typedef struct atedm_log_field {
    const char *key; // NULL ends a list of fields
    enum { ATEDM_LOG_IS_TEXT, ATEDM_LOG_IS_INTEGER, ATEDM_LOG_IS_REAL } type;
    const char *text;
    int64_t integer;
    double real;
} atedm_log_field;

static inline atedm_log_field atedm_log_text(const char *key, const char *text)
{
    return (atedm_log_field){.key = key, .type = ATEDM_LOG_IS_TEXT, .text = text};
}

static inline atedm_log_field atedm_log_integer(const char *key, int64_t integer)
{
    return (atedm_log_field){.key = key, .type = ATEDM_LOG_IS_INTEGER, .integer = integer};
}

static inline atedm_log_field atedm_log_real(const char *key, double real)
{
    return (atedm_log_field){.key = key, .type = ATEDM_LOG_IS_REAL, .real = real};
}

// The level that the configuration calls `name`: "debug", "info", "warning" or "error". Any other
// name gives ATEDM_LOG_INFO.
atedm_log_level atedm_log_level_named(const char *name);

// Writes one line. `fields` ends with a key of NULL. Text values may hold any bytes: a byte that is
// not valid UTF-8 becomes "?", and control characters are escaped. Waits 100 ms at most, and only
// if no line has been lost since the last written one.
void atedm_log_write(const atedm_log *log, atedm_log_level level, const char *message,
                     const atedm_log_field *fields);

#define ATEDM_LOG(log, level, message, ...)                                                        \
    atedm_log_write(log, level, message, (const atedm_log_field[]){__VA_ARGS__, {.key = NULL}})

#endif
