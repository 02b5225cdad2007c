// The table of clients: which key belongs to which client, how often it may submit requests and how
// many at a time, and how many it has. The table knows neither a clock nor HTTP: callers pass
// times. Without a key file everybody is the client "", which may do everything. Loop thread only.
//
// A client is identified by its name. What it has used and its open requests stay with the name
// when the keys are replaced. So the requests of a client that is gone from the file can still be
// released.
#ifndef ATEDM_CLIENTS_H
#define ATEDM_CLIENTS_H

#include "core/base/memory.h"
#include "core/base/status.h"
#include "server/client_keys.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef struct atedm_clients atedm_clients;

// An empty table, without a key file. ATEDM_ERR_NOMEM.
ATEDM_MUST_CHECK atedm_status atedm_clients_create(atedm_clients **ret_clients);
void atedm_clients_destroy(atedm_clients *clients); // NULL allowed

// Appends to `text` what `keys` would change: "added a, b; removed c; changed d". Appends nothing
// if they would change nothing. NULL: no key file. An error is that of the buffer.
ATEDM_MUST_CHECK atedm_status atedm_clients_describe(const atedm_clients *clients,
                                                     const atedm_client_keys *keys,
                                                     atedm_buffer *text);
// Puts `take_keys` into force; NULL: no key file. Cannot fail. `now`: monotonic clock.
void atedm_clients_replace(atedm_clients *clients, atedm_client_keys *take_keys, double now);

// Whether a key gives access, and if not, why.
typedef enum atedm_access {
    ATEDM_ACCESS_GRANTED,
    ATEDM_ACCESS_NO_KEY,
    ATEDM_ACCESS_UNKNOWN,
    ATEDM_ACCESS_DISABLED,
    ATEDM_ACCESS_EXPIRED,
} atedm_access;

// Finds the client of `key` (NULL: the request had none). *ret_name is its name, or "" if no client
// has this key; it is valid until the keys are replaced. Compares `key` with every entry, so that
// the time that this takes reveals nothing. `unix_now`: seconds since 1970.
atedm_access atedm_clients_authenticate(const atedm_clients *clients, const char *key,
                                        int64_t unix_now, const char **ret_name);

// What the client may do. With a key file, a name that is not in it has the maximum priority 0 and
// is no admin.
int atedm_clients_max_priority(const atedm_clients *clients, const char *name);
bool atedm_clients_is_admin(const atedm_clients *clients, const char *name);

typedef enum atedm_quota {
    ATEDM_QUOTA_OK,     // counted: release it when it ends
    ATEDM_QUOTA_FREE,   // there is no key file: go on, and release nothing
    ATEDM_QUOTA_RATE,   // too often; the next request is allowed in *ret_wait_s seconds
    ATEDM_QUOTA_OPEN,   // too many at a time
    ATEDM_QUOTA_NOBODY, // the name is no longer in the key file
} atedm_quota;

// The client submits one more request. After ATEDM_QUOTA_OK, and only then, the caller releases the
// request once when it has ended, however it ends; the keys may have been replaced in between. Any
// other result changes neither count nor tokens. *ret_wait_s is set only with ATEDM_QUOTA_RATE.
// `now`: monotonic clock.
atedm_quota atedm_clients_acquire(atedm_clients *clients, const char *name, double now,
                                  double *ret_wait_s);
void atedm_clients_release(atedm_clients *clients, const char *name);
// How many requests of the client wait or run.
size_t atedm_clients_open(const atedm_clients *clients, const char *name);

#endif
