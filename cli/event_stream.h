// Parses server-sent events that arrive in pieces: the event stream format of the HTML standard,
// section 9.2, without `id` and `retry`, which the daemon does not send.
#ifndef ATEDM_CLI_EVENT_STREAM_H
#define ATEDM_CLI_EVENT_STREAM_H

#include "core/base/memory.h"
#include "core/base/status.h"

#include <stddef.h>

#define ATEDM_EVENT_MAX (16u * 1024 * 1024) // bytes of an event's data, and of a line
#define ATEDM_EVENT_NAME_MAX 32             // bytes of an event's name, including the terminator

typedef struct atedm_event_stream {
    // Called for each event. The arguments are borrowed for the call.
    void (*event)(void *user, const char *name, const char *data, size_t size);
    void *user;
    // Private.
    atedm_buffer line, data;
    char name[ATEDM_EVENT_NAME_MAX];
    char last; // last byte fed, because "\r\n" is a single line end
} atedm_event_stream;

void atedm_event_stream_init(atedm_event_stream *stream,
                             void (*event)(void *user, const char *name, const char *data,
                                           size_t size),
                             void *user);
void atedm_event_stream_finish(atedm_event_stream *stream); // NULL is allowed
// Feeds `size` bytes of the stream. ATEDM_ERR_LIMIT, ATEDM_ERR_NOMEM: the stream cannot be fed any
// further.
ATEDM_MUST_CHECK atedm_status atedm_event_stream_feed(atedm_event_stream *stream, const char *data,
                                                      size_t size);

#endif
