// The analytic cost model: every figure of the project's tables for SDXL base (which follow from
// the paper's), and small cases computed by hand.
#include "core/flops.h"

#include <criterion/criterion.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

static const atedm_unet_config sdxl = {
    .in_channels = 4,
    .out_channels = 4,
    .levels = 3,
    .channels = {320, 640, 1280},
    .attention = {false, true, true},
    .transformer_layers = {1, 2, 10},
    .heads = {5, 10, 20},
    .layers_per_block = 2,
    .cross_attention_dim = 2048,
    .norm_groups = 32,
    .linear_projection = true,
    .addition_time_embed_dim = 256,
    .projection_input_dim = 2816,
};

// Compares as printed, with the decimals that `wanted` has.
static void check_printed(double value, const char *wanted, const char *what)
{
    char text[64];
    snprintf(text, sizeof text, "%.*f", (int)strlen(strchr(wanted, '.') + 1), value);
    cr_assert_str_eq(text, wanted, "%s: %s, not %s", what, text, wanted);
}

static double tflops(const atedm_op_counts *counts)
{
    return (double)(atedm_op_counts_flops(counts) - 2 * counts->overhead) / 1e12;
}

static atedm_unet_cost sdxl_cost(int64_t pixels)
{
    atedm_unet_cost cost;
    atedm_unet_cost_init(&cost, &sdxl, pixels / 8, pixels / 8, 77);
    return cost;
}

static double sdxl_tflops(int64_t pixels)
{
    atedm_unet_cost cost = sdxl_cost(pixels);
    atedm_op_counts counts = atedm_unet_cost_eval(&cost, NULL, NULL);
    return tflops(&counts);
}

Test(flops, sdxl_base_unpruned)
{
    atedm_unet_cost cost = sdxl_cost(1024);
    atedm_op_counts counts = atedm_unet_cost_eval(&cost, NULL, NULL);
    check_printed((double)counts.conv / 1e12, "0.812", "convolutions");
    check_printed((double)counts.linear / 1e12, "2.177", "linear layers");
    check_printed((double)counts.attention / 1e12, "0.392", "attention products");
    cr_assert_eq(counts.overhead, 0);
    check_printed((double)(counts.conv + counts.linear + counts.attention) / 1e12, "3.381",
                  "total");
    check_printed(sdxl_tflops(1024), "6.76", "1024x1024");
    check_printed(sdxl_tflops(512), "1.589", "512x512");
    check_printed(sdxl_tflops(768), "3.641", "768x768");
}

typedef struct plan_figures {
    double mean, first_step, last_step;
} plan_figures;

static plan_figures figures(const atedm_prune_spec *spec)
{
    atedm_unet_cost cost = sdxl_cost(1024);
    atedm_plan *plan = NULL;
    atedm_error err = {{0}};
    cr_assert_eq(atedm_plan_create(spec, 50, &cost, &plan, &err), ATEDM_OK, "%s", err.message);
    plan_figures result = {0};
    for (int k = 0; k < 50; k++) {
        atedm_op_counts counts = atedm_unet_cost_eval(&cost, spec, atedm_plan_step(plan, k));
        double step = tflops(&counts);
        result.mean += step / 50;
        if (k == 0)
            result.first_step = step;
        result.last_step = step;
    }
    atedm_plan_destroy(plan);
    return result;
}

static atedm_prune_spec preset(const char *name)
{
    atedm_prune_spec spec;
    cr_assert_eq(atedm_prune_preset(name, &spec), ATEDM_OK);
    return spec;
}

Test(flops, sdxl_base_plans)
{
    atedm_prune_spec spec = preset("at-edm-dagger");
    check_printed(figures(&spec).mean, "4.443", "rho 0.63, uniform, dagger");
    spec.skip_levels = 0;
    check_printed(figures(&spec).mean, "4.065", "rho 0.63, uniform");

    spec = preset("at-edm-c");
    check_printed(figures(&spec).mean, "4.10", "rho 0.70, DSAP");
    check_printed(figures(&spec).first_step, "4.809", "its prune-less step");
    check_printed(figures(&spec).last_step, "3.792", "its full step");
    spec = preset("at-edm-d");
    check_printed(figures(&spec).mean, "4.46", "rho 0.70, DSAP, dagger");
    spec = preset("at-edm-b");
    check_printed(figures(&spec).mean, "3.60", "rho 0.845, DSAP");
    spec = preset("at-edm-a");
    check_printed(figures(&spec).mean, "2.90", "rho 0.937, uniform");
}

