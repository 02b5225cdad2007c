// Reads the key file: its keys, their owners, and what each owner may do. clients.h counts what
// they have used of it.
#ifndef ATEDM_CLIENT_KEYS_H
#define ATEDM_CLIENT_KEYS_H

#include "config/api_key.h"
#include "core/base/status.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define ATEDM_CLIENT_KEYS_MAX 1024      // keys in a file
#define ATEDM_CLIENT_RATE_MAX 1000000   // largest requests_per_minute, and largest burst
#define ATEDM_CLIENT_QUEUED_MAX 1000000 // largest max_queued

// A key and what its holder may do.
typedef struct atedm_client_key {
    char name[ATEDM_CLIENT_NAME_MAX + 1];
    atedm_api_key_hash hash;
    int64_t requests_per_minute; // 0: no limit
    int64_t burst;               // requests that may come at once; unused without the former
    int64_t max_queued;          // requests that may wait or run at a time; 0: no limit
    int64_t max_priority;
    int64_t expires; // seconds since 1970-01-01 UTC; INT64_MAX: never
    bool admin, disabled;
} atedm_client_key;

// One entry of the table of clients (clients.c). The reader allocates complete entries, so that
// putting them into force needs no memory and cannot fail.
typedef struct atedm_client {
    atedm_client_key key;
    bool gone;     // no longer in the file
    double tokens; // requests that it might submit at the time `filled`
    double filled; // monotonic clock, in seconds
    size_t open;   // requests that wait or run
    struct atedm_client *next;
} atedm_client;

typedef struct atedm_client_keys {
    atedm_client *first;
} atedm_client_keys;

// Reads the key file `path` into *ret_keys, which is the caller's. If `path` is "", there is no key
// file, and *ret_keys is NULL. ATEDM_ERR_INVALID, _LIMIT, _NOMEM, or what atedm_json_load returns.
// Messages name the file and the place in it, and quote no secret.
ATEDM_MUST_CHECK atedm_status atedm_client_keys_read(const char *path, atedm_client_keys **ret_keys,
                                                     atedm_error *err);
void atedm_client_keys_destroy(atedm_client_keys *keys); // NULL allowed

#endif
