// A pairing heap: see heap.h.
#include "server/heap.h"

#include <stddef.h>

// Joins two heaps, neither of which has siblings; NULL allowed. Returns the top of the result.
static atedm_heap_node *meld(const atedm_heap *heap, atedm_heap_node *a, atedm_heap_node *b)
{
    if (!a || !b)
        return a ? a : b;
    if (heap->goes_before(b, a)) {
        atedm_heap_node *swap = a;
        a = b;
        b = swap;
    }
    b->before = a;
    b->after = a->child;
    if (a->child)
        a->child->before = b;
    a->child = b;
    return a;
}

// Joins the siblings from `first` on: in pairs from the left, then the pairs from the right.
static atedm_heap_node *meld_siblings(const atedm_heap *heap, atedm_heap_node *first)
{
    atedm_heap_node *pairs = NULL; // linked by `after`, the last pair first
    while (first) {
        atedm_heap_node *a = first, *b = a->after;
        first = b ? b->after : NULL;
        a->before = a->after = NULL;
        if (b)
            b->before = b->after = NULL;
        a = meld(heap, a, b);
        a->after = pairs;
        pairs = a;
    }
    atedm_heap_node *top = NULL;
    while (pairs) {
        atedm_heap_node *pair = pairs;
        pairs = pair->after;
        pair->after = NULL;
        top = meld(heap, top, pair);
    }
    return top;
}

void atedm_heap_push(atedm_heap *heap, atedm_heap_node *node)
{
    *node = (atedm_heap_node){.child = NULL};
    heap->top = meld(heap, heap->top, node);
}

void atedm_heap_remove(atedm_heap *heap, atedm_heap_node *node)
{
    atedm_heap_node *rest = meld_siblings(heap, node->child);
    if (node == heap->top) {
        heap->top = rest;
    } else {
        if (node->before->child == node)
            node->before->child = node->after;
        else
            node->before->after = node->after;
        if (node->after)
            node->after->before = node->before;
        heap->top = meld(heap, heap->top, rest);
    }
    *node = (atedm_heap_node){.child = NULL};
}
