// Runs one request from prompt to pixels in stages: encode the texts, denoising steps 0..n-1,
// decode each image. The stages are separate functions, so that the caller (the command line or the
// worker) can report progress, cancel, and interleave several requests between stages.
#ifndef ATEDM_PIPELINE_H
#define ATEDM_PIPELINE_H

#include "core/arena.h"
#include "core/base/status.h"
#include "core/flops.h"
#include "core/model.h"
#include "core/plan.h"
#include "core/request.h"

// The stages by which operations are counted.
typedef enum atedm_stage {
    ATEDM_STAGE_TEXT, // both encoders
    ATEDM_STAGE_UNET,
    ATEDM_STAGE_VAE,
    ATEDM_N_STAGES,
} atedm_stage;

// A model together with what running requests on it takes: streams and scratch memory. Only one
// thread at a time may use a pipeline and its generations.
typedef struct atedm_pipeline atedm_pipeline;

// `model` is borrowed until destroy.
ATEDM_MUST_CHECK atedm_status atedm_pipeline_create(const atedm_model *model,
                                                    atedm_pipeline **ret_pipeline,
                                                    atedm_error *err);
void atedm_pipeline_destroy(atedm_pipeline *pipeline); // NULL allowed

// Device bytes that the pipeline holds now: the model's weights, scratch memory, and spare memory.
size_t atedm_pipeline_device_memory(const atedm_pipeline *pipeline);
// Device bytes of spare memory: allocations of finished requests, kept for new ones, and recorded
// evaluations (CUDA graphs). They only save time.
size_t atedm_pipeline_spare(const atedm_pipeline *pipeline);
// Frees the spare memory.
void atedm_pipeline_forget(atedm_pipeline *pipeline);

// Receives every intermediate tensor under the name that api.md, "Dumps", documents. `tensor` and
// `name` are borrowed for the call.
typedef void (*atedm_dump_fn)(void *user, const char *name, const atedm_host_tensor *tensor);

// One request while it runs.
typedef struct atedm_generation atedm_generation;

// Checks the request against the model (sizes, sampler), resolves its plan and cost, allocates the
// device memory that it holds until destroy, and finds out how much scratch memory it needs.
// `request` is borrowed until destroy.
// latents_init: NULL, or [host] F32 [num_images, C, h, w] initial latents to use in place of the
// seed's noise; they must already have the schedule's initial scale (init_noise_sigma). Borrowed
// until the texts are encoded.
// dump: NULL, or called with every intermediate as the stages run.
// ATEDM_ERR_INVALID: the request does not fit the model. ATEDM_ERR_LIMIT: a dump of more than
// ATEDM_PIPELINE_BATCH images. ATEDM_ERR_NOMEM: host or device memory ran out.
ATEDM_MUST_CHECK atedm_status atedm_generation_create(
    atedm_pipeline *pipeline, const atedm_request *request, const atedm_host_tensor *latents_init,
    atedm_dump_fn dump, void *dump_user, atedm_generation **ret_generation, atedm_error *err);
void atedm_generation_destroy(atedm_generation *generation); // NULL allowed

// Encodes the request's texts and uploads its initial latents. Comes before the first step.
ATEDM_MUST_CHECK atedm_status atedm_generation_encode(atedm_generation *g, atedm_error *err);
// The most images that atedm_generation_step puts into one UNet evaluation. A request with more
// images takes several evaluations a step.
#define ATEDM_PIPELINE_BATCH 4
// Runs the next denoising step of all images of the request. All must have done equally many steps.
ATEDM_MUST_CHECK atedm_status atedm_generation_step(atedm_generation *g, atedm_error *err);
// Number of denoising steps that image `image` has done.
int atedm_generation_steps_done(const atedm_generation *g, int image);
// Decodes image `image` as RGB into `rgb`, [host] uint8 [height, width, 3], owned by the caller.
ATEDM_MUST_CHECK atedm_status atedm_generation_decode(atedm_generation *g, int image, uint8_t *rgb,
                                                      atedm_error *err);

