// The table of clients: see clients.h. A client that is gone from the key file stays in the table
// until its last request has ended.
#include "server/clients.h"

#include "core/request.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

// A token that lacks no more than this counts as whole, since the refill loses a little to
// rounding.
#define TOKEN_SLACK 1e-6

struct atedm_clients {
    atedm_client *first;
    bool asked_for; // there is a key file
};

static atedm_client *find(atedm_client *first, const char *name)
{
    while (first && strcmp(first->key.name, name) != 0)
        first = first->next;
    return first;
}

static atedm_client *find_listed(const atedm_clients *clients, const char *name)
{
    atedm_client *c = find(clients->first, name);
    return c && !c->gone ? c : NULL;
}

atedm_status atedm_clients_create(atedm_clients **ret_clients)
{
    atedm_clients *clients = calloc(1, sizeof *clients);
    if (!clients)
        return ATEDM_ERR_NOMEM;
    *ret_clients = clients;
    return ATEDM_OK;
}

void atedm_clients_destroy(atedm_clients *clients)
{
    if (!clients)
        return;
    for (atedm_client *c = clients->first, *next; c; c = next) {
        next = c->next;
        free(c);
    }
    free(clients);
}

// ---- the token bucket: a request takes one token; the refill is even, up to the burst

static void refill(atedm_client *c, double now)
{
    double rate = (double)c->key.requests_per_minute / 60;
    c->tokens = fmin((double)c->key.burst, c->tokens + rate * fmax(0, now - c->filled));
    c->filled = now;
}

static bool has_token(const atedm_client *c)
{
    return !c->key.requests_per_minute || c->tokens >= 1 - TOKEN_SLACK;
}

// ---- new keys

static bool same_key(const atedm_client_key *a, const atedm_client_key *b)
{
    return atedm_api_key_hash_equal(&a->hash, &b->hash) &&
           a->requests_per_minute == b->requests_per_minute && a->burst == b->burst &&
           a->max_queued == b->max_queued && a->max_priority == b->max_priority &&
           a->expires == b->expires && a->admin == b->admin && a->disabled == b->disabled;
}

// Appends one name. `what` opens the part of the text that lists such names.
static atedm_status append_name(atedm_buffer *text, const char *what, bool *part_open,
                                const char *name)
{
    const char *before = *part_open ? ", " : text->size ? "; " : "";
    atedm_status status = atedm_buffer_printf(text, "%s%s%s", before, *part_open ? "" : what, name);
    *part_open = true;
    return status;
}

atedm_status atedm_clients_describe(const atedm_clients *clients, const atedm_client_keys *keys,
                                    atedm_buffer *text)
{
    atedm_client *fresh = keys ? keys->first : NULL;
    atedm_status status = ATEDM_OK;
    bool added = false, removed = false, changed = false;
    for (const atedm_client *c = fresh; c && !status; c = c->next) {
        if (!find_listed(clients, c->key.name))
            status = append_name(text, "added ", &added, c->key.name);
    }
    for (const atedm_client *c = clients->first; c && !status; c = c->next) {
        if (!c->gone && !find(fresh, c->key.name))
            status = append_name(text, "removed ", &removed, c->key.name);
    }
    for (const atedm_client *c = clients->first; c && !status; c = c->next) {
        const atedm_client *now = c->gone ? NULL : find(fresh, c->key.name);
        if (now && !same_key(&c->key, &now->key))
            status = append_name(text, "changed ", &changed, c->key.name);
    }
    if (!status && clients->asked_for != (keys != NULL))
        status = atedm_buffer_printf(text, "%s%s", text->size ? "; " : "",
                                     keys ? "now asked for" : "no more asked for");
    return status;
}

void atedm_clients_replace(atedm_clients *clients, atedm_client_keys *take_keys, double now)
{
    atedm_client *fresh = take_keys ? take_keys->first : NULL;
    for (atedm_client *c = fresh; c; c = c->next) {
        atedm_client *old = find(clients->first, c->key.name);
        c->filled = now;
        c->tokens = (double)c->key.burst;
        if (!old)
            continue;
        c->open = old->open;
        if (old->key.requests_per_minute) {
            refill(old, now);
            c->tokens = fmin(c->tokens, old->tokens);
        }
    }
    atedm_client *gone = NULL;
    for (atedm_client *c = clients->first, *next; c; c = next) {
        next = c->next;
        if (!c->open || find(fresh, c->key.name)) {
            free(c);
            continue;
        }
        c->gone = true;
        c->next = gone;
        gone = c;
    }
    atedm_client **end = &fresh;
    while (*end)
        end = &(*end)->next;
    *end = gone;
    clients->first = fresh;
    clients->asked_for = take_keys != NULL;
    free(take_keys); // the table has its entries now
}

// ---- who may do what

atedm_access atedm_clients_authenticate(const atedm_clients *clients, const char *key,
                                        int64_t unix_now, const char **ret_name)
{
    *ret_name = "";
    if (!clients->asked_for)
        return ATEDM_ACCESS_GRANTED;
    if (!key)
        return ATEDM_ACCESS_NO_KEY;
    atedm_api_key_hash hash;
    if (atedm_api_key_hash_of(key, &hash, NULL))
        return ATEDM_ACCESS_UNKNOWN;
    const atedm_client *found = NULL;
    for (const atedm_client *c = clients->first; c; c = c->next) {
        if (atedm_api_key_hash_equal(&hash, &c->key.hash) & !c->gone)
            found = c; // no early exit: the time must reveal nothing
    }
    if (!found)
        return ATEDM_ACCESS_UNKNOWN;
    *ret_name = found->key.name;
    if (found->key.disabled)
        return ATEDM_ACCESS_DISABLED;
    return unix_now >= found->key.expires ? ATEDM_ACCESS_EXPIRED : ATEDM_ACCESS_GRANTED;
}

int atedm_clients_max_priority(const atedm_clients *clients, const char *name)
{
    const atedm_client *c = find_listed(clients, name);
    if (c)
        return (int)c->key.max_priority;
    return clients->asked_for ? 0 : ATEDM_PRIORITY_MAX;
}

bool atedm_clients_is_admin(const atedm_clients *clients, const char *name)
{
    const atedm_client *c = find_listed(clients, name);
    return c ? c->key.admin : !clients->asked_for;
}

// ---- what they have open

atedm_quota atedm_clients_acquire(atedm_clients *clients, const char *name, double now,
                                  double *ret_wait_s)
{
    if (!clients->asked_for)
        return ATEDM_QUOTA_FREE;
    atedm_client *c = find_listed(clients, name);
    if (!c)
        return ATEDM_QUOTA_NOBODY;
    if (c->key.max_queued && c->open >= (size_t)c->key.max_queued)
        return ATEDM_QUOTA_OPEN;
    refill(c, now);
    if (!has_token(c)) {
        *ret_wait_s = (1 - c->tokens) * 60 / (double)c->key.requests_per_minute;
        return ATEDM_QUOTA_RATE;
    }
    c->tokens = fmax(0, c->tokens - 1);
    c->open++;
    return ATEDM_QUOTA_OK;
}

void atedm_clients_release(atedm_clients *clients, const char *name)
{
    atedm_client **place = &clients->first;
    while (*place && strcmp((*place)->key.name, name) != 0)
        place = &(*place)->next;
    atedm_client *c = *place;
    if (!c || !c->open)
        return; // was never acquired
    c->open--;
    if (!c->gone || c->open)
        return;
    *place = c->next;
    free(c);
}

size_t atedm_clients_open(const atedm_clients *clients, const char *name)
{
    const atedm_client *c = find(clients->first, name);
    return c ? c->open : 0;
}
