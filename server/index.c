// A hash table: see index.h.
#include "server/index.h"

#include "core/base/splitmix.h"

#include <stddef.h>
#include <string.h>
#include <sys/random.h>

void atedm_index_init(atedm_index *index)
{
    *index = (atedm_index){.seed = 0};
    if (getrandom(&index->seed, sizeof index->seed, 0) != sizeof index->seed)
        index->seed = (uint64_t)(uintptr_t)index;
}

// Mixes the text into the hash, eight bytes at a time, including the text's end.
static uint64_t mix(uint64_t hash, const char *text)
{
    for (size_t left = strlen(text) + 1; left;) {
        uint64_t word = 0;
        size_t size = left < sizeof word ? left : sizeof word;
        memcpy(&word, text, size);
        hash = atedm_splitmix(hash ^ word, size);
        text += size;
        left -= size;
    }
    return hash;
}

uint64_t atedm_index_hash(const atedm_index *index, const char *first, const char *second)
{
    return mix(mix(index->seed, first), second);
}

void atedm_index_add(atedm_index *index, atedm_index_node *node, uint64_t hash)
{
    atedm_index_node **bucket = &index->buckets[hash % ATEDM_INDEX_BUCKETS];
    *node = (atedm_index_node){.hash = hash, .next = *bucket};
    *bucket = node;
}

void atedm_index_remove(atedm_index *index, const atedm_index_node *node)
{
    atedm_index_node **place = &index->buckets[node->hash % ATEDM_INDEX_BUCKETS];
    while (*place != node)
        place = &(*place)->next;
    *place = node->next;
}

atedm_index_node *atedm_index_find(const atedm_index *index, uint64_t hash,
                                   const atedm_index_node *after)
{
    atedm_index_node *node = after ? after->next : index->buckets[hash % ATEDM_INDEX_BUCKETS];
    while (node && node->hash != hash)
        node = node->next;
    return node;
}