// The most scratch memory that a request needs, in device bytes. `steps`: for each of its images in
// an evaluation, whichever other requests share that evaluation, provided that those prune after
// layer 0 of an attention block if they prune at all. `text`: for encoding its texts. `vae`: for
// decoding one image.
typedef struct atedm_scratch_need {
    size_t steps, text, vae;
} atedm_scratch_need;
atedm_scratch_need atedm_generation_scratch(const atedm_generation *g);
// Allocates this much scratch memory now, so that no stage has to allocate. Call it between two
// evaluations. While texts are being encoded or an image is being decoded, the scratch memory of
// that stage keeps its size. ATEDM_ERR_NOMEM is no obstacle to running: each stage then allocates
// what it turns out to need, which may be less.
ATEDM_MUST_CHECK atedm_status atedm_pipeline_prepare(atedm_pipeline *pipeline,
                                                     atedm_scratch_need need, atedm_error *err);

// One image of an encoded request, which shares an evaluation with other images.
typedef struct atedm_lane {
    atedm_generation *generation;
    int image;
} atedm_lane;

// Runs the next denoising step of `n` images in one UNet evaluation. All must have the same size
// and together at most ATEDM_UNET_MAX_SAMPLES samples (two an image with guidance, else one). They
// may belong to different requests and be at different steps. No bit of an image's result depends
// on the other images. On failure no image counts as having done the step. ATEDM_ERR_NOMEM: a call
// with fewer images may succeed. ATEDM_ERR_INVALID: images of two sizes, or one without steps left.
// ATEDM_ERR_LIMIT: no sample, or too many.
ATEDM_MUST_CHECK atedm_status atedm_pipeline_step(atedm_pipeline *pipeline, const atedm_lane *lanes,
                                                  size_t n, atedm_error *err);
// The same in two halves: `begin` enqueues the evaluation, `end` waits for it. Only one evaluation
// can be under way; meanwhile texts and pictures may be begun, advanced and ended. `end` takes the
// lanes of `begin`. To destroy a request in between, call `wait` first and leave its lanes out of
// `end`. After a failed `begin` there is nothing to end. `busy`: an evaluation is under way and the
// device has not finished it.
ATEDM_MUST_CHECK atedm_status atedm_pipeline_step_begin(atedm_pipeline *pipeline,
                                                        const atedm_lane *lanes, size_t n,
                                                        atedm_error *err);
bool atedm_pipeline_step_busy(const atedm_pipeline *pipeline);
void atedm_pipeline_step_wait(atedm_pipeline *pipeline);
ATEDM_MUST_CHECK atedm_status atedm_pipeline_step_end(atedm_pipeline *pipeline,
                                                      const atedm_lane *lanes, size_t n,
                                                      atedm_error *err);
// Whether the two halves save time: the device computes while the host does other things.
bool atedm_pipeline_overlaps(const atedm_pipeline *pipeline);
// The two halves of atedm_generation_encode: `begin` enqueues the encoding of a request's texts,
// `end` waits for it. The device may do other work at the same time. Only one request's texts can
// be under way, and the request must not be destroyed before `end` or `abort`. After a failed
// `begin` there is nothing to end.
ATEDM_MUST_CHECK atedm_status atedm_pipeline_encode_begin(atedm_pipeline *pipeline,
                                                          atedm_generation *g, atedm_error *err);
ATEDM_MUST_CHECK atedm_status atedm_pipeline_encode_end(atedm_pipeline *pipeline, atedm_error *err);
bool atedm_pipeline_encode_busy(const atedm_pipeline *pipeline); // whether `end` would wait
void atedm_pipeline_encode_abort(atedm_pipeline *pipeline);
// Decodes one image in pieces of at most one VAE block each, so that steps can run between the
// pieces. Only one image can be under way. The request must not be destroyed before the last piece
// or `abort`. A failed `advance` ends the decoding. Where the device overlaps work
// (atedm_pipeline_overlaps), `begin` enqueues all pieces, and the only call of `advance` waits for
// them.
ATEDM_MUST_CHECK atedm_status atedm_pipeline_decode_begin(atedm_pipeline *pipeline,
                                                          const atedm_lane *lane, atedm_error *err);
