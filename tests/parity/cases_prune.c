// Cases of random scores, selection and gathering: operations on token lists, exact except for
// random scores with weights.
#include "tests/parity/prune_spans.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>

// ---- random scores

typedef struct random_params {
    atedm_random_span *spans;
    int64_t n_spans;
    bool weighted;
} random_params;

void parity_build_random_scores(parity_case *c)
{
    parity_prune_spans rows = {0};
    parity_prune_spans_build(c, &rows, parity_chance(&c->rng, 15) ? 3000 : 150, 4096);
    random_params *p = c->params = parity_alloc(c, 1, sizeof *p);
    p->n_spans = rows.n_spans;
    p->spans = parity_alloc(c, (size_t)p->n_spans, sizeof *p->spans);
    int64_t n_draws = parity_range(&c->rng, 1, 5);
    for (int64_t s = 0; s < p->n_spans; s++)
        p->spans[s] = (atedm_random_span){rows.spans[s].first, rows.spans[s].n,
                                          parity_range(&c->rng, 0, n_draws - 1),
                                          (uint64_t)parity_range(&c->rng, 0, 2047)};
    parity_array *draws = parity_add(c, "draws", PARITY_I32, PARITY_IN, 2 * (size_t)n_draws);
    draws->offset = 0; // halves of numbers of 64 bits
    bool edge = parity_chance(&c->rng, 20);
    for (size_t i = 0; i < draws->count; i++)
        draws->ints[i] = edge ? -(int32_t)(i / 2 % 2) : (int32_t)parity_random(&c->rng);
    parity_array *weights = parity_add(c, "weights", PARITY_F32, PARITY_IN, (size_t)rows.rows);
    p->weighted = c->bench >= 0 || parity_chance(&c->rng, 60);
    for (size_t i = 0; i < weights->count; i++) // like scores: few are large, some are zero
        weights->values[i] =
            parity_chance(&c->rng, 5) ? 0 : 1e-4F * expf(2 * parity_normal(&c->rng));
    parity_array *scores = parity_add(c, "scores", PARITY_F32, PARITY_OUT, (size_t)rows.rows);
    scores->exact = !p->weighted;
    parity_prune_spans_mark_rows(c, &rows, scores);
    c->n_parts = (size_t)p->n_spans;
    snprintf(c->text, sizeof c->text, "%s%s", rows.text, p->weighted ? ", weighted" : "");
}

