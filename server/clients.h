// The clients, by API key: who a key belongs to, how often and how many requests at a time they may
// submit, how many they have. No clock and no HTTP of its own: times come with the calls. Without a
// key file everybody is one client, "", that may do everything.
//
// A client is its name. What it has used and has open stays with the name when the keys are
// replaced, so a client that is gone from the file can still give back what it had.
#ifndef ATEDM_CLIENTS_H
#define ATEDM_CLIENTS_H

#include "core/base/memory.h"
#include "core/base/status.h"
#include "server/client_keys.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef struct atedm_clients atedm_clients;

ATEDM_MUST_CHECK atedm_status atedm_clients_create(atedm_clients **ret_clients);
void atedm_clients_destroy(atedm_clients *clients); // NULL allowed

// Appends what the keys would change, "added a, b; removed c; changed d"; nothing where they are
// the same. NULL: no keys.
ATEDM_MUST_CHECK atedm_status atedm_clients_describe(const atedm_clients *clients,
                                                     const atedm_client_keys *keys,
                                                     atedm_buffer *text);
// From now on these keys hold. Cannot fail. `now`: monotonic clock.
void atedm_clients_replace(atedm_clients *clients, atedm_client_keys *take_keys, double now);

typedef enum atedm_access {
    ATEDM_ACCESS_GRANTED,
    ATEDM_ACCESS_NO_KEY,
    ATEDM_ACCESS_UNKNOWN,
    ATEDM_ACCESS_DISABLED,
    ATEDM_ACCESS_EXPIRED,
} atedm_access;

// Whose key it is (NULL: none was sent). *ret_name: "" where nobody is known by it; it stays until
// the keys are replaced. Looks at all keys alike, whichever it is.
atedm_access atedm_clients_authenticate(const atedm_clients *clients, const char *key,
                                        int64_t unix_now, const char **ret_name);

// A name that the keys do not have may do nothing special.
int atedm_clients_max_priority(const atedm_clients *clients, const char *name);
bool atedm_clients_is_admin(const atedm_clients *clients, const char *name);

typedef enum atedm_quota {
    ATEDM_QUOTA_OK,
    ATEDM_QUOTA_FREE,   // no keys are asked for: go on, and release nothing
    ATEDM_QUOTA_RATE,   // too often; *ret_wait_s until one more may come
    ATEDM_QUOTA_OPEN,   // too many at a time
    ATEDM_QUOTA_NOBODY, // the keys do not have the name any more
} atedm_quota;

// The client submits one more request. ATEDM_QUOTA_OK, and no other, is followed by one release
// when the request has ended, however it ends; the keys may have been replaced in between. The
// others changed nothing. `now`: monotonic clock.
atedm_quota atedm_clients_acquire(atedm_clients *clients, const char *name, double now,
                                  double *ret_wait_s);
void atedm_clients_release(atedm_clients *clients, const char *name);
size_t atedm_clients_open(const atedm_clients *clients, const char *name);

#endif
