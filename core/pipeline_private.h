// What the files of the pipeline share; nobody else includes it.
#ifndef ATEDM_PIPELINE_PRIVATE_H
#define ATEDM_PIPELINE_PRIVATE_H

#include "core/pipeline.h"
#include "core/rng.h"

// The image that is being decoded.
typedef struct atedm_pipeline_decoding {
    atedm_generation *generation; // NULL: none
    int image;
    size_t values; // of the picture
    void *y;       // act [height, width, 3]
    uint8_t *bytes;
    atedm_vae_decoding vae;
    bool enqueued; // to its last piece, beside whatever the device does meanwhile
} atedm_pipeline_decoding;

// The request whose texts are being encoded.
typedef struct atedm_pipeline_encoding {
    atedm_generation *generation; // NULL: none
    int64_t *ids;                 // [host] [2 encoders, 2 prompts, context_tokens]
    void *zeros;                  // [host] for uploads
    void *pooled;                 // act [2, projection]
} atedm_pipeline_encoding;

struct atedm_pipeline {
    const atedm_model *model;
    atedm_stream *stream, *text_stream, *vae_stream; // of steps, and beside it where that can be
    bool overlaps;                                   // it can be
    bool stepping;                                   // between the halves of a step
    atedm_arena scratch, text_scratch, vae_scratch;
    atedm_arena_spares spares; // of requests
    atedm_stream *dry_stream;  // of the model's dry twin
    atedm_op_counts counts[3]; // as the operations counted themselves, by stage
    atedm_pipeline_encoding encoding;
    atedm_pipeline_decoding decoding;
};

// Pruning traces come sample by sample; a dump tensor has all samples of a block side by side.
typedef struct atedm_pipeline_dump {
    atedm_dump_fn call; // NULL: nothing is dumped
    void *user;
    int64_t *kept, *source; // [samples * tokens]
    float *scores;
    size_t capacity; // elements of each
} atedm_pipeline_dump;

// What is kept of image 0 for those who watch it: [host], [h, w, channels] each.
typedef struct atedm_pipeline_watch {
    float *before, *after; // latents around the last step; NULL: nobody watches
    float *clean;          // what they come to
    int step;              // the step that they are of; -1: none yet
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
    int64_t samples;    // an image: 2 with guidance (negative, positive), else 1
    bool zero_negative; // negative embeddings are zeros
    const atedm_host_tensor *latents_given;
    int *steps_done;              // [images]
    atedm_op_counts *step_counts; // [steps] of one image, by the cost model
    atedm_scratch_need need;
    size_t encoded[2];
    atedm_op_counts counts[3];
    atedm_pipeline_dump dump;
    atedm_pipeline_watch watch;

    atedm_arena memory; // holds the following
    float *latents;     // [images, h, w, channels]
    float *history;     // likewise, what the sampler keeps, or noise; or NULL
    void *context;      // act [samples * tokens, cross_attention_dim]
    void *condition;    // act [samples, embedding_dim]
    float *scores;   // [images, samples, score_count], where rankings serve several steps; or NULL
    float *staging;  // [host] [images, h, w, channels]: uploads stay valid until synced
    atedm_rng *rngs; // [host] [images]
    int *drawn;      // [host] [images]: steps for which there was noise from it
    float *planar;   // [host] [channels, h, w]: room for one draw
    float *noise;    // [host] [2, images, h, w, channels] of even and odd steps; or NULL
};

// One UNet evaluation and the sampler's step behind it, for lanes that go together, on the
// pipeline's device or on its dry twin (which is how scratch memory is measured). `mixed`: with the
// scratch memory that it takes in any company.
void atedm_lanes_step(const atedm_model *model, atedm_stream *s, atedm_arena *arena,
                      const atedm_lane *lanes, size_t n, bool mixed);

// Of one image, and where an image's are.
size_t atedm_generation_latent_count(const atedm_generation *g);
float *atedm_generation_latents(const atedm_generation *g, int image);
// Where the image's sampler keeps what it keeps, or has its noise; NULL: nowhere.
float *atedm_generation_history(const atedm_generation *g, int image);

// Enqueues the upload of initial latents, on the stream of texts.
void atedm_pipeline_noise_begin(atedm_generation *g);
// Around a step, of lanes whose sampler wants noise: enqueues its upload; draws the next step's
// while the device is busy.
void atedm_pipeline_noise_before(atedm_pipeline *p, const atedm_lane *lanes, size_t n);
void atedm_pipeline_noise_after(const atedm_lane *lanes, size_t n);

// Makes sure that `arena` has at least `need` bytes, between two evaluations.
ATEDM_MUST_CHECK atedm_status atedm_pipeline_reserve(atedm_pipeline *p, atedm_arena *arena,
                                                     size_t need, atedm_error *err);

// Finds out `need`.
ATEDM_MUST_CHECK atedm_status atedm_generation_measure(atedm_generation *g, atedm_error *err);

// Enqueue the downloads of watched images, around a step. Others are not touched.
void atedm_pipeline_watch_before(atedm_pipeline *p, const atedm_lane *lanes, size_t n);
void atedm_pipeline_watch_after(atedm_pipeline *p, const atedm_lane *lanes, size_t n);
void atedm_pipeline_watch_finish(atedm_pipeline_watch *watch);

// Moves what the stream's operations counted to a stage of the request.
void atedm_generation_count(atedm_generation *g, int stage, atedm_stream *s);

// Each does nothing without a dump callback.
void atedm_pipeline_dump_encoded(atedm_generation *g, int64_t *const ids[2], const void *pooled);
void atedm_pipeline_dump_doubles(atedm_generation *g, const char *name, const double *values,
                                 int ndim, const int64_t *shape);
void atedm_pipeline_dump_noise(atedm_generation *g, int64_t images, const void *y);
void atedm_pipeline_dump_latents(atedm_generation *g);
void atedm_pipeline_dump_image(atedm_generation *g, int image, const void *y);
void atedm_pipeline_dump_trace(void *user, const atedm_prune_trace *trace); // user: the generation
void atedm_pipeline_dump_finish(atedm_pipeline_dump *dump);

#endif
