// The messages between the daemon and its worker processes over a socketpair. They travel as
// frames: a head of fixed size, which holds the length of the body, and the body. Daemon and worker
// come from the same build. So a body is a struct as it lies in memory, followed by the data that
// the struct points to. The worker's first frame says which build the worker comes from.
#ifndef ATEDM_FRAMES_H
#define ATEDM_FRAMES_H

#include "core/base/memory.h"
#include "core/request.h"
#include "server/worker_message.h"

#define ATEDM_FRAME_MAX ((size_t)1 << 32) // most bytes of a body: 256 images of 16 MB

typedef enum atedm_frame_type {
    ATEDM_FRAME_SUBMIT = 1, // to the worker: `job`, a request
    ATEDM_FRAME_CANCEL,     // to the worker: ends `job`
    ATEDM_FRAME_WATCH,      // to the worker: turns previews of `job` on or off
    ATEDM_FRAME_HELLO,      // from the worker, its first frame: which build it is
    ATEDM_FRAME_MESSAGE,    // from the worker: an atedm_worker_message
} atedm_frame_type;

typedef struct atedm_frame {
    atedm_frame_type type;
    uint64_t job;
    const char *body; // borrowed from the reader until its next call of feed
    size_t size;
} atedm_frame;

// Each function appends one frame. On failure the buffer is unchanged.
ATEDM_MUST_CHECK atedm_status atedm_frame_put_submit(atedm_buffer *buffer, uint64_t job,
                                                     const atedm_request *request);
ATEDM_MUST_CHECK atedm_status atedm_frame_put_cancel(atedm_buffer *buffer, uint64_t job);
ATEDM_MUST_CHECK atedm_status atedm_frame_put_watch(atedm_buffer *buffer, uint64_t job, bool on);
ATEDM_MUST_CHECK atedm_status atedm_frame_put_hello(atedm_buffer *buffer);
ATEDM_MUST_CHECK atedm_status atedm_frame_put_message(atedm_buffer *buffer,
                                                      const atedm_worker_message *message);

// Collects bytes as they arrive and returns whole frames.
typedef struct atedm_frame_reader {
    atedm_buffer data;
    size_t at; // where the next frame starts
} atedm_frame_reader;

// Init, then any number of feed and next, then finish, which frees the memory.
void atedm_frame_reader_init(atedm_frame_reader *reader);
void atedm_frame_reader_finish(atedm_frame_reader *reader);
// Adds `size` bytes that have arrived. Bodies that `next` returned before are no longer valid.
ATEDM_MUST_CHECK atedm_status atedm_frame_reader_feed(atedm_frame_reader *reader, const char *data,
                                                      size_t size);
// Gets the next frame. ATEDM_ERR_NOT_FOUND: the frame is not complete yet. ATEDM_ERR_FORMAT: the
// bytes are no frame.
ATEDM_MUST_CHECK atedm_status atedm_frame_reader_next(atedm_frame_reader *reader,
                                                      atedm_frame *ret_frame);

// Each function decodes a frame's body. ATEDM_ERR_FORMAT: the body does not fit the type.
ATEDM_MUST_CHECK atedm_status atedm_frame_get_submit(const atedm_frame *frame,
                                                     atedm_request *ret_request);
ATEDM_MUST_CHECK atedm_status atedm_frame_get_watch(const atedm_frame *frame, bool *ret_on);
// Checks that the frame is the first one of a worker of this build; otherwise
// ATEDM_ERR_UNSUPPORTED.
ATEDM_MUST_CHECK atedm_status atedm_frame_check_hello(const atedm_frame *frame, atedm_error *err);
// The caller owns what the message owns.
ATEDM_MUST_CHECK atedm_status atedm_frame_get_message(const atedm_frame *frame,
                                                      atedm_worker_message *ret_message);

#endif
