// Shared by the pipeline's own files; no other file includes it.
#ifndef ATEDM_PIPELINE_PRIVATE_H
#define ATEDM_PIPELINE_PRIVATE_H

#include "core/pipeline.h"
#include "core/rng.h"

// The image that is being decoded, if any.
typedef struct atedm_pipeline_decoding {
    atedm_generation *generation; // NULL: none
    int image;
    size_t values;  // values of the picture: 3 * width * height
    void *y;        // [device] act [height, width, 3]
    uint8_t *bytes; // [device] [height, width, 3]
    atedm_vae_decoding vae;
    bool enqueued; // all pieces are enqueued and run beside the device's other work
} atedm_pipeline_decoding;

// The request whose texts are being encoded, if any.
typedef struct atedm_pipeline_encoding {
    atedm_generation *generation; // NULL: none
    int64_t *ids;                 // [host] [2 encoders, 2 prompts, context_tokens]
    void *zeros;                  // [host] source of uploads that zero the negative embeddings
    void *pooled;                 // [device] act [2, projection]
} atedm_pipeline_encoding;

struct atedm_pipeline {
    const atedm_model *model;
    // `stream` runs the steps. The other two run at the same time if the device can do that.
    atedm_stream *stream, *text_stream, *vae_stream;
    bool overlaps; // the device can do that
    bool stepping; // between atedm_pipeline_step_begin and _end
    atedm_arena scratch, text_scratch, vae_scratch;
    atedm_arena_spares spares;              // allocations of finished requests, for new ones
    atedm_stream *dry_stream;               // on the device of the model's dry twin
    atedm_op_counts counts[ATEDM_N_STAGES]; // counted by the operations
    atedm_pipeline_encoding encoding;
    atedm_pipeline_decoding decoding;
};

// A pruning trace arrives sample by sample; a dumped tensor holds all samples of a block. The
// buffers collect the samples until the last one.
typedef struct atedm_pipeline_dump {
    atedm_dump_fn call; // NULL: nothing is dumped
    void *user;
    int64_t *kept, *source; // [host] [samples * tokens]
    float *scores;          // likewise
    size_t capacity;        // elements of each buffer
} atedm_pipeline_dump;

// What a watched request keeps of image 0's last step: [host] F32 [h, w, channels] each.
typedef struct atedm_pipeline_watch {
    float *before, *after; // latents before and after the step; `before` NULL: not watched
    float *clean;          // the clean latent that the step assumed
    int step;              // index of that step; -1: none yet
} atedm_pipeline_watch;

struct atedm_generation {
    atedm_pipeline *p;
    const atedm_request *request;
    atedm_schedule schedule;
    atedm_plan *plan; // NULL: off
    atedm_request_cost cost;
    int64_t h, w, channels; // of the latents
    int64_t score_count;    // atedm_unet_score_count
    int64_t images;
    int64_t samples;    // of each image: 2 with guidance (negative, positive), else 1
    bool zero_negative; // the negative embeddings are zeros, not encoded text
    const atedm_host_tensor *latents_given;
    int *steps_done;              // [images]
    atedm_op_counts *step_counts; // [steps] cost of one image's step, by the cost model
    atedm_scratch_need need;
    size_t encoded[2];
    atedm_op_counts counts[ATEDM_N_STAGES];
    atedm_pipeline_dump dump;
    atedm_pipeline_watch watch;

    atedm_arena memory; // [device] memory of the pointers below that are not marked [host]
    float *latents;     // [images, h, w, channels]
    float *history;     // [images, h, w, channels]: the clean latents that the last step kept; or,
                        // until the step replaces it, its noise. NULL: the sampler uses neither
    void *context;      // act [samples * tokens, cross_attention_dim]
    void *condition;    // act [samples, embedding_dim]
    float *scores;      // [images, samples, score_count] if rankings serve several steps, else NULL
    float *staging;     // [host] [images, h, w, channels]: initial latents, before their upload
    atedm_rng *rngs;    // [host] [images]
    int *drawn;         // [host] [images]: number of steps whose noise has been drawn from rngs
    float *planar;      // [host] [channels, h, w]: buffer for one draw
    float *noise; // [host] [2, images, h, w, channels], for even and odd steps; NULL: no noise
};

// Enqueues one UNet evaluation and the sampler's step after it, for lanes that check_lanes accepts.
// Runs on the pipeline's device, or on its dry twin to measure scratch memory. `mixed`: takes the
// scratch memory that these lanes need whichever other lanes share the evaluation.
void atedm_lanes_step(const atedm_model *model, atedm_stream *s, atedm_arena *arena,
                      const atedm_lane *lanes, size_t n, bool mixed);

// Number of values in one image's latents.
size_t atedm_generation_latent_count(const atedm_generation *g);
// [device] F32 [h, w, channels]: the image's latents.
float *atedm_generation_latents(const atedm_generation *g, int image);
// [device] F32 [h, w, channels]: the image's part of `history`; NULL if there is none.
float *atedm_generation_history(const atedm_generation *g, int image);

// Draws the initial latents, or takes the given ones, and enqueues their upload on the text stream.
void atedm_pipeline_noise_begin(atedm_generation *g);
// For the lanes whose sampler uses noise. `before` enqueues the upload of the step's noise. `after`
// draws the next step's noise on the host while the device is busy.
void atedm_pipeline_noise_before(atedm_pipeline *p, const atedm_lane *lanes, size_t n);
void atedm_pipeline_noise_after(const atedm_lane *lanes, size_t n);

// Grows `arena` to at least `need` bytes. Call it only while nothing uses the arena.
ATEDM_MUST_CHECK atedm_status atedm_pipeline_reserve(atedm_pipeline *p, atedm_arena *arena,
                                                     size_t need, atedm_error *err);

// Sets g->need, by running the stages on the dry twin.
ATEDM_MUST_CHECK atedm_status atedm_generation_measure(atedm_generation *g, atedm_error *err);

// Enqueue the downloads for watched images, before and after a step. Other lanes are skipped.
void atedm_pipeline_watch_before(atedm_pipeline *p, const atedm_lane *lanes, size_t n);
void atedm_pipeline_watch_after(atedm_pipeline *p, const atedm_lane *lanes, size_t n);
void atedm_pipeline_watch_finish(atedm_pipeline_watch *watch);

// Moves the stream's operation counts to `stage` of the request and of the pipeline, and resets
// them.
void atedm_generation_count(atedm_generation *g, atedm_stage stage, atedm_stream *s);

// The dump functions do nothing without a dump callback.
void atedm_pipeline_dump_encoded(atedm_generation *g, int64_t *const ids[2], const void *pooled);
void atedm_pipeline_dump_doubles(atedm_generation *g, const char *name, const double *values,
                                 int ndim, const int64_t *shape);
void atedm_pipeline_dump_noise(atedm_generation *g, int64_t images, const void *y);
void atedm_pipeline_dump_latents(atedm_generation *g);
void atedm_pipeline_dump_image(atedm_generation *g, int image, const void *y);
void atedm_pipeline_dump_trace(void *user, const atedm_prune_trace *trace); // user: the generation
void atedm_pipeline_dump_finish(atedm_pipeline_dump *dump);

#endif
