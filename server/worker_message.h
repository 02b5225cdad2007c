// What goes between the daemon and a worker, beside requests: plain data whose ownership goes
// along.
#ifndef ATEDM_WORKER_MESSAGE_H
#define ATEDM_WORKER_MESSAGE_H

#include "core/base/status.h"
#include "core/engine.h"

#include <stddef.h>
#include <stdint.h>

typedef struct atedm_worker_options {
    const char *model, *backend, *dtype;                   // as in the configuration; copied
    size_t max_batch, max_requests, memory_limit, sharers; // as atedm_engine_options
} atedm_worker_options;

// What a worker is once its model is loaded.
typedef struct atedm_worker_facts {
    char device[96], backend[16]; // as its maker calls it, or the backend
    atedm_dtype dtype, storage_dtype;
    uint64_t parameters;
    size_t file_bytes;
} atedm_worker_facts;

typedef struct atedm_worker_image {
    char *png;
    size_t size;
} atedm_worker_image;

// Bytes of a file of so many pixels at most, settings included, however little zlib saves.
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
    ATEDM_WORKER_READY,     // `facts`: it takes requests now
    ATEDM_WORKER_FAILED,    // `status`, `error`: it does not come up, and another would not either;
                            // only before it was ever ready; the last message. From the process
                            // also later, as its last word: its device is lost
    ATEDM_WORKER_LOST,      // `error`: the process ended, and all jobs that it had are nobody's;
                            // another one is started
    ATEDM_WORKER_EVALUATED, // one UNet evaluation: `images`, `seconds`; `flops` in `busy_s` since
                            // the last such message, texts and pixels included
    ATEDM_WORKER_STEPPED,   // `job`: all its images have done `step` steps
    ATEDM_WORKER_PREVIEW,   // `job`, which is watched: `image`, how its first one looks behind
                            // `step` steps; at most one a step, and not every step has one
    ATEDM_WORKER_DONE,      // `job`, `result`
    ATEDM_WORKER_ERROR,     // `job`, `status`, `error`
    ATEDM_WORKER_CANCELED,  // `job`: it was heard that nobody wants it, whether it was still there
                            // or not; nothing else comes of it
    ATEDM_WORKER_FIGURES, // `figures`: how the device is doing, every few seconds where it says so
    ATEDM_WORKER_ALIVE,   // it is at work, and had nothing else to say for a while
} atedm_worker_message_type;

typedef struct atedm_worker_message {
    atedm_worker_message_type type;
    uint64_t job;
    atedm_worker_facts facts;
    int step;
    atedm_worker_image image; // owned; the receiver may take it and leave NULL
    size_t images;
    double seconds, busy_s;
    uint64_t flops;
    atedm_worker_result *result; // the receiver may take it and leave NULL
    atedm_status status;
    atedm_error error;
    size_t device_memory; // bytes that the worker holds on its device
    atedm_device_figures figures;
} atedm_worker_message;

void atedm_worker_message_finish(atedm_worker_message *message); // frees what it owns

#endif
