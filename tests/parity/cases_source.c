// Cases of the search for source tokens, from which pruned tokens take their value.
#include "tests/parity/prune_spans.h"
#include "tests/parity/tokens.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

typedef struct source_params {
    parity_prune_spans spans;
    parity_tokens tokens; // attention
    size_t kept, source;  // arrays
    size_t lse, x, place; // arrays that the operation takes
    int64_t lse_stride, c, width;
} source_params;

static void add_source(parity_case *c, source_params *p)
{
    p->kept = parity_prune_spans_add_kept(c, &p->spans);
    p->source = c->n_arrays;
    parity_array *source = parity_add(c, "source", PARITY_I32, PARITY_OUT, (size_t)p->spans.rows);
    parity_prune_spans_mark_rows(c, &p->spans, source);
    c->n_parts = (size_t)p->spans.n_spans;
}

static atedm_source_args source_args(const parity_case *c, const parity_side *side, int64_t part)
{
    const source_params *p = c->params;
    return (atedm_source_args){.kept = side->data[p->kept],
                               .source = side->data[p->source],
                               .spans = part < 0 ? p->spans.spans : p->spans.spans + part,
                               .n_spans = part < 0 ? p->spans.n_spans : 1};
}

// ---- checking choices that rounding may decide

typedef double (*similarity_function)(const parity_case *c, int64_t row, int64_t kept_row,
                                      double *ret_error);
// Whether two kept rows are the same to the bit, so that their similarities are too.
typedef bool (*twin_function)(const parity_case *c, int64_t row, int64_t other);

// Checks the candidate's slot for pruned token `row`. It must be the best up to rounding errors.
// Whatever those errors are, no lower slot may hold a twin of its row. If any similarity is NaN,
// every slot is right.
static bool check_choice(const parity_case *c, const atedm_prune_span *span, int64_t row,
                         int64_t slot, similarity_function similarity, twin_function twins,
                         char *why, size_t size)
{
    const source_params *p = c->params;
    const int32_t *kept = c->arrays[p->kept].ints + span->kept_first;
    double error, other_error, got = similarity(c, row, span->first + kept[slot], &error);
    for (int64_t j = 0; j < span->keep; j++) {
        double other = similarity(c, row, span->first + kept[j], &other_error);
        if (isnan(other) || isnan(got))
            return true;
        if (other - got > error + other_error) {
            snprintf(why, size,
                     "row %" PRId64 " takes slot %" PRId64 " of similarity %.9g, but slot %" PRId64
                     " has %.9g",
                     row, slot, got, j, other);
            return false;
        }
        if (j < slot && twins(c, span->first + kept[j], span->first + kept[slot])) {
            snprintf(why, size,
                     "row %" PRId64 " takes slot %" PRId64 ", but slot %" PRId64
                     " has the same row",
                     row, slot, j);
            return false;
        }
    }
    return true;
}

static bool check_span(const parity_case *c, const atedm_prune_span *span,
                       const parity_side *reference, const parity_side *candidate,
                       similarity_function similarity, twin_function twins, char *why, size_t size)
{
    const source_params *p = c->params;
    const int32_t *kept = c->arrays[p->kept].ints + span->kept_first;
    int64_t next = 0; // slot of the kept list
    for (int64_t i = 0; i < span->n; i++) {
        int64_t row = span->first + i;
        bool is_kept = next < span->keep && kept[next] == i;
        next += is_kept;
        double right = parity_value(reference, c, p->source, (size_t)row);
        double slot = parity_value(candidate, c, p->source, (size_t)row);
        if (slot == right)
            continue;
        if (is_kept || !(slot >= 0 && slot < (double)span->keep)) {
            snprintf(why, size, "source of row %" PRId64 " is %g, should be %g", row, slot, right);
            return false;
        }
        if (!check_choice(c, span, row, (int64_t)slot, similarity, twins, why, size))
            return false;
    }
    return true;
}

static bool check_spans(const parity_case *c, const parity_side *reference,
                        const parity_side *candidate, similarity_function similarity,
                        twin_function twins, char *why, size_t size)
{
    const source_params *p = c->params;
    for (int64_t s = 0; s < p->spans.n_spans; s++)
        if (!check_span(c, &p->spans.spans[s], reference, candidate, similarity, twins, why, size))
            return false;
    return true;
}

// ---- attention

// Copies some rows of keys over others of their span, so that similarities tie.
static void make_twins(parity_case *c, const parity_operand *operand, int64_t width,
                       const parity_prune_spans *spans)
{
    for (int64_t s = 0; s < spans->n_spans; s++)
        for (int64_t i = 0; i < spans->spans[s].n / 2; i++) {
            const atedm_prune_span *span = &spans->spans[s];
            int64_t from = span->first + parity_range(&c->rng, 0, span->n - 1);
            int64_t to = span->first + parity_range(&c->rng, 0, span->n - 1);
            float *values = c->arrays[operand->array].values + operand->column;
            memmove(values + to * operand->stride, values + from * operand->stride,
                    (size_t)width * sizeof *values);
        }
}

