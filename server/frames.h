// What the daemon and its worker processes say to each other over a socketpair: frames, each a
// fixed head and a body whose length the head tells. Both ends are built together, so bodies are
// the structs as they are in memory, with what they point to behind them; the worker's first frame
// says which build it is.
#ifndef ATEDM_FRAMES_H
#define ATEDM_FRAMES_H

#include "core/base/memory.h"
#include "core/request.h"
#include "server/worker_message.h"

#define ATEDM_FRAME_MAX ((size_t)1 << 32) // bytes of a body: 256 images of 16 MB

typedef enum atedm_frame_type {
    ATEDM_FRAME_SUBMIT = 1, // to the worker: `job`, a request
    ATEDM_FRAME_CANCEL,     // to the worker: `job`
    ATEDM_FRAME_WATCH,      // to the worker: `job`, whether there are to be previews of it
    ATEDM_FRAME_HELLO,      // from the worker, first: what it is built from
    ATEDM_FRAME_MESSAGE,    // from the worker: an atedm_worker_message
} atedm_frame_type;

typedef struct atedm_frame {
    atedm_frame_type type;
    uint64_t job;
    const char *body; // borrowed from the reader, until it is fed again
    size_t size;
} atedm_frame;

// Each appends one frame; the buffer is as before on failure.
ATEDM_MUST_CHECK atedm_status atedm_frame_put_submit(atedm_buffer *buffer, uint64_t job,
                                                     const atedm_request *request);
ATEDM_MUST_CHECK atedm_status atedm_frame_put_cancel(atedm_buffer *buffer, uint64_t job);
ATEDM_MUST_CHECK atedm_status atedm_frame_put_watch(atedm_buffer *buffer, uint64_t job, bool on);
ATEDM_MUST_CHECK atedm_status atedm_frame_put_hello(atedm_buffer *buffer);
ATEDM_MUST_CHECK atedm_status atedm_frame_put_message(atedm_buffer *buffer,
                                                      const atedm_worker_message *message);

// Takes bytes as they come and gives whole frames.
typedef struct atedm_frame_reader {
    atedm_buffer data;
    size_t at; // where the next frame starts
} atedm_frame_reader;

void atedm_frame_reader_init(atedm_frame_reader *reader);
void atedm_frame_reader_finish(atedm_frame_reader *reader);
ATEDM_MUST_CHECK atedm_status atedm_frame_reader_feed(atedm_frame_reader *reader, const char *data,
                                                      size_t size);
// ATEDM_ERR_NOT_FOUND: not whole yet. ATEDM_ERR_FORMAT: not a frame.
ATEDM_MUST_CHECK atedm_status atedm_frame_reader_next(atedm_frame_reader *reader,
                                                      atedm_frame *ret_frame);

// What a frame's body says. ATEDM_ERR_FORMAT where it is something else.
ATEDM_MUST_CHECK atedm_status atedm_frame_get_submit(const atedm_frame *frame,
                                                     atedm_request *ret_request);
ATEDM_MUST_CHECK atedm_status atedm_frame_get_watch(const atedm_frame *frame, bool *ret_on);
ATEDM_MUST_CHECK atedm_status atedm_frame_check_hello(const atedm_frame *frame, atedm_error *err);
// What the message owns is the caller's.
ATEDM_MUST_CHECK atedm_status atedm_frame_get_message(const atedm_frame *frame,
                                                      atedm_worker_message *ret_message);

#endif
