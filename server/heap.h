// A pairing heap over nodes that their owners keep. It allocates nothing, so no operation can fail.
// M. Fredman, R. Sedgewick, D. Sleator, R. Tarjan, "The pairing heap: a new form of self-adjusting
// heap", Algorithmica 1 (1986).
#ifndef ATEDM_HEAP_H
#define ATEDM_HEAP_H

#include <stdbool.h>

typedef struct atedm_heap_node {
    struct atedm_heap_node *child;  // the first of its children, which all go after it
    struct atedm_heap_node *before; // the previous sibling; for the first child, the parent
    struct atedm_heap_node *after;
} atedm_heap_node;

typedef struct atedm_heap {
    atedm_heap_node *top; // the first in order; NULL: the heap is empty
    bool (*goes_before)(const atedm_heap_node *a, const atedm_heap_node *b);
} atedm_heap;

void atedm_heap_push(atedm_heap *heap, atedm_heap_node *node);
// Removes a node at any place, in amortized O(log n).
void atedm_heap_remove(atedm_heap *heap, atedm_heap_node *node);

#endif
