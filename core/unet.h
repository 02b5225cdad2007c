// The UNet of SDXL (Podell et al. 2023; diffusers: UNet2DConditionModel with text_time
// conditioning), for any widths and depths that its config.json names, with AT-EDM token pruning in
// its attention blocks.
#ifndef ATEDM_UNET_H
#define ATEDM_UNET_H

#include "core/arena.h"
#include "core/base/status.h"
#include "core/plan.h"
#include "core/weights.h"
#include "kernels/kernels.h"

#define ATEDM_UNET_MAX_LEVELS ATEDM_MAX_LEVELS
#define ATEDM_UNET_MAX_LAYERS 32 // transformer layers of an attention block
#define ATEDM_UNET_MAX_CHANNELS 65536
#define ATEDM_UNET_MAX_RESNETS 8        // layers_per_block; up stages have one more
#define ATEDM_UNET_MAX_SAMPLE_SIZE 4096 // latents of the native size's side
#define ATEDM_UNET_TIME_IDS 6           // micro-conditioning values of SDXL

typedef struct atedm_unet_config {
    int64_t in_channels, out_channels;
    int levels;
    int64_t channels[ATEDM_UNET_MAX_LEVELS];
    bool attention[ATEDM_UNET_MAX_LEVELS]; // down stage i is a CrossAttnDownBlock2D
    int transformer_layers[ATEDM_UNET_MAX_LEVELS];
    int heads[ATEDM_UNET_MAX_LEVELS]; // config's attention_head_dim counts heads
    int layers_per_block;
    int64_t cross_attention_dim;
    int norm_groups;
    float norm_epsilon;
    bool linear_projection; // proj_in, proj_out as linear layers, else 1x1 convolutions
    int64_t addition_time_embed_dim, projection_input_dim; // text_time conditioning
    double sample_size;                                    // native latent side
} atedm_unet_config;

ATEDM_MUST_CHECK atedm_status atedm_unet_config_read(const char *path,
                                                     atedm_unet_config *ret_config,
                                                     atedm_error *err);
// Attention blocks in execution order; returns their number (<= ATEDM_MAX_BLOCKS, checked on
// reading).
int atedm_unet_config_blocks(const atedm_unet_config *config,
                             atedm_block_info ret_blocks[ATEDM_MAX_BLOCKS]);

typedef struct atedm_unet atedm_unet;

ATEDM_MUST_CHECK atedm_status atedm_unet_create(atedm_device *device, atedm_dtype act,
                                                const atedm_unet_config *config,
                                                atedm_weights *weights, atedm_unet **ret_unet,
                                                atedm_error *err);
void atedm_unet_destroy(atedm_unet *unet);                // NULL allowed
size_t atedm_unet_bytes(const atedm_unet *unet);          // of its weights on the device
int64_t atedm_unet_embedding_dim(const atedm_unet *unet); // 4 * channels[0]

// What a request adds to every step: the embedding of pooled text and time ids.
// pooled [device] act [n, P]; time_ids [host] [n, 6]; y [device] act [n, embedding_dim].
void atedm_unet_embed_condition(const atedm_unet *unet, atedm_stream *s, atedm_arena *arena,
                                const void *pooled, const double *time_ids, int64_t n, void *y);

// What pruning decided for one sample in one block; all arrays [host], borrowed during the call.
typedef struct atedm_prune_trace {
    int64_t sample;
    const char *block;
    int64_t tokens, n_kept;
    const int32_t *kept;   // [n_kept] grid places alive after the last pruning layer, ascending
    const int32_t *source; // [tokens] grid place whose value each token ends up with; -1: zero
    const float *scores;   // [tokens] of the first pruning layer
} atedm_prune_trace;
typedef void (*atedm_prune_trace_fn)(void *user, const atedm_prune_trace *trace);

// Samples of one evaluation.
#define ATEDM_UNET_MAX_SAMPLES 64

// One sample of a batch. Samples of one call share height and width, and nothing else.
typedef struct atedm_unet_sample {
    double timestep;
    const atedm_prune_spec *prune; // NULL: off
    const float *rho;              // [n_blocks], with prune
    const bool *ranks; // [n_blocks]: where it is pruned by scores of its own; elsewhere by those in
                       // `scores`. NULL: everywhere
    uint64_t draw; // what chance in pruning starts from (atedm_random_scores): of image and step
    int mask_from; // 0: its own mask; d: keeps and copies the tokens that sample i + d does, which
                   // has the same rho and a mask of its own
} atedm_unet_sample;

typedef struct atedm_unet_args {
    const void *x;       // [device] act [n, h, w, in_channels], scaled latents
    const void *context; // [device] act [n * context_tokens, cross_attention_dim]
    int64_t context_tokens;
    const void *condition; // [device] act [n, embedding_dim], from atedm_unet_embed_condition
    const atedm_unet_sample *samples; // [host] [n], n <= ATEDM_UNET_MAX_SAMPLES
    int64_t n, h, w;
    void *y; // [device] act [n, h, w, out_channels]: the prediction
    // [device] F32 [n, atedm_unet_score_count]: for samples with an interval of scores over 1,
    // their scores of each block in turn, of the last step that ranked there; replaced where this
    // one ranks. NULL where there is no such sample.
    float *scores;
    bool traced; // take the scratch memory that a trace needs, also where none is called
    // Take the scratch memory that all this needs beside samples that lose tokens behind the first
    // layer of every block, where these do not.
    bool mixed;
    atedm_prune_trace_fn trace; // NULL, or called for each pruned sample of each block (and syncs)
    void *trace_user;
} atedm_unet_args;

// Tokens of all attention blocks at a latent of h x w.
int64_t atedm_unet_score_count(const atedm_unet *unet, int64_t h, int64_t w);

// One evaluation. Enqueues on `s`; failures are the stream's.
void atedm_unet_forward(const atedm_unet *unet, atedm_stream *s, atedm_arena *arena,
                        const atedm_unet_args *args);

#endif