// The table's figures of single steps under "rho 0.70" are those of 0.699, rounded.
Test(flops, sdxl_base_steps_at_0_699)
{
    atedm_prune_spec spec = preset("at-edm-c");
    spec.ratio = 0.699;
    check_printed(figures(&spec).mean, "4.10", "mean");
    check_printed(figures(&spec).first_step, "4.812", "prune-less step");
    check_printed(figures(&spec).last_step, "3.796", "full step");
}

Test(flops, sdxl_base_floor)
{
    atedm_prune_spec spec = preset("at-edm-c");
    spec.ratio = ATEDM_RATIO_MAX;
    check_printed(figures(&spec).mean, "3.09", "floor of DSAP");
    spec.ratio = NAN;
    spec.flops_budget = 0.4;
    atedm_unet_cost cost = sdxl_cost(1024);
    atedm_plan *plan = NULL;
    atedm_error err = {{0}};
    cr_assert_eq(atedm_plan_create(&spec, 50, &cost, &plan, &err), ATEDM_ERR_INVALID);
    cr_assert_not_null(strstr(err.message, "0.4571"), "%s", err.message); // 3.09 / 6.76
}

Test(flops, blocks_and_the_rest_add_up)
{
    atedm_unet_cost cost = sdxl_cost(1024);
    cr_assert_eq(cost.n_blocks, 11);
    atedm_prune_spec spec = preset("at-edm");
    float rho[ATEDM_MAX_BLOCKS];
    atedm_op_counts pruned_blocks = {0};
    atedm_op_counts blocks = {0};
    for (int b = 0; b < cost.n_blocks; b++) {
        rho[b] = 0.05F * (float)b;
        atedm_op_counts c = atedm_unet_cost_block(&cost, b, &spec, rho[b]);
        pruned_blocks.linear += c.linear;
        pruned_blocks.attention += c.attention;
        pruned_blocks.overhead += c.overhead;
        c = atedm_unet_cost_block(&cost, b, NULL, 0);
        blocks.linear += c.linear;
        blocks.attention += c.attention;
        cr_assert_eq(c.conv, 0);
        cr_assert_eq(c.overhead, 0);
    }
    atedm_op_counts full = atedm_unet_cost_eval(&cost, NULL, NULL);
    atedm_op_counts pruned = atedm_unet_cost_eval(&cost, &spec, rho);
    cr_assert_eq(full.linear - blocks.linear, pruned.linear - pruned_blocks.linear);
    cr_assert_eq(full.attention, blocks.attention);
    cr_assert_eq(pruned.attention, pruned_blocks.attention);
    cr_assert_eq(pruned.overhead, pruned_blocks.overhead);
    cr_assert_eq(pruned.conv, full.conv);
    cr_assert_lt(pruned.linear, full.linear);
}

// One level, one layer to a block, two attention layers: everything by hand.
static const atedm_unet_config tiny = {
    .in_channels = 2,
    .out_channels = 3,
    .levels = 1,
    .channels = {8},
    .attention = {true},
    .transformer_layers = {2},
    .heads = {2},
    .layers_per_block = 1,
    .cross_attention_dim = 6,
    .norm_groups = 1,
    .linear_projection = true,
    .addition_time_embed_dim = 2,
    .projection_input_dim = 20,
};

Test(flops, tiny_unet_by_hand)
{
    atedm_unet_cost cost;
    atedm_unet_cost_init(&cost, &tiny, 4, 5, 7); // 20 tokens
    cr_assert_eq(cost.n_blocks, 4);              // down.0.0, mid, up.0.0, up.0.1
    cr_assert_eq(atedm_unet_cost_tokens(&cost, 0), 20);

    const uint64_t N = 20;
    const uint64_t T = 7;
    const uint64_t c = 8;
    const uint64_t layer_linear = N * 6 * c * c + 2 * T * 6 * c + N * 12 * c * c;
    const uint64_t layer_attention = 2 * N * N * c + 2 * N * T * c;
    atedm_op_counts block = atedm_unet_cost_block(&cost, 0, NULL, 0);
    cr_assert_eq(block.linear, 2 * N * c * c + 2 * layer_linear);
    cr_assert_eq(block.attention, 2 * layer_attention);

    atedm_op_counts counts = atedm_unet_cost_eval(&cost, NULL, NULL);
    const uint64_t plain = 2 * 9 * N * c * c;                                // 8 -> 8
    const uint64_t wide = 9 * N * 2 * c * c + 9 * N * c * c + N * 2 * c * c; // 16 -> 8, shortcut
    cr_assert_eq(counts.conv, 9 * N * 2 * c + 3 * plain + 2 * wide + 9 * N * c * 3);
    const uint64_t time = 8 * 32 + 32 * 32 + 5 * 32 * 8;
    cr_assert_eq(counts.linear, time + 4 * block.linear);
    cr_assert_eq(counts.attention, 4 * block.attention);

    atedm_op_counts condition = atedm_unet_condition_cost(&tiny);
    cr_assert_eq(condition.linear, 20 * 32 + 32 * 32);
    cr_assert_eq(condition.conv + condition.attention + condition.overhead, 0);
}

