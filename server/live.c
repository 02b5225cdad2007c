// Keeps the live jobs: see live.h.
#include "server/live.h"

#include <stdlib.h>
#include <string.h>

void atedm_lives_init(atedm_lives *lives)
{
    LIST_INIT(&lives->all);
    atedm_index_init(&lives->ids);
    atedm_index_init(&lives->keys);
}

atedm_live *atedm_lives_add(atedm_lives *lives, const atedm_store_job *record)
{
    atedm_live *live = calloc(1, sizeof *live);
    if (!live)
        return NULL;
    if (atedm_store_job_copy(record, &live->record)) {
        free(live);
        return NULL;
    }
    LIST_INSERT_HEAD(&lives->all, live, place);
    atedm_index_add(&lives->ids, &live->by_id, atedm_index_hash(&lives->ids, record->id, ""));
    if (record->key)
        atedm_index_add(&lives->keys, &live->by_key,
                        atedm_index_hash(&lives->keys, record->owner, record->key));
    return live;
}

void atedm_lives_remove(atedm_lives *lives, atedm_live *live)
{
    LIST_REMOVE(live, place);
    atedm_index_remove(&lives->ids, &live->by_id);
    if (live->record.key)
        atedm_index_remove(&lives->keys, &live->by_key);
    for (size_t i = 0; live->images && i < live->record.n_images; i++)
        free(live->images[i].png);
    free(live->images);
    free(live->preview.png);
    free(live->told_end);
    atedm_store_job_finish(&live->record);
    free(live);
}

// ---- finding

static atedm_live *of_id(const atedm_index_node *node)
{
    return (atedm_live *)((char *)(uintptr_t)node - offsetof(atedm_live, by_id));
}

static atedm_live *of_key(const atedm_index_node *node)
{
    return (atedm_live *)((char *)(uintptr_t)node - offsetof(atedm_live, by_key));
}

atedm_live *atedm_lives_find(const atedm_lives *lives, const char *id)
{
    uint64_t hash = atedm_index_hash(&lives->ids, id, "");
    const atedm_index_node *node = NULL;
    while ((node = atedm_index_find(&lives->ids, hash, node))) {
        if (strcmp(of_id(node)->record.id, id) == 0)
            return of_id(node);
    }
    return NULL;
}

atedm_live *atedm_lives_find_key(const atedm_lives *lives, const char *owner, const char *key)
{
    uint64_t hash = atedm_index_hash(&lives->keys, owner, key);
    const atedm_index_node *node = NULL;
    while ((node = atedm_index_find(&lives->keys, hash, node))) {
        const atedm_store_job *record = &of_key(node)->record;
        if (strcmp(record->key, key) == 0 && strcmp(record->owner, owner) == 0)
            return of_key(node);
    }
    return NULL;
}

// ---- watching

void atedm_live_tell(atedm_live *live, atedm_job_event event)
{
    atedm_job_watcher *next;
    for (atedm_job_watcher *w = LIST_FIRST(&live->watchers); w; w = next) {
        next = LIST_NEXT(w, place);
        if (event >= ATEDM_JOB_ENDED)
            w->live = NULL; // before the call, which may free the watcher
        w->call(w->user, live, event);
    }
}

// Has previews made only while a watcher wants them.
static void update_previews(const atedm_live *live)
{
    if (live->job)
        atedm_dispatch_watch(live->job, live->previewers > 0);
}

void atedm_live_watch(atedm_live *live, atedm_job_watcher *watcher)
{
    watcher->live = live;
    LIST_INSERT_HEAD(&live->watchers, watcher, place);
    live->previewers += watcher->previews;
    update_previews(live);
}

void atedm_live_unwatch(atedm_job_watcher *watcher)
{
    atedm_live *live = watcher->live;
    if (!live)
        return;
    LIST_REMOVE(watcher, place);
    watcher->live = NULL;
    live->previewers -= watcher->previews;
    update_previews(live);
}
