// The bodies of /generate and /v1/estimate: JSON to atedm_request, results to JSON.
#ifndef ATEDM_SERVER_GENERATE_JSON_H
#define ATEDM_SERVER_GENERATE_JSON_H

#include "core/request.h"
#include "server/worker.h"

#include <jansson.h>

// Deepest nesting of a body; the contract's own needs 4.
#define ATEDM_BODY_MAX_DEPTH 16

// Parses a body. Not JSON, not UTF-8, duplicate keys, too deep: ATEDM_ERR_FORMAT with a message.
ATEDM_MUST_CHECK atedm_status atedm_body_parse(const char *body, size_t size, json_t **ret_object,
                                               atedm_error *err);

// Fills `request` (initialised by atedm_request_init) from a parsed body and validates it;
// everything wrong is added to `errors`. A missing seed is drawn. prompt and negative_prompt are
// owned by `request` also on errors.
void atedm_generate_read(const json_t *body, const atedm_request_limits *limits,
                         atedm_request *request, atedm_field_errors *errors);

// What the answer says of a plan: preset, ratio, phases ... `pruned` false: {"preset": "off"}.
json_t *atedm_plan_json(bool pruned, const atedm_prune_spec *spec, double ratio,
                        const atedm_request_cost *cost);
json_t *atedm_cost_json(const atedm_request_cost *cost);

typedef struct atedm_answer {
    const char *id, *model;
    uint64_t seed;
    int64_t width, height, created;
    int steps;
    const char *prompt, *negative_prompt; // for warnings
    double queue_s, total_s;
    const atedm_worker_result *result;
} atedm_answer;

// The 200 answer of /generate. NULL when memory is out.
json_t *atedm_answer_json(const atedm_answer *answer);

#endif
