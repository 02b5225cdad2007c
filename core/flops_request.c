// FLOPs of a whole request, by stage: see flops.h. Sums saturate at UINT64_MAX: if they wrapped, a
// request far too large for any machine could look cheap.
#include "core/flops.h"

static uint64_t add(uint64_t a, uint64_t b)
{
    uint64_t sum;
    return __builtin_add_overflow(a, b, &sum) ? UINT64_MAX : sum;
}

static uint64_t times(uint64_t a, int64_t b)
{
    uint64_t result;
    return __builtin_mul_overflow(a, (uint64_t)b, &result) ? UINT64_MAX : result;
}

static uint64_t overhead_flops(const atedm_op_counts *counts)
{
    return 2 * counts->overhead;
}

// FLOPs of all denoising steps for one sample; overhead is returned separately.
static void plan_flops(const atedm_unet_cost *cost, const atedm_plan *plan, uint64_t *ret_useful,
                       uint64_t *ret_overhead)
{
    *ret_useful = 0;
    *ret_overhead = 0;
    for (int k = 0; k < plan->steps; k++) {
        atedm_op_counts counts = atedm_unet_cost_step(cost, plan, k);
        uint64_t overhead = overhead_flops(&counts);
        *ret_useful = add(*ret_useful, atedm_op_counts_flops(&counts) - overhead);
        *ret_overhead = add(*ret_overhead, overhead);
    }
}

atedm_request_cost atedm_request_cost_eval(const atedm_model_configs *configs,
                                           const atedm_request_shape *shape, const atedm_plan *plan)
{
    atedm_request_cost cost = {0};
    for (size_t i = 0; i < 2; i++) {
        atedm_op_counts clip = atedm_clip_cost(&configs->clip[i], shape->context_tokens);
        cost.text_encoder =
            add(cost.text_encoder, times(atedm_op_counts_flops(&clip), shape->prompts));
    }
    atedm_op_counts vae = atedm_vae_cost(&configs->vae, shape->latent_h, shape->latent_w);
    cost.vae = times(atedm_op_counts_flops(&vae), shape->images);

    atedm_unet_cost unet;
    atedm_unet_cost_init(&unet, &configs->unet, shape->latent_h, shape->latent_w,
                         shape->context_tokens);
    atedm_op_counts full = atedm_unet_cost_eval(&unet, NULL, NULL);
    uint64_t unpruned = times(atedm_op_counts_flops(&full), shape->steps);
    uint64_t useful = unpruned;
    uint64_t overhead = 0;
    if (plan)
        plan_flops(&unet, plan, &useful, &overhead);

    atedm_op_counts condition = atedm_unet_condition_cost(&configs->unet);
    uint64_t condition_flops = times(atedm_op_counts_flops(&condition), shape->samples);
    int64_t rows = (int64_t)shape->samples * shape->images;
    cost.overhead = times(overhead, atedm_plan_shares_masks(plan) ? shape->images : rows);
    cost.unet = add(add(times(useful, rows), cost.overhead), condition_flops);
    cost.unet_baseline = add(times(unpruned, rows), condition_flops);

    uint64_t others = add(cost.text_encoder, cost.vae);
    cost.executed = add(others, cost.unet);
    cost.baseline = add(others, cost.unet_baseline);
    cost.saved_ratio = 1 - (double)cost.executed / (double)cost.baseline;
    cost.mean_unet_flops_ratio = (double)useful / (double)unpruned;
    return cost;
}
