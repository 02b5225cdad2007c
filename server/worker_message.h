// The data that the daemon and a worker exchange, except for requests. Whoever has a message or a
// result owns what it points to.
#ifndef ATEDM_WORKER_MESSAGE_H
#define ATEDM_WORKER_MESSAGE_H

#include "core/base/status.h"
#include "core/engine.h"

#include <stddef.h>
#include <stdint.h>

typedef struct atedm_worker_options {
    const char *model, *backend, *dtype;                   // as in the configuration; copied
    size_t max_batch, max_requests, memory_limit, sharers; // as in atedm_engine_options
} atedm_worker_options;

// Facts about a worker, known once its model is loaded.
typedef struct atedm_worker_facts {
    char device[96]; // the maker's name of the device; if unknown, the backend's
    char backend[16];
    atedm_dtype dtype, storage_dtype;
    uint64_t parameters;
    size_t file_bytes;
} atedm_worker_facts;

typedef struct atedm_worker_image {
    char *png;
    size_t size;
} atedm_worker_image;

// The most bytes that the PNG file of a picture with this many pixels can have, settings included,
// even if zlib saves nothing.
static inline int64_t atedm_worker_image_max(int64_t pixels)
{
    return 4 * pixels + (1 << 20);
}

// A finished request.
typedef struct atedm_worker_result {
    size_t n_images;
    atedm_worker_image *images;
    atedm_engine_report report;
} atedm_worker_result;

void atedm_worker_result_destroy(atedm_worker_result *result); // NULL allowed

typedef enum atedm_worker_message_type {
    // `facts`: the worker takes requests from now on.
    ATEDM_WORKER_READY,
    // `status`, `error`: the worker cannot start, and another one could not either. It comes only
    // before READY, and is the last message. Between process and daemon it may also come later, as
    // the last message: the device is lost.
    ATEDM_WORKER_FAILED,
    // `error`: the process ended, and its jobs have no worker any more. Another process is started.
    ATEDM_WORKER_LOST,
    // One UNet evaluation of `images` images took `seconds`. Since the last such message the worker
    // has done `flops` in `busy_s` seconds, texts and pixels included.
    ATEDM_WORKER_EVALUATED,
    // All images of `job` have done `step` steps.
    ATEDM_WORKER_STEPPED,
    // `image` shows the first image of the watched `job` after `step` steps. A step has at most one
    // preview, and not every step has one.
    ATEDM_WORKER_PREVIEW,
    // `job` has ended with `result`.
    ATEDM_WORKER_DONE,
    // `job` has failed with `status` and `error`.
    ATEDM_WORKER_ERROR,
    // The worker has read the cancellation of `job`, whether it still had the job or not. Nothing
    // else comes of the job.
    ATEDM_WORKER_CANCELED,
    // `figures` of the device, every few seconds if the device reports any.
    ATEDM_WORKER_FIGURES,
    // The worker is at work, but has sent nothing else for a while.
    ATEDM_WORKER_ALIVE,
} atedm_worker_message_type;

typedef struct atedm_worker_message {
    atedm_worker_message_type type;
    uint64_t job;
    atedm_worker_facts facts;
    int step;
    atedm_worker_image image; // owned; the receiver may take its `png` and leave NULL
    size_t images;
    double seconds, busy_s;
    uint64_t flops;
    atedm_worker_result *result; // owned; the receiver may take it and leave NULL
    atedm_status status;
    atedm_error error;
    size_t device_memory; // bytes that the worker holds on its device
    atedm_device_figures figures;
} atedm_worker_message;

// Frees what the message owns.
void atedm_worker_message_finish(atedm_worker_message *message);

#endif
