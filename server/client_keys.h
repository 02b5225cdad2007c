// The key file: which keys there are, whose they are, what each may do. What its holder has used of
// that is clients.h's.
#ifndef ATEDM_CLIENT_KEYS_H
#define ATEDM_CLIENT_KEYS_H

#include "config/api_key.h"
#include "core/base/status.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define ATEDM_CLIENT_KEYS_MAX 1024      // of a file
#define ATEDM_CLIENT_RATE_MAX 1000000   // requests a minute, and burst
#define ATEDM_CLIENT_QUEUED_MAX 1000000 // requests at a time

// A key and what its holder may do.
typedef struct atedm_client_key {
    char name[ATEDM_CLIENT_NAME_MAX + 1];
    atedm_api_key_hash hash;
    int64_t requests_per_minute; // 0: no limit
    int64_t burst;               // requests that may come at once; of no meaning without the former
    int64_t max_queued;          // 0: no limit
    int64_t max_priority;
    int64_t expires; // seconds since 1970-01-01 UTC; INT64_MAX: never
    bool admin, disabled;
} atedm_client_key;

// One entry of the table of clients (clients.c): reading makes them whole, so that putting them
// into force needs no memory.
typedef struct atedm_client {
    atedm_client_key key;
    bool gone;             // not in the file any more
    double tokens, filled; // requests that may come, at that time on the monotonic clock
    size_t open;           // requests that wait or run
    struct atedm_client *next;
} atedm_client;

typedef struct atedm_client_keys {
    atedm_client *first;
} atedm_client_keys;

// Reads a key file; "": none, which gives NULL. Messages name the file and the place, and quote no
// secret.
ATEDM_MUST_CHECK atedm_status atedm_client_keys_read(const char *path, atedm_client_keys **ret_keys,
                                                     atedm_error *err);
void atedm_client_keys_destroy(atedm_client_keys *keys); // NULL allowed

#endif
