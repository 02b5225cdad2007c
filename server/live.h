// The table of live jobs, and who watches each: what jobs.c keeps its jobs in. However many there
// are, none of what is asked here looks at all of them.
#ifndef ATEDM_LIVE_H
#define ATEDM_LIVE_H

#include "server/jobs.h"

typedef struct atedm_lives {
    atedm_live *first; // of all, by `after`
    atedm_index ids, keys;
} atedm_lives;

void atedm_lives_init(atedm_lives *lives);
// `record` is copied. NULL: no memory.
atedm_live *atedm_lives_add(atedm_lives *lives, const atedm_store_job *record);
// Frees what is left of it; nobody watches it any more.
void atedm_lives_remove(atedm_lives *lives, atedm_live *live);
// NULL: there is none. Both also find one that the store has not accepted yet.
atedm_live *atedm_lives_find(const atedm_lives *lives, const char *id);
atedm_live *atedm_lives_find_key(const atedm_lives *lives, const char *owner, const char *key);

// Tells all who watch; behind one of the last events nobody does.
void atedm_live_tell(atedm_live *live, atedm_job_event event);

#endif
