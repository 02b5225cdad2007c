// Reads the model's JSON files: see json_read.h.
#include "core/json_read.h"

#include "core/base/file.h"

#include <inttypes.h>
#include <math.h>
#include <stdlib.h>

atedm_status atedm_json_load(const char *path, json_t **ret_object, atedm_error *err)
{
    char *text = NULL;
    size_t size = 0;
    atedm_status status = atedm_file_read(path, ATEDM_JSON_FILE_MAX, &text, &size, err);
    if (status)
        return status;
    status = atedm_json_parse(path, text, size, ret_object, err);
    free(text);
    return status;
}

atedm_status atedm_json_parse(const char *path, const char *text, size_t size, json_t **ret_object,
                              atedm_error *err)
{
    json_error_t parse_error;
    json_t *object = json_loadb(text, size, JSON_REJECT_DUPLICATES, &parse_error);
    if (!object)
        return atedm_error_set(err, ATEDM_ERR_FORMAT, "%s:%d:%d: %s", path, parse_error.line,
                               parse_error.column, parse_error.text);
    if (!json_is_object(object)) {
        json_decref(object);
        return atedm_error_set(err, ATEDM_ERR_FORMAT, "%s: not a JSON object", path);
    }
    *ret_object = object;
    return ATEDM_OK;
}

// Sets *ret_item to the member; NULL: the member is absent or null, which is an error unless it is
// optional.
static atedm_status find(const json_t *object, const char *path, const char *key, bool optional,
                         const json_t **ret_item, atedm_error *err)
{
    const json_t *item = json_object_get(object, key);
    if (json_is_null(item))
        item = NULL;
    if (!item && !optional)
        return atedm_error_set(err, ATEDM_ERR_FORMAT, "%s: \"%s\" is missing", path, key);
    *ret_item = item;
    return ATEDM_OK;
}

atedm_status atedm_json_int(const json_t *object, const char *path, const char *key, bool optional,
                            int64_t min, int64_t max, int64_t *ret_value, atedm_error *err)
{
    const json_t *item = NULL;
    atedm_status status = find(object, path, key, optional, &item, err);
    if (status || !item)
        return status;
    if (!json_is_integer(item))
        return atedm_error_set(err, ATEDM_ERR_FORMAT, "%s: \"%s\" is not an integer", path, key);
    int64_t value = json_integer_value(item);
    if (value < min || value > max)
        return atedm_error_set(err, ATEDM_ERR_FORMAT,
                               "%s: \"%s\" is %" PRId64 ", not within %" PRId64 "..%" PRId64, path,
                               key, value, min, max);
    *ret_value = value;
    return ATEDM_OK;
}

atedm_status atedm_json_real(const json_t *object, const char *path, const char *key, bool optional,
                             double min, double max, double *ret_value, atedm_error *err)
{
    const json_t *item = NULL;
    atedm_status status = find(object, path, key, optional, &item, err);
    if (status || !item)
        return status;
    if (!json_is_number(item))
        return atedm_error_set(err, ATEDM_ERR_FORMAT, "%s: \"%s\" is not a number", path, key);
    double value = json_number_value(item);
    if (!(value >= min && value <= max))
        return atedm_error_set(err, ATEDM_ERR_FORMAT, "%s: \"%s\" is %g, not within %g..%g", path,
                               key, value, min, max);
    *ret_value = value;
    return ATEDM_OK;
}

atedm_status atedm_json_bool(const json_t *object, const char *path, const char *key, bool optional,
                             bool *ret_value, atedm_error *err)
{
    const json_t *item = NULL;
    atedm_status status = find(object, path, key, optional, &item, err);
    if (status || !item)
        return status;
    if (!json_is_boolean(item))
        return atedm_error_set(err, ATEDM_ERR_FORMAT, "%s: \"%s\" is not true or false", path, key);
    *ret_value = json_is_true(item);
    return ATEDM_OK;
}

atedm_status atedm_json_string(const json_t *object, const char *path, const char *key,
                               bool optional, const char **ret_value, atedm_error *err)
{
    const json_t *item = NULL;
    atedm_status status = find(object, path, key, optional, &item, err);
    if (status || !item)
        return status;
    if (!json_is_string(item))
        return atedm_error_set(err, ATEDM_ERR_FORMAT, "%s: \"%s\" is not a string", path, key);
    *ret_value = json_string_value(item);
    return ATEDM_OK;
}

static atedm_status int_element(const json_t *item, const char *path, const char *key, int64_t min,
                                int64_t max, int64_t *ret_value, atedm_error *err)
{
    if (!json_is_integer(item))
        return atedm_error_set(err, ATEDM_ERR_FORMAT,
                               "%s: \"%s\" holds something else than integers", path, key);
    int64_t value = json_integer_value(item);
    if (value < min || value > max)
        return atedm_error_set(err, ATEDM_ERR_FORMAT,
                               "%s: \"%s\" holds %" PRId64 ", not within %" PRId64 "..%" PRId64,
                               path, key, value, min, max);
    *ret_value = value;
    return ATEDM_OK;
}

atedm_status atedm_json_ints(const json_t *object, const char *path, const char *key,
                             size_t min_count, size_t max_count, int64_t min, int64_t max,
                             int64_t *ret_values, size_t *ret_count, atedm_error *err)
{
    const json_t *item = NULL;
    atedm_status status = find(object, path, key, false, &item, err);
    if (status)
        return status;
    if (json_is_integer(item) && min_count == max_count) {
        int64_t value = 0;
        status = int_element(item, path, key, min, max, &value, err);
        if (status)
            return status;
        for (size_t i = 0; i < max_count; i++)
            ret_values[i] = value;
        *ret_count = max_count;
        return ATEDM_OK;
    }
    if (!json_is_array(item))
        return atedm_error_set(err, ATEDM_ERR_FORMAT, "%s: \"%s\" is not an array of integers",
                               path, key);
    size_t count = json_array_size(item);
    if (count < min_count || count > max_count)
        return atedm_error_set(err, ATEDM_ERR_FORMAT, "%s: \"%s\" has %zu entries, not %zu..%zu",
                               path, key, count, min_count, max_count);
    for (size_t i = 0; i < count; i++) {
        status = int_element(json_array_get(item, i), path, key, min, max, &ret_values[i], err);
        if (status)
            return status;
    }
    *ret_count = count;
    return ATEDM_OK;
}
