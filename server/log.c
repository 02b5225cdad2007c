// Writes log lines: see log.h.
#include "server/log.h"

#include "core/base/file.h"
#include "core/base/memory.h"
#include "core/base/utf8.h"

#include <errno.h>
#include <inttypes.h>
#include <limits.h>
#include <math.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

// Milliseconds that the reader of the log has to make room for a line.
#define PATIENCE_MS 100

_Static_assert(ATEDM_LOG_LINE_MAX <= PIPE_BUF, "a writable pipe has room for a whole line");

static const char *const level_names[] = {"debug", "info", "warning", "error"};

atedm_log_level atedm_log_level_named(const char *name)
{
    for (int i = ATEDM_LOG_DEBUG; i <= ATEDM_LOG_ERROR; i++) {
        if (strcmp(name, level_names[i]) == 0)
            return (atedm_log_level)i;
    }
    return ATEDM_LOG_INFO;
}

// Appends a quoted JSON string; plain lines use these too. Fails if the line is full; the caller
// then takes back what was appended.
static atedm_status append_quoted(atedm_buffer *line, const char *text)
{
    size_t size = strnlen(text, ATEDM_LOG_TEXT_MAX);
    atedm_status status = atedm_buffer_append(line, "\"", 1);
    size_t i = 0;
    while (i < size && !status) {
        size_t valid = atedm_utf8_valid_prefix(text + i, size - i);
        for (size_t end = i + valid; i < end && !status; i++) {
            unsigned char c = (unsigned char)text[i];
            if (c == '"' || c == '\\')
                status = atedm_buffer_printf(line, "\\%c", c);
            else if (c < 0x20 || c == 0x7f)
                status = atedm_buffer_printf(line, "\\u%04x", c);
            else
                status = atedm_buffer_append(line, &text[i], 1);
        }
        if (i < size && !status) {
            status = atedm_buffer_append(line, "?", 1);
            i++;
        }
    }
    return status ? status : atedm_buffer_append(line, "\"", 1);
}

static atedm_status append_value(atedm_buffer *line, const atedm_log_field *field)
{
    switch (field->type) {
    case ATEDM_LOG_IS_INTEGER:
        return atedm_buffer_printf(line, "%" PRId64, field->integer);
    case ATEDM_LOG_IS_REAL:
        return isfinite(field->real) ? atedm_buffer_printf(line, "%.6g", field->real)
                                     : atedm_buffer_append(line, "null", 4);
    case ATEDM_LOG_IS_TEXT:
        break;
    }
    return append_quoted(line, field->text ? field->text : "");
}

static atedm_status append_head(const atedm_log *log, atedm_buffer *line, atedm_log_level level,
                                const char *message)
{
    struct timespec now;
    struct tm utc;
    char time_text[32] = "";
    clock_gettime(CLOCK_REALTIME, &now);
    if (gmtime_r(&now.tv_sec, &utc))
        strftime(time_text, sizeof time_text, "%Y-%m-%dT%H:%M:%S", &utc);
    int milliseconds = (int)(now.tv_nsec / 1000000);
    if (!log->json)
        return atedm_buffer_printf(line, "%s.%03dZ %s %s", time_text, milliseconds,
                                   level_names[level], message);
    atedm_status status =
        atedm_buffer_printf(line, "{\"time\":\"%s.%03dZ\",\"level\":\"%s\",\"message\":", time_text,
                            milliseconds, level_names[level]);
    return status ? status : append_quoted(line, message);
}

static atedm_status append_field(const atedm_log *log, atedm_buffer *line,
                                 const atedm_log_field *field)
{
    atedm_status status = atedm_buffer_printf(line, log->json ? ",\"%s\":" : " %s=", field->key);
    return status ? status : append_value(line, field);
}

// Whether a line can be written without waiting: a writable pipe has room for a page. If the reader
// is slow, waits up to PATIENCE_MS for it, but not again until it has read something.
static bool is_read(const atedm_log *log)
{
    struct pollfd descriptor = {.fd = log->fd, .events = POLLOUT};
    int found;
    do
        found = poll(&descriptor, 1, *log->lost ? 0 : PATIENCE_MS);
    while (found < 0 && errno == EINTR);
    return found != 0;
}

static void write_line(const atedm_log *log, const atedm_buffer *line)
{
    if (!is_read(log) || atedm_write_all(log->fd, line->data, line->size))
        ++*log->lost;
}

static void tell_lost(const atedm_log *log)
{
    int64_t lost = *log->lost;
    if (!lost || !is_read(log))
        return;
    *log->lost = 0;
    ATEDM_LOG(log, ATEDM_LOG_WARNING, "lines of this log were lost, for nobody read them",
              atedm_log_integer("lines", lost));
    if (*log->lost)
        *log->lost = lost;
}

void atedm_log_write(const atedm_log *log, atedm_log_level level, const char *message,
                     const atedm_log_field *fields)
{
    if (level < log->level)
        return;
    tell_lost(log);
    atedm_buffer line;
    atedm_buffer_init(&line, ATEDM_LOG_LINE_MAX - 2); // the end of the line always has room
    atedm_status status = append_head(log, &line, level, message);
    for (; fields->key && !status; fields++) {
        size_t before = line.size;
        status = append_field(log, &line, fields);
        if (status) // never write a part of a field
            line.size = before;
    }
    line.max = ATEDM_LOG_LINE_MAX;
    status = atedm_buffer_append(&line, log->json ? "}\n" : "\n", log->json ? 2 : 1);
    if (!status)
        write_line(log, &line);
    atedm_buffer_finish(&line);
}
