// Pruning plans: what a request asks for (atedm_prune_spec), checked and completed from presets;
// resolved against a model and a number of steps to a matrix steps x attention blocks -> ratio;
// FLOPs budgets solved to a ratio. Mathematics: Wang et al., CVPR 2024, section 3 (G-WPR, recovery)
// and 3.3 (DSAP).
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

// Ratios and shares of the steps count in millionths: a ratio that passed through a float keeps the
// same tokens, and products that are whole or half in decimal notation (0.7 * 1600, 0.3 * 15) are
// exactly that.
#define ATEDM_RATIO_MAX 0.9999 // keeps one token of 64x64 and of all smaller grids

typedef enum atedm_recovery {
    ATEDM_RECOVER_ATTENTION,
    ATEDM_RECOVER_COSINE,
    ATEDM_RECOVER_NEAREST,
    ATEDM_RECOVER_ZERO,
} atedm_recovery;

// What says which tokens are kept.
typedef enum atedm_score_map {
    ATEDM_SCORE_SELF,   // G-WPR of the self-attention map
    ATEDM_SCORE_CROSS,  // G-WPR of the cross-attention map
    ATEDM_SCORE_RANDOM, // chance: what a ranking is held against
} atedm_score_map;

// Which tokens are kept, given their scores.
typedef enum atedm_selection {
    ATEDM_SELECT_SAMPLED, // drawn anew at each step, with chances proportional to the scores
    ATEDM_SELECT_TOP,     // the largest (Wang et al.)
} atedm_selection;

// Whose choice of tokens the two halves of guidance follow. What copying does wrong is in both
// halves of a shared choice, where guidance does not amplify it.
typedef enum atedm_masks {
    ATEDM_MASKS_SHARED, // the conditional half chooses for both
    ATEDM_MASKS_OWN,    // each half for itself
} atedm_masks;

// What a pruned token takes from the kept one that it is recovered from.
typedef enum atedm_copy_kind {
    ATEDM_COPY_UPDATE, // what the layers it missed added to that one; it keeps what it had itself
    ATEDM_COPY_VALUE,  // that one's value (Wang et al.)
} atedm_copy_kind;

// Which steps prune how much.
typedef enum atedm_prune_schedule {
    ATEDM_PRUNE_DSAP,    // denoising-steps-aware: the first `tau` of the steps prune less
    ATEDM_PRUNE_UNIFORM, // all steps alike
    ATEDM_PRUNE_PHASES,  // as the request's phases say
} atedm_prune_schedule;

// What requests and answers call them, by value.
#define ATEDM_N_PRUNE_SCHEDULES 3 // the last one, "phases", is no value of a request's "schedule"
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
    int level;  // feature level: tokens = (h / 2^level) (w / 2^level) of the latent
    int layers; // attention layers
    bool first_of_down, last_of_up; // first attention block of its down stage, last of its up stage
} atedm_block_info;

// A phase: until the share `until` of the steps, prune `ratio`, except the blocks in the skip set.
typedef struct atedm_phase {
    double until; // (0, 1], ascending, the last is 1
    double ratio; // [0, ATEDM_RATIO_MAX]; NAN: the plan's ratio
    // Blocks left alone: block names, or the sets "down.first" (first attention block of every down
    // stage) and "up.last" (last of every up stage). Names that the model lacks are an error of
    // atedm_plan_create.
    char skip[ATEDM_MAX_PHASE_SKIPS][ATEDM_BLOCK_NAME_MAX];
    size_t n_skip;
} atedm_phase;

