// Pruning plans. A spec (atedm_prune_spec) is what a request asks for, checked and completed from
// presets. A plan is a spec resolved for a model and a number of steps: a matrix of ratios, steps x
// attention blocks, with a FLOPs budget solved to a ratio. Source: Wang et al., CVPR 2024, section
// 3 (G-WPR, recovery) and 3.3 (DSAP).
#ifndef ATEDM_PLAN_H
#define ATEDM_PLAN_H

#include "core/base/status.h"
#include "kernels/kernels.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define ATEDM_MAX_BLOCKS 64      // attention blocks of a UNet
#define ATEDM_MAX_PHASES 16      // phases of a schedule
#define ATEDM_MAX_PHASE_SKIPS 16 // entries of a phase's skip list
#define ATEDM_MAX_PRUNE_LAYERS 8 // entries of prune_after
#define ATEDM_MAX_LEVELS 8       // feature levels of a UNet
#define ATEDM_BLOCK_NAME_MAX 16  // "down.1.0", terminator included
#define ATEDM_MAX_SCORE_INTERVAL 1000

// Ratios, and shares of the steps, are computed in whole millionths. So a ratio that passed through
// a float keeps the same tokens, and products that are whole or half in decimal notation (0.7 *
// 1600, 0.3 * 15) are exact.
#define ATEDM_RATIO_MAX 0.9999 // keeps one token of a 64x64 grid and of all smaller grids

// Which kept token is the source of a pruned token, from which it is recovered at the end of the
// block (kernels.h has the formulas).
typedef enum atedm_recovery {
    ATEDM_RECOVER_ATTENTION, // the one that it attends to most, in the mean of the heads
    ATEDM_RECOVER_COSINE,    // the one with the largest cosine similarity of the layer's outputs
    ATEDM_RECOVER_NEAREST,   // the nearest one in the grid
    ATEDM_RECOVER_ZERO,      // none: it becomes 0 (copied values) or keeps its value (updates)
} atedm_recovery;

// What the tokens' scores come from.
typedef enum atedm_score_map {
    ATEDM_SCORE_SELF,   // G-WPR of the self-attention map
    ATEDM_SCORE_CROSS,  // G-WPR of the cross-attention map
    ATEDM_SCORE_RANDOM, // random numbers: a baseline to compare rankings with
} atedm_score_map;

// Which tokens are kept, given their scores.
typedef enum atedm_selection {
    ATEDM_SELECT_SAMPLED, // drawn anew at each step, with chances proportional to the scores
    ATEDM_SELECT_TOP,     // the largest (Wang et al.)
} atedm_selection;

// Which half of guidance chooses the tokens to keep. Guidance amplifies the difference between the
// halves. With a shared choice both halves have the same copying errors, so guidance does not
// amplify them.
typedef enum atedm_masks {
    ATEDM_MASKS_SHARED, // the conditional half chooses for both
    ATEDM_MASKS_OWN,    // each half for itself
} atedm_masks;

// What a pruned token copies from its source, the kept token from which it is recovered.
typedef enum atedm_copy_kind {
    ATEDM_COPY_UPDATE, // its own old value plus what the layers that it skipped added to the
                       // source
    ATEDM_COPY_VALUE,  // the source's value (Wang et al.)
} atedm_copy_kind;

// How the ratio changes over the steps.
typedef enum atedm_prune_schedule {
    ATEDM_PRUNE_DSAP,    // denoising-steps-aware: the first `tau` of the steps prune less
    ATEDM_PRUNE_UNIFORM, // all steps alike
    ATEDM_PRUNE_PHASES,  // as the request's phases say
} atedm_prune_schedule;

// The names of the values above in requests and answers, indexed by value.
#define ATEDM_N_PRUNE_SCHEDULES 3 // the last, "phases", is not valid for a request's "schedule"
#define ATEDM_N_RECOVERIES 4
#define ATEDM_N_SCORE_MAPS 3
#define ATEDM_N_SELECTIONS 2
#define ATEDM_N_MASKS 2
#define ATEDM_N_COPIES 2
extern const char *const atedm_prune_schedule_names[ATEDM_N_PRUNE_SCHEDULES];
extern const char *const atedm_recovery_names[ATEDM_N_RECOVERIES];
extern const char *const atedm_score_map_names[ATEDM_N_SCORE_MAPS];
extern const char *const atedm_selection_names[ATEDM_N_SELECTIONS];
extern const char *const atedm_masks_names[ATEDM_N_MASKS];
extern const char *const atedm_copy_names[ATEDM_N_COPIES];

// One attention block of a UNet, in execution order.
typedef struct atedm_block_info {
    char name[ATEDM_BLOCK_NAME_MAX]; // "down.1.0", "mid", "up.0.2"
    int level;  // feature level: the block has (h / 2^level) (w / 2^level) tokens for h x w latents
    int layers; // number of attention layers
    bool first_of_down, last_of_up; // first attention block of its down stage, last of its up stage
} atedm_block_info;

// One phase of a schedule: up to the share `until` of the steps, prune `ratio` in all blocks except
// those in `skip`.
typedef struct atedm_phase {
    double until; // (0, 1]; ascending over the phases, and 1 in the last
    double ratio; // [0, ATEDM_RATIO_MAX]; NAN: the plan's ratio
    // Blocks to leave unpruned: block names, or the sets "down.first" (the first attention block of
    // every down stage) and "up.last" (the last of every up stage). atedm_plan_create refuses names
    // that the model lacks.
    char skip[ATEDM_MAX_PHASE_SKIPS][ATEDM_BLOCK_NAME_MAX];
    size_t n_skip;
} atedm_phase;

