// Server-sent events: the same whatever pieces they come in.
#include "cli/event_stream.h"

#include <criterion/criterion.h>
#include <stdio.h>
#include <string.h>

static char seen[512];

static void on_event(void *user, const char *name, const char *data, size_t size)
{
    size_t length = strlen(seen);
    cr_expect_eq(size, strlen(data) - 1, "the end of its last line is none of it");
    snprintf(seen + length, sizeof seen - length, "%s=%.*s;", name, (int)size, data);
}

static void check(const char *text, const char *expected)
{
    size_t size = strlen(text);
    for (size_t piece = 1; piece <= size; piece++) {
        atedm_event_stream stream;
        atedm_event_stream_init(&stream, on_event, NULL);
        seen[0] = '\0';
        for (size_t i = 0; i < size; i += piece)
            cr_assert_eq(
                atedm_event_stream_feed(&stream, text + i, size - i < piece ? size - i : piece),
                ATEDM_OK);
        cr_expect_str_eq(seen, expected, "pieces of %zu", piece);
        atedm_event_stream_finish(&stream);
    }
}

Test(event_stream, is_cut_into_events)
{
    check("event: progress\ndata: {\"step\": 1}\n\nevent: done\ndata: {}\n\n",
          "progress={\"step\": 1};done={};");
    check("event:a\r\ndata:1\r\n\r\nevent: b\rdata: 2\r\r", "a=1;b=2;");
    check(": a comment\n\ndata: of no name\n\n", "message=of no name;");
    check("event: a\ndata: two\ndata: lines\n\ndata\n\n", "a=two\nlines;message=;");
    check("event: nothing\n\nid: 3\nretry: 7\nevents: x\ndata:  a space\n\n", "message= a space;");
    check("event: a\ndata: not at its end\n", "");
    check("event: a name that is longer than any of ours\ndata: 1\n\n",
          "a name that is longer than any =1;");
}

Test(event_stream, has_limits)
{
    static char line[1 << 20];
    memset(line, 'x', sizeof line);
    atedm_event_stream stream;
    atedm_event_stream_init(&stream, on_event, NULL);
    atedm_status status = ATEDM_OK;
    size_t fed = 0;
    for (; !status && fed <= ATEDM_EVENT_MAX; fed += sizeof line)
        status = atedm_event_stream_feed(&stream, line, sizeof line);
    cr_expect_eq(status, ATEDM_ERR_LIMIT);
    cr_expect_gt(fed, ATEDM_EVENT_MAX);
    atedm_event_stream_finish(&stream);
}
