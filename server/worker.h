// The worker: takes requests, makes images, one device. Everything that passes between it and the
// daemon is plain data whose ownership goes along, so that it can live in a process of its own; it
// knows nothing of HTTP, of queues or of who waits.
#ifndef ATEDM_WORKER_H
#define ATEDM_WORKER_H

#include "core/base/status.h"
#include "core/pipeline.h"
#include "core/request.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <uv.h>

typedef struct atedm_worker atedm_worker;

typedef struct atedm_worker_options {
    const char *model, *backend, *dtype; // as in the configuration; copied
} atedm_worker_options;

// What a worker is once its model is loaded.
typedef struct atedm_worker_facts {
    char device[64], backend[16];
    atedm_dtype dtype, storage_dtype;
    uint64_t parameters;
    size_t file_bytes;
} atedm_worker_facts;

typedef struct atedm_worker_image {
    char *png;
    size_t size;
} atedm_worker_image;

// A finished request.
typedef struct atedm_worker_result {
    size_t n_images;
    atedm_worker_image *images;
    atedm_timing timing;
    atedm_op_counts counts[3]; // text encoders, UNet, VAE: as the operations counted themselves
    size_t encoded[2];         // bytes of prompt and negative prompt that were encoded
    uint64_t evaluations[ATEDM_PIPELINE_BATCH + 1]; // of the UNet, by images that shared them
} atedm_worker_result;

void atedm_worker_result_destroy(atedm_worker_result *result); // NULL allowed

typedef enum atedm_worker_message_type {
    ATEDM_WORKER_READY,    // `facts`: it takes requests now
    ATEDM_WORKER_FAILED,   // `status`, `error`: it does not come up; the last message
    ATEDM_WORKER_PROGRESS, // `job`, `step` of its steps done, `step_s`
    ATEDM_WORKER_DONE,     // `job`, `result`
    ATEDM_WORKER_ERROR,    // `job`, `status`, `error`; ATEDM_ERR_CANCELED: it was canceled
} atedm_worker_message_type;

typedef struct atedm_worker_message {
    atedm_worker_message_type type;
    uint64_t job;
    atedm_worker_facts facts;
    int step;
    double step_s;
    atedm_worker_result *result; // the receiver may take it and leave NULL
    atedm_status status;
    atedm_error error;
    size_t device_memory; // bytes that the worker holds on its device
} atedm_worker_message;

// Starts a worker; `receive` is called on the loop's thread with each message, in order.
ATEDM_MUST_CHECK atedm_status
atedm_worker_create(const atedm_worker_options *options, uv_loop_t *loop,
                    void (*receive)(void *user, atedm_worker_message *message), void *user,
                    atedm_worker **ret_worker, atedm_error *err);

// Each job gets exactly one DONE or ERROR. Takes what the request owns, also on failure.
ATEDM_MUST_CHECK atedm_status atedm_worker_submit(atedm_worker *worker, uint64_t job,
                                                  atedm_request *take_request);
// The job ends soon, with ATEDM_ERR_CANCELED or (too late) as it would have.
void atedm_worker_cancel(atedm_worker *worker, uint64_t job);

// Stops the worker behind what it is doing. Messages that are on their way are lost. The memory
// goes when the loop has closed the handle.
void atedm_worker_destroy(atedm_worker *worker); // NULL allowed

#endif
