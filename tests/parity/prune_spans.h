// Pruned samples: spans and kept lists, shared by cases_prune.c and cases_source.c.
#ifndef ATEDM_PARITY_PRUNE_SPANS_H
#define ATEDM_PARITY_PRUNE_SPANS_H

#include "tests/parity/parity.h"

typedef struct parity_prune_spans {
    atedm_prune_span *spans;
    int64_t n_spans;
    int64_t rows, kept_rows; // of all spans together
    char text[96];
} parity_prune_spans;

// Spans with gaps, of at most most_n tokens each, sometimes four times that; in a benchmark two
// spans of bench_n.
void parity_prune_spans_build(parity_case *c, parity_prune_spans *p, int64_t most_n,
                              int64_t bench_n);
// Draws each span's `keep`, and lays out the kept lists.
void parity_prune_spans_draw_keep(parity_case *c, parity_prune_spans *p);
// Marks the entries of the kept lists, or the spans' rows, as written.
void parity_prune_spans_mark_kept(parity_case *c, const parity_prune_spans *p, parity_array *a);
void parity_prune_spans_mark_rows(parity_case *c, const parity_prune_spans *p, parity_array *a);
// Adds the array "kept" with random lists.
size_t parity_prune_spans_add_kept(parity_case *c, const parity_prune_spans *p);
// Sum over spans of pruned x kept tokens.
uint64_t parity_prune_spans_pairs(const parity_prune_spans *p);

#endif