// What a request asks for, complete: every field has a value.
typedef struct atedm_prune_spec {
    bool enabled;        // false: "off"
    char preset[24];     // the preset it started from; "" if it started from none
    double ratio;        // [0, ATEDM_RATIO_MAX]; NAN when a budget is given
    double flops_budget; // (0, 1]; NAN when a ratio is given
    atedm_prune_schedule schedule;
    double tau; // of ATEDM_PRUNE_DSAP: share of the steps that prune less, [0, 1]
    atedm_phase phases[ATEDM_MAX_PHASES];
    size_t n_phases;
    uint32_t skip_levels;                    // bit l: level l is never pruned
    int prune_after[ATEDM_MAX_PRUNE_LAYERS]; // ascending indexes of layers; a block ignores indexes
                                             // of layers that it does not have
    size_t n_prune_after;
    atedm_score_map score_map;
    atedm_rank_params rank; // ignored with ATEDM_SCORE_RANDOM
    // For how many steps a block uses the same scores before it ranks its tokens anew,
    // 1..ATEDM_MAX_SCORE_INTERVAL. Must be 1 with ATEDM_SCORE_RANDOM, and with several pruning
    // layers, because later ones rank only the tokens that earlier ones leave.
    int score_interval;
    atedm_selection selection; // ignored with ATEDM_SCORE_RANDOM
    atedm_recovery recovery;
    atedm_copy_kind copy;
    bool proportional_attention; // a kept token weighs as much as the tokens it stands for
    atedm_masks masks;
} atedm_prune_spec;

// Largest index allowed in prune_after: no block has more than ATEDM_UNET_MAX_LAYERS layers.
#define ATEDM_PRUNE_LAYER_MAX 31

// Fills *ret_spec with a preset: "off", or one of the paper's, "at-edm" (= "at-edm-c"), "at-edm-a"
// .. "at-edm-d", "at-edm-dagger". ATEDM_ERR_NOT_FOUND for other names.
ATEDM_MUST_CHECK atedm_status atedm_prune_preset(const char *name, atedm_prune_spec *ret_spec);
#define ATEDM_PRUNE_PRESETS_MAX 8 // the most presets there are, "off" included
// The presets' names, static; *ret_count gets their number.
const char *const *atedm_prune_preset_names(size_t *ret_count);

// Writes the schedule as phases and returns their number (DSAP: two, or one if tau is 0 or 1;
// uniform: one). A phase's ratio is NAN if the plan's ratio applies. ret_phases has room for
// ATEDM_MAX_PHASES.
size_t atedm_prune_phases(const atedm_prune_spec *spec, atedm_phase *ret_phases);

// The first of n steps that comes after a phase ending at the share `until`: until * n rounded,
// halves up (0.3 of 15 steps: 5).
int atedm_phase_end(double until, int n);

// Whether `skip` has the form of an entry in a phase's skip list: "down.first", "up.last", or a
// block's name.
bool atedm_skip_is_valid(const char *skip);

// Number of tokens kept of n at ratio rho: max(1, n - floor(rho n)), rho in whole millionths.
int64_t atedm_prune_keep(double ratio, int64_t n);

// A resolved plan. atedm_plan_create makes it and the caller destroys it.
typedef struct atedm_plan {
    atedm_prune_spec spec;
    double ratio; // the plan's ratio, in whole millionths; solved for if a budget was given
    int steps;
    int n_blocks;
    float *rho;  // [steps][n_blocks]; 0: not pruned
    bool *ranks; // [steps][n_blocks]: the block loses tokens and ranks them at this step
} atedm_plan;

// Whether both halves of guidance use one choice of tokens, whose overhead then counts once. NULL
// (pruning off): false.
static inline bool atedm_plan_shares_masks(const atedm_plan *plan)
{
    return plan && plan->spec.masks == ATEDM_MASKS_SHARED;
}

// Cost of one UNet evaluation as a function of the blocks' ratios; defined in flops.h.
typedef struct atedm_unet_cost atedm_unet_cost;

// Resolves `spec` for `steps` steps on the UNet that `cost` describes. With a budget, the ratio is
// the smallest one whose mean cost of a step is within the budget, as a share of the unpruned
// UNet's cost, overhead left out. ATEDM_ERR_INVALID: a budget below the plan's floor (the message
// names the floor), a skip entry that names no block of the model, a ratio or score_interval out of
// range. ATEDM_ERR_LIMIT: steps not within 1..ATEDM_MAX_STEPS.
ATEDM_MUST_CHECK atedm_status atedm_plan_create(const atedm_prune_spec *spec, int steps,
                                                const atedm_unet_cost *cost, atedm_plan **ret_plan,
                                                atedm_error *err);
void atedm_plan_destroy(atedm_plan *plan);                   // NULL allowed
const float *atedm_plan_step(const atedm_plan *plan, int k); // row k of rho, [n_blocks]
const bool *atedm_plan_ranks(const atedm_plan *plan, int k); // row k of ranks, [n_blocks]
// Whether steps j and k have the same ratios and rank the same blocks.
bool atedm_plan_same_step(const atedm_plan *plan, int j, int k);
// How many of `tokens` tokens attention block `block`, with `layers` layers, still has after its
// last layer at step k.
int64_t atedm_plan_kept(const atedm_plan *plan, int k, int block, int layers, int64_t tokens);

#endif
