// Runs many requests on one device, step by step ("continuous batching"). Requests join and leave
// between two UNet evaluations. Images of the same size share an evaluation, whatever else their
// requests ask for; sharing does not change any image. Sizes take turns, so that each gets an equal
// share of the device's work, counted in FLOPs. Texts and pixels are done in short pieces between
// evaluations, or during an evaluation if the device computes on its own.
//
// The engine belongs to one thread and waits for nothing but its device. Its owner calls
// atedm_engine_turn as long as there is work.
#ifndef ATEDM_ENGINE_H
#define ATEDM_ENGINE_H

#include "core/pipeline.h"
#include "core/request.h"

typedef struct atedm_engine atedm_engine;

#define ATEDM_ENGINE_MAX_BATCH 32 // images in one evaluation, of at most two samples each

typedef struct atedm_engine_options {
    size_t max_batch;    // images in one evaluation, 1..ATEDM_ENGINE_MAX_BATCH
    size_t max_requests; // requests in the engine at a time, 1 or more
    // Device bytes for weights, requests and scratch memory, more than the weights take. SIZE_MAX:
    // no limit. 0: the weights and most of the memory that the device has left once they are
    // loaded; no limit if the device does not report that.
    size_t memory_limit;
    size_t sharers; // engines that share the memory left on the device; 0 counts as 1
} atedm_engine_options;

// What a finished request took. Times are in seconds.
typedef struct atedm_engine_report {
    atedm_timing timing; // steps_s[k]: sum over the evaluations with step k of its images
    atedm_op_counts counts[ATEDM_N_STAGES]; // as atedm_generation_counts
    size_t encoded[2];                      // bytes of prompt and negative prompt that were encoded
    uint64_t evaluations;                   // evaluations with any of its images
    uint64_t batch_images; // images in these evaluations, other requests' included, summed
    size_t max_batch;      // images in the largest of these evaluations
} atedm_engine_report;

// Called from atedm_engine_turn. A hook may ask the engine for figures; it must not do anything
// else to the engine.
typedef struct atedm_engine_hooks {
    // One UNet evaluation of `images` images has ended; it took `seconds`.
    void (*evaluated)(void *user, size_t images, double seconds);
    // All images of the job have done `step` steps.
    void (*stepped)(void *user, uint64_t job, int step);
    // An image is finished: uint8 [height, width, 3], which the hook has to free. plan: borrowed;
    // NULL if pruning is off.
    void (*image)(void *user, uint64_t job, int image, const atedm_request *request,
                  const atedm_plan *plan, uint8_t *take_rgb);
    // How image 0 of a watched job looks after `step` steps: uint8 [height, width, 3] (preview.h),
    // which the hook has to free. May be NULL if no job is ever watched.
    void (*preview)(void *user, uint64_t job, int step, int64_t width, int64_t height,
                    uint8_t *take_rgb);
    // The last call for the job: after its images, or when it failed.
    void (*done)(void *user, uint64_t job, const atedm_engine_report *report);
    void (*failed)(void *user, uint64_t job, atedm_status status, const atedm_error *error);
    void *user;
} atedm_engine_hooks;

// `model` is borrowed until destroy; options and hooks are copied. ATEDM_ERR_INVALID: max_batch or
// max_requests out of range.
ATEDM_MUST_CHECK atedm_status atedm_engine_create(const atedm_model *model,
                                                  const atedm_engine_options *options,
                                                  const atedm_engine_hooks *hooks,
                                                  atedm_engine **ret_engine, atedm_error *err);
// NULL allowed. Jobs in the engine end without a call of a hook.
void atedm_engine_destroy(atedm_engine *engine);

// Admits the request and takes ownership of its contents; on failure they remain the caller's.
// `job` identifies the request in hooks. ATEDM_ERR_LIMIT: the request does not fit now, but may fit
// when others have left. ATEDM_ERR_NOMEM: it does not fit even alone.
ATEDM_MUST_CHECK atedm_status atedm_engine_admit(atedm_engine *engine, uint64_t job,
                                                 atedm_request *take_request, atedm_error *err);
// Removes the job at once, without a call of a hook. False if the engine has no such job.
bool atedm_engine_cancel(atedm_engine *engine, uint64_t job);

// Switches previews of the job, one a step, on or off. The first preview of all also takes the time
// to fit the map of colours (preview.h), within the memory limit. Without memory for previews the
// job runs without them; calling this again tries again.
void atedm_engine_watch(atedm_engine *engine, uint64_t job, bool on);

// Does one evaluation if any image has steps left, and pieces of texts and pixels if any are to be
// done: at least one, and more if they are short compared with an evaluation. No evaluation is
// under way when it returns. False if there was nothing to do.
bool atedm_engine_turn(atedm_engine *engine);

// FLOPs of everything that the engine has done so far.
uint64_t atedm_engine_flops(const atedm_engine *engine);
// Number of requests in the engine.
size_t atedm_engine_requests(const atedm_engine *engine);
// How often an evaluation replayed the recording of an earlier one. Borrowed.
const atedm_repeat_figures *atedm_engine_repeats(const atedm_engine *engine);
// Device bytes that the engine holds now: weights, scratch and spare memory, requests.
size_t atedm_engine_memory(const atedm_engine *engine);

#endif
