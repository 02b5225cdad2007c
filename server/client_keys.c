// Reads the key file: see client_keys.h.
#include "server/client_keys.h"

#include "core/json_read.h"
#include "core/request.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

static const char *const file_fields[] = {"keys", NULL};
static const char *const key_fields[] = {"name",  "hash",       "requests_per_minute",
                                         "burst", "max_queued", "max_priority",
                                         "admin", "disabled",   "expires",
                                         NULL};

static atedm_status refuse_others(const json_t *object, const char *place, const char *const *known,
                                  atedm_error *err)
{
    const char *key;
    json_t *value;
    // The cast is safe: jansson's loop takes no const, but only reads the object.
    json_object_foreach((json_t *)object, key, value)
    {
        size_t i = 0;
        while (known[i] && strcmp(known[i], key) != 0)
            i++;
        if (!known[i])
            return atedm_error_set(err, ATEDM_ERR_INVALID, "%s: there is no field \"%s\"", place,
                                   key);
    }
    return ATEDM_OK;
}

// "2027-01-01T00:00:00Z" (RFC 3339, in UTC, whole seconds).
static bool parse_time(const char *text, int64_t *ret_unix)
{
    static const char format[] = "%Y-%m-%dT%H:%M:%SZ";
    struct tm tm = {0};
    const char *end = strptime(text, format, &tm);
    if (!end || *end)
        return false;
    time_t seconds = timegm(&tm);
    // A date that does not exist (February 30) or has another form reads differently when it is
    // written again.
    char again[32];
    if (!gmtime_r(&seconds, &tm) || strftime(again, sizeof again, format, &tm) == 0 ||
        strcmp(again, text) != 0)
        return false;
    *ret_unix = seconds;
    return true;
}

static atedm_status read_limits(const json_t *object, const char *place, atedm_client_key *key,
                                atedm_error *err)
{
    atedm_status status = atedm_json_int(object, place, "requests_per_minute", true, 1,
                                         ATEDM_CLIENT_RATE_MAX, &key->requests_per_minute, err);
    key->burst = key->requests_per_minute;
    if (!status)
        status = atedm_json_int(object, place, "burst", true, 1, ATEDM_CLIENT_RATE_MAX, &key->burst,
                                err);
    if (!status && key->burst && !key->requests_per_minute)
        return atedm_error_set(err, ATEDM_ERR_INVALID,
                               "%s: \"burst\" means nothing without \"requests_per_minute\"",
                               place);
    if (!status)
        status = atedm_json_int(object, place, "max_queued", true, 1, ATEDM_CLIENT_QUEUED_MAX,
                                &key->max_queued, err);
    key->max_priority = ATEDM_PRIORITY_MAX;
    if (!status)
        status = atedm_json_int(object, place, "max_priority", true, -ATEDM_PRIORITY_MAX,
                                ATEDM_PRIORITY_MAX, &key->max_priority, err);
    return status;
}

static atedm_status read_state(const json_t *object, const char *place, atedm_client_key *key,
                               atedm_error *err)
{
    atedm_status status = atedm_json_bool(object, place, "admin", true, &key->admin, err);
    if (!status)
        status = atedm_json_bool(object, place, "disabled", true, &key->disabled, err);
    const char *expires = NULL;
    if (!status)
        status = atedm_json_string(object, place, "expires", true, &expires, err);
    key->expires = INT64_MAX;
    if (!status && expires && !parse_time(expires, &key->expires))
        return atedm_error_set(err, ATEDM_ERR_INVALID,
                               "%s: \"expires\" is not a time like 2027-01-01T00:00:00Z", place);
    return status;
}

