// The requests of `atedm bench serve`: see load_mix.h.
#include "cli/load_mix.h"

#include "cli/load_draw.h"
#include "core/base/file.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

void atedm_load_mix_finish(atedm_load_mix *mix)
{
    if (!mix)
        return;
    for (size_t i = 0; i < mix->n; i++)
        json_decref(mix->requests[i]);
    mix->n = 0;
}

atedm_status atedm_load_mix_add(atedm_load_mix *mix, double weight, json_t *take_request,
                                atedm_error *err)
{
    double sum = weight + (mix->n ? mix->cumulative[mix->n - 1] : 0);
    atedm_status status = ATEDM_OK;
    if (!take_request)
        status = atedm_error_set(err, ATEDM_ERR_NOMEM, "no memory for a request");
    else if (!json_is_object(take_request))
        status = atedm_error_set(err, ATEDM_ERR_INVALID, "\"request\" is not an object");
    else if (!(weight > 0) || !isfinite(sum))
        status = atedm_error_set(err, ATEDM_ERR_INVALID, "\"weight\" is not a positive number");
    else if (mix->n == ATEDM_LOAD_MAX_MIX)
        status = atedm_error_set(err, ATEDM_ERR_LIMIT, "more than %d different requests",
                                 ATEDM_LOAD_MAX_MIX);
    if (status) {
        json_decref(take_request);
        return status;
    }
    mix->requests[mix->n] = take_request;
    mix->weights[mix->n] = weight;
    mix->cumulative[mix->n] = sum;
    mix->n++;
    return ATEDM_OK;
}

// ---- from a file

static atedm_status add_entry(atedm_load_mix *mix, const json_t *entry, atedm_error *err)
{
    const char *key;
    json_t *value;
    if (!json_is_object(entry))
        return atedm_error_set(err, ATEDM_ERR_INVALID, "not an object");
    json_object_foreach((json_t *)entry, key, value)
    {
        if (strcmp(key, "weight") != 0 && strcmp(key, "request") != 0)
            return atedm_error_set(err, ATEDM_ERR_INVALID, "there is no \"%.60s\" here", key);
    }
    const json_t *weight = json_object_get(entry, "weight");
    // json_number_value is 0 for anything but a number, so that the call refuses it.
    return atedm_load_mix_add(mix, weight ? json_number_value(weight) : 1,
                              json_incref(json_object_get(entry, "request")), err);
}

atedm_status atedm_load_mix_parse(const char *text, size_t size, const char *name,
                                  atedm_load_mix *ret_mix, atedm_error *err)
{
    json_error_t parse;
    json_t *array = json_loadb(text, size, JSON_REJECT_DUPLICATES, &parse);
    if (!array)
        return atedm_error_set(err, ATEDM_ERR_FORMAT, "%s:%d:%d: %s", name, parse.line,
                               parse.column, parse.text);
    atedm_load_mix mix = {.n = 0};
    atedm_status status = ATEDM_OK;
    if (!json_array_size(array)) // also 0 if it is not an array
        status = atedm_error_set(err, ATEDM_ERR_INVALID, "not an array of requests");
    size_t i;
    const json_t *entry;
    json_array_foreach(array, i, entry)
    {
        if (status)
            break;
        status = add_entry(&mix, entry, err);
        status = atedm_error_context(err, status, "entry %zu", i);
    }
    json_decref(array);
    if (status) {
        atedm_load_mix_finish(&mix);
        return atedm_error_context(err, status, "%s", name);
    }
    *ret_mix = mix;
    return ATEDM_OK;
}

atedm_status atedm_load_mix_read(const char *path, atedm_load_mix *ret_mix, atedm_error *err)
{
    char *text = NULL;
    size_t size = 0;
    atedm_status status = atedm_file_read(path, ATEDM_LOAD_MAX_MIX_BYTES, &text, &size, err);
    if (status)
        return status;
    status = atedm_load_mix_parse(text, size, path, ret_mix, err);
    free(text);
    return status;
}

// ---- requests

size_t atedm_load_mix_choose(const atedm_load_mix *mix, uint64_t seed, uint64_t number)
{
    return atedm_load_draw_entry(seed, number, mix->cumulative, mix->n);
}

char *atedm_load_mix_body(const atedm_load_mix *mix, uint64_t seed, uint64_t number)
{
    json_t *request = mix->requests[atedm_load_mix_choose(mix, seed, number)];
    const json_t *own_seed = json_object_get(request, "seed");
    if (own_seed && !json_is_null(own_seed))
        return json_dumps(request, JSON_COMPACT | JSON_REAL_PRECISION(15));
    json_t *copy = json_copy(request);
    char *body = NULL;
    if (!json_object_set_new(copy, "seed", json_integer(atedm_load_draw_seed(seed, number))))
        body = json_dumps(copy, JSON_COMPACT | JSON_REAL_PRECISION(15));
    json_decref(copy);
    return body;
}
