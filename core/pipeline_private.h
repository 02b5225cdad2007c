// What pipeline.c, pipeline_dump.c and pipeline_measure.c share; nobody else includes it.
#ifndef ATEDM_PIPELINE_PRIVATE_H
#define ATEDM_PIPELINE_PRIVATE_H

#include "core/pipeline.h"

struct atedm_pipeline {
    const atedm_model *model;
    atedm_stream *stream, *vae_stream;
    atedm_arena scratch;
};

// Pruning traces come sample by sample; a dump tensor has all samples of a block side by side.
typedef struct atedm_pipeline_dump {
    atedm_dump_fn call; // NULL: nothing is dumped
    void *user;
    int64_t *kept, *source; // [samples * tokens]
    float *scores;
    size_t capacity; // elements of each
} atedm_pipeline_dump;

struct atedm_generation {
    atedm_pipeline *p;
    const atedm_request *request;
    atedm_schedule schedule;
    atedm_plan *plan; // NULL: off
    atedm_request_cost cost;
    int64_t h, w, channels; // of the latents
    int64_t images, batch;  // all, and at most so many at a time
    int64_t samples;        // an image: 2 with guidance (negative, positive), else 1
    bool zero_negative;     // negative embeddings are zeros
    const atedm_host_tensor *latents_given;
    int step; // steps done
    size_t encoded[2];
    atedm_op_counts counts[3];
    atedm_pipeline_dump dump;

    atedm_arena memory; // holds the following
    float *latents;     // [images, h, w, channels]
    void *context;      // act [batch * samples * tokens, cross_attention_dim]
    void *condition;    // act [batch * samples, embedding_dim]
    void *x, *y;        // act [batch * samples, h, w, channels]
    float *staging;     // [host] [images, h, w, channels]: uploads stay valid until synced
};

// One UNet evaluation of `images` images of the request from image `first` on, which are in the
// batch's memory, at `step`, on any device (a dry one to measure).
void atedm_generation_forward(const atedm_generation *g, const atedm_unet *unet, atedm_stream *s,
                              atedm_arena *arena, int step, int64_t first, int64_t images,
                              atedm_prune_trace_fn trace, void *trace_user);

// Bytes of scratch memory that the request's stages need at most.
ATEDM_MUST_CHECK atedm_status atedm_generation_measure(const atedm_generation *g, size_t *ret_bytes,
                                                       atedm_error *err);

// Each does nothing without a dump callback.
void atedm_pipeline_dump_encoded(atedm_generation *g, int64_t *const ids[2], const void *pooled);
void atedm_pipeline_dump_doubles(atedm_generation *g, const char *name, const double *values,
                                 int ndim, const int64_t *shape);
void atedm_pipeline_dump_noise(atedm_generation *g, int64_t images);
void atedm_pipeline_dump_latents(atedm_generation *g);
void atedm_pipeline_dump_image(atedm_generation *g, int image, const void *y);
void atedm_pipeline_dump_trace(void *user, const atedm_prune_trace *trace); // user: the generation
void atedm_pipeline_dump_finish(atedm_pipeline_dump *dump);

#endif