void parity_build_source_attention(parity_case *c)
{
    static const int64_t bench[][2] = {{1024, 20}, {4096, 10}};
    source_params *p = c->params = parity_alloc(c, 1, sizeof *p);
    parity_tokens *t = &p->tokens;
    parity_tokens_wish wish = {.self = true, .most_nq = 90};
    if (c->bench >= 0)
        wish = (parity_tokens_wish){.self = true,
                                    .bench_spans = 2,
                                    .bench_nq = bench[c->bench][0],
                                    .bench_nk = bench[c->bench][0],
                                    .bench_heads = (int)bench[c->bench][1],
                                    .bench_head_dim = 64};
    parity_tokens_build(c, t, &wish);
    p->spans.n_spans = t->n_spans;
    p->spans.spans = parity_alloc(c, (size_t)t->n_spans, sizeof *p->spans.spans);
    for (int64_t s = 0; s < t->n_spans; s++)
        p->spans.spans[s] = (atedm_prune_span){.first = t->spans[s].q0, .n = t->spans[s].nq};
    p->spans.rows = t->q_rows;
    parity_prune_spans_draw_keep(c, &p->spans);
    bool twins = c->bench < 0 && parity_chance(&c->rng, 40);
    if (twins)
        make_twins(c, &t->k, (int64_t)t->heads * t->head_dim, &p->spans);
    if (c->bench < 0 && parity_chance(&c->rng, 10)) // a model that overflowed
        c->arrays[t->q.array].values[p->spans.spans[0].first * t->q.stride + t->q.column] = NAN;
    p->lse = parity_tokens_add_lse(c, t, &p->lse_stride);
    add_source(c, p);
    c->counts.overhead =
        parity_prune_spans_pairs(&p->spans) * (uint64_t)t->heads * (uint64_t)t->head_dim;
    c->bench_flops = 2 * (double)c->counts.overhead;
    snprintf(c->text, sizeof c->text, "%s, %d heads of %d, twins %d", p->spans.text, t->heads,
             t->head_dim, twins);
}

void parity_run_source_attention(const parity_case *c, const parity_side *side, int64_t part)
{
    const source_params *p = c->params;
    atedm_source_args args = source_args(c, side, part);
    atedm_source_map map = {.q = parity_tokens_at(c, side, &p->tokens.q),
                            .k = parity_tokens_at(c, side, &p->tokens.k),
                            .q_stride = p->tokens.q.stride,
                            .k_stride = p->tokens.k.stride,
                            .lse = side->data[p->lse],
                            .lse_stride = p->lse_stride,
                            .heads = p->tokens.heads,
                            .head_dim = p->tokens.head_dim};
    atedm_source_attention(side->stream, &args, &map);
}

// Mean over heads of A(row, kept_row). A's relative error is the absolute one of its logit.
static double map_similarity(const parity_case *c, int64_t row, int64_t kept_row, double *ret_error)
{
    const source_params *p = c->params;
    double sum = 0, error = 0, absolute;
    for (int head = 0; head < p->tokens.heads; head++) {
        double lse = (double)c->arrays[p->lse].values[head * p->lse_stride + row];
        double a = exp(parity_tokens_logit(c, &p->tokens, head, row, kept_row, &absolute) - lse);
        sum += a;
        error += a * (1 + absolute + fabs(lse));
    }
    *ret_error = c->op->bound.accumulate * 0x1p-24 * error / p->tokens.heads + 0x1p-126;
    return sum / p->tokens.heads;
}

static bool map_twins(const parity_case *c, int64_t row, int64_t other)
{
    const source_params *p = c->params;
    const parity_operand *k = &p->tokens.k;
    const float *values = c->arrays[k->array].values + k->column;
    size_t width = (size_t)p->tokens.heads * (size_t)p->tokens.head_dim;
    return !memcmp(values + row * k->stride, values + other * k->stride, width * sizeof *values);
}

bool parity_check_source_attention(const parity_case *c, const parity_side *reference,
                                   const parity_side *candidate, char *why, size_t size)
{
    return check_spans(c, reference, candidate, map_similarity, map_twins, why, size);
}

// ---- cosine