Test(flops, convolutional_projections_count_as_convolutions)
{
    atedm_unet_config config = tiny;
    config.linear_projection = false;
    atedm_unet_cost linear;
    atedm_unet_cost conv;
    atedm_unet_cost_init(&linear, &tiny, 4, 5, 7);
    atedm_unet_cost_init(&conv, &config, 4, 5, 7);
    atedm_op_counts a = atedm_unet_cost_block(&linear, 1, NULL, 0);
    atedm_op_counts b = atedm_unet_cost_block(&conv, 1, NULL, 0);
    cr_assert_eq(b.conv, 2 * 20 * 8 * 8);
    cr_assert_eq(a.linear, b.linear + b.conv);
}

Test(flops, pruned_block_by_hand)
{
    atedm_unet_cost cost;
    atedm_unet_cost_init(&cost, &tiny, 4, 5, 7);
    atedm_prune_spec spec = preset("at-edm");
    spec.rank.max_iterations = 3;
    const uint64_t N = 20;
    const uint64_t K = 12; // ratio 0.4
    const uint64_t T = 7;
    const uint64_t c = 8;
    const uint64_t heads = 2;
    const uint64_t head_dim = 4;
    uint64_t linear = 2 * N * c * c + (N + K) * 18 * c * c + 2 * (2 * T * 6 * c);
    uint64_t attention = 2 * N * N * c + 2 * K * K * c + 2 * (N + K) * T * c;
    uint64_t rank = heads * (N * N * head_dim + 3 * N * N);
    uint64_t source = heads * (N - K) * K * head_dim;
    atedm_op_counts counts = atedm_unet_cost_block(&cost, 1, &spec, 0.4F);
    cr_assert_eq(counts.linear, linear);
    cr_assert_eq(counts.attention, attention);
    cr_assert_eq(counts.overhead, rank + source);

    spec.recovery = ATEDM_RECOVER_COSINE;
    cr_assert_eq(atedm_unet_cost_block(&cost, 1, &spec, 0.4F).overhead, rank + (N - K) * K * c);
    spec.recovery = ATEDM_RECOVER_ZERO;
    cr_assert_eq(atedm_unet_cost_block(&cost, 1, &spec, 0.4F).overhead, rank);
    spec.recovery = ATEDM_RECOVER_NEAREST;
    cr_assert_eq(atedm_unet_cost_block(&cost, 1, &spec, 0.4F).overhead, rank);
    spec.score_map = ATEDM_SCORE_CROSS;
    rank = heads * (N * T * head_dim + 3 * 2 * N * T);
    cr_assert_eq(atedm_unet_cost_block(&cost, 1, &spec, 0.4F).overhead, rank);

    // Chance costs nothing, looking for sources what it always does.
    spec.score_map = ATEDM_SCORE_RANDOM;
    cr_assert_eq(atedm_unet_cost_block(&cost, 1, &spec, 0.4F).overhead, 0);
    spec.recovery = ATEDM_RECOVER_ATTENTION;
    counts = atedm_unet_cost_block(&cost, 1, &spec, 0.4F);
    cr_assert_eq(counts.linear, linear);
    cr_assert_eq(counts.attention, attention);
    cr_assert_eq(counts.overhead, source);
}

Test(flops, a_step_that_takes_earlier_scores)
{
    atedm_unet_cost cost;
    atedm_unet_cost_init(&cost, &tiny, 4, 5, 7);
    atedm_prune_spec spec = preset("at-edm-a");
    spec.ratio = 0.4;
    spec.score_interval = 2;
    atedm_plan *plan = NULL;
    cr_assert_eq(atedm_plan_create(&spec, 3, &cost, &plan, NULL), ATEDM_OK);
    uint64_t ranking = 0;
    for (int b = 0; b < cost.n_blocks; b++)
        ranking += atedm_unet_cost_rank(&cost, b, &spec);
    atedm_op_counts all = atedm_unet_cost_eval(&cost, &spec, atedm_plan_step(plan, 0));
    cr_assert_gt(ranking, 0);
    cr_assert_gt(all.overhead, ranking); // sources are looked for at every step
    for (int k = 0; k < 3; k++) {
        atedm_op_counts counts = atedm_unet_cost_step(&cost, plan, k);
        cr_assert_eq(counts.overhead, all.overhead - (k == 1 ? ranking : 0), "%d", k);
        cr_assert_eq(counts.linear, all.linear);
    }
    atedm_plan_destroy(plan);
}

