// Reading the model's JSON files with checks: every getter names the file, the key and the bound
// that was missed.
#ifndef ATEDM_JSON_READ_H
#define ATEDM_JSON_READ_H

#include "core/base/status.h"

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

// Bytes of a JSON file of a model; CLIP's vocabulary, the largest real one, is under 1 MiB. Parsed,
// a hostile file takes up to 50 times its size.
#define ATEDM_JSON_FILE_MAX (16u * 1024 * 1024)

// Parses the object in `path` (duplicate keys refused). json_decref the result.
ATEDM_MUST_CHECK atedm_status atedm_json_load(const char *path, json_t **ret_object,
                                              atedm_error *err);
// The same of text that was read from `path`, which is only for messages.
ATEDM_MUST_CHECK atedm_status atedm_json_parse(const char *path, const char *text, size_t size,
                                               json_t **ret_object, atedm_error *err);

// Each reads `key` of `object` into *ret_value: `path` is only for messages. A missing or null key
// leaves `*ret_value` as it is where `optional`, else it is an error. Bounds are inclusive.
ATEDM_MUST_CHECK atedm_status atedm_json_int(const json_t *object, const char *path,
                                             const char *key, bool optional, int64_t min,
                                             int64_t max, int64_t *ret_value, atedm_error *err);
ATEDM_MUST_CHECK atedm_status atedm_json_real(const json_t *object, const char *path,
                                              const char *key, bool optional, double min,
                                              double max, double *ret_value, atedm_error *err);
ATEDM_MUST_CHECK atedm_status atedm_json_bool(const json_t *object, const char *path,
                                              const char *key, bool optional, bool *ret_value,
                                              atedm_error *err);
// The string stays owned by the object.
ATEDM_MUST_CHECK atedm_status atedm_json_string(const json_t *object, const char *path,
                                                const char *key, bool optional,
                                                const char **ret_value, atedm_error *err);
// An array of `min_count`..`max_count` integers in [min, max]. Where the number is fixed, a single
// integer stands for an array of equal ones (as diffusers has it for attention_head_dim and the
// like). *ret_count gets the number.
ATEDM_MUST_CHECK atedm_status atedm_json_ints(const json_t *object, const char *path,
                                              const char *key, size_t min_count, size_t max_count,
                                              int64_t min, int64_t max, int64_t *ret_values,
                                              size_t *ret_count, atedm_error *err);

#endif