static atedm_status read_key(const json_t *object, const char *place, atedm_client_key *key,
                             atedm_error *err)
{
    if (!json_is_object(object))
        return atedm_error_set(err, ATEDM_ERR_INVALID, "%s: is not an object", place);
    const char *name = NULL, *hash = NULL;
    atedm_status status = refuse_others(object, place, key_fields, err);
    if (!status)
        status = atedm_json_string(object, place, "name", false, &name, err);
    if (!status && !atedm_client_name_is_valid(name))
        return atedm_error_set(err, ATEDM_ERR_INVALID,
                               "%s: \"name\" is not 1..%d of A-Z a-z 0-9 . _ -", place,
                               ATEDM_CLIENT_NAME_MAX);
    if (!status)
        status = atedm_json_string(object, place, "hash", false, &hash, err);
    if (status)
        return status;
    snprintf(key->name, sizeof key->name, "%s", name);
    status = atedm_api_key_hash_read(hash, &key->hash, err);
    if (status)
        return atedm_error_context(err, status, "%s: \"hash\"", place);
    status = read_limits(object, place, key, err);
    return status ? status : read_state(object, place, key, err);
}

static atedm_status refuse_twins(const atedm_client_keys *keys, const atedm_client_key *key,
                                 const char *place, atedm_error *err)
{
    for (const atedm_client *c = keys->first; c; c = c->next) {
        bool same_name = strcmp(c->key.name, key->name) == 0;
        if (same_name || atedm_api_key_hash_equal(&c->key.hash, &key->hash))
            return atedm_error_set(err, ATEDM_ERR_INVALID, "%s: \"%s\" is that of another key",
                                   place, same_name ? "name" : "hash");
    }
    return ATEDM_OK;
}

static atedm_status add_key(atedm_client_keys *keys, const json_t *object, const char *place,
                            atedm_error *err)
{
    atedm_client *client = calloc(1, sizeof *client);
    if (!client)
        return atedm_error_set(err, ATEDM_ERR_NOMEM, "%s: no memory", place);
    atedm_status status = read_key(object, place, &client->key, err);
    if (!status)
        status = refuse_twins(keys, &client->key, place, err);
    if (status) {
        free(client);
        return status;
    }
    atedm_client **end = &keys->first;
    while (*end)
        end = &(*end)->next;
    *end = client;
    return ATEDM_OK;
}

static atedm_status read_list(const json_t *object, const char *path, atedm_client_keys *keys,
                              atedm_error *err)
{
    atedm_status status = refuse_others(object, path, file_fields, err);
    if (status)
        return status;
    const json_t *list = json_object_get(object, "keys");
    size_t count = json_array_size(list);
    if (!json_is_array(list))
        return atedm_error_set(err, ATEDM_ERR_INVALID, "%s: \"keys\" is not an array", path);
    if (count > ATEDM_CLIENT_KEYS_MAX)
        return atedm_error_set(err, ATEDM_ERR_LIMIT, "%s: %zu keys are more than %d", path, count,
                               ATEDM_CLIENT_KEYS_MAX);
    for (size_t i = 0; i < count && !status; i++) {
        char place[ATEDM_ERROR_MAX];
        snprintf(place, sizeof place, "%s: keys[%zu]", path, i);
        status = add_key(keys, json_array_get(list, i), place, err);
    }
    return status;
}

atedm_status atedm_client_keys_read(const char *path, atedm_client_keys **ret_keys,
                                    atedm_error *err)
{
    if (!*path) {
        *ret_keys = NULL;
        return ATEDM_OK;
    }
    json_t *object = NULL;
    atedm_status status = atedm_json_load(path, &object, err);
    if (status)
        return status;
    atedm_client_keys *keys = calloc(1, sizeof *keys);
    status = keys ? read_list(object, path, keys, err)
                  : atedm_error_set(err, ATEDM_ERR_NOMEM, "%s: no memory", path);
    json_decref(object);
    if (status) {
        atedm_client_keys_destroy(keys);
        return status;
    }
    *ret_keys = keys;
    return ATEDM_OK;
}

void atedm_client_keys_destroy(atedm_client_keys *keys)
{
    if (!keys)
        return;
    for (atedm_client *c = keys->first, *next; c; c = next) {
        next = c->next;
        free(c);
    }
    free(keys);
}
