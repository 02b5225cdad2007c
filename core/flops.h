// The analytic cost model: counts every stage's work from the configs alone. Functions that return
// atedm_op_counts count multiply-accumulates (MACs). FLOPs = 2 x MACs of convolutions, linear
// layers and attention products; norms, activations and softmax are not counted.
#ifndef ATEDM_FLOPS_H
#define ATEDM_FLOPS_H

#include "core/clip_text.h"
#include "core/plan.h"
#include "core/unet.h"
#include "core/vae.h"
#include "kernels/kernels.h"

// What the cost of one UNet evaluation depends on. Costs are those of one sample.
struct atedm_unet_cost {
    atedm_unet_config config;
    int64_t h, w;           // latent
    int64_t context_tokens; // 77
    int n_blocks;
    atedm_block_info blocks[ATEDM_MAX_BLOCKS];
};

void atedm_unet_cost_init(atedm_unet_cost *cost, const atedm_unet_config *config, int64_t h,
                          int64_t w, int64_t context_tokens);

// Cost of one evaluation for one sample. rho: [n_blocks] ratios, or NULL: nothing is pruned; a
// block with ratio 0 costs the same as unpruned. spec: after which layers to prune, and how to rank
// and recover; may be NULL if rho is. The result's `overhead` is what ranking and recovery add for
// a sample with a mask of its own; the other three fields do not include it.
atedm_op_counts atedm_unet_cost_eval(const atedm_unet_cost *cost, const atedm_prune_spec *spec,
                                     const float *rho);
// The same for attention block `block` (index into `blocks`) alone. The sum over all blocks plus
// the rest of the UNet is the cost of the evaluation.
atedm_op_counts atedm_unet_cost_block(const atedm_unet_cost *cost, int block,
                                      const atedm_prune_spec *spec, float rho);
// How much of a pruned block's `overhead` is ranking, in MACs. A step that uses the scores of an
// earlier step saves this.
uint64_t atedm_unet_cost_rank(const atedm_unet_cost *cost, int block, const atedm_prune_spec *spec);
// Cost of step k of a plan for one sample with a mask of its own.
atedm_op_counts atedm_unet_cost_step(const atedm_unet_cost *cost, const atedm_plan *plan, int k);
// Number of tokens in the block's grid. atedm_prune_keep says how many of them the block's first
// pruning layer leaves.
int64_t atedm_unet_cost_tokens(const atedm_unet_cost *cost, int block);

// Cost of embedding pooled text and time ids: once for each sample of a request.
atedm_op_counts atedm_unet_condition_cost(const atedm_unet_config *config);
// Cost of encoding one prompt of `tokens` tokens.
atedm_op_counts atedm_clip_cost(const atedm_clip_config *config, int64_t tokens);
// Cost of decoding one image with latents of h x w.
atedm_op_counts atedm_vae_cost(const atedm_vae_config *config, int64_t h, int64_t w);

// FLOPs: 2 x (conv + linear + attention + overhead).
uint64_t atedm_op_counts_flops(const atedm_op_counts *counts);

// Cost of a whole request, in FLOPs. Sums that overflow become UINT64_MAX.
typedef struct atedm_request_cost {
    uint64_t text_encoder, unet, vae; // as executed; unet includes overhead
    uint64_t overhead;                // what ranking and recovery cost
    uint64_t executed, baseline;      // all stages: as executed; if nothing were pruned
    uint64_t unet_baseline;           // the UNet if nothing were pruned
    double saved_ratio;               // 1 - executed / baseline
    double mean_unet_flops_ratio;     // UNet without overhead / unpruned UNet
} atedm_request_cost;

typedef struct atedm_model_configs {
    atedm_clip_config clip[2];
    atedm_unet_config unet;
    atedm_vae_config vae;
} atedm_model_configs;

// The quantities of a request that its cost depends on. prompts: prompts that each text encoder
// runs; 2 with guidance, 1 without guidance or if the negative embedding is zeros. samples: 2 with
// guidance, 1 without. images: num_images.
typedef struct atedm_request_shape {
    int64_t latent_h, latent_w, context_tokens;
    int steps, prompts, samples, images;
} atedm_request_shape;
// Cost of a request. The condition embedding (once for each of `samples`) counts as UNet. plan
// NULL: pruning off.
atedm_request_cost atedm_request_cost_eval(const atedm_model_configs *configs,
                                           const atedm_request_shape *shape,
                                           const atedm_plan *plan);

#endif
