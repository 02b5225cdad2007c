// Cases of element-wise operations, data movement and embeddings.
#include "tests/parity/parity.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>

// Sometimes more than backends give to one thread.
static bool is_large(parity_case *c)
{
    return parity_chance(&c->rng, 12);
}

static int64_t random_count(parity_case *c)
{
    if (is_large(c))
        return parity_range(&c->rng, 30000, 100000);
    return parity_range(&c->rng, 1, parity_chance(&c->rng, 50) ? 70 : 6000);
}

// ---- geglu

typedef struct rows_params {
    int64_t rows, columns, other;
    int64_t *bounds;
} rows_params;

void parity_build_geglu(parity_case *c)
{
    static const int64_t bench[][2] = {{2048, 5120}, {8192, 2560}};
    rows_params *p = c->params = parity_alloc(c, 1, sizeof *p);
    p->rows = c->bench < 0 ? parity_range(&c->rng, 1, 60) : bench[c->bench][0];
    p->columns =
        c->bench < 0 ? parity_range(&c->rng, 1, is_large(c) ? 3000 : 200) : bench[c->bench][1];
    parity_array *x = parity_add(c, "x", PARITY_ACT, PARITY_IN, (size_t)(p->rows * 2 * p->columns));
    parity_array *y = parity_add(c, "y", PARITY_ACT, PARITY_OUT, (size_t)(p->rows * p->columns));
    parity_fill(c, x, 0, 3);
    y->magnitude = parity_alloc(c, y->count, sizeof *y->magnitude);
    for (int64_t r = 0; r < p->rows; r++)
        for (int64_t j = 0; j < p->columns; j++) {
            const float *row = x->values + r * 2 * p->columns;
            y->magnitude[r * p->columns + j] =
                fabs((double)row[j]) * fabs((double)row[p->columns + j]);
        }
    p->bounds = parity_partition(c, p->rows);
    snprintf(c->text, sizeof c->text, "rows %" PRId64 ", f %" PRId64, p->rows, p->columns);
}

void parity_run_geglu(const parity_case *c, const parity_side *side, int64_t part)
{
    const rows_params *p = c->params;
    int64_t first = part < 0 ? 0 : p->bounds[part];
    atedm_geglu(side->stream, parity_at(side, c, 0, first * 2 * p->columns),
                parity_at(side, c, 1, first * p->columns),
                part < 0 ? p->rows : p->bounds[part + 1] - first, p->columns);
}

// ---- activate, add

typedef struct count_params {
    int64_t count;
    atedm_activation activation;
    size_t a, b, y; // arrays; y may be one of the others
    int64_t *bounds;
} count_params;

void parity_build_activate(parity_case *c)
{
    count_params *p = c->params = parity_alloc(c, 1, sizeof *p);
    p->count = c->bench < 0 ? random_count(c) : 1 << 22;
    p->activation = (atedm_activation)parity_range(&c->rng, ATEDM_ACT_NONE, ATEDM_ACT_QUICK_GELU);
    bool in_place = parity_chance(&c->rng, 40);
    parity_array *x =
        parity_add(c, "x", PARITY_ACT, in_place ? PARITY_INOUT : PARITY_IN, (size_t)p->count);
    parity_fill(c, x, 0, parity_chance(&c->rng, 80) ? 3 : 40);
    if (!in_place)
        parity_add(c, "y", PARITY_ACT, PARITY_OUT, (size_t)p->count);
    p->y = in_place ? 0 : 1;
    parity_array *y = &c->arrays[p->y];
    y->magnitude = parity_alloc(c, y->count, sizeof *y->magnitude);
    for (size_t i = 0; i < y->count; i++)
        y->magnitude[i] = fabs((double)x->values[i]);
    p->bounds = parity_partition(c, p->count);
    snprintf(c->text, sizeof c->text, "count %" PRId64 ", activation %d, in place %d", p->count,
             p->activation, in_place);
}

void parity_run_activate(const parity_case *c, const parity_side *side, int64_t part)
{
    const count_params *p = c->params;
    int64_t first = part < 0 ? 0 : p->bounds[part];
    atedm_activate(side->stream, p->activation, parity_at(side, c, 0, first),
                   parity_at(side, c, p->y, first),
                   part < 0 ? p->count : p->bounds[part + 1] - first);
}

