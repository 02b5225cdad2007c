// Cases of random scores, selection and gathering: exact operations on token lists.
#include "tests/parity/prune_spans.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>

// ---- random scores

typedef struct random_params {
    atedm_random_span *spans;
    int64_t n_spans;
} random_params;

void parity_build_random_scores(parity_case *c)
{
    parity_prune_spans rows = {0};
    parity_prune_spans_build(c, &rows, parity_chance(&c->rng, 15) ? 3000 : 150, 4096);
    random_params *p = c->params = parity_alloc(c, 1, sizeof *p);
    p->n_spans = rows.n_spans;
    p->spans = parity_alloc(c, (size_t)p->n_spans, sizeof *p->spans);
    for (int64_t s = 0; s < p->n_spans; s++)
        p->spans[s] = (atedm_random_span){rows.spans[s].first, rows.spans[s].n,
                                          parity_chance(&c->rng, 20)
                                              ? UINT64_MAX * (uint64_t)parity_range(&c->rng, 0, 1)
                                              : parity_random(&c->rng)};
    parity_array *scores = parity_add(c, "scores", PARITY_F32, PARITY_OUT, (size_t)rows.rows);
    parity_prune_spans_mark_rows(c, &rows, scores);
    c->n_parts = (size_t)p->n_spans;
    snprintf(c->text, sizeof c->text, "%s", rows.text);
}

void parity_run_random_scores(const parity_case *c, const parity_side *side, int64_t part)
{
    const random_params *p = c->params;
    atedm_random_scores(side->stream, side->data[0], part < 0 ? p->spans : p->spans + part,
                        part < 0 ? p->n_spans : 1);
}

// ---- select

void parity_build_select_tokens(parity_case *c)
{
    parity_prune_spans *p = c->params = parity_alloc(c, 1, sizeof *p);
    parity_prune_spans_build(c, p, parity_chance(&c->rng, 15) ? 3000 : 150, 4096);
    parity_array *scores = parity_add(c, "scores", PARITY_F32, PARITY_IN, (size_t)p->rows);
    bool ties = parity_chance(&c->rng, 50), broken = parity_chance(&c->rng, 10);
    for (size_t i = 0; i < scores->count; i++)
        scores->values[i] = NAN;
    for (int64_t s = 0; s < p->n_spans; s++)
        for (int64_t i = 0; i < p->spans[s].n; i++) {
            float *score = &scores->values[p->spans[s].first + i];
            *score = ties ? (float)parity_range(&c->rng, -3, 5) : parity_normal(&c->rng);
            if (*score == 0 && parity_chance(&c->rng, 50))
                *score = -0.0f;                       // equal to 0
            if (broken && parity_chance(&c->rng, 30)) // a model that overflowed
                *score = NAN;
        }
    parity_array *kept = parity_add(c, "kept", PARITY_I32, PARITY_OUT, (size_t)p->kept_rows);
    parity_prune_spans_mark_kept(c, p, kept);
    c->n_parts = (size_t)p->n_spans;
    snprintf(c->text, sizeof c->text, "%s, ties %d, NaN %d", p->text, ties, broken);
}

void parity_run_select_tokens(const parity_case *c, const parity_side *side, int64_t part)
{
    const parity_prune_spans *p = c->params;
    atedm_select_tokens(side->stream, side->data[0], side->data[1],
                        part < 0 ? p->spans : p->spans + part, part < 0 ? p->n_spans : 1);
}

// ---- gather

typedef struct gather_params {
    int64_t row; // elements
    atedm_gather_span *spans;
    int64_t n_spans;
} gather_params;

void parity_build_gather_rows(parity_case *c)
{
    static const parity_type types[] = {PARITY_ACT, PARITY_ACT, PARITY_F32, PARITY_I32};
    gather_params *p = c->params = parity_alloc(c, 1, sizeof *p);
    parity_type type = c->bench < 0 ? types[parity_range(&c->rng, 0, 3)] : PARITY_ACT;
    p->n_spans = c->bench < 0 ? parity_range(&c->rng, 1, 4) : 2;
    p->row = c->bench < 0 ? parity_range(&c->rng, 1, parity_chance(&c->rng, 12) ? 1500 : 90) : 1280;
    p->spans = parity_alloc(c, (size_t)p->n_spans, sizeof *p->spans);
    int64_t rows[4], x_rows = 0, y_rows = 0, entries = 0;
    for (int64_t s = 0; s < p->n_spans; s++) {
        rows[s] = c->bench < 0 ? parity_range(&c->rng, 1, 60) : 1024;
        p->spans[s] =
            (atedm_gather_span){.from = x_rows + parity_range(&c->rng, 0, 2),
                                .index_first = entries + parity_range(&c->rng, 0, 2),
                                .to = y_rows + parity_range(&c->rng, 0, 2),
                                .n = c->bench < 0 ? parity_range(&c->rng, s ? 0 : 1, 80) : 1024};
        x_rows = p->spans[s].from + rows[s];
        entries = p->spans[s].index_first + p->spans[s].n;
        y_rows = p->spans[s].to + p->spans[s].n;
    }
    parity_array *x = parity_add(c, "x", type, PARITY_IN, (size_t)(x_rows * p->row));
    if (type == PARITY_I32)
        for (size_t i = 0; i < x->count; i++)
            x->ints[i] = (int32_t)parity_range(&c->rng, -1000000, 1000000);
    else
        parity_fill(c, x, 0, 1);
    parity_array *index = parity_add(c, "index", PARITY_I32, PARITY_IN, (size_t)entries + 1);
    parity_array *y = parity_add(c, "y", type, PARITY_OUT, (size_t)((y_rows + 1) * p->row));
    y->written = parity_alloc(c, y->count, sizeof *y->written);
    for (size_t i = 0; i < index->count; i++)
        index->ints[i] = INT32_MIN; // entries that belong to no span
    for (int64_t s = 0; s < p->n_spans; s++)
        for (int64_t i = 0; i < p->spans[s].n; i++) {
            index->ints[p->spans[s].index_first + i] =
                parity_chance(&c->rng, 10) ? -1 : (int32_t)parity_range(&c->rng, 0, rows[s] - 1);
            for (int64_t j = 0; j < p->row; j++)
                y->written[(p->spans[s].to + i) * p->row + j] = true;
        }
    c->n_parts = (size_t)p->n_spans;
    snprintf(c->text, sizeof c->text, "%" PRId64 " spans, rows of %" PRId64 " elements of type %d",
             p->n_spans, p->row, type);
}

void parity_run_gather_rows(const parity_case *c, const parity_side *side, int64_t part)
{
    const gather_params *p = c->params;
    atedm_gather_rows(side->stream, side->data[0], side->data[1], side->data[2],
                      (size_t)p->row * parity_element_size(c->arrays[0].type, side->act),
                      part < 0 ? p->spans : p->spans + part, part < 0 ? p->n_spans : 1);
}
