// One request from prompt to pixels, stage by stage: encode, step 0..n-1, decode each image. The
// stages are apart so that whoever drives them (command line, worker) can report, cancel and
// interleave between them.
#ifndef ATEDM_PIPELINE_H
#define ATEDM_PIPELINE_H

#include "core/arena.h"
#include "core/base/status.h"
#include "core/flops.h"
#include "core/model.h"
#include "core/plan.h"
#include "core/request.h"

// A model with what is needed to run requests on it: streams and scratch memory. One thread at a
// time.
typedef struct atedm_pipeline atedm_pipeline;

ATEDM_MUST_CHECK atedm_status atedm_pipeline_create(const atedm_model *model,
                                                    atedm_pipeline **ret_pipeline,
                                                    atedm_error *err);
void atedm_pipeline_destroy(atedm_pipeline *pipeline); // NULL allowed

// Bytes on the device that the pipeline holds now: the model's weights, scratch memory, and what is
// kept only to be quick: memory of requests that have left, recordings of evaluations. The latter
// on their own; forget gives them back.
size_t atedm_pipeline_device_memory(const atedm_pipeline *pipeline);
size_t atedm_pipeline_spare(const atedm_pipeline *pipeline);
void atedm_pipeline_forget(atedm_pipeline *pipeline);

// Receives every intermediate by the names of `atedm generate --dump` (api.md, "Dumps").
typedef void (*atedm_dump_fn)(void *user, const char *name, const atedm_host_tensor *tensor);

// A request while it runs.
typedef struct atedm_generation atedm_generation;

// Checks the request against the model (sizes, sampler), resolves its plan and its cost, and makes
// sure that scratch memory suffices. `request` is borrowed until destroy. latents_init: NULL, or
// [num_images, C, h, w] F32 unit-scaled by the schedule already, used in place of the seed's noise.
// dump: NULL or called as stages run.
ATEDM_MUST_CHECK atedm_status atedm_generation_create(
    atedm_pipeline *pipeline, const atedm_request *request, const atedm_host_tensor *latents_init,
    atedm_dump_fn dump, void *dump_user, atedm_generation **ret_generation, atedm_error *err);
void atedm_generation_destroy(atedm_generation *generation); // NULL allowed

ATEDM_MUST_CHECK atedm_status atedm_generation_encode(atedm_generation *g, atedm_error *err);
// Images that one UNet evaluation of atedm_generation_step takes; more run in turns.
#define ATEDM_PIPELINE_BATCH 4
// The next denoising step of all images of the request, which are at the same one.
ATEDM_MUST_CHECK atedm_status atedm_generation_step(atedm_generation *g, atedm_error *err);
int atedm_generation_steps_done(const atedm_generation *g, int image);
// Image i as RGB, [height, width, 3], into `rgb` (caller's, 3 * width * height bytes).
ATEDM_MUST_CHECK atedm_status atedm_generation_decode(atedm_generation *g, int image, uint8_t *rgb,
                                                      atedm_error *err);

// Bytes of scratch memory that a request needs at most: for steps, by image, in an evaluation with
// whatever others that lose tokens behind the first layer of a block, if at all; for its texts; for
// decoding one image.
typedef struct atedm_scratch_need {
    size_t steps, text, vae;
} atedm_scratch_need;
atedm_scratch_need atedm_generation_scratch(const atedm_generation *g);
// Takes so much now, between two evaluations, so that none of the stages has to. (That for texts
// and for decoding stays as it is while it is in use.) ATEDM_ERR_NOMEM: they take what they come to
// need, and less may do.
ATEDM_MUST_CHECK atedm_status atedm_pipeline_prepare(atedm_pipeline *pipeline,
                                                     atedm_scratch_need need, atedm_error *err);

// One image of an encoded request, in an evaluation that it shares with others.
typedef struct atedm_lane {
    atedm_generation *generation;
    int image;
} atedm_lane;

// The next denoising step of `n` images in one UNet evaluation. They are of one size, may be of
// different requests and at different steps, and have at most ATEDM_UNET_MAX_SAMPLES samples (two
// an image with guidance). None of them notices the others, not in one bit. On failure all stay
// where they were; ATEDM_ERR_NOMEM: fewer at a time may do.
ATEDM_MUST_CHECK atedm_status atedm_pipeline_step(atedm_pipeline *pipeline, const atedm_lane *lanes,
                                                  size_t n, atedm_error *err);
// The same in two halves: enqueued by `begin`, waited for by `end`. One evaluation at a time.
// Meanwhile texts and pictures may be begun, advanced and ended. `end` takes the lanes of `begin`;
// those whose request ends before, behind `wait`, are left out. A `begin` that fails leaves nothing
// to end. `busy`: one is under way, and the device not at its end.
ATEDM_MUST_CHECK atedm_status atedm_pipeline_step_begin(atedm_pipeline *pipeline,
                                                        const atedm_lane *lanes, size_t n,
                                                        atedm_error *err);