Test(flops, several_pruning_layers)
{
    atedm_unet_cost cost;
    atedm_unet_cost_init(&cost, &tiny, 4, 5, 7);
    atedm_prune_spec spec = preset("at-edm");
    spec.recovery = ATEDM_RECOVER_ZERO;
    atedm_op_counts once = atedm_unet_cost_block(&cost, 0, &spec, 0.4F);
    // Layer 1 is the last: pruning after it saves nothing and costs a ranking of 12 tokens. Layers
    // that the block lacks are ignored.
    spec.n_prune_after = 3;
    spec.prune_after[1] = 1;
    spec.prune_after[2] = 2;
    atedm_op_counts twice = atedm_unet_cost_block(&cost, 0, &spec, 0.4F);
    cr_assert_eq(twice.linear, once.linear);
    cr_assert_eq(twice.attention, once.attention);
    cr_assert_eq(twice.overhead - once.overhead, 2 * (12 * 12 * 4 + 8 * 12 * 12));
}

Test(flops, nothing_pruned_costs_nothing)
{
    atedm_unet_cost cost;
    atedm_unet_cost_init(&cost, &tiny, 4, 5, 7);
    atedm_prune_spec spec = preset("at-edm");
    atedm_op_counts full = atedm_unet_cost_block(&cost, 0, NULL, 0);
    atedm_op_counts zero = atedm_unet_cost_block(&cost, 0, &spec, 0);
    atedm_op_counts none_removed = atedm_unet_cost_block(&cost, 0, &spec, 0.0499F); // of 20
    spec.enabled = false;
    atedm_op_counts off = atedm_unet_cost_block(&cost, 0, &spec, 0.5F);
    cr_assert(memcmp(&full, &zero, sizeof full) == 0);
    cr_assert(memcmp(&full, &none_removed, sizeof full) == 0);
    cr_assert(memcmp(&full, &off, sizeof full) == 0);
    spec.enabled = true;
    cr_assert_gt(atedm_unet_cost_block(&cost, 0, &spec, 0.05F).overhead, 0);
}

Test(flops, text_encoders_by_hand)
{
    atedm_clip_config config = {.width = 8, .mlp_width = 24, .projection = 5, .layers = 3};
    atedm_op_counts counts = atedm_clip_cost(&config, 7);
    cr_assert_eq(counts.linear, 2 * (4 * 7 * 8 * 8 + 2 * 7 * 8 * 24)); // the last layer is not run
    cr_assert_eq(counts.attention, 2 * (2 * 7 * 7 * 8));
    config.has_projection = true;
    counts = atedm_clip_cost(&config, 7);
    cr_assert_eq(counts.linear, 3 * (4 * 7 * 8 * 8 + 2 * 7 * 8 * 24) + 8 * 5);
    cr_assert_eq(counts.attention, 3 * (2 * 7 * 7 * 8));
    cr_assert_eq(counts.conv + counts.overhead, 0);
}

Test(flops, vae_by_hand)
{
    atedm_vae_config config = {.latent_channels = 4,
                               .out_channels = 3,
                               .levels = 2,
                               .channels = {6, 10},
                               .layers_per_block = 1,
                               .post_quant_conv = true,
                               .mid_attention = true};
    atedm_op_counts counts = atedm_vae_cost(&config, 2, 3);
    uint64_t small = 6 * (4 * 4 + 9 * 4 * 10 + 4 * (2 * 9 * 10 * 10)); // mid and first up stage
    uint64_t large = 24 * (9 * 10 * 10                                 // upsampling
                           + 9 * 10 * 6 + 9 * 6 * 6 + 10 * 6 + 2 * 9 * 6 * 6 + 9 * 6 * 3);
    cr_assert_eq(counts.conv, small + large);
    cr_assert_eq(counts.linear, 4 * 6 * 10 * 10);
    cr_assert_eq(counts.attention, 2 * 6 * 6 * 10);
    config.post_quant_conv = false;
    config.mid_attention = false;
    atedm_op_counts less = atedm_vae_cost(&config, 2, 3);
    cr_assert_eq(counts.conv - less.conv, 6 * 4 * 4);
    cr_assert_eq(less.linear + less.attention, 0);
}