void parity_build_add(parity_case *c)
{
    count_params *p = c->params = parity_alloc(c, 1, sizeof *p);
    p->count = c->bench < 0 ? random_count(c) : 1 << 22;
    p->a = 0;
    p->b = 1;
    p->y = c->bench < 0 ? (size_t)parity_range(&c->rng, 0, 2) : 2;
    for (size_t i = 0; i < 2; i++)
        parity_fill(c,
                    parity_add(c, i ? "b" : "a", PARITY_ACT, p->y == i ? PARITY_INOUT : PARITY_IN,
                               (size_t)p->count),
                    0, 2);
    if (p->y == 2)
        parity_add(c, "y", PARITY_ACT, PARITY_OUT, (size_t)p->count);
    parity_array *y = &c->arrays[p->y];
    y->magnitude = parity_alloc(c, y->count, sizeof *y->magnitude);
    for (size_t i = 0; i < y->count; i++)
        y->magnitude[i] =
            fabs((double)c->arrays[0].values[i]) + fabs((double)c->arrays[1].values[i]);
    p->bounds = parity_partition(c, p->count);
    snprintf(c->text, sizeof c->text, "count %" PRId64 ", y is array %zu", p->count, p->y);
}

void parity_run_add(const parity_case *c, const parity_side *side, int64_t part)
{
    const count_params *p = c->params;
    int64_t first = part < 0 ? 0 : p->bounds[part];
    atedm_add(side->stream, parity_at(side, c, p->a, first), parity_at(side, c, p->b, first),
              parity_at(side, c, p->y, first), part < 0 ? p->count : p->bounds[part + 1] - first);
}

// ---- upsample2, concat

typedef struct upsample_params {
    int64_t n, h, w, c; // of y
} upsample_params;

void parity_build_upsample2(parity_case *c)
{
    upsample_params *p = c->params = parity_alloc(c, 1, sizeof *p);
    *p = (upsample_params){parity_range(&c->rng, 1, 3), parity_range(&c->rng, 1, 12),
                           parity_range(&c->rng, 1, 12),
                           parity_range(&c->rng, 1, is_large(c) ? 900 : 70)};
    if (c->bench >= 0)
        *p = (upsample_params){2, 128, 128, 640};
    int64_t hx = (p->h + 1) / 2, wx = (p->w + 1) / 2;
    parity_fill(c, parity_add(c, "x", PARITY_ACT, PARITY_IN, (size_t)(p->n * hx * wx * p->c)), 0,
                1);
    parity_add(c, "y", PARITY_ACT, PARITY_OUT, (size_t)(p->n * p->h * p->w * p->c));
    c->n_parts = (size_t)p->n;
    snprintf(c->text, sizeof c->text, "n %" PRId64 ", to %" PRId64 "x%" PRId64 ", c %" PRId64, p->n,
             p->h, p->w, p->c);
}

void parity_run_upsample2(const parity_case *c, const parity_side *side, int64_t part)
{
    const upsample_params *p = c->params;
    int64_t first = part < 0 ? 0 : part;
    int64_t x_size = (p->h + 1) / 2 * ((p->w + 1) / 2) * p->c, y_size = p->h * p->w * p->c;
    atedm_upsample2(side->stream, parity_at(side, c, 0, first * x_size),
                    parity_at(side, c, 1, first * y_size), part < 0 ? p->n : 1, p->h, p->w, p->c);
}

void parity_build_concat(parity_case *c)
{
    rows_params *p = c->params = parity_alloc(c, 1, sizeof *p);
    p->rows = c->bench < 0 ? parity_range(&c->rng, 1, 50) : 8192;
    p->columns = c->bench < 0 ? parity_range(&c->rng, 1, is_large(c) ? 3000 : 90) : 640;
    p->other = c->bench < 0 ? parity_range(&c->rng, 1, 90) : 640;
    parity_fill(c, parity_add(c, "a", PARITY_ACT, PARITY_IN, (size_t)(p->rows * p->columns)), 0, 1);
    parity_fill(c, parity_add(c, "b", PARITY_ACT, PARITY_IN, (size_t)(p->rows * p->other)), 0, 1);
    parity_add(c, "y", PARITY_ACT, PARITY_OUT, (size_t)(p->rows * (p->columns + p->other)));
    p->bounds = parity_partition(c, p->rows);
    snprintf(c->text, sizeof c->text, "rows %" PRId64 ", ca %" PRId64 ", cb %" PRId64, p->rows,
             p->columns, p->other);
}

void parity_run_concat(const parity_case *c, const parity_side *side, int64_t part)
{
    const rows_params *p = c->params;
    int64_t first = part < 0 ? 0 : p->bounds[part];
    atedm_concat(side->stream, parity_at(side, c, 0, first * p->columns), p->columns,
                 parity_at(side, c, 1, first * p->other), p->other,
                 parity_at(side, c, 2, first * (p->columns + p->other)),
                 part < 0 ? p->rows : p->bounds[part + 1] - first);
}