void parity_run_random_scores(const parity_case *c, const parity_side *side, int64_t part)
{
    const random_params *p = c->params;
    atedm_random_scores(side->stream, side->data[0], p->weighted ? side->data[1] : NULL,
                        side->data[2], part < 0 ? p->spans : p->spans + part,
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

// ---- weights: how many tokens a kept one stands for

typedef struct weights_params {
    parity_prune_spans spans;
    bool before;
} weights_params;

void parity_build_source_weights(parity_case *c)
{
    weights_params *p = c->params = parity_alloc(c, 1, sizeof *p);
    parity_prune_spans_build(c, &p->spans, 150, 4096);
    p->before = c->bench < 0 && parity_chance(&c->rng, 50);
    parity_array *source = parity_add(c, "source", PARITY_I32, PARITY_IN, (size_t)p->spans.rows);
    parity_array *weights =
        parity_add(c, "weights", PARITY_F32, PARITY_OUT, (size_t)p->spans.kept_rows);
    parity_prune_spans_mark_kept(c, &p->spans, weights);
    for (size_t i = 0; i < source->count; i++)
        source->ints[i] = INT32_MIN; // rows that belong to no span
    for (int64_t s = 0; s < p->spans.n_spans; s++) {
        const atedm_prune_span *span = &p->spans.spans[s];
        for (int64_t i = 0; i < span->n; i++) // every slot has a token, the rest any slot or none
            source->ints[span->first + i] = i < span->keep ? (int32_t)i
                                            : parity_chance(&c->rng, 10)
                                                ? -1
                                                : (int32_t)parity_range(&c->rng, 0, span->keep - 1);
    }
    if (p->before) {
        parity_array *before = parity_add(c, "before", PARITY_F32, PARITY_IN, source->count);
        for (size_t i = 0; i < before->count; i++)
            before->values[i] =
                source->ints[i] == INT32_MIN ? NAN : logf((float)parity_range(&c->rng, 1, 60));
    }
    weights->magnitude = parity_alloc(c, weights->count, sizeof *weights->magnitude);
    for (size_t i = 0; i < weights->count; i++)
        weights->magnitude[i] = 100; // an error relative to the sum is absolute in its logarithm
    c->n_parts = (size_t)p->spans.n_spans;
    snprintf(c->text, sizeof c->text, "%s, before %d", p->spans.text, p->before);
}

void parity_run_source_weights(const parity_case *c, const parity_side *side, int64_t part)
{
    const weights_params *p = c->params;
    atedm_source_weights(side->stream, side->data[0], p->before ? side->data[2] : NULL,
                         side->data[1], part < 0 ? p->spans.spans : p->spans.spans + part,
                         part < 0 ? p->spans.n_spans : 1);
}

// ---- gather, and add

typedef struct gather_params {
    int64_t row; // elements
    float factor;
    atedm_gather_span *spans;
    int64_t n_spans;
} gather_params;

// Spans with gaps. Returns the numbers of rows of x, y and the index list.
static void random_gather(parity_case *c, gather_params *p, int64_t *ret_x_rows,
                          int64_t *ret_y_rows, int64_t *ret_entries)
{
    p->n_spans = c->bench < 0 ? parity_range(&c->rng, 1, 4) : 2;
    p->row = c->bench < 0 ? parity_range(&c->rng, 1, parity_chance(&c->rng, 12) ? 1500 : 90) : 1280;
    p->spans = parity_alloc(c, (size_t)p->n_spans, sizeof *p->spans);
    *ret_x_rows = *ret_y_rows = *ret_entries = 0;
    for (int64_t s = 0; s < p->n_spans; s++) {
        p->spans[s] =
            (atedm_gather_span){.from = *ret_x_rows + parity_range(&c->rng, 0, 2),
                                .index_first = *ret_entries + parity_range(&c->rng, 0, 2),
                                .to = *ret_y_rows + parity_range(&c->rng, 0, 2),
                                .n = c->bench < 0 ? parity_range(&c->rng, s ? 0 : 1, 80) : 1024};
        *ret_x_rows = p->spans[s].from + (c->bench < 0 ? parity_range(&c->rng, 1, 60) : 1024);
        *ret_entries = p->spans[s].index_first + p->spans[s].n;
        *ret_y_rows = p->spans[s].to + p->spans[s].n;
    }
    ++*ret_entries;
    ++*ret_y_rows;
}

// Adds the array "index": each span's entries name rows of its part of x, which has `x_rows` rows
// in all.
static const int32_t *add_index(parity_case *c, const gather_params *p, int64_t entries,
                                int64_t x_rows)
{
    parity_array *index = parity_add(c, "index", PARITY_I32, PARITY_IN, (size_t)entries);
    for (size_t i = 0; i < index->count; i++)
        index->ints[i] = INT32_MIN; // entries that belong to no span
    for (int64_t s = 0; s < p->n_spans; s++) {
        int64_t rows = (s + 1 < p->n_spans ? p->spans[s + 1].from : x_rows) - p->spans[s].from;
        for (int64_t i = 0; i < p->spans[s].n; i++)
            index->ints[p->spans[s].index_first + i] =
                parity_chance(&c->rng, 10) ? -1 : (int32_t)parity_range(&c->rng, 0, rows - 1);
    }
    return index->ints;
}

static void mark_rows(parity_case *c, const gather_params *p, parity_array *y)
{
    y->written = parity_alloc(c, y->count, sizeof *y->written);
    for (int64_t s = 0; s < p->n_spans; s++)
        for (int64_t i = p->spans[s].to * p->row; i < (p->spans[s].to + p->spans[s].n) * p->row;
             i++)
            y->written[i] = true;
}

void parity_build_gather_rows(parity_case *c)
{
    static const parity_type types[] = {PARITY_ACT, PARITY_ACT, PARITY_F32, PARITY_I32};
    gather_params *p = c->params = parity_alloc(c, 1, sizeof *p);
    parity_type type = c->bench < 0 ? types[parity_range(&c->rng, 0, 3)] : PARITY_ACT;
    int64_t x_rows, y_rows, entries;
    random_gather(c, p, &x_rows, &y_rows, &entries);
    parity_array *x = parity_add(c, "x", type, PARITY_IN, (size_t)(x_rows * p->row));
    if (type == PARITY_I32)
        for (size_t i = 0; i < x->count; i++)
            x->ints[i] = (int32_t)parity_range(&c->rng, -1000000, 1000000);
    else
        parity_fill(c, x, 0, 1);
    add_index(c, p, entries, x_rows);
    mark_rows(c, p, parity_add(c, "y", type, PARITY_OUT, (size_t)(y_rows * p->row)));
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

void parity_build_add_rows(parity_case *c)
{
    static const float factors[] = {1, -1, 0.37f};
    gather_params *p = c->params = parity_alloc(c, 1, sizeof *p);
    int64_t x_rows, y_rows, entries;
    random_gather(c, p, &x_rows, &y_rows, &entries);
    p->factor = factors[parity_range(&c->rng, 0, 2)];
    parity_array *x = parity_add(c, "x", PARITY_ACT, PARITY_IN, (size_t)(x_rows * p->row));
    parity_fill(c, x, 0, 1);
    const int32_t *index = add_index(c, p, entries, x_rows);
    parity_array *y = parity_add(c, "y", PARITY_ACT, PARITY_INOUT, (size_t)(y_rows * p->row));
    parity_fill(c, y, 0, 1);
    mark_rows(c, p, y);
    y->magnitude = parity_alloc(c, y->count, sizeof *y->magnitude);
    for (int64_t s = 0; s < p->n_spans; s++)
        for (int64_t i = 0; i < p->spans[s].n * p->row; i++) {
            int32_t from = index[p->spans[s].index_first + i / p->row];
            int64_t to = p->spans[s].to * p->row + i;
            y->magnitude[to] = fabs((double)y->values[to]);
            if (from >= 0)
                y->magnitude[to] +=
                    fabs((double)p->factor *
                         (double)x->values[(p->spans[s].from + from) * p->row + i % p->row]);
        }
    c->n_parts = (size_t)p->n_spans;
    snprintf(c->text, sizeof c->text, "%" PRId64 " spans, rows of %" PRId64 ", factor %g",
             p->n_spans, p->row, (double)p->factor);
}

void parity_run_add_rows(const parity_case *c, const parity_side *side, int64_t part)
{
    const gather_params *p = c->params;
    atedm_add_rows(side->stream, side->data[0], side->data[1], p->factor, side->data[2], p->row,
                   part < 0 ? p->spans : p->spans + part, part < 0 ? p->n_spans : 1);
}
