// The UNet of SDXL (Podell et al. 2023; diffusers: UNet2DConditionModel with text_time
// conditioning) for any widths and depths in its config.json, with AT-EDM token pruning in its
// attention blocks.
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
#define ATEDM_UNET_MAX_RESNETS 8        // largest layers_per_block; up stages have one block more
#define ATEDM_UNET_MAX_SAMPLE_SIZE 4096 // largest native height and width, in latent pixels
#define ATEDM_UNET_TIME_IDS 6           // SDXL's micro-conditioning: sizes and crop position

typedef struct atedm_unet_config {
    int64_t in_channels, out_channels;
    int levels;
    int64_t channels[ATEDM_UNET_MAX_LEVELS];
    bool attention[ATEDM_UNET_MAX_LEVELS]; // down stage i is a CrossAttnDownBlock2D
    int transformer_layers[ATEDM_UNET_MAX_LEVELS];
    int heads[ATEDM_UNET_MAX_LEVELS]; // the config's attention_head_dim is the number of heads
    int layers_per_block;
    int64_t cross_attention_dim;
    int norm_groups;
    float norm_epsilon;
    bool linear_projection; // proj_in and proj_out are linear layers, not 1x1 convolutions
    int64_t addition_time_embed_dim, projection_input_dim; // text_time conditioning
    double sample_size;                                    // native height and width, in latents
} atedm_unet_config;

// Reads and checks the config.json at `path`. ATEDM_ERR_UNSUPPORTED: an option that would change
// the numbers and is not implemented. ATEDM_ERR_FORMAT: inconsistent or malformed values.
// ATEDM_ERR_LIMIT: more than ATEDM_MAX_BLOCKS attention blocks.
ATEDM_MUST_CHECK atedm_status atedm_unet_config_read(const char *path,
                                                     atedm_unet_config *ret_config,
                                                     atedm_error *err);
// Describes the attention blocks in execution order and returns their number, which is at most
// ATEDM_MAX_BLOCKS (atedm_unet_config_read checks that).
int atedm_unet_config_blocks(const atedm_unet_config *config,
                             atedm_block_info ret_blocks[ATEDM_MAX_BLOCKS]);

typedef struct atedm_unet atedm_unet;

// Loads the parameters from `weights`, which is borrowed for the call. The UNet must be destroyed
// before `device`.
ATEDM_MUST_CHECK atedm_status atedm_unet_create(atedm_device *device, atedm_dtype act,
                                                const atedm_unet_config *config,
                                                atedm_weights *weights, atedm_unet **ret_unet,
                                                atedm_error *err);
void atedm_unet_destroy(atedm_unet *unet);                // NULL allowed
size_t atedm_unet_bytes(const atedm_unet *unet);          // device bytes of its weights
int64_t atedm_unet_embedding_dim(const atedm_unet *unet); // 4 * channels[0]

// Computes a request's part of the embedding that every step uses: of the pooled text and the time
// ids (diffusers: add_embedding). pooled: [device] act [n, P], P = projection_input_dim - 6 *
// addition_time_embed_dim; time_ids: [host] [n, 6]; y: [device] act [n, embedding_dim].
void atedm_unet_embed_condition(const atedm_unet *unet, atedm_stream *s, atedm_arena *arena,
                                const void *pooled, const double *time_ids, int64_t n, void *y);

// What pruning did to one sample in one block. All arrays are [host] and borrowed for the call.
typedef struct atedm_prune_trace {
    int64_t sample;    // index in the evaluation
    const char *block; // name, such as "down.1.0"
    int64_t tokens, n_kept;
    const int32_t *kept;   // [n_kept] grid indexes kept by the last pruning layer, ascending
    const int32_t *source; // [tokens] grid index of the token's source (a kept token: itself); -1:
                           // it has none (ATEDM_RECOVER_ZERO)
    const float *scores;   // [tokens] scores in the first layer that pruned the sample
} atedm_prune_trace;
typedef void (*atedm_prune_trace_fn)(void *user, const atedm_prune_trace *trace);

// The most samples of one evaluation.
#define ATEDM_UNET_MAX_SAMPLES 64

// One sample of an evaluation. The samples of an evaluation have the same height and width; all
// else may differ.
typedef struct atedm_unet_sample {
    double timestep;
    const atedm_prune_spec *prune; // NULL: off
    const float *rho;              // [n_blocks] ratios; used if `prune` is not NULL
    const bool *ranks; // [n_blocks]: true: the block ranks its tokens in this evaluation; false: it
                       // uses atedm_unet_args.scores. NULL: all blocks rank
    uint64_t draw;     // key of pruning's random numbers (atedm_random_scores), from image and step
    int mask_from;     // 0: the sample chooses its own tokens. d: it keeps the same tokens, and
                   // recovers from the same sources, as sample i + d, which must have the same rho
                   // and mask_from 0
} atedm_unet_sample;

typedef struct atedm_unet_args {
    const void *x;       // [device] act [n, h, w, in_channels], scaled latents
    const void *context; // [device] act [n * context_tokens, cross_attention_dim]
    int64_t context_tokens;
    const void *condition; // [device] act [n, embedding_dim], from atedm_unet_embed_condition
    const atedm_unet_sample *samples; // [host] [n], n <= ATEDM_UNET_MAX_SAMPLES
    int64_t n, h, w;
    void *y; // [device] act [n, h, w, out_channels]: the prediction
    // [device] F32 [n, atedm_unet_score_count]: for each sample with a score_interval over 1, the
    // scores of its blocks in execution order, from the last step that ranked there. A block that
    // ranks in this evaluation replaces its scores. NULL: no such sample.
    float *scores;
    bool traced; // take the scratch memory that a trace needs, even if `trace` is NULL
    // Take the scratch memory that these samples would need if other samples of the evaluation were
    // pruned after layer 0 of every block, even if none is.
    bool mixed;
    // NULL, or called for each pruned sample of each block; synchronises with the device.
    atedm_prune_trace_fn trace;
    void *trace_user;
} atedm_unet_args;

// Number of tokens in all attention blocks together, for h x w latents.
int64_t atedm_unet_score_count(const atedm_unet *unet, int64_t h, int64_t w);

// Enqueues one evaluation on `s`. A failure makes the stream fail. Takes scratch memory from
// `arena` and releases it.
void atedm_unet_forward(const atedm_unet *unet, atedm_stream *s, atedm_arena *arena,
                        const atedm_unet_args *args);

#endif