void parity_build_source_cosine(parity_case *c)
{
    source_params *p = c->params = parity_alloc(c, 1, sizeof *p);
    parity_prune_spans_build(c, &p->spans, 90, 1024);
    bool whole = parity_chance(&c->rng, 50); // tiles of 64 channels, which cuda has a kernel for
    p->c = whole ? 64 * parity_range(&c->rng, 1, 6) : parity_range(&c->rng, 1, 120);
    if (c->bench >= 0)
        p->c = 1280;
    p->x = c->n_arrays;
    parity_array *x = parity_add(c, "x", PARITY_ACT, PARITY_IN, (size_t)(p->spans.rows * p->c));
    parity_fill(c, x, 0, 1);
    bool twins = c->bench < 0 && parity_chance(&c->rng, 40);
    if (twins) {
        parity_operand rows = {p->x, 0, p->c};
        make_twins(c, &rows, p->c, &p->spans);
    }
    int64_t row = p->spans.spans[0].first;
    if (parity_chance(&c->rng, 30)) // a row of zeros
        memset(x->values + row * p->c, 0, (size_t)p->c * sizeof *x->values);
    if (parity_chance(&c->rng, 10)) // a model that overflowed
        x->values[row * p->c] = NAN;
    add_source(c, p);
    c->counts.overhead = parity_prune_spans_pairs(&p->spans) * (uint64_t)p->c;
    c->bench_flops = 2 * (double)c->counts.overhead;
    snprintf(c->text, sizeof c->text, "%s, c %" PRId64 ", twins %d", p->spans.text, p->c, twins);
}

void parity_run_source_cosine(const parity_case *c, const parity_side *side, int64_t part)
{
    const source_params *p = c->params;
    atedm_source_args args = source_args(c, side, part);
    atedm_source_cosine(side->stream, &args, side->data[p->x], p->c);
}

static double cosine_similarity(const parity_case *c, int64_t row, int64_t kept_row,
                                double *ret_error)
{
    const source_params *p = c->params;
    const float *a = c->arrays[p->x].values + row * p->c;
    const float *b = c->arrays[p->x].values + kept_row * p->c;
    double ab = 0, aa = 0, bb = 0, absolute = 0;
    for (int64_t i = 0; i < p->c; i++) {
        ab += (double)a[i] * (double)b[i];
        absolute += fabs((double)a[i] * (double)b[i]);
        aa += (double)a[i] * (double)a[i];
        bb += (double)b[i] * (double)b[i];
    }
    double norms = sqrt(aa) * sqrt(bb);
    double roundings = c->op->bound.accumulate + (double)p->c / 64; // sums of 64, added up
    *ret_error = norms == 0 ? 0 : roundings * 0x1p-24 * absolute / norms;
    return norms == 0 ? 0 : ab / norms;
}

static bool cosine_twins(const parity_case *c, int64_t row, int64_t other)
{
    const source_params *p = c->params;
    const float *x = c->arrays[p->x].values;
    return !memcmp(x + row * p->c, x + other * p->c, (size_t)p->c * sizeof *x);
}

bool parity_check_source_cosine(const parity_case *c, const parity_side *reference,
                                const parity_side *candidate, char *why, size_t size)
{
    return check_spans(c, reference, candidate, cosine_similarity, cosine_twins, why, size);
}

// ---- nearest, zero

void parity_build_source_nearest(parity_case *c)
{
    source_params *p = c->params = parity_alloc(c, 1, sizeof *p);
    parity_prune_spans_build(c, &p->spans, parity_chance(&c->rng, 15) ? 900 : 120, 1024);
    p->width = c->bench < 0 ? parity_range(&c->rng, 1, 40) : 32;
    p->place = c->n_arrays;
    parity_array *place = parity_add(c, "place", PARITY_I32, PARITY_IN, (size_t)p->spans.rows);
    for (int64_t s = 0; s < p->spans.n_spans; s++) { // a grid that has lost tokens earlier
        int32_t at = 0;
        for (int64_t i = 0; i < p->spans.spans[s].n; i++) {
            at += (int32_t)parity_range(&c->rng, 0, 2);
            place->ints[p->spans.spans[s].first + i] = at++;
        }
    }
    add_source(c, p);
    snprintf(c->text, sizeof c->text, "%s, grid width %" PRId64, p->spans.text, p->width);
}

void parity_run_source_nearest(const parity_case *c, const parity_side *side, int64_t part)
{
    const source_params *p = c->params;
    atedm_source_args args = source_args(c, side, part);
    atedm_source_nearest(side->stream, &args, side->data[p->place], p->width);
}

void parity_build_source_zero(parity_case *c)
{
    source_params *p = c->params = parity_alloc(c, 1, sizeof *p);
    parity_prune_spans_build(c, &p->spans, 150, 1024);
    add_source(c, p);
    snprintf(c->text, sizeof c->text, "%s", p->spans.text);
}

void parity_run_source_zero(const parity_case *c, const parity_side *side, int64_t part)
{
    atedm_source_args args = source_args(c, side, part);
    atedm_source_zero(side->stream, &args);
}
