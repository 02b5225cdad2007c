// The requests of `atedm bench serve`: bodies of POST /generate with weights, from a file or from
// options (load_lists.h). Except for "seed", bodies are not examined: the daemon judges them.
#ifndef ATEDM_CLI_LOAD_MIX_H
#define ATEDM_CLI_LOAD_MIX_H

#include "core/base/status.h"

#include <jansson.h>
#include <stddef.h>
#include <stdint.h>

#define ATEDM_LOAD_MAX_MIX 256             // entries of a mix
#define ATEDM_LOAD_MAX_MIX_BYTES (4 << 20) // of a mix file

typedef struct atedm_load_mix {
    json_t *requests[ATEDM_LOAD_MAX_MIX]; // owned; objects
    double weights[ATEDM_LOAD_MAX_MIX];
    double cumulative[ATEDM_LOAD_MAX_MIX];
    size_t n;
} atedm_load_mix;

// All functions start from a mix that is {.n = 0} or was made by them. On failure the mix is
// unchanged.
void atedm_load_mix_finish(atedm_load_mix *mix); // NULL is allowed

// Adds an entry. Takes ownership of `take_request`, on failure too. ATEDM_ERR_INVALID if the weight
// is not a positive number or the request is not an object, ATEDM_ERR_LIMIT above
// ATEDM_LOAD_MAX_MIX entries.
ATEDM_MUST_CHECK atedm_status atedm_load_mix_add(atedm_load_mix *mix, double weight,
                                                 json_t *take_request, atedm_error *err);

// Parses an array of {"weight": w, "request": {...}}. A missing weight is 1. `name` is for
// messages.
ATEDM_MUST_CHECK atedm_status atedm_load_mix_parse(const char *text, size_t size, const char *name,
                                                   atedm_load_mix *ret_mix, atedm_error *err);
ATEDM_MUST_CHECK atedm_status atedm_load_mix_read(const char *path, atedm_load_mix *ret_mix,
                                                  atedm_error *err);

// The entry of request number `number` of a run, and its body. The body is the entry's, with a
// random "seed" if it has none or null. The caller frees it; NULL if memory is exhausted.
size_t atedm_load_mix_choose(const atedm_load_mix *mix, uint64_t seed, uint64_t number);
char *atedm_load_mix_body(const atedm_load_mix *mix, uint64_t seed, uint64_t number);

#endif
