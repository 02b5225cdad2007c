// The named pruning presets, and the names of the values in a spec: see plan.h. Ratios and
// schedules are those of the models AT-EDM a to d and AT-EDM-dagger in Wang et al. (CVPR 2024); all
// presets share the other fields.
#include "core/plan.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

const char *const atedm_prune_schedule_names[ATEDM_N_PRUNE_SCHEDULES] = {
    [ATEDM_PRUNE_DSAP] = "dsap",
    [ATEDM_PRUNE_UNIFORM] = "uniform",
    [ATEDM_PRUNE_PHASES] = "phases",
};

const char *const atedm_recovery_names[ATEDM_N_RECOVERIES] = {
    [ATEDM_RECOVER_ATTENTION] = "attention",
    [ATEDM_RECOVER_COSINE] = "cosine",
    [ATEDM_RECOVER_NEAREST] = "nearest",
    [ATEDM_RECOVER_ZERO] = "zero",
};

const char *const atedm_score_map_names[ATEDM_N_SCORE_MAPS] = {
    [ATEDM_SCORE_SELF] = "self",
    [ATEDM_SCORE_CROSS] = "cross",
    [ATEDM_SCORE_RANDOM] = "random",
};

const char *const atedm_selection_names[ATEDM_N_SELECTIONS] = {
    [ATEDM_SELECT_SAMPLED] = "sampled",
    [ATEDM_SELECT_TOP] = "top",
};

const char *const atedm_masks_names[ATEDM_N_MASKS] = {
    [ATEDM_MASKS_SHARED] = "shared",
    [ATEDM_MASKS_OWN] = "own",
};

const char *const atedm_copy_names[ATEDM_N_COPIES] = {
    [ATEDM_COPY_UPDATE] = "update",
    [ATEDM_COPY_VALUE] = "value",
};

#define LEVEL_1 (1U << 1)

static const char *const names[] = {"off",      "at-edm",   "at-edm-a",     "at-edm-b",
                                    "at-edm-c", "at-edm-d", "at-edm-dagger"};
#define N_PRESETS (sizeof names / sizeof names[0])

// In the order of `names`.
static const struct {
    double ratio;
    atedm_prune_schedule schedule;
    uint32_t skip_levels;
} presets[] = {
    {0.70, ATEDM_PRUNE_DSAP, 0}, // at-edm-c, but not enabled
    {0.70, ATEDM_PRUNE_DSAP, 0}, // at-edm-c
    {0.937, ATEDM_PRUNE_UNIFORM, 0},      {0.845, ATEDM_PRUNE_DSAP, 0},
    {0.70, ATEDM_PRUNE_DSAP, 0},          {0.70, ATEDM_PRUNE_DSAP, LEVEL_1},
    {0.63, ATEDM_PRUNE_UNIFORM, LEVEL_1},
};
_Static_assert(sizeof presets / sizeof presets[0] == N_PRESETS, "a preset has a name");
_Static_assert(N_PRESETS <= ATEDM_PRUNE_PRESETS_MAX, "whoever lists them has room for all");

atedm_status atedm_prune_preset(const char *name, atedm_prune_spec *ret_spec)
{
    size_t i = 0;
    while (i < N_PRESETS && strcmp(name, names[i]) != 0)
        i++;
    if (i == N_PRESETS)
        return ATEDM_ERR_NOT_FOUND;
    *ret_spec = (atedm_prune_spec){
        .enabled = strcmp(name, "off") != 0,
        .ratio = presets[i].ratio,
        .flops_budget = NAN,
        .schedule = presets[i].schedule,
        .tau = 0.3,
        .skip_levels = presets[i].skip_levels,
        .prune_after = {0},
        .n_prune_after = 1,
        .rank = {.heads = ATEDM_HEADS_RMS, .max_iterations = 8, .tolerance = 1e-3F},
        .score_interval = 1,
        .selection = ATEDM_SELECT_SAMPLED,
        .recovery = ATEDM_RECOVER_ATTENTION,
        .copy = ATEDM_COPY_UPDATE,
        .proportional_attention = true,
        .masks = ATEDM_MASKS_SHARED,
    };
    snprintf(ret_spec->preset, sizeof ret_spec->preset, "%s", name);
    return ATEDM_OK;
}

const char *const *atedm_prune_preset_names(size_t *ret_count)
{
    *ret_count = N_PRESETS;
    return names;
}
