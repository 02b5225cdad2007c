// The options of `atedm bench serve` that are lists of values, from which requests are combined.
#ifndef ATEDM_CLI_LOAD_LISTS_H
#define ATEDM_CLI_LOAD_LISTS_H

#include "cli/load_mix.h"
#include "core/base/status.h"

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define ATEDM_LOAD_MAX_LIST 64 // values of one option

typedef struct atedm_load_size {
    int64_t width, height; // pixels
} atedm_load_size;

typedef struct atedm_load_lists {
    const char *prompts[ATEDM_LOAD_MAX_LIST]; // borrowed
    size_t n_prompts;
    atedm_load_size sizes[ATEDM_LOAD_MAX_LIST];
    size_t n_sizes;
    int64_t steps[ATEDM_LOAD_MAX_LIST];
    size_t n_steps;
    json_t *prunings[ATEDM_LOAD_MAX_LIST]; // owned
    size_t n_prunings;
    double guidance_scale; // NAN: not given
} atedm_load_lists;

void atedm_load_lists_finish(atedm_load_lists *lists);

// Each function adds the values of a text. Commas separate values, except of prompts. False if a
// value is wrong or there are too many.
bool atedm_load_lists_add_prompt(atedm_load_lists *lists, const char *text);
bool atedm_load_lists_add_sizes(atedm_load_lists *lists, const char *text);
bool atedm_load_lists_add_steps(atedm_load_lists *lists, const char *text);
bool atedm_load_lists_add_guidance(atedm_load_lists *lists, const char *text);
// Commas within a JSON object do not separate values. On an error it prints what is wrong. Returns
// the exit status, 0 if there is no error.
int atedm_load_lists_add_prunings(atedm_load_lists *lists, const char *text);

// Combines each prompt with each size, number of steps and pruning, as entries of weight 1. Fields
// with empty lists are left out.
ATEDM_MUST_CHECK atedm_status atedm_load_lists_cross(const atedm_load_lists *lists,
                                                     atedm_load_mix *ret_mix, atedm_error *err);

#endif