// ---- embeddings

typedef struct embed_params {
    int64_t samples, tokens, c;
    int64_t *ids;
} embed_params;

void parity_build_embed_tokens(parity_case *c)
{
    embed_params *p = c->params = parity_alloc(c, 1, sizeof *p);
    p->samples = parity_range(&c->rng, 1, 3);
    p->tokens = c->bench < 0 ? parity_range(&c->rng, 1, 20) : 77;
    p->c = c->bench < 0 ? parity_range(&c->rng, 1, 130) : 1280;
    int64_t entries[2] = {parity_range(&c->rng, 1, 60), p->tokens + parity_range(&c->rng, 0, 5)};
    for (int i = 0; i < 2; i++) {
        int64_t shape[2] = {entries[i], p->c};
        c->weights[c->n_weights++] = (parity_weight){
            .kind = PARITY_TABLE, .n_parts = 1, .matrix = {parity_tensor(c, 2, shape, 0, 1)}};
    }
    int64_t rows = p->samples * p->tokens;
    p->ids = parity_alloc(c, (size_t)rows, sizeof *p->ids);
    for (int64_t i = 0; i < rows; i++)
        p->ids[i] = parity_range(&c->rng, 0, entries[0] - 1);
    parity_add(c, "y", PARITY_ACT, PARITY_OUT, (size_t)(rows * p->c));
    c->by_absolute = true; // |table| + |position|
    c->n_parts = (size_t)p->samples;
    snprintf(c->text, sizeof c->text, "%" PRId64 " x %" PRId64 " tokens, c %" PRId64, p->samples,
             p->tokens, p->c);
}

void parity_run_embed_tokens(const parity_case *c, const parity_side *side, int64_t part)
{
    const embed_params *p = c->params;
    int64_t first = part < 0 ? 0 : part * p->tokens;
    atedm_embed_tokens(side->stream, side->weights[0], side->weights[1], p->ids + first,
                       part < 0 ? p->samples * p->tokens : p->tokens, p->tokens,
                       parity_at(side, c, 0, first * p->c));
}

typedef struct sinusoid_params {
    int64_t n, dim;
    double *values;
} sinusoid_params;

void parity_build_sinusoid(parity_case *c)
{
    sinusoid_params *p = c->params = parity_alloc(c, 1, sizeof *p);
    p->n = parity_range(&c->rng, 1, 12);
    p->dim = c->bench < 0 ? 2 * parity_range(&c->rng, 1, 170) : 320;
    p->values = parity_alloc(c, (size_t)p->n, sizeof *p->values);
    for (int64_t i = 0; i < p->n; i++)
        p->values[i] = parity_chance(&c->rng, 70) ? (double)parity_range(&c->rng, 0, 1024)
                                                  : 1000 * parity_uniform(&c->rng);
    parity_add(c, "y", PARITY_ACT, PARITY_OUT, (size_t)(p->n * p->dim));
    c->n_parts = (size_t)p->n;
    snprintf(c->text, sizeof c->text, "n %" PRId64 ", dim %" PRId64, p->n, p->dim);
}

void parity_run_sinusoid(const parity_case *c, const parity_side *side, int64_t part)
{
    const sinusoid_params *p = c->params;
    int64_t first = part < 0 ? 0 : part;
    atedm_sinusoid(side->stream, p->values + first, part < 0 ? p->n : 1, p->dim,
                   parity_at(side, c, 0, first * p->dim));
}

// ---- copies

void parity_build_copy(parity_case *c)
{
    count_params *p = c->params = parity_alloc(c, 1, sizeof *p);
    p->count = c->bench < 0 ? random_count(c) : 1 << 22;
    parity_array *x = parity_add(c, "x", PARITY_ACT, PARITY_IN, (size_t)p->count);
    parity_fill(c, x, 0, 10);
    parity_add_strange(c, x, 0, x->count);
    parity_add(c, "y", PARITY_ACT, PARITY_OUT, (size_t)p->count);
    p->bounds = parity_partition(c, p->count);
    snprintf(c->text, sizeof c->text, "count %" PRId64, p->count);
}

void parity_run_copy(const parity_case *c, const parity_side *side, int64_t part)
{
    const count_params *p = c->params;
    int64_t first = part < 0 ? 0 : p->bounds[part];
    int64_t count = part < 0 ? p->count : p->bounds[part + 1] - first;
    atedm_copy(side->stream, parity_at(side, c, 0, first), parity_at(side, c, 1, first),
               (size_t)count * atedm_dtype_size(side->act));
}
