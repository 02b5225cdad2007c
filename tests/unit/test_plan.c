// Pruning plans: presets, schedules, the matrix of a plan, budgets, limits.
#include "core/plan.h"

#include "core/flops.h"
#include "core/sampler.h"

#include <criterion/criterion.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

// Blocks as in SDXL base, widths small.
static const atedm_unet_config config = {
    .in_channels = 4,
    .out_channels = 4,
    .levels = 3,
    .channels = {8, 16, 32},
    .attention = {false, true, true},
    .transformer_layers = {1, 2, 4},
    .heads = {1, 2, 4},
    .layers_per_block = 2,
    .cross_attention_dim = 16,
    .norm_groups = 8,
    .linear_projection = true,
    .addition_time_embed_dim = 8,
    .projection_input_dim = 64,
};

enum {
    DOWN_1_0,
    DOWN_1_1,
    DOWN_2_0,
    DOWN_2_1,
    MID,
    UP_0_0,
    UP_0_1,
    UP_0_2,
    UP_1_0,
    UP_1_1,
    UP_1_2
};

static atedm_unet_cost make_cost(void)
{
    atedm_unet_cost cost;
    atedm_unet_cost_init(&cost, &config, 32, 24, 77);
    return cost;
}

static atedm_prune_spec preset(const char *name)
{
    atedm_prune_spec spec;
    cr_assert_eq(atedm_prune_preset(name, &spec), ATEDM_OK, "%s", name);
    return spec;
}

static atedm_plan *make_plan(const atedm_prune_spec *spec, int steps)
{
    atedm_unet_cost cost = make_cost();
    atedm_plan *plan = NULL;
    atedm_error err = {{0}};
    cr_assert_eq(atedm_plan_create(spec, steps, &cost, &plan, &err), ATEDM_OK, "%s", err.message);
    return plan;
}

Test(plan, keep)
{
    cr_assert_eq(atedm_prune_keep(0, 1024), 1024);
    cr_assert_eq(atedm_prune_keep(0.63, 1024), 1024 - 645);
    cr_assert_eq(atedm_prune_keep(0.63, 4096), 4096 - 2580);
    cr_assert_eq(atedm_prune_keep(0.5, 3), 2);
    cr_assert_eq(atedm_prune_keep(0.3, 10), 7); // 0.3 * 10 is 2.999.. in binary
    cr_assert_eq(atedm_prune_keep(0.7, 1600), 480);
    cr_assert_eq(atedm_prune_keep(0.29, 100), 71);
    cr_assert_eq(atedm_prune_keep(0.299999, 10), 8); // one millionth less
    cr_assert_eq(atedm_prune_keep(ATEDM_RATIO_MAX, 1), 1);
    cr_assert_eq(atedm_prune_keep(ATEDM_RATIO_MAX, 4096), 1);
    cr_assert_eq(atedm_prune_keep(ATEDM_RATIO_MAX, 20000), 2);
}

// A ratio that went through a float keeps what the double keeps.
Test(plan, keep_of_floats)
{
    for (int percent = 0; percent < 100; percent++) {
        double ratio = percent / 100.0;
        for (int64_t n = 1; n < 5000; n += 37)
            cr_assert_eq(atedm_prune_keep((double)(float)ratio, n), atedm_prune_keep(ratio, n));
        cr_assert_eq(atedm_prune_keep(ratio, 100), 100 - percent);
    }
}

Test(plan, keep_never_falls_with_tokens_nor_rises_with_ratio)
{
    for (int64_t n = 1; n < 300; n++) {
        for (int r = 0; r < 100; r++) {
            int64_t keep = atedm_prune_keep(r / 100.0, n);
            cr_assert(keep >= 1 && keep <= n);
            cr_assert_leq(keep, atedm_prune_keep(r / 100.0, n + 1));
            cr_assert_geq(keep, atedm_prune_keep(r / 100.0 + 0.000001, n));
            cr_assert_geq(keep, atedm_prune_keep(r / 100.0 + 0.0099, n));
        }
    }
}