// What is asked for, complete: every field has its value.
typedef struct atedm_prune_spec {
    bool enabled;        // false: "off"
    char preset[24];     // the preset it started from, "" where none
    double ratio;        // [0, ATEDM_RATIO_MAX]; NAN when a budget is given
    double flops_budget; // (0, 1]; NAN when a ratio is given
    atedm_prune_schedule schedule;
    double tau; // of ATEDM_PRUNE_DSAP: share of prune-less steps, [0, 1]
    atedm_phase phases[ATEDM_MAX_PHASES];
    size_t n_phases;
    uint32_t skip_levels;                    // bit l: level l is never pruned
    int prune_after[ATEDM_MAX_PRUNE_LAYERS]; // ascending layer indexes; a block ignores those that
                                             // it does not have
    size_t n_prune_after;
    atedm_score_map score_map;
    atedm_rank_params rank; // of no meaning with ATEDM_SCORE_RANDOM
    // Steps that a ranking serves, 1..ATEDM_MAX_SCORE_INTERVAL: a block's tokens are ranked anew
    // where their scores are so many steps old. 1 with ATEDM_SCORE_RANDOM, and with several
    // pruning layers, whose later ones rank the tokens that earlier ones leave.
    int score_interval;
    atedm_selection selection; // of no meaning with ATEDM_SCORE_RANDOM
    atedm_recovery recovery;
    atedm_copy_kind copy;
    bool proportional_attention; // kept tokens count as often as they are copied from
    atedm_masks masks;
} atedm_prune_spec;

// An attention layer deeper than any block has (ATEDM_UNET_MAX_LAYERS) is refused in prune_after.
#define ATEDM_PRUNE_LAYER_MAX 31

// Off, and the named presets of the paper: "off", "at-edm" (= "at-edm-c"), "at-edm-a" ..
// "at-edm-d", "at-edm-dagger". ATEDM_ERR_NOT_FOUND for others.
ATEDM_MUST_CHECK atedm_status atedm_prune_preset(const char *name, atedm_prune_spec *ret_spec);
const char *const *atedm_prune_preset_names(size_t *ret_count);

// The schedule as phases (DSAP: two, uniform: one); ratio NAN where the plan's ratio holds.
// Returns their number; ret_phases has room for ATEDM_MAX_PHASES.
size_t atedm_prune_phases(const atedm_prune_spec *spec, atedm_phase *ret_phases);

// The first step of n that a phase ending at the share `until` no longer covers: until * n rounded,
// halves up (0.3 of 15 steps: 5).
int atedm_phase_end(double until, int n);

// Whether `skip` has the form of an entry of a phase's skip list: "down.first", "up.last", or a
// block's name.
bool atedm_skip_is_valid(const char *skip);

// Tokens kept of n at ratio rho: max(1, n - floor(rho n)), rho in whole millionths.
int64_t atedm_prune_keep(double ratio, int64_t n);

// A resolved plan.
typedef struct atedm_plan {
    atedm_prune_spec spec;
    double ratio; // the plan's ratio, in whole millionths, solved where a budget was given
    int steps;
    int n_blocks;
    float *rho;  // [steps][n_blocks]; 0 = not pruned
    bool *ranks; // [steps][n_blocks]: loses tokens, by scores of this step
} atedm_plan;

// Whether the halves of guidance follow one choice, which is made and costs once; NULL: nothing is
// pruned.
static inline bool atedm_plan_shares_masks(const atedm_plan *plan)
{
    return plan && plan->spec.masks == ATEDM_MASKS_SHARED;
}

// Cost of one UNet evaluation as a function of the blocks' ratios: flops.h provides it.
typedef struct atedm_unet_cost atedm_unet_cost;

// Resolves `spec` for `steps` steps on a UNet whose blocks and cost `cost` knows. With a budget,
// the ratio is the smallest whose mean share of the unpruned UNet's cost, overhead left out, is not
// over the budget. A budget below the plan's floor is ATEDM_ERR_INVALID, and the message names the
// floor; so is a skip entry that names no block of the model.
ATEDM_MUST_CHECK atedm_status atedm_plan_create(const atedm_prune_spec *spec, int steps,
                                                const atedm_unet_cost *cost, atedm_plan **ret_plan,
                                                atedm_error *err);
void atedm_plan_destroy(atedm_plan *plan);                   // NULL allowed
const float *atedm_plan_step(const atedm_plan *plan, int k); // [n_blocks]
const bool *atedm_plan_ranks(const atedm_plan *plan, int k); // [n_blocks]
// Whether steps j and k prune and rank alike.
bool atedm_plan_same_step(const atedm_plan *plan, int j, int k);
// Tokens of `tokens` that are alive at the end of attention block `block`, which has `layers`
// layers, at step k.
int64_t atedm_plan_kept(const atedm_plan *plan, int k, int block, int layers, int64_t tokens);

#endif
