// One text-to-image request, as the daemon and the command line both hold it: fields, limits,
// validation. JSON bodies are the server's, options the command line's.
#ifndef ATEDM_REQUEST_H
#define ATEDM_REQUEST_H

#include "core/base/memory.h"
#include "core/base/status.h"
#include "core/plan.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define ATEDM_PROMPT_MAX 8192 // bytes
#define ATEDM_SIZE_MAX 16384  // pixels of either side, whatever the area limit says
#define ATEDM_GUIDANCE_MAX 30.0
#define ATEDM_PRIORITY_MAX 10 // -10..10
#define ATEDM_DEADLINE_MAX_S 86400.0
#define ATEDM_SEED_MAX INT64_MAX  // 2^63 - 1
#define ATEDM_TOLERANCE_MAX 2.0   // of score iterations: no two distributions are further apart
#define ATEDM_FIELD_ERRORS_MAX 32 // wrong fields named in one answer

typedef enum atedm_response_format {
    ATEDM_RESPONSE_B64_JSON,
    ATEDM_RESPONSE_PNG,
    ATEDM_RESPONSE_URL,
} atedm_response_format;

typedef struct atedm_request {
    char *prompt;          // owned; UTF-8, NUL-terminated
    char *negative_prompt; // owned; NULL: absent
    int64_t width, height;
    int steps;
    double guidance_scale;
    uint64_t seed; // drawn already where the client gave none
    int num_images;
    char sampler[32];
    atedm_prune_spec prune;
    atedm_response_format response_format;
    double deadline_s; // NAN: none
    int priority;
} atedm_request;

void atedm_request_finish(atedm_request *request); // frees what it owns; NULL allowed

// What is wrong with a request, one entry a field, in JSON-pointer form ("/pruning/ratio").
typedef struct atedm_field_error {
    char pointer[64];
    char detail[256];
} atedm_field_error;
typedef struct atedm_field_errors {
    atedm_field_error items[ATEDM_FIELD_ERRORS_MAX];
    size_t count; // at most ATEDM_FIELD_ERRORS_MAX; further ones are counted in `more`
    size_t more;
} atedm_field_errors;
// Both texts are valid UTF-8, whatever they quote, and cut where they do not fit.
void atedm_field_errors_add(atedm_field_errors *errors, const char *pointer, const char *format,
                            ...) ATEDM_PRINTF(3, 4);
// That `key` of the object at `pointer` is not a known field; escaped (RFC 6901, section 3).
void atedm_field_errors_add_unknown(atedm_field_errors *errors, const char *pointer,
                                    const char *key);

// What the model and the operator allow.
typedef struct atedm_request_limits {
    int64_t native_width, native_height; // defaults of width and height
    int64_t size_multiple;               // width and height are multiples of it
    int64_t max_area;                    // pixels
    int max_images;
    int max_steps; // <= ATEDM_MAX_STEPS
} atedm_request_limits;

// The defaults of POST /generate (guidance 7, 30 steps, 1 image, native size, "euler", pruning
// `prune`).
void atedm_request_init(atedm_request *request, const atedm_request_limits *limits,
                        const atedm_prune_spec *prune);

// Checks every field's range; adds every wrong one to `errors`. Of `prune` only the numbers that
// options may set are checked here: the rest comes from atedm_prune_spec_from_json, which does
// that.
void atedm_request_validate(const atedm_request *request, const atedm_request_limits *limits,
                            atedm_field_errors *errors);

// Reads the value of "pruning" in POST /generate (a name, or an object with the fields preset,
// ratio, flops_budget, schedule, tau, phases, skip_levels, prune_after, score, selection, recovery,
// copy, proportional_attention, masks) from a parsed JSON value (json_t *, jansson). Every wrong
// field is added with `pointer` ("/pruning") before it; the spec is complete when none was added,
// and untouched else. A field left out is that of the preset, or of "at-edm" where none is named.
struct json_t;
void atedm_prune_spec_from_json(const struct json_t *value, const char *pointer,
                                atedm_prune_spec *ret_spec, atedm_field_errors *errors);

#endif