Test(plan, phase_ends_round_halves_up)
{
    cr_assert_eq(atedm_phase_end(0.3, 50), 15);
    cr_assert_eq(atedm_phase_end(0.3, 30), 9);
    cr_assert_eq(atedm_phase_end(0.3, 5), 2);  // 1.5
    cr_assert_eq(atedm_phase_end(0.3, 15), 5); // 4.5
    cr_assert_eq(atedm_phase_end(0.3, 1), 0);
    cr_assert_eq(atedm_phase_end(0.145, 100), 15); // 14.5, 14.499.. in binary
    cr_assert_eq(atedm_phase_end(0.5, 1), 1);
    cr_assert_eq(atedm_phase_end(0.499999, 1), 0);
    cr_assert_eq(atedm_phase_end(1, 150), 150);
}

Test(plan, presets_of_the_paper)
{
    static const struct {
        const char *name;
        double ratio;
        const char *schedule;
        uint32_t skip_levels;
    } wanted[] = {
        {"at-edm", 0.70, "dsap", 0},    {"at-edm-a", 0.937, "uniform", 0},
        {"at-edm-b", 0.845, "dsap", 0}, {"at-edm-c", 0.70, "dsap", 0},
        {"at-edm-d", 0.70, "dsap", 2},  {"at-edm-dagger", 0.63, "uniform", 2},
    };
    for (size_t i = 0; i < sizeof wanted / sizeof wanted[0]; i++) {
        atedm_prune_spec spec = preset(wanted[i].name);
        cr_assert(spec.enabled);
        cr_assert_str_eq(spec.preset, wanted[i].name);
        cr_assert_eq(spec.ratio, wanted[i].ratio);
        cr_assert(isnan(spec.flops_budget));
        cr_assert_str_eq(atedm_prune_schedule_names[spec.schedule], wanted[i].schedule);
        cr_assert_eq(spec.skip_levels, wanted[i].skip_levels);
        cr_assert_eq(spec.tau, 0.3);
        cr_assert_eq(spec.n_prune_after, 1);
        cr_assert_eq(spec.prune_after[0], 0);
        cr_assert_eq(spec.score_map, ATEDM_SCORE_SELF);
        cr_assert_eq(spec.rank.heads, ATEDM_HEADS_RMS);
        cr_assert_eq(spec.rank.max_iterations, 8);
        cr_assert_eq(spec.rank.tolerance, 1e-3F);
        cr_assert_eq(spec.recovery, ATEDM_RECOVER_ATTENTION);
    }
    atedm_prune_spec off = preset("off");
    cr_assert_not(off.enabled);
    cr_assert_str_eq(off.preset, "off");
    atedm_prune_spec spec = {.ratio = 7};
    cr_assert_eq(atedm_prune_preset("at-edm-e", &spec), ATEDM_ERR_NOT_FOUND);
    cr_assert_eq(atedm_prune_preset("", &spec), ATEDM_ERR_NOT_FOUND);
    cr_assert_eq(atedm_prune_preset("AT-EDM", &spec), ATEDM_ERR_NOT_FOUND);
    cr_assert_eq(spec.ratio, 7, "untouched on failure");

    size_t count = 0;
    const char *const *names = atedm_prune_preset_names(&count);
    cr_assert_eq(count, 7);
    for (size_t i = 0; i < count; i++)
        (void)preset(names[i]);
}

