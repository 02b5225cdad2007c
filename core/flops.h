// The analytic cost model: multiply-accumulates of every stage, from the configs alone. FLOPs = 2 x
// MACs of convolutions, linear layers and attention products; norms, activations, softmax are not
// counted.
#ifndef ATEDM_FLOPS_H
#define ATEDM_FLOPS_H

#include "core/clip_text.h"
#include "core/plan.h"
#include "core/unet.h"
#include "core/vae.h"
#include "kernels/kernels.h"

// One sample, one evaluation of a UNet at one latent size.
struct atedm_unet_cost {
    atedm_unet_config config;
    int64_t h, w;           // latent
    int64_t context_tokens; // 77
    int n_blocks;
    atedm_block_info blocks[ATEDM_MAX_BLOCKS];
};

void atedm_unet_cost_init(atedm_unet_cost *cost, const atedm_unet_config *config, int64_t h,
                          int64_t w, int64_t context_tokens);

// rho [n_blocks] or NULL (nothing pruned); spec says after which layers, and what ranking and
// recovery cost a sample with a mask of its own. With rho of 0 a block costs what it costs
// unpruned. `overhead` in the result is apart from the other three.
atedm_op_counts atedm_unet_cost_eval(const atedm_unet_cost *cost, const atedm_prune_spec *spec,
                                     const float *rho);
// The same for one attention block (index as in blocks), so that the sum over blocks plus the rest
// is the whole.
atedm_op_counts atedm_unet_cost_block(const atedm_unet_cost *cost, int block,
                                      const atedm_prune_spec *spec, float rho);
// The part of a pruned block's `overhead` that is ranking: what a step saves that takes the scores
// of an earlier one.
uint64_t atedm_unet_cost_rank(const atedm_unet_cost *cost, int block, const atedm_prune_spec *spec);
// What step k of a plan costs a sample with a mask of its own.
atedm_op_counts atedm_unet_cost_step(const atedm_unet_cost *cost, const atedm_plan *plan, int k);
// Tokens of the block's grid; atedm_prune_keep of it stay behind its first pruning layer.
int64_t atedm_unet_cost_tokens(const atedm_unet_cost *cost, int block);

// Embedding of pooled text and time ids, once a sample a request.
atedm_op_counts atedm_unet_condition_cost(const atedm_unet_config *config);
atedm_op_counts atedm_clip_cost(const atedm_clip_config *config, int64_t tokens);     // one prompt
atedm_op_counts atedm_vae_cost(const atedm_vae_config *config, int64_t h, int64_t w); // one image

uint64_t
atedm_op_counts_flops(const atedm_op_counts *counts); // 2 x (conv + linear + attention + overhead)

// A whole request, in FLOPs.
typedef struct atedm_request_cost {
    uint64_t text_encoder, unet, vae; // executed; unet includes overhead
    uint64_t overhead;                // part of unet
    uint64_t executed, baseline;      // sums; baseline: nothing pruned
    uint64_t unet_baseline;
    double saved_ratio;           // 1 - executed / baseline
    double mean_unet_flops_ratio; // UNet, overhead left out, over the unpruned UNet
} atedm_request_cost;

typedef struct atedm_model_configs {
    atedm_clip_config clip[2];
    atedm_unet_config unet;
    atedm_vae_config vae;
} atedm_model_configs;

// prompts: how many run through each text encoder (2 with guidance, 1 without or where the negative
// embedding is zeros); samples: 2 with guidance, 1 without; images: num_images. The condition
// embedding (`samples` times a request) counts as UNet. plan NULL: off.
typedef struct atedm_request_shape {
    int64_t latent_h, latent_w, context_tokens;
    int steps, prompts, samples, images;
} atedm_request_shape;
atedm_request_cost atedm_request_cost_eval(const atedm_model_configs *configs,
                                           const atedm_request_shape *shape,
                                           const atedm_plan *plan);

#endif
