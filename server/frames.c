// Encodes and decodes frames: see frames.h.
#include "server/frames.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MAGIC 0x4d445441u // "ATDM"
#define PROTOCOL 5u

typedef struct head {
    uint32_t magic, type;
    uint64_t job, size;
} head;

// What both ends must agree on.
typedef struct hello {
    uint32_t protocol;
    uint32_t request_bytes, message_bytes, result_bytes;
    char version[48];
} hello;

static hello own_hello(void)
{
    hello h = {.protocol = PROTOCOL,
               .request_bytes = sizeof(atedm_request),
               .message_bytes = sizeof(atedm_worker_message),
               .result_bytes = sizeof(atedm_worker_result)};
    snprintf(h.version, sizeof h.version, "%s", ATEDM_VERSION);
    return h;
}

// ---- writing

// Begins a frame in the buffer: writes the head, whose length field is set when the frame ends.
static atedm_status begin(atedm_buffer *buffer, atedm_frame_type type, uint64_t job)
{
    const head h = {.magic = MAGIC, .type = type, .job = job};
    return atedm_buffer_append(buffer, &h, sizeof h);
}

static atedm_status end(atedm_buffer *buffer, size_t start, atedm_status status)
{
    if (status) {
        buffer->size = start;
        return status;
    }
    uint64_t size = buffer->size - start - sizeof(head);
    memcpy(buffer->data + start + offsetof(head, size), &size, sizeof size);
    return ATEDM_OK;
}

// Writes a text as its length and its bytes. NULL means that there is no text.
static atedm_status put_text(atedm_buffer *buffer, const char *text)
{
    uint64_t size = text ? strlen(text) : UINT64_MAX;
    atedm_status status = atedm_buffer_append(buffer, &size, sizeof size);
    return status || !text ? status : atedm_buffer_append(buffer, text, size);
}

atedm_status atedm_frame_put_submit(atedm_buffer *buffer, uint64_t job,
                                    const atedm_request *request)
{
    size_t start = buffer->size;
    atedm_request copy = *request;
    copy.prompt = copy.negative_prompt = NULL;
    atedm_status status = begin(buffer, ATEDM_FRAME_SUBMIT, job);
    if (!status)
        status = atedm_buffer_append(buffer, &copy, sizeof copy);
    if (!status)
        status = put_text(buffer, request->prompt);
    if (!status)
        status = put_text(buffer, request->negative_prompt);
    return end(buffer, start, status);
}

atedm_status atedm_frame_put_cancel(atedm_buffer *buffer, uint64_t job)
{
    return begin(buffer, ATEDM_FRAME_CANCEL, job);
}

atedm_status atedm_frame_put_watch(atedm_buffer *buffer, uint64_t job, bool on)
{
    size_t start = buffer->size;
    const uint8_t wish = on;
    atedm_status status = begin(buffer, ATEDM_FRAME_WATCH, job);
    if (!status)
        status = atedm_buffer_append(buffer, &wish, sizeof wish);
    return end(buffer, start, status);
}

atedm_status atedm_frame_put_hello(atedm_buffer *buffer)
{
    size_t start = buffer->size;
    const hello h = own_hello();
    atedm_status status = begin(buffer, ATEDM_FRAME_HELLO, 0);
    if (!status)
        status = atedm_buffer_append(buffer, &h, sizeof h);
    return end(buffer, start, status);
}

static atedm_status put_image(atedm_buffer *buffer, const atedm_worker_image *image)
{
    uint64_t size = image->size;
    atedm_status status = atedm_buffer_append(buffer, &size, sizeof size);
    return status ? status : atedm_buffer_append(buffer, image->png, size);
}

static atedm_status put_result(atedm_buffer *buffer, const atedm_worker_result *result)
{
    atedm_worker_result copy = *result;
    copy.images = NULL;
    atedm_status status = atedm_buffer_append(buffer, &copy, sizeof copy);
    for (size_t i = 0; !status && i < result->n_images; i++)
        status = put_image(buffer, &result->images[i]);
    return status;
}

atedm_status atedm_frame_put_message(atedm_buffer *buffer, const atedm_worker_message *message)
{
    size_t start = buffer->size;
    atedm_worker_message copy = *message;
    copy.result = NULL;
    copy.image.png = NULL;
    atedm_status status = begin(buffer, ATEDM_FRAME_MESSAGE, message->job);
    if (!status)
        status = atedm_buffer_append(buffer, &copy, sizeof copy);
    if (!status && message->result)
        status = put_result(buffer, message->result);
    if (!status && message->type == ATEDM_WORKER_PREVIEW)
        status = put_image(buffer, &message->image);
    return end(buffer, start, status);
}

// ---- reading frames

void atedm_frame_reader_init(atedm_frame_reader *reader)
{
    atedm_buffer_init(&reader->data, 2 * ATEDM_FRAME_MAX);
    reader->at = 0;
}

void atedm_frame_reader_finish(atedm_frame_reader *reader)
{
    atedm_buffer_finish(&reader->data);
}

atedm_status atedm_frame_reader_feed(atedm_frame_reader *reader, const char *data, size_t size)
{
    atedm_buffer *b = &reader->data;
    if (reader->at) { // drops the bytes of frames that were already read
        memmove(b->data, b->data + reader->at, b->size - reader->at);
        b->size -= reader->at;
        reader->at = 0;
    }
    return atedm_buffer_append(b, data, size);
}