Test(plan, skip_forms)
{
    static const char *const good[] = {"down.first", "up.last",    "mid",    "down.1.0",
                                       "up.0.2",     "down.10.12", "up.0.0", "down.7.16"};
    static const char *const bad[] = {"",           "down",
                                      "down.1",     "down.1.",
                                      "down..1",    "down.01.0",
                                      "down.1.00",  "down.1.0.0",
                                      "mid.0",      "Mid",
                                      "up.first",   "down.last",
                                      "up.-1.0",    "up.1.0 ",
                                      " up.1.0",    "left.1.0",
                                      "up.1.x",     "up",
                                      "up.0.00001", "down.100.100.100",
                                      "mid\n",      "down.1234567.12345678"};
    for (size_t i = 0; i < sizeof good / sizeof good[0]; i++)
        cr_assert(atedm_skip_is_valid(good[i]), "%s", good[i]);
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++)
        cr_assert_not(atedm_skip_is_valid(bad[i]), "%s", bad[i]);
}

Test(plan, dsap_matrix)
{
    atedm_prune_spec spec = preset("at-edm");
    atedm_plan *plan = make_plan(&spec, 10);
    cr_assert_eq(plan->n_blocks, 11);
    cr_assert_eq(plan->steps, 10);
    cr_assert_eq(plan->ratio, 0.70);
    for (int k = 0; k < 10; k++) {
        const float *rho = atedm_plan_step(plan, k);
        for (int b = 0; b < 11; b++) {
            bool skipped = k < 3 && (b == DOWN_1_0 || b == DOWN_2_0 || b == UP_0_2 || b == UP_1_2);
            cr_assert_eq(rho[b], skipped ? 0 : 0.70F, "step %d block %d", k, b);
        }
    }
    atedm_plan_destroy(plan);
    atedm_plan_destroy(NULL);
}

Test(plan, dsap_edges)
{
    atedm_prune_spec spec = preset("at-edm");
    atedm_phase phases[ATEDM_MAX_PHASES];
    spec.tau = 0;
    cr_assert_eq(atedm_prune_phases(&spec, phases), 1);
    cr_assert_eq(phases[0].n_skip, 0);
    cr_assert_eq(phases[0].until, 1);
    spec.tau = 1;
    cr_assert_eq(atedm_prune_phases(&spec, phases), 1);
    cr_assert_eq(phases[0].n_skip, 2);
    atedm_plan *plan = make_plan(&spec, 3);
    for (int k = 0; k < 3; k++)
        cr_assert_eq(atedm_plan_step(plan, k)[DOWN_1_0], 0);
    atedm_plan_destroy(plan);

    spec.tau = 0.3; // one step: no prune-less one
    plan = make_plan(&spec, 1);
    cr_assert_eq(atedm_plan_step(plan, 0)[DOWN_1_0], 0.70F);
    atedm_plan_destroy(plan);
    spec.tau = 0.5; // one step: a prune-less one
    plan = make_plan(&spec, 1);
    cr_assert_eq(atedm_plan_step(plan, 0)[DOWN_1_0], 0);
    atedm_plan_destroy(plan);
}

Test(plan, levels_that_are_never_pruned)
{
    atedm_prune_spec spec = preset("at-edm-dagger");
    atedm_plan *plan = make_plan(&spec, 2);
    const float *rho = atedm_plan_step(plan, 1);
    for (int b = 0; b < 11; b++) {
        bool level_1 = b == DOWN_1_0 || b == DOWN_1_1 || b >= UP_1_0;
        cr_assert_eq(rho[b], level_1 ? 0 : 0.63F, "%d", b);
    }
    atedm_plan_destroy(plan);
    spec.skip_levels = 1U << 2;
    plan = make_plan(&spec, 2);
    cr_assert_eq(atedm_plan_step(plan, 0)[MID], 0);
    cr_assert_eq(atedm_plan_step(plan, 0)[UP_1_1], 0.63F);
    atedm_plan_destroy(plan);
}

