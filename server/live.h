// The table of live jobs and their watchers; jobs.c keeps its jobs here. Only a walk along `all`
// visits all jobs: each function below takes about the same time however many there are.
#ifndef ATEDM_LIVE_H
#define ATEDM_LIVE_H

#include "server/jobs.h"

typedef struct atedm_lives {
    LIST_HEAD(atedm_live_list, atedm_live) all;
    atedm_index ids, keys;
} atedm_lives;

// Empties the table.
void atedm_lives_init(atedm_lives *lives);
// Adds a job; copies `record`. NULL: out of memory.
atedm_live *atedm_lives_add(atedm_lives *lives, const atedm_store_job *record);
// Removes a job and frees it. It must have no watchers left.
void atedm_lives_remove(atedm_lives *lives, atedm_live *live);
// Both return NULL if there is no such job. They also find jobs that the store has not taken yet.
atedm_live *atedm_lives_find(const atedm_lives *lives, const char *id);
atedm_live *atedm_lives_find_key(const atedm_lives *lives, const char *owner, const char *key);

// Sends an event to all watchers. After a last event the job has no watchers.
void atedm_live_tell(atedm_live *live, atedm_job_event event);

#endif
