// A hash table of things that stay where they are, found by texts. Nothing is allocated beside the
// table itself, so nothing that is put in can fail.
#ifndef ATEDM_INDEX_H
#define ATEDM_INDEX_H

#include <stdint.h>

#define ATEDM_INDEX_BUCKETS 16384 // a power of two

// Put into what is found; its owner keeps the memory.
typedef struct atedm_index_node {
    uint64_t hash;
    struct atedm_index_node *next;
} atedm_index_node;

typedef struct atedm_index {
    uint64_t seed; // so that nobody outside knows what shares a bucket
    atedm_index_node *buckets[ATEDM_INDEX_BUCKETS];
} atedm_index;

void atedm_index_init(atedm_index *index);
// Of two texts, one behind the other.
uint64_t atedm_index_hash(const atedm_index *index, const char *first, const char *second);
void atedm_index_add(atedm_index *index, atedm_index_node *node, uint64_t hash);
void atedm_index_remove(atedm_index *index, const atedm_index_node *node);
// Those with this hash, one by one: behind `after`, or NULL for the first. NULL: no more.
atedm_index_node *atedm_index_find(const atedm_index *index, uint64_t hash,
                                   const atedm_index_node *after);

#endif