atedm_status atedm_frame_reader_next(atedm_frame_reader *reader, atedm_frame *ret_frame)
{
    head h;
    size_t left = reader->data.size - reader->at;
    if (left < sizeof h)
        return ATEDM_ERR_NOT_FOUND;
    memcpy(&h, reader->data.data + reader->at, sizeof h);
    if (h.magic != MAGIC || h.type < ATEDM_FRAME_SUBMIT || h.type > ATEDM_FRAME_MESSAGE ||
        h.size > ATEDM_FRAME_MAX)
        return ATEDM_ERR_FORMAT;
    if (left - sizeof h < h.size)
        return ATEDM_ERR_NOT_FOUND;
    *ret_frame = (atedm_frame){.type = (atedm_frame_type)h.type,
                               .job = h.job,
                               .body = reader->data.data + reader->at + sizeof h,
                               .size = h.size};
    reader->at += sizeof h + h.size;
    return ATEDM_OK;
}

// ---- reading bodies

// The unread rest of a body.
typedef struct cursor {
    const char *at;
    size_t left;
} cursor;

static bool take(cursor *c, void *to, size_t size)
{
    if (size > c->left)
        return false;
    memcpy(to, c->at, size);
    c->at += size;
    c->left -= size;
    return true;
}

static bool take_text(cursor *c, char **ret_text)
{
    uint64_t size;
    *ret_text = NULL;
    if (!take(c, &size, sizeof size))
        return false;
    if (size == UINT64_MAX)
        return true;
    if (size > c->left || !(*ret_text = malloc(size + 1)))
        return false;
    (*ret_text)[size] = '\0';
    return take(c, *ret_text, size);
}

atedm_status atedm_frame_get_submit(const atedm_frame *frame, atedm_request *ret_request)
{
    cursor c = {frame->body, frame->size};
    atedm_request request;
    if (frame->type != ATEDM_FRAME_SUBMIT || !take(&c, &request, sizeof request))
        return ATEDM_ERR_FORMAT;
    request.prompt = request.negative_prompt = NULL;
    if (!take_text(&c, &request.prompt) || !take_text(&c, &request.negative_prompt) || c.left) {
        atedm_request_finish(&request);
        return ATEDM_ERR_FORMAT;
    }
    *ret_request = request;
    return ATEDM_OK;
}

atedm_status atedm_frame_get_watch(const atedm_frame *frame, bool *ret_on)
{
    cursor c = {frame->body, frame->size};
    uint8_t wish;
    if (frame->type != ATEDM_FRAME_WATCH || !take(&c, &wish, sizeof wish) || c.left || wish > 1)
        return ATEDM_ERR_FORMAT;
    *ret_on = wish;
    return ATEDM_OK;
}

atedm_status atedm_frame_check_hello(const atedm_frame *frame, atedm_error *err)
{
    const hello own = own_hello();
    if (frame->type != ATEDM_FRAME_HELLO || frame->size != sizeof own ||
        memcmp(frame->body, &own, sizeof own))
        return atedm_error_set(err, ATEDM_ERR_UNSUPPORTED,
                               "the worker program is not of this build, " ATEDM_VERSION);
    return ATEDM_OK;
}

static bool take_image(cursor *c, atedm_worker_image *image)
{
    uint64_t size;
    if (!take(c, &size, sizeof size) || size > c->left || !(image->png = malloc(size ? size : 1)))
        return false;
    image->size = size;
    return take(c, image->png, size);
}

static atedm_worker_result *take_result(cursor *c)
{
    atedm_worker_result *result = malloc(sizeof *result);
    if (!result || !take(c, result, sizeof *result)) {
        free(result);
        return NULL;
    }
    size_t n = result->n_images;
    result->n_images = 0;
    // Every image takes at least the bytes of its length, which bounds n before the allocation.
    result->images =
        n <= c->left / sizeof(uint64_t) ? calloc(n ? n : 1, sizeof *result->images) : NULL;
    while (result->images && result->n_images < n) {
        if (!take_image(c, &result->images[result->n_images++])) {
            atedm_worker_result_destroy(result);
            return NULL;
        }
    }
    if (result->images)
        return result;
    free(result);
    return NULL;
}

atedm_status atedm_frame_get_message(const atedm_frame *frame, atedm_worker_message *ret_message)
{
    cursor c = {frame->body, frame->size};
    atedm_worker_message message;
    if (frame->type != ATEDM_FRAME_MESSAGE || !take(&c, &message, sizeof message))
        return ATEDM_ERR_FORMAT;
    message.result = NULL;
    message.image = (atedm_worker_image){0};
    bool whole = true;
    if (message.type == ATEDM_WORKER_DONE)
        whole = (message.result = take_result(&c)) != NULL;
    else if (message.type == ATEDM_WORKER_PREVIEW)
        whole = take_image(&c, &message.image);
    if (!whole || c.left) {
        atedm_worker_message_finish(&message);
        return ATEDM_ERR_FORMAT;
    }
    *ret_message = message;
    return ATEDM_OK;
}
