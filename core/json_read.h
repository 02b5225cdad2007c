// Reads the model's JSON files with checks. Every error message names the file, the key and the
// limit that the value violates.
#ifndef ATEDM_JSON_READ_H
#define ATEDM_JSON_READ_H

#include "core/base/status.h"

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

// Most bytes of a model's JSON file. The largest real one, CLIP's vocabulary, has less than 1 MiB.
// A hostile file takes up to 50 times its size when parsed.
#define ATEDM_JSON_FILE_MAX (16u * 1024 * 1024)

// Reads and parses the object in the file `path`. Refuses duplicate keys. json_decref the result.
ATEDM_MUST_CHECK atedm_status atedm_json_load(const char *path, json_t **ret_object,
                                              atedm_error *err);
// The same for text that was read from `path`, which is used only in messages.
ATEDM_MUST_CHECK atedm_status atedm_json_parse(const char *path, const char *text, size_t size,
                                               json_t **ret_object, atedm_error *err);

// Each function reads `key` of `object` into *ret_value. `path` is used only in messages. If the
// key is missing or null, *ret_value keeps its value if `optional`; otherwise this is an error.
// Bounds are inclusive.
ATEDM_MUST_CHECK atedm_status atedm_json_int(const json_t *object, const char *path,
                                             const char *key, bool optional, int64_t min,
                                             int64_t max, int64_t *ret_value, atedm_error *err);
ATEDM_MUST_CHECK atedm_status atedm_json_real(const json_t *object, const char *path,
                                              const char *key, bool optional, double min,
                                              double max, double *ret_value, atedm_error *err);
ATEDM_MUST_CHECK atedm_status atedm_json_bool(const json_t *object, const char *path,
                                              const char *key, bool optional, bool *ret_value,
                                              atedm_error *err);
// The object still owns the string.
ATEDM_MUST_CHECK atedm_status atedm_json_string(const json_t *object, const char *path,
                                                const char *key, bool optional,
                                                const char **ret_value, atedm_error *err);
// Reads an array of `min_count`..`max_count` integers in [min, max]. If these two counts are equal,
// a single integer stands for an array of equal ones, as in diffusers' attention_head_dim.
// *ret_count gets the number of integers.
ATEDM_MUST_CHECK atedm_status atedm_json_ints(const json_t *object, const char *path,
                                              const char *key, size_t min_count, size_t max_count,
                                              int64_t min, int64_t max, int64_t *ret_values,
                                              size_t *ret_count, atedm_error *err);

#endif
