// One text-to-image request, as both the daemon and the command line hold it: fields, limits,
// validation. The server reads requests from JSON bodies, the command line from options.
#ifndef ATEDM_REQUEST_H
#define ATEDM_REQUEST_H

#include "core/base/memory.h"
#include "core/base/status.h"
#include "core/plan.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define ATEDM_PROMPT_MAX 8192 // bytes
#define ATEDM_SIZE_MAX 16384  // pixels of width and of height, whatever the area limit
#define ATEDM_GUIDANCE_MAX 30.0
#define ATEDM_PRIORITY_MAX 10 // priorities are -10..10
#define ATEDM_DEADLINE_MAX_S 86400.0
#define ATEDM_SEED_MAX INT64_MAX // 2^63 - 1
#define ATEDM_TOLERANCE_MAX 2.0 // of score iterations: the L1 distance of two distributions is <= 2
#define ATEDM_FIELD_ERRORS_MAX 32 // wrong fields that one answer names

typedef enum atedm_response_format {
    ATEDM_RESPONSE_B64_JSON,
    ATEDM_RESPONSE_PNG,
    ATEDM_RESPONSE_URL,
} atedm_response_format;

typedef struct atedm_request {
    char *prompt;          // owned; UTF-8, NUL-terminated
    char *negative_prompt; // owned; UTF-8, NUL-terminated; NULL: absent
    int64_t width, height; // pixels
    int steps;
    double guidance_scale;
    uint64_t seed; // of image 0; image i has seed + i. Random if the client gave none
    int num_images;
    char sampler[32];
    atedm_prune_spec prune;
    atedm_response_format response_format;
    double deadline_s; // seconds; NAN: none
    int priority;
} atedm_request;

// Frees the texts that the request owns; NULL allowed.
void atedm_request_finish(atedm_request *request);

// Wrong fields of a request: for each a JSON pointer ("/pruning/ratio") and what is wrong with it.
typedef struct atedm_field_error {
    char pointer[64];
    char detail[256];
} atedm_field_error;
typedef struct atedm_field_errors {
    atedm_field_error items[ATEDM_FIELD_ERRORS_MAX];
    size_t count; // entries in `items`
    size_t more;  // further wrong fields, which have no entry
} atedm_field_errors;
// Adds an entry, or counts it in `more` if there are too many. Texts that do not fit are cut. The
// entry is valid UTF-8 even if the texts quote bytes that are not.
void atedm_field_errors_add(atedm_field_errors *errors, const char *pointer, const char *format,
                            ...) ATEDM_PRINTF(3, 4);
// Adds an entry saying that `key` of the object at `pointer` is not a known field. Escapes `key`
// (RFC 6901, section 3).
void atedm_field_errors_add_unknown(atedm_field_errors *errors, const char *pointer,
                                    const char *key);
// That no sampler is called so, and which there are.
void atedm_field_errors_add_sampler(atedm_field_errors *errors, const char *name);
bool atedm_field_errors_has(const atedm_field_errors *errors, const char *pointer);

// A seed for a request that has none: 32 bits, which is what PyTorch's generator looks at.
ATEDM_MUST_CHECK atedm_status atedm_draw_seed(uint64_t *ret_seed, atedm_error *err);

// What the model and the operator allow. Sizes are in pixels.
typedef struct atedm_request_limits {
    int64_t native_width, native_height; // defaults of width and height
    int64_t size_multiple;               // width and height must be multiples of this
    int64_t max_area;                    // width * height
    int max_images;
    int max_steps; // <= ATEDM_MAX_STEPS
} atedm_request_limits;

// The integers of a request, and the least and the greatest value that each may have.
typedef enum atedm_request_integer {
    ATEDM_REQUEST_SIDE, // width and height; they must also be multiples of size_multiple
    ATEDM_REQUEST_STEPS,
    ATEDM_REQUEST_SEED,
    ATEDM_REQUEST_NUM_IMAGES,
    ATEDM_REQUEST_PRIORITY,
} atedm_request_integer;
typedef struct atedm_integer_range {
    int64_t min, max;
} atedm_integer_range;
atedm_integer_range atedm_request_range(const atedm_request_limits *limits,
                                        atedm_request_integer which);

// Sets the defaults of POST /generate: guidance 7, 30 steps, 1 image, native size, "euler", pruning
// `prune`. prompt and seed have none.
void atedm_request_init(atedm_request *request, const atedm_request_limits *limits,
                        const atedm_prune_spec *prune);

// Checks the range of every field and adds every wrong field to `errors`. Of `prune` it checks only
// the numbers that command-line options can set: atedm_prune_spec_from_json has checked the rest.
void atedm_request_validate(const atedm_request *request, const atedm_request_limits *limits,
                            atedm_field_errors *errors);

// Reads the value of "pruning" in POST /generate from a parsed JSON value (json_t *, jansson): a
// preset's name, or an object with the fields preset, ratio, flops_budget, schedule, tau, phases,
// skip_levels, prune_after, score, selection, recovery, copy, proportional_attention, masks. A
// missing field takes its value from the preset, or from "at-edm" if none is named. Adds every
// wrong field to `errors`, with `pointer` ("/pruning") as prefix. *ret_spec is set if no field is
// wrong, and else untouched.
struct json_t;
void atedm_prune_spec_from_json(const struct json_t *value, const char *pointer,
                                atedm_prune_spec *ret_spec, atedm_field_errors *errors);

#endif