static atedm_model_configs make_tiny_model(void)
{
    return (atedm_model_configs){
        .clip =
            {{.width = 8, .mlp_width = 24, .layers = 3},
             {.width = 8, .mlp_width = 16, .layers = 2, .has_projection = true, .projection = 8}},
        .unet = tiny,
        .vae = {.latent_channels = 2, .out_channels = 3, .levels = 1, .channels = {4}},
    };
}

Test(flops, request_adds_its_stages_up)
{
    const atedm_request_shape shape = {.latent_h = 4,
                                       .latent_w = 5,
                                       .context_tokens = 7,
                                       .steps = 6,
                                       .prompts = 1,
                                       .samples = 2,
                                       .images = 3};
    atedm_model_configs tiny_model = make_tiny_model();
    atedm_op_counts clip[2] = {atedm_clip_cost(&tiny_model.clip[0], 7),
                               atedm_clip_cost(&tiny_model.clip[1], 7)};
    atedm_op_counts vae = atedm_vae_cost(&tiny_model.vae, 4, 5);
    atedm_op_counts condition = atedm_unet_condition_cost(&tiny);
    atedm_unet_cost unet;
    atedm_unet_cost_init(&unet, &tiny, 4, 5, 7);
    atedm_op_counts full = atedm_unet_cost_eval(&unet, NULL, NULL);

    atedm_request_cost off = atedm_request_cost_eval(&tiny_model, &shape, NULL);
    cr_assert_eq(off.text_encoder,
                 atedm_op_counts_flops(&clip[0]) + atedm_op_counts_flops(&clip[1]));
    cr_assert_eq(off.vae, 3 * atedm_op_counts_flops(&vae));
    cr_assert_eq(off.unet,
                 2 * 3 * 6 * atedm_op_counts_flops(&full) + 2 * atedm_op_counts_flops(&condition));
    cr_assert_eq(off.unet_baseline, off.unet);
    cr_assert_eq(off.executed, off.text_encoder + off.unet + off.vae);
    cr_assert_eq(off.baseline, off.executed);
    cr_assert_eq(off.overhead, 0);
    cr_assert_eq(off.saved_ratio, 0);
    cr_assert_eq(off.mean_unet_flops_ratio, 1);

    atedm_prune_spec spec = preset("at-edm");
    atedm_plan *plan = NULL;
    cr_assert_eq(atedm_plan_create(&spec, 6, &unet, &plan, NULL), ATEDM_OK);
    uint64_t useful = 0;
    uint64_t overhead = 0;
    for (int k = 0; k < 6; k++) {
        atedm_op_counts c = atedm_unet_cost_eval(&unet, &spec, atedm_plan_step(plan, k));
        useful += 2 * (c.conv + c.linear + c.attention);
        overhead += 2 * c.overhead;
    }
    atedm_request_cost cost = atedm_request_cost_eval(&tiny_model, &shape, plan);
    cr_assert_eq(cost.overhead, 3 * overhead); // each image's halves share their mask
    cr_assert_eq(cost.unet, 6 * useful + 3 * overhead + 2 * atedm_op_counts_flops(&condition));
    cr_assert_eq(cost.baseline, off.baseline);
    cr_assert_eq(cost.executed, cost.text_encoder + cost.unet + cost.vae);
    cr_assert_float_eq(cost.saved_ratio, 1 - (double)cost.executed / (double)off.executed, 1e-15);
    cr_assert_float_eq(cost.mean_unet_flops_ratio,
                       (double)useful / (6.0 * (double)atedm_op_counts_flops(&full)), 1e-15);
    plan->spec.masks = ATEDM_MASKS_OWN;
    cost = atedm_request_cost_eval(&tiny_model, &shape, plan);
    cr_assert_eq(cost.overhead, 6 * overhead);
    cr_assert_eq(cost.unet, 6 * (useful + overhead) + 2 * atedm_op_counts_flops(&condition));
    atedm_plan_destroy(plan);
}

Test(flops, absurd_requests_saturate)
{
    const atedm_request_shape shape = {.latent_h = 4096,
                                       .latent_w = 4096,
                                       .context_tokens = 77,
                                       .steps = 150,
                                       .prompts = 2,
                                       .samples = 2,
                                       .images = 1000000};
    atedm_model_configs model = make_tiny_model();
    model.unet = sdxl;
    atedm_request_cost cost = atedm_request_cost_eval(&model, &shape, NULL);
    cr_assert_eq(cost.unet, UINT64_MAX);
    cr_assert_eq(cost.baseline, UINT64_MAX);
}
