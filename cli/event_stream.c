// Parses server-sent events: see event_stream.h.
#include "cli/event_stream.h"

#include <stdio.h>
#include <string.h>

void atedm_event_stream_init(atedm_event_stream *stream,
                             void (*event)(void *user, const char *name, const char *data,
                                           size_t size),
                             void *user)
{
    *stream = (atedm_event_stream){.event = event, .user = user};
    atedm_buffer_init(&stream->line, ATEDM_EVENT_MAX);
    atedm_buffer_init(&stream->data, ATEDM_EVENT_MAX);
}

void atedm_event_stream_finish(atedm_event_stream *stream)
{
    if (!stream)
        return;
    atedm_buffer_finish(&stream->line);
    atedm_buffer_finish(&stream->data);
}

// Ends an event at an empty line. Lines without data make no event.
static void dispatch(atedm_event_stream *s)
{
    if (s->data.size) // without the line end of its last line
        s->event(s->user, *s->name ? s->name : "message", s->data.data, s->data.size - 1);
    s->data.size = 0;
    *s->name = '\0';
}

static atedm_status take_line(atedm_event_stream *s, const char *line)
{
    size_t length = strcspn(line, ":");
    const char *value = line + length + (line[length] == ':');
    value += *value == ' ';
    if (length == strlen("event") && strncmp(line, "event", length) == 0)
        snprintf(s->name, sizeof s->name, "%s", value);
    else if (length == strlen("data") && strncmp(line, "data", length) == 0)
        return atedm_buffer_printf(&s->data, "%s\n", value);
    return ATEDM_OK; // also for a comment, which is a field with an empty name
}

static atedm_status end_line(atedm_event_stream *s)
{
    if (!s->line.size) {
        dispatch(s);
        return ATEDM_OK;
    }
    atedm_status status = take_line(s, s->line.data);
    s->line.size = 0;
    return status;
}

atedm_status atedm_event_stream_feed(atedm_event_stream *stream, const char *data, size_t size)
{
    atedm_status status = ATEDM_OK;
    for (size_t i = 0; i < size && !status; i++) {
        char byte = data[i];
        if (byte == '\r' || (byte == '\n' && stream->last != '\r'))
            status = end_line(stream);
        else if (byte != '\n')
            status = atedm_buffer_append(&stream->line, &byte, 1);
        stream->last = byte;
    }
    return status;
}
