// The named pruning presets, and the names of what they choose from: see plan.h. Ratios and
// schedules are those of the models that Wang et al. (CVPR 2024) call AT-EDM a to d and
// AT-EDM-dagger; the rest is common to all.
#include "core/plan.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

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

typedef struct prune_preset {
    const char *name;
    double ratio;
    const char *schedule;
    uint32_t skip_levels;
} prune_preset;

static const prune_preset presets[] = {
    {"at-edm", 0.70, "dsap", 0}, // at-edm-c
    {"at-edm-a", 0.937, "uniform", 0},
    {"at-edm-b", 0.845, "dsap", 0},
    {"at-edm-c", 0.70, "dsap", 0},
    {"at-edm-d", 0.70, "dsap", LEVEL_1},
    {"at-edm-dagger", 0.63, "uniform", LEVEL_1},
};
#define N_PRESETS (sizeof presets / sizeof presets[0])

static atedm_prune_spec make_spec(const prune_preset *preset, const char *name, bool enabled)
{
    atedm_prune_spec spec = {
        .enabled = enabled,
        .ratio = preset->ratio,
        .flops_budget = NAN,
        .tau = 0.3,
        .skip_levels = preset->skip_levels,
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
    snprintf(spec.preset, sizeof spec.preset, "%s", name);
    snprintf(spec.schedule, sizeof spec.schedule, "%s", preset->schedule);
    return spec;
}

atedm_status atedm_prune_preset(const char *name, atedm_prune_spec *ret_spec)
{
    if (strcmp(name, "off") == 0) {
        *ret_spec = make_spec(&presets[0], name, false);
        return ATEDM_OK;
    }
    for (size_t i = 0; i < N_PRESETS; i++) {
        if (strcmp(name, presets[i].name) == 0) {
            *ret_spec = make_spec(&presets[i], name, true);
            return ATEDM_OK;
        }
    }
    return ATEDM_ERR_NOT_FOUND;
}

const char *const *atedm_prune_preset_names(size_t *ret_count)
{
    static const char *const names[] = {"off",      "at-edm",   "at-edm-a",     "at-edm-b",
                                        "at-edm-c", "at-edm-d", "at-edm-dagger"};
    *ret_count = sizeof names / sizeof names[0];
    return names;
}
