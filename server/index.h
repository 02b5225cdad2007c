// A hash table whose entries stay where their owners keep them, found by texts. It allocates
// nothing for an entry, so adding one cannot fail: an accepted job must not be lost there. (uthash
// allocates a growing table.)
#ifndef ATEDM_INDEX_H
#define ATEDM_INDEX_H

#include <stdint.h>

#define ATEDM_INDEX_BUCKETS 16384 // a power of two

// Embedded in an entry; the entry's owner keeps the memory.
typedef struct atedm_index_node {
    uint64_t hash;
    struct atedm_index_node *next;
} atedm_index_node;

typedef struct atedm_index {
    uint64_t seed; // random, so that clients cannot choose texts that share a bucket
    atedm_index_node *buckets[ATEDM_INDEX_BUCKETS];
} atedm_index;

// Empties the index and draws its seed.
void atedm_index_init(atedm_index *index);
// The hash of two texts, taken one after the other.
uint64_t atedm_index_hash(const atedm_index *index, const char *first, const char *second);
// Adds an entry under the hash of its texts.
void atedm_index_add(atedm_index *index, atedm_index_node *node, uint64_t hash);
// Removes an entry, which must be in the index.
void atedm_index_remove(atedm_index *index, const atedm_index_node *node);
// Finds the entries with this hash, one by one: the first if `after` is NULL, else the next one
// after it. NULL: there are no more. Different texts may have the same hash.
atedm_index_node *atedm_index_find(const atedm_index *index, uint64_t hash,
                                   const atedm_index_node *after);

#endif
