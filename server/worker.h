// The worker behind a message interface: requests go in, messages come out; both are plain data,
// handed over for good. Today a thread of the daemon owns the model and runs one request at a time;
// as a process of its own it would keep this interface. The daemon keeps the queue and never gives
// it more than one request at once.
#ifndef ATEDM_SERVER_WORKER_H
#define ATEDM_SERVER_WORKER_H

#include "config/config.h"
#include "core/flops.h"
#include "core/model.h"
#include "core/pipeline.h"
#include "core/request.h"

// What the daemon needs to know of the model, to check requests and to estimate their cost.
typedef struct atedm_worker_info {
    atedm_model_config config;
    char backend[16], device[64];
    atedm_dtype dtype, storage_dtype;
    uint64_t parameters;
    size_t file_bytes;
} atedm_worker_info;

typedef struct atedm_png_image {
    char *data;
    size_t size;
} atedm_png_image;

typedef struct atedm_worker_result {
    atedm_png_image *images; // [n_images]
    int n_images;
    bool pruned; // then `plan_*` say how
    atedm_prune_spec plan_spec;
    double plan_ratio;
    atedm_request_cost cost;
    atedm_timing timing;
    int batch_size; // images of one UNet evaluation, at most; mean over the evaluations:
    double mean_batch_size;
    uint64_t tokens_kept[ATEDM_MAX_LEVELS], tokens_pruned[ATEDM_MAX_LEVELS];
    size_t encoded[2]; // bytes of prompt and negative prompt that were used
} atedm_worker_result;

void atedm_worker_result_destroy(atedm_worker_result *result); // NULL allowed

typedef enum atedm_worker_message_kind {
    ATEDM_WORKER_READY,       // info
    ATEDM_WORKER_LOAD_FAILED, // status, error; the worker has ended
    ATEDM_WORKER_STEP,        // id, step, steps, seconds, batch_size
    ATEDM_WORKER_DONE,        // id, result
    ATEDM_WORKER_FAILED,      // id, status, error; also of canceled requests
} atedm_worker_message_kind;

typedef struct atedm_worker_message {
    struct atedm_worker_message *next;
    atedm_worker_message_kind kind;
    uint64_t id;
    int step, steps, batch_size;
    double seconds;
    atedm_status status;
    atedm_error error;
    size_t device_memory;        // bytes, with READY and DONE
    atedm_worker_info *info;     // owned
    atedm_worker_result *result; // owned
} atedm_worker_message;

void atedm_worker_message_destroy(atedm_worker_message *message); // NULL allowed

typedef struct atedm_worker atedm_worker;

// Starts the worker; it loads the model and then says READY or LOAD_FAILED. `notify` is called on
// the worker's thread whenever there are messages.
ATEDM_MUST_CHECK atedm_status atedm_worker_create(const atedm_config *config,
                                                  void (*notify)(void *user), void *user,
                                                  atedm_worker **ret_worker, atedm_error *err);
// Cancels what runs, ends the worker and frees everything. NULL allowed.
void atedm_worker_destroy(atedm_worker *worker);

// Takes the request's content over (the caller's struct is emptied). Only while the worker has
// none.
void atedm_worker_submit(atedm_worker *worker, uint64_t id, atedm_request *take_request);
// The request `id` ends between two steps with FAILED / ATEDM_ERR_CANCELED, unless it is done
// already.
void atedm_worker_cancel(atedm_worker *worker, uint64_t id);
// All messages since the last call, oldest first; the caller destroys each.
atedm_worker_message *atedm_worker_take_messages(atedm_worker *worker);

#endif