static atedm_prune_spec phased(void)
{
    atedm_prune_spec spec = preset("at-edm");
    spec.schedule = ATEDM_PRUNE_PHASES;
    spec.n_phases = 3;
    spec.phases[0] = (atedm_phase){.until = 0.25, .ratio = 0.5, .skip = {"mid", "up.1.1"}};
    spec.phases[0].n_skip = 2;
    spec.phases[1] = (atedm_phase){.until = 0.5, .ratio = 0};
    spec.phases[2] = (atedm_phase){.until = 1, .ratio = NAN, .skip = {"up.last"}};
    spec.phases[2].n_skip = 1;
    return spec;
}

Test(plan, phases)
{
    atedm_prune_spec spec = phased();
    atedm_plan *plan = make_plan(&spec, 8);
    for (int k = 0; k < 8; k++) {
        const float *rho = atedm_plan_step(plan, k);
        float wanted = k < 2 ? 0.5F : k < 4 ? 0 : 0.70F;
        cr_assert_eq(rho[DOWN_1_0], wanted, "%d", k);
        cr_assert_eq(rho[MID], k < 2 ? 0 : wanted);
        cr_assert_eq(rho[UP_1_1], k < 2 ? 0 : wanted);
        cr_assert_eq(rho[UP_1_2], k >= 4 ? 0 : wanted);
    }
    atedm_plan_destroy(plan);
}

Test(plan, phases_too_short_for_a_step_are_passed_over)
{
    atedm_prune_spec spec = phased();
    atedm_plan *plan = make_plan(&spec, 1);
    cr_assert_eq(atedm_plan_step(plan, 0)[MID], 0); // 0.5 of a step rounds up: the second phase
    cr_assert_eq(atedm_plan_step(plan, 0)[DOWN_1_0], 0);
    atedm_plan_destroy(plan);
    spec.phases[1].until = 0.4;
    plan = make_plan(&spec, 1);
    cr_assert_eq(atedm_plan_step(plan, 0)[DOWN_1_0], 0.70F);
    atedm_plan_destroy(plan);
}

Test(plan, unknown_blocks_are_named)
{
    static const char *const unknown[] = {"down.0.0", "down.1.2", "up.0.3", "up.2.0", "down.3.0"};
    for (size_t i = 0; i < sizeof unknown / sizeof unknown[0]; i++) {
        atedm_prune_spec spec = phased();
        snprintf(spec.phases[0].skip[1], ATEDM_BLOCK_NAME_MAX, "%s", unknown[i]);
        atedm_unet_cost cost = make_cost();
        atedm_plan *plan = NULL;
        atedm_error err = {{0}};
        cr_assert_eq(atedm_plan_create(&spec, 8, &cost, &plan, &err), ATEDM_ERR_INVALID);
        cr_assert_not_null(strstr(err.message, unknown[i]), "%s", err.message);
        cr_assert_null(plan);
    }
}

Test(plan, off_prunes_nothing)
{
    atedm_prune_spec spec = preset("off");
    atedm_plan *plan = make_plan(&spec, 4);
    for (int k = 0; k < 4; k++) {
        for (int b = 0; b < 11; b++)
            cr_assert_eq(atedm_plan_step(plan, k)[b], 0);
    }
    cr_assert_eq(plan->ratio, 0);
    atedm_plan_destroy(plan);
}

Test(plan, limits)
{
    atedm_prune_spec spec = preset("at-edm");
    atedm_unet_cost cost = make_cost();
    atedm_plan *plan = NULL;
    atedm_error err;
    cr_assert_eq(atedm_plan_create(&spec, 0, &cost, &plan, &err), ATEDM_ERR_LIMIT);
    cr_assert_eq(atedm_plan_create(&spec, ATEDM_MAX_STEPS + 1, &cost, &plan, &err),
                 ATEDM_ERR_LIMIT);
    static const double bad[] = {-0.1, 0.99991, 1, NAN, INFINITY};
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        spec.ratio = bad[i];
        cr_assert_eq(atedm_plan_create(&spec, 4, &cost, &plan, &err), ATEDM_ERR_INVALID);
    }
    cr_assert_null(plan);
    spec.ratio = ATEDM_RATIO_MAX;
    atedm_plan_destroy(make_plan(&spec, ATEDM_MAX_STEPS));
}

