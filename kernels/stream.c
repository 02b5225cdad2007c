// Streams: their life, work aside, waiting, and sequences that come again. Operations are in ops.c
// and ops_tokens.c; how a stream fails is in stream_fail.c.
#include "kernels/backend.h"

// ---- making and destroying

atedm_status atedm_stream_create(atedm_device *device, atedm_dtype act, atedm_stream **ret_stream,
                                 atedm_error *err)
{
    if (!device->backend->supports(device, act))
        return atedm_error_set(err, ATEDM_ERR_UNSUPPORTED,
                               "the %s backend cannot compute in %s here", device->backend->name,
                               atedm_dtype_name(act));
    atedm_stream *stream = NULL;
    atedm_status status = device->backend->stream_create(device, act, &stream, err);
    if (status)
        return status;
    stream->device = device;
    stream->act = act;
    *ret_stream = stream;
    return ATEDM_OK;
}

void atedm_stream_destroy(atedm_stream *stream)
{
    if (stream)
        atedm_stream_backend(stream)->stream_destroy(stream);
}

atedm_device *atedm_stream_device(const atedm_stream *stream)
{
    return stream->device;
}

atedm_dtype atedm_stream_dtype(const atedm_stream *stream)
{
    return stream->act;
}

// ---- work aside

// Ends and joins it, where there is some.
static void stop_aside(atedm_stream *s)
{
    if (s->aside == ATEDM_ASIDE_OPEN)
        atedm_stream_end_aside(s);
    if (s->aside == ATEDM_ASIDE_ENDED)
        atedm_stream_join_aside(s);
}

static bool check_aside(atedm_stream *s, const char *call, atedm_aside should)
{
    static const char *const found[] = {
        [ATEDM_ASIDE_NONE] = "there is no work aside",
        [ATEDM_ASIDE_OPEN] = "work aside has not been ended",
        [ATEDM_ASIDE_ENDED] = "work aside has not been joined",
    };
    if (s->aside != should)
        atedm_stream_fail(s, ATEDM_ERR_INVALID, "%s: %s", call, found[s->aside]);
    return s->aside == should;
}

void atedm_stream_begin_aside(atedm_stream *s)
{
    const atedm_backend *backend = atedm_stream_backend(s);
    if (!check_aside(s, "begin_aside", ATEDM_ASIDE_NONE))
        return;
    s->aside = ATEDM_ASIDE_OPEN;
    if (!s->status && backend->stream_begin_aside)
        backend->stream_begin_aside(s);
}

void atedm_stream_end_aside(atedm_stream *s)
{
    const atedm_backend *backend = atedm_stream_backend(s);
    if (!check_aside(s, "end_aside", ATEDM_ASIDE_OPEN))
        return;
    s->aside = ATEDM_ASIDE_ENDED;
    if (backend->stream_end_aside)
        backend->stream_end_aside(s);
}

void atedm_stream_join_aside(atedm_stream *s)
{
    const atedm_backend *backend = atedm_stream_backend(s);
    if (!check_aside(s, "join_aside", ATEDM_ASIDE_ENDED))
        return;
    s->aside = ATEDM_ASIDE_NONE;
    if (backend->stream_join_aside)
        backend->stream_join_aside(s);
}

// ---- waiting, failing

bool atedm_stream_wait(atedm_stream *stream)
{
    if (!check_aside(stream, "sync", ATEDM_ASIDE_NONE))
        stop_aside(stream);
    atedm_stream_backend(stream)->stream_sync(stream);
    return !stream->status;
}

atedm_status atedm_stream_sync(atedm_stream *stream, atedm_error *err)
{
    if (atedm_stream_wait(stream))
        return ATEDM_OK;
    atedm_status status = stream->status;
    stream->status = ATEDM_OK;
    return atedm_error_set(err, status, "%s", stream->error.message);
}

bool atedm_stream_set_background(atedm_stream *stream)
{
    const atedm_backend *backend = atedm_stream_backend(stream);
    return backend->stream_set_background && backend->stream_set_background(stream);
}

bool atedm_stream_idle(atedm_stream *stream)
{
    const atedm_backend *backend = atedm_stream_backend(stream);
    return stream->status || !backend->stream_idle || backend->stream_idle(stream);
}

bool atedm_stream_failed(const atedm_stream *stream)
{
    return stream->status != ATEDM_OK;
}

atedm_op_counts atedm_stream_counts(const atedm_stream *stream)
{
    return stream->counts;
}

void atedm_stream_reset_counts(atedm_stream *stream)
{
    stream->counts = (atedm_op_counts){0};
    stream->profiled_flops = 0;
}

// ---- sequences that come again

typedef struct sequence {
    atedm_stream *s;
    atedm_enqueue_fn enqueue;
    void *user;
} sequence;

// A recording has to end with all of its work joined.
static void enqueue_whole(void *user)
{
    const sequence *q = user;
    q->enqueue(q->user);
    if (!check_aside(q->s, "repeat", ATEDM_ASIDE_NONE))
        stop_aside(q->s);
}

void atedm_stream_repeat(atedm_stream *s, const void *key, size_t key_bytes,
                         atedm_enqueue_fn enqueue, void *user)
{
    const atedm_backend *backend = atedm_stream_backend(s);
    sequence whole = {s, enqueue, user};
    if (s->status || !check_aside(s, "repeat", ATEDM_ASIDE_NONE))
        return;
    if (backend->stream_repeat && key_bytes <= ATEDM_REPEAT_KEY_MAX) {
        backend->stream_repeat(s, key, key_bytes, enqueue_whole, &whole);
        return;
    }
    s->repeats.direct++;
    enqueue_whole(&whole);
}

const atedm_repeat_figures *atedm_stream_repeats(const atedm_stream *s)
{
    return &s->repeats;
}

void atedm_stream_forget(atedm_stream *s)
{
    if (atedm_stream_backend(s)->stream_forget)
        atedm_stream_backend(s)->stream_forget(s);
}
