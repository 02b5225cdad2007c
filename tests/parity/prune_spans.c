// Pruned samples: see prune_spans.h.
#include "tests/parity/prune_spans.h"

#include <inttypes.h>
#include <stdio.h>

void parity_prune_spans_draw_keep(parity_case *c, parity_prune_spans *p)
{
    p->kept_rows = 0;
    for (int64_t s = 0; s < p->n_spans; s++) {
        atedm_prune_span *span = &p->spans[s];
        int64_t kind = parity_range(&c->rng, 0, 9);
        span->keep = kind == 0                  ? 1
                     : kind == 1                ? span->n
                     : kind == 2 && span->n > 1 ? span->n - 1
                                                : parity_range(&c->rng, 1, span->n);
        if (c->bench >= 0)
            span->keep = span->n * 3 / 10;
        span->kept_first = p->kept_rows + (c->bench < 0 ? parity_range(&c->rng, 0, 2) : 0);
        p->kept_rows = span->kept_first + span->keep;
    }
    snprintf(p->text, sizeof p->text, "%" PRId64 " spans, the first keeps %" PRId64 " of %" PRId64,
             p->n_spans, p->spans[0].keep, p->spans[0].n);
}

void parity_prune_spans_build(parity_case *c, parity_prune_spans *p, int64_t most_n,
                              int64_t bench_n)
{
    p->n_spans = c->bench < 0 ? parity_range(&c->rng, 1, 4) : 2;
    p->spans = parity_alloc(c, (size_t)p->n_spans, sizeof *p->spans);
    if (parity_chance(&c->rng, 12)) // several of the blocks in which backends work
        most_n *= 4;
    for (int64_t s = 0; s < p->n_spans; s++) {
        atedm_prune_span *span = &p->spans[s];
        span->first = p->rows + (c->bench < 0 ? parity_range(&c->rng, 0, 2) : 0);
        span->n = c->bench < 0 ? parity_range(&c->rng, 1, most_n) : bench_n;
        p->rows = span->first + span->n;
    }
    p->rows++;
    parity_prune_spans_draw_keep(c, p);
}

void parity_prune_spans_mark_kept(parity_case *c, const parity_prune_spans *p, parity_array *a)
{
    a->written = parity_alloc(c, a->count, sizeof *a->written);
    for (int64_t s = 0; s < p->n_spans; s++)
        for (int64_t i = 0; i < p->spans[s].keep; i++)
            a->written[p->spans[s].kept_first + i] = true;
}

void parity_prune_spans_mark_rows(parity_case *c, const parity_prune_spans *p, parity_array *a)
{
    a->written = parity_alloc(c, a->count, sizeof *a->written);
    for (int64_t s = 0; s < p->n_spans; s++)
        for (int64_t i = 0; i < p->spans[s].n; i++)
            a->written[p->spans[s].first + i] = true;
}

size_t parity_prune_spans_add_kept(parity_case *c, const parity_prune_spans *p)
{
    parity_array *kept = parity_add(c, "kept", PARITY_I32, PARITY_IN, (size_t)p->kept_rows);
    for (size_t i = 0; i < kept->count; i++)
        kept->ints[i] = INT32_MIN; // entries that belong to no span
    for (int64_t s = 0; s < p->n_spans; s++) {
        const atedm_prune_span *span = &p->spans[s];
        int64_t slot = 0; // all `keep`-subsets are equally likely (Knuth, algorithm 3.4.2S)
        for (int64_t i = 0; i < span->n; i++)
            if (parity_range(&c->rng, 0, span->n - i - 1) < span->keep - slot)
                kept->ints[span->kept_first + slot++] = (int32_t)i;
    }
    return c->n_arrays - 1;
}

uint64_t parity_prune_spans_pairs(const parity_prune_spans *p)
{
    uint64_t sum = 0;
    for (int64_t s = 0; s < p->n_spans; s++)
        sum += (uint64_t)((p->spans[s].n - p->spans[s].keep) * p->spans[s].keep);
    return sum;
}