// The blocks that rank at each step, as bits.
static void expect_rankings(const atedm_plan *plan, const unsigned *expected)
{
    for (int k = 0; k < plan->steps; k++) {
        unsigned ranks = 0;
        for (int b = 0; b < plan->n_blocks; b++)
            ranks |= (unsigned)atedm_plan_ranks(plan, k)[b] << b;
        cr_expect_eq(ranks, expected[k], "step %d: %#x", k, ranks);
    }
}

Test(plan, rankings_serve_some_steps)
{
    atedm_prune_spec spec = preset("at-edm-a");
    spec.score_interval = 3;
    atedm_plan *plan = make_plan(&spec, 8);
    expect_rankings(plan, (unsigned[]){0x7ff, 0, 0, 0x7ff, 0, 0, 0x7ff, 0});
    atedm_plan_destroy(plan);
    spec.score_interval = 1;
    plan = make_plan(&spec, 2);
    expect_rankings(plan, (unsigned[]){0x7ff, 0x7ff});
    atedm_plan_destroy(plan);
    // Blocks that are pruned later rank then: down.1.0, down.2.0, up.0.2 and up.1.2.
    spec = preset("at-edm-c");
    spec.score_interval = 4;
    plan = make_plan(&spec, 10);
    expect_rankings(plan, (unsigned[]){0x37a, 0, 0, 0x485, 0x37a, 0, 0, 0x485, 0x37a, 0});
    atedm_plan_destroy(plan);
}

// A ratio that takes no token ranks nothing, and does not count as recent.
Test(plan, rankings_where_nothing_is_lost)
{
    atedm_prune_spec spec = preset("at-edm-a");
    spec.schedule = ATEDM_PRUNE_PHASES;
    spec.n_phases = 2;
    spec.phases[0] = (atedm_phase){.until = 0.5, .ratio = 0.01};
    spec.phases[1] = (atedm_phase){.until = 1, .ratio = 0.5};
    spec.score_interval = 8;
    atedm_plan *plan = make_plan(&spec, 4);
    // 0.01 of 192 tokens is 1, of 48 none: levels 1 and 2.
    expect_rankings(plan, (unsigned[]){0x703, 0, 0x0fc, 0});
    atedm_plan_destroy(plan);
}

Test(plan, rankings_of_several_layers_serve_one_step)
{
    atedm_prune_spec spec = preset("at-edm");
    atedm_unet_cost cost = make_cost();
    atedm_plan *plan = NULL;
    atedm_error err;
    spec.prune_after[spec.n_prune_after++] = 3;
    spec.score_interval = 2;
    cr_assert_eq(atedm_plan_create(&spec, 4, &cost, &plan, &err), ATEDM_ERR_INVALID);
    spec.n_prune_after = 1;
    static const int bad[] = {0, -1, ATEDM_MAX_SCORE_INTERVAL + 1};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        spec.score_interval = bad[i];
        cr_assert_eq(atedm_plan_create(&spec, 4, &cost, &plan, &err), ATEDM_ERR_INVALID);
    }
}

// Mean cost of a plan as a share of the unpruned UNet, counted step by step.
static double share(const atedm_plan *plan, const atedm_unet_cost *cost)
{
    double sum = 0;
    for (int k = 0; k < plan->steps; k++) {
        atedm_op_counts c = atedm_unet_cost_eval(cost, &plan->spec, atedm_plan_step(plan, k));
        sum += (double)(c.conv + c.linear + c.attention);
    }
    atedm_op_counts full = atedm_unet_cost_eval(cost, NULL, NULL);
    return sum / (plan->steps * (double)(full.conv + full.linear + full.attention));
}

