// A pairing heap over nodes that their owners keep: nothing is allocated, so nothing can fail.
// M. Fredman, R. Sedgewick, D. Sleator, R. Tarjan, "The pairing heap: a new form of self-adjusting
// heap", Algorithmica 1 (1986).
#ifndef ATEDM_HEAP_H
#define ATEDM_HEAP_H

#include <stdbool.h>

typedef struct atedm_heap_node {
    struct atedm_heap_node *child;  // the first of those that go behind it
    struct atedm_heap_node *before; // the sibling before it, or of the first one the parent
    struct atedm_heap_node *after;
} atedm_heap_node;

typedef struct atedm_heap {
    atedm_heap_node *top; // goes before all others; NULL: empty
    bool (*goes_before)(const atedm_heap_node *a, const atedm_heap_node *b);
} atedm_heap;

void atedm_heap_push(atedm_heap *heap, atedm_heap_node *node);
// From any place; O(log n), amortized.
void atedm_heap_remove(atedm_heap *heap, atedm_heap_node *node);

#endif
