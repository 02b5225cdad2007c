// Many requests on one device, step by step ("continuous batching"). Requests join and leave
// between two UNet evaluations; images of one size share an evaluation, whatever else their
// requests ask for, and none of them notices. Sizes take turns so that each gets an equal share of
// the device's work, counted in FLOPs. Texts and pixels are done one short piece at a time between
// evaluations, or while one is under way where the device computes by itself.
//
// The engine belongs to one thread and waits for nothing but its device; whoever drives it calls
// atedm_engine_turn while there is work.
#ifndef ATEDM_ENGINE_H
#define ATEDM_ENGINE_H

#include "core/pipeline.h"
#include "core/request.h"

typedef struct atedm_engine atedm_engine;

#define ATEDM_ENGINE_MAX_BATCH 32 // images, of two samples each

typedef struct atedm_engine_options {
    size_t max_batch;    // images in one evaluation, 1..ATEDM_ENGINE_MAX_BATCH
    size_t max_requests; // at a time, 1 or more
    // Device bytes for weights, requests and scratch; SIZE_MAX: no limit. 0: what is there and most
    // of what the device has left, once the weights are loaded; no limit where it does not say.
    size_t memory_limit;
    size_t sharers; // of what is left: engines on the device; 0 is 1
} atedm_engine_options;

// What a finished request took.
typedef struct atedm_engine_report {
    atedm_timing timing;       // steps_s[k]: of the evaluations in which its images did step k
    atedm_op_counts counts[3]; // text encoders, UNet, VAE, as atedm_generation_counts
    size_t encoded[2];         // bytes of prompt and negative prompt that were encoded
    uint64_t evaluations;      // that any of its images took part in
    uint64_t batch_images;     // sum of the images that were in them
    size_t max_batch;          // most images that were in one
} atedm_engine_report;

// Called from atedm_engine_turn. They ask the engine for figures and do nothing else to it.
typedef struct atedm_engine_hooks {
    void (*evaluated)(void *user, size_t images, double seconds); // one UNet evaluation
    // All images of the job have done `step` steps.
    void (*stepped)(void *user, uint64_t job, int step);
    // A picture, [height, width, 3], to free. plan: NULL where pruning is off; borrowed.
    void (*image)(void *user, uint64_t job, int image, const atedm_request *request,
                  const atedm_plan *plan, uint8_t *take_rgb);
    // How image 0 of a watched job looks behind `step` steps, [height, width, 3] (preview.h), to
    // free. May be NULL where nobody watches.
    void (*preview)(void *user, uint64_t job, int step, int64_t width, int64_t height,
                    uint8_t *take_rgb);
    // The last that is heard of the job: behind its images, or when it failed.
    void (*done)(void *user, uint64_t job, const atedm_engine_report *report);
    void (*failed)(void *user, uint64_t job, atedm_status status, const atedm_error *error);
    void *user;
} atedm_engine_hooks;

ATEDM_MUST_CHECK atedm_status atedm_engine_create(const atedm_model *model,
                                                  const atedm_engine_options *options,
                                                  const atedm_engine_hooks *hooks,
                                                  atedm_engine **ret_engine, atedm_error *err);
void atedm_engine_destroy(atedm_engine *engine); // NULL allowed; requests in it end unheard

// Takes the request in, and what it owns, unless something is wrong. ATEDM_ERR_LIMIT: not now, but
// when others have left; ATEDM_ERR_NOMEM: not even alone.
ATEDM_MUST_CHECK atedm_status atedm_engine_admit(atedm_engine *engine, uint64_t job,
                                                 atedm_request *take_request, atedm_error *err);
// The job leaves at once, unheard. False where it is not there.
bool atedm_engine_cancel(atedm_engine *engine, uint64_t job);

// From now on there are previews of the job, one a step, or no longer. The first one of all takes
// as long as fitting the map (preview.h), within the memory limit. Where there is no memory for
// previews there are none; watching again tries again.
void atedm_engine_watch(atedm_engine *engine, uint64_t job, bool on);

// One evaluation where images have steps left, and a piece of text or pixels where some are to be
// done (more of them if they are short beside an evaluation). When it returns nothing of an
// evaluation is under way. False where there was nothing to do.
bool atedm_engine_turn(atedm_engine *engine);

// FLOPs of all that it did so far.
uint64_t atedm_engine_flops(const atedm_engine *engine);
size_t atedm_engine_requests(const atedm_engine *engine);                     // that are in it
const atedm_repeat_figures *atedm_engine_repeats(const atedm_engine *engine); // of evaluations
// Device bytes that it holds now: weights, scratch memory, requests.
size_t atedm_engine_memory(const atedm_engine *engine);

#endif