// Runs the next piece. When *ret_done comes back true, `rgb`, [host] uint8 [height, width, 3], has
// the picture.
ATEDM_MUST_CHECK atedm_status atedm_pipeline_decode_advance(atedm_pipeline *pipeline, uint8_t *rgb,
                                                            bool *ret_done, atedm_error *err);
// Whether `advance` would wait for pieces that the device has not finished.
bool atedm_pipeline_decode_busy(const atedm_pipeline *pipeline);
void atedm_pipeline_decode_abort(atedm_pipeline *pipeline);

// Switches the watching of image 0 on or off. While it is on, each step of image 0 downloads the
// clean latent that the sampler assumes (or the latents before and after the step, from which it
// follows). The step synchronises with the device anyway, so these one or two downloads add no
// wait. Steps of unwatched requests do nothing extra. ATEDM_ERR_NOMEM: host memory ran out.
ATEDM_MUST_CHECK atedm_status atedm_generation_watch(atedm_generation *g, bool on,
                                                     atedm_error *err);
// The clean latent that image 0's last step assumed: [host] F32 [h, w, channels], scaled as latents
// are; borrowed until the next step. NULL if that step was not watched.
const float *atedm_generation_clean(atedm_generation *g);
// Height and width of the request's latents, in latent pixels.
void atedm_generation_latent_size(const atedm_generation *g, int64_t *ret_h, int64_t *ret_w);

// Multiply-accumulates that the operations counted, of all requests so far.
void atedm_pipeline_counts(const atedm_pipeline *pipeline,
                           atedm_op_counts ret_counts[ATEDM_N_STAGES]);

// How often evaluations that repeat an earlier one replayed its recording. Borrowed.
const atedm_repeat_figures *atedm_pipeline_repeats(const atedm_pipeline *p);

const atedm_plan *atedm_generation_plan(const atedm_generation *g); // NULL: pruning off
const atedm_request_cost *atedm_generation_cost(const atedm_generation *g);
// Device bytes that the request itself holds from create to destroy; scratch memory not included.
size_t atedm_generation_memory(const atedm_generation *g);
// Multiply-accumulates of this request so far. The operations count them, except in denoising
// steps: requests share evaluations, so a step counts what the cost model (flops.h) says for it.
void atedm_generation_counts(const atedm_generation *g, atedm_op_counts ret_counts[ATEDM_N_STAGES]);
// How many bytes of `prompt` (which = 0) or `negative_prompt` (which = 1) were encoded. Fewer than
// its length if the tokenizer cut it.
size_t atedm_generation_encoded(const atedm_generation *g, int which);

// Plan and cost of a request, without running it (POST /v1/estimate, atedm inspect). *ret_plan is
// the caller's to destroy; NULL if pruning is off.
ATEDM_MUST_CHECK atedm_status atedm_estimate(const atedm_model_config *config,
                                             const atedm_request *request, atedm_plan **ret_plan,
                                             atedm_request_cost *ret_cost, atedm_error *err);

// Wall-clock seconds of each stage. steps_s has one entry for each step of the request. encode_s is
// PNG encoding, which the caller times.
typedef struct atedm_timing {
    double text_encoder_s, denoise_s, vae_s, encode_s;
    double steps_s[ATEDM_MAX_STEPS];
} atedm_timing;

// Called before each step, with the number of steps done so far, and once after the last step.
// Return false to cancel the request.
typedef bool (*atedm_progress_fn)(void *user, int step, int steps);

// Runs all stages in order and fills rgb_images, [host] uint8 [num_images][height * width * 3],
// owned by the caller. progress: NULL allowed. ATEDM_ERR_CANCELED: `progress` returned false.
ATEDM_MUST_CHECK atedm_status atedm_generation_run(atedm_generation *g, atedm_progress_fn progress,
                                                   void *user, uint8_t *const *rgb_images,
                                                   atedm_timing *ret_timing, atedm_error *err);

#endif