static double share_at(atedm_prune_spec spec, double ratio, int steps)
{
    atedm_unet_cost cost = make_cost();
    spec.ratio = ratio;
    spec.flops_budget = NAN;
    atedm_plan *plan = make_plan(&spec, steps);
    double result = share(plan, &cost);
    atedm_plan_destroy(plan);
    return result;
}

// The solved ratio is within the budget, and one millionth less is not.
static void check_budget(atedm_prune_spec spec, double budget, int steps)
{
    spec.ratio = NAN;
    spec.flops_budget = budget;
    atedm_plan *plan = make_plan(&spec, steps);
    double ratio = plan->ratio;
    atedm_unet_cost cost = make_cost();
    cr_assert_leq(share(plan, &cost), budget, "%g", budget);
    cr_assert_float_eq(share_at(spec, ratio, steps), share(plan, &cost), 1e-15);
    if (ratio > 0)
        cr_assert_gt(share_at(spec, ratio - 1e-6, steps), budget, "%g: %g", budget, ratio);
    atedm_plan_destroy(plan);
}

Test(plan, budgets_are_solved_exactly)
{
    static const char *const names[] = {"at-edm", "at-edm-a", "at-edm-d", "at-edm-dagger"};
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        atedm_prune_spec spec = preset(names[i]);
        double floor_share = share_at(spec, ATEDM_RATIO_MAX, 10);
        cr_assert_lt(floor_share, 0.97);
        check_budget(spec, 1, 10);
        for (int j = 1; j < 20; j++)
            check_budget(spec, 1 - (1 - floor_share) * j / 20, 10);
        check_budget(spec, floor_share, 10);
        // Shares that a ratio gives are met by the smallest ratio that gives them.
        check_budget(spec, share_at(spec, 0.3, 10), 10);
    }
    atedm_prune_spec spec = phased();
    check_budget(spec, share_at(spec, 0.5, 8), 8);
}

Test(plan, budget_of_one_prunes_nothing)
{
    atedm_prune_spec spec = preset("at-edm");
    spec.ratio = NAN;
    spec.flops_budget = 1;
    atedm_plan *plan = make_plan(&spec, 5);
    cr_assert_eq(plan->ratio, 0);
    cr_assert_eq(atedm_plan_step(plan, 4)[MID], 0);
    atedm_plan_destroy(plan);
}

Test(plan, budgets_below_the_floor_name_it)
{
    atedm_prune_spec spec = preset("at-edm");
    double floor_share = share_at(spec, ATEDM_RATIO_MAX, 10);
    spec.ratio = NAN;
    spec.flops_budget = nextafter(floor_share, 0);
    atedm_unet_cost cost = make_cost();
    atedm_plan *plan = NULL;
    atedm_error err = {{0}};
    cr_assert_eq(atedm_plan_create(&spec, 10, &cost, &plan, &err), ATEDM_ERR_INVALID);
    const char *named = strrchr(err.message, ' ');
    cr_assert_not_null(named, "%s", err.message);
    double floor_named = strtod(named, NULL);
    cr_assert(floor_named >= floor_share && floor_named <= floor_share + 1e-4, "%s", err.message);
    check_budget(spec, floor_named, 10); // what the message names can be asked for
}

Test(plan, kept_at_the_end_of_a_block)
{
    atedm_prune_spec spec = preset("at-edm");
    spec.ratio = 0.5;
    spec.n_prune_after = 2;
    spec.prune_after[1] = 2;
    atedm_plan *plan = make_plan(&spec, 10);
    cr_assert_eq(atedm_plan_kept(plan, 0, DOWN_1_0, 2, 192), 192); // a prune-less step
    cr_assert_eq(atedm_plan_kept(plan, 9, DOWN_1_0, 2, 192), 96);  // has no layer 2
    cr_assert_eq(atedm_plan_kept(plan, 0, MID, 4, 48), 12);
    cr_assert_eq(atedm_plan_kept(plan, 0, MID, 3, 3), 1);
    atedm_plan_destroy(plan);
}