bool atedm_pipeline_step_busy(const atedm_pipeline *pipeline);
void atedm_pipeline_step_wait(atedm_pipeline *pipeline);
ATEDM_MUST_CHECK atedm_status atedm_pipeline_step_end(atedm_pipeline *pipeline,
                                                      const atedm_lane *lanes, size_t n,
                                                      atedm_error *err);
// Whether there is something to gain by that: the device computes while the host does other things.
bool atedm_pipeline_overlaps(const atedm_pipeline *pipeline);
// A request's texts, as atedm_generation_encode: enqueued by `begin`, beside whatever else the
// device does, and waited for by `end`. One request at a time; it must not end before: end, or
// abort. A `begin` that fails leaves nothing to end.
ATEDM_MUST_CHECK atedm_status atedm_pipeline_encode_begin(atedm_pipeline *pipeline,
                                                          atedm_generation *g, atedm_error *err);
ATEDM_MUST_CHECK atedm_status atedm_pipeline_encode_end(atedm_pipeline *pipeline, atedm_error *err);
bool atedm_pipeline_encode_busy(const atedm_pipeline *pipeline); // whether `end` would wait
void atedm_pipeline_encode_abort(atedm_pipeline *pipeline);
// Decoding in pieces of at most one VAE block each, so that steps can run between them; one image
// at a time. The request must not end before: advance to the end, or abort. Failures end it. Where
// the device does several things at a time all pieces are under way once it has begun, and there is
// one advance, which waits for them.
ATEDM_MUST_CHECK atedm_status atedm_pipeline_decode_begin(atedm_pipeline *pipeline,
                                                          const atedm_lane *lane, atedm_error *err);
// Where *ret_done comes back true, `rgb` [height, width, 3] has the picture.
ATEDM_MUST_CHECK atedm_status atedm_pipeline_decode_advance(atedm_pipeline *pipeline, uint8_t *rgb,
                                                            bool *ret_done, atedm_error *err);
// Whether advancing would wait for what the device does by itself.
bool atedm_pipeline_decode_busy(const atedm_pipeline *pipeline);
void atedm_pipeline_decode_abort(atedm_pipeline *pipeline);

// From now on the steps of image 0 leave what they take for the clean latent behind, or no longer:
// one download or two a step, whose end the step waits for anyway. Those of requests that nobody
// watches are as if there were no watching.
ATEDM_MUST_CHECK atedm_status atedm_generation_watch(atedm_generation *g, bool on,
                                                     atedm_error *err);
// That of image 0's last step, [host] F32 [h, w, channels], scaled as latents are; borrowed until
// the next step. NULL where that step was not watched.
const float *atedm_generation_clean(atedm_generation *g);
void atedm_generation_latent_size(const atedm_generation *g, int64_t *ret_h, int64_t *ret_w);

// What the operations counted themselves, for all requests so far: [0] text encoders, [1] UNet, [2]
// VAE.
void atedm_pipeline_counts(const atedm_pipeline *pipeline, atedm_op_counts ret_counts[3]);

// What came of evaluations that are like earlier ones.
const atedm_repeat_figures *atedm_pipeline_repeats(const atedm_pipeline *p);

const atedm_plan *atedm_generation_plan(const atedm_generation *g); // NULL: pruning off
const atedm_request_cost *atedm_generation_cost(const atedm_generation *g);
// Device bytes that the request holds from create to destroy.
size_t atedm_generation_memory(const atedm_generation *g);
// What ran so far, by stage: [0] text encoders, [1] UNet, [2] VAE. As the operations counted
// themselves, but for steps, whose evaluations are shared: those by the cost model (flops.h).
void atedm_generation_counts(const atedm_generation *g, atedm_op_counts ret_counts[3]);
// Bytes of `prompt` (which = 0) or `negative_prompt` (1) that were encoded; less than its length
// where it was cut.
size_t atedm_generation_encoded(const atedm_generation *g, int which);

// Plan and cost of a request without running it (POST /v1/estimate, atedm inspect). *ret_plan NULL
// where off.
ATEDM_MUST_CHECK atedm_status atedm_estimate(const atedm_model_config *config,
                                             const atedm_request *request, atedm_plan **ret_plan,
                                             atedm_request_cost *ret_cost, atedm_error *err);

// Seconds of each stage; steps_s has `steps` entries.
typedef struct atedm_timing {
    double text_encoder_s, denoise_s, vae_s, encode_s;
    double steps_s[ATEDM_MAX_STEPS];
} atedm_timing;

// What a driver may want to know while a request runs. `step` of `steps` done; return false to
// cancel.
typedef bool (*atedm_progress_fn)(void *user, int step, int steps);

// All stages in order: fills rgb_images [num_images][height * width * 3].
ATEDM_MUST_CHECK atedm_status atedm_generation_run(atedm_generation *g, atedm_progress_fn progress,
                                                   void *user, uint8_t *const *rgb_images,
                                                   atedm_timing *ret_timing, atedm_error *err);

#endif
