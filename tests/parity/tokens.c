// Packed tokens of several samples: see tokens.h.
#include "tests/parity/tokens.h"

#include <math.h>
#include <stdio.h>

static void random_heads(parity_case *c, parity_tokens *t, bool large, bool wide)
{
    static const int dims[] = {64, 64, 64, 64, 8, 16, 32, 40, 80, 128, 160};
    t->heads = large ? 1 : (int)parity_range(&c->rng, 1, wide ? 2 : 5);
    if (wide)
        t->head_dim = parity_chance(&c->rng, 40) ? 512 : 8 * (int)parity_range(&c->rng, 9, 65);
    else if (large) // backends have a separate path for 64
        t->head_dim = c->bench == PARITY_LARGE || parity_chance(&c->rng, 40)
                          ? 64
                          : (int)parity_range(&c->rng, 1, 40);
    else
        t->head_dim = parity_chance(&c->rng, 25) ? (int)parity_range(&c->rng, 1, 100)
                                                 : dims[parity_range(&c->rng, 0, 10)];
}

// Backends work in tiles of some hundred rows and keys, so a large case has several. A case like a
// text's has few keys in most spans, and some tiles of queries.
static void random_size(parity_case *c, const parity_tokens_wish *wish, bool large, bool small,
                        atedm_span *span)
{
    if (c->bench >= 0) {
        span->nq = wish->bench_nq;
        span->nk = wish->bench_nk;
    } else if (wish->text) {
        span->nq = parity_range(&c->rng, 1, 300);
        span->nk = parity_chance(&c->rng, 50)   ? parity_range(&c->rng, 70, 80)
                   : parity_chance(&c->rng, 60) ? parity_range(&c->rng, 1, 80)
                                                : parity_range(&c->rng, 81, 140);
    } else if (large) {
        span->nq = parity_range(&c->rng, 90, 800);
        span->nk = parity_range(&c->rng, 200, 1200);
    } else {
        span->nq = parity_range(&c->rng, 1, small ? 9 : wish->most_nq);
        span->nk = parity_range(&c->rng, 1, parity_chance(&c->rng, 50) ? 90 : 9);
    }
}

static void random_spans(parity_case *c, parity_tokens *t, const parity_tokens_wish *wish,
                         bool large)
{
    t->n_spans = c->bench < 0 ? parity_range(&c->rng, 1, large ? 2 : 4) : wish->bench_spans;
    t->spans = parity_alloc(c, (size_t)t->n_spans, sizeof *t->spans);
    bool gaps = c->bench < 0 && parity_chance(&c->rng, 60);
    bool small = parity_chance(&c->rng, 30);
    int64_t q = 0, k = 0;
    for (int64_t i = 0; i < t->n_spans; i++) {
        atedm_span *span = &t->spans[i];
        q += gaps ? parity_range(&c->rng, 0, 5) : 0;
        k += gaps ? parity_range(&c->rng, 0, 5) : 0;
        random_size(c, wish, large, small, span);
        span->q0 = q;
        span->k0 = k;
        if (t->self) {
            span->nk = span->nq;
            span->k0 = q;
        } else if (i && parity_chance(&c->rng, 30)) { // two samples share a text
            span->k0 = t->spans[i - 1].k0;
            span->nk = t->spans[i - 1].nk;
        }
        q += span->nq;
        k = span->k0 + span->nk > k ? span->k0 + span->nk : k;
    }
    t->q_rows = q + (gaps ? 3 : 0);
    t->k_rows = t->self ? t->q_rows : k;
    for (int64_t i = t->n_spans - 1; i > 0; i--) { // Fisher-Yates
        int64_t j = parity_range(&c->rng, 0, i);
        atedm_span swap = t->spans[i];
        t->spans[i] = t->spans[j];
        t->spans[j] = swap;
    }
}

static size_t add_matrix(parity_case *c, const char *name, int64_t rows, int64_t stride)
{
    parity_array *a = parity_add(c, name, PARITY_ACT, PARITY_IN, (size_t)(rows * stride));
    for (size_t i = 0; i < a->count; i++)
        a->values[i] = NAN;
    return c->n_arrays - 1;
}

// Adds queries, keys and values in one matrix, as a fused projection writes them; or each in its
// own; or, for cross-attention, queries alone and the others together.
static void add_operands(parity_case *c, parity_tokens *t, const parity_tokens_wish *wish)
{
    int64_t width = (int64_t)t->heads * t->head_dim;
    int64_t pad = c->bench < 0 && parity_chance(&c->rng, 30) ? parity_range(&c->rng, 1, 9) : 0;
    pad *= c->bench == PARITY_LARGE || wish->text ? 8 : 1;
    bool fused = c->bench >= 0 || parity_chance(&c->rng, 60);
    if (fused && t->self) {
        int64_t stride = (wish->values ? 3 : 2) * width + pad;
        size_t array = add_matrix(c, "qkv", t->q_rows, stride);
        t->q = (parity_operand){array, 0, stride};
        t->k = (parity_operand){array, width, stride};
        t->v = (parity_operand){array, 2 * width, stride};
        return;
    }
    t->q = (parity_operand){add_matrix(c, "q", t->q_rows, width + pad), 0, width + pad};
    if (fused && wish->values) {
        int64_t stride = 2 * width + pad;
        size_t array = add_matrix(c, "kv", t->k_rows, stride);
        t->k = (parity_operand){array, 0, stride};
        t->v = (parity_operand){array, width, stride};
        return;
    }
    t->k = (parity_operand){add_matrix(c, "k", t->k_rows, width), 0, width};
    if (wish->values)
        t->v = (parity_operand){add_matrix(c, "v", t->k_rows, width + pad), 0, width + pad};
}

static void fill_rows(parity_case *c, const parity_operand *operand, int64_t first, int64_t n,
                      int64_t width, float deviation)
{
    float *values = c->arrays[operand->array].values;
    for (int64_t r = first; r < first + n; r++)
        for (int64_t i = 0; i < width; i++)
            values[r * operand->stride + operand->column + i] =
                parity_round(c->act, deviation * parity_normal(&c->rng));
}

// Biases: logarithms of weights, and a few values between them.
static void add_bias(parity_case *c, parity_tokens *t)
{
    t->bias = c->n_arrays;
    parity_array *bias = parity_add(c, "bias", PARITY_F32, PARITY_IN, (size_t)t->k_rows);
    for (size_t i = 0; i < bias->count; i++)
        bias->values[i] = NAN;
    for (int64_t s = 0; s < t->n_spans; s++)
        for (int64_t k = t->spans[s].k0; k < t->spans[s].k0 + t->spans[s].nk; k++)
            bias->values[k] = parity_chance(&c->rng, 80) ? logf((float)parity_range(&c->rng, 1, 60))
                                                         : parity_normal(&c->rng);
}

void parity_tokens_build(parity_case *c, parity_tokens *t, const parity_tokens_wish *wish)
{
    static const float sharpness[] = {0.3f, 1, 1, 1, 3, 12};
    t->self = wish->self;
    bool large =
        c->bench == PARITY_LARGE || (c->bench < 0 && !wish->text && parity_chance(&c->rng, 12));
    bool wide = wish->wide && !large && parity_chance(&c->rng, 20);
    random_heads(c, t, large, wide);
    if (wish->text)
        t->head_dim = 64;
    if (c->bench >= 0) {
        t->heads = wish->bench_heads;
        t->head_dim = wish->bench_head_dim;
    }
    random_spans(c, t, wish, large);
    add_operands(c, t, wish);
    int64_t width = (int64_t)t->heads * t->head_dim;
    float sharp = c->bench < 0 ? sharpness[parity_range(&c->rng, 0, 5)] : 1;
    for (int64_t i = 0; i < t->n_spans; i++) {
        const atedm_span *span = &t->spans[i];
        fill_rows(c, &t->q, span->q0, span->nq, width, sharp);
        fill_rows(c, &t->k, span->k0, span->nk, width, 1);
        if (wish->values)
            fill_rows(c, &t->v, span->k0, span->nk, width, 1);
    }
    if (wish->biased && parity_chance(&c->rng, 40))
        add_bias(c, t);
}

double parity_tokens_logit(const parity_case *c, const parity_tokens *t, int head, int64_t q,
                           int64_t k, double *ret_absolute)
{
    const float *query =
        c->arrays[t->q.array].values + q * t->q.stride + t->q.column + (int64_t)head * t->head_dim;
    const float *key =
        c->arrays[t->k.array].values + k * t->k.stride + t->k.column + (int64_t)head * t->head_dim;
    double sum = 0, absolute = 0, scale = 1 / sqrt((double)t->head_dim);
    for (int d = 0; d < t->head_dim; d++) {
        double product = (double)query[d] * (double)key[d];
        sum += product;
        absolute += fabs(product);
    }
    double bias = t->bias ? (double)c->arrays[t->bias].values[k] : 0;
    *ret_absolute = absolute * scale + fabs(bias);
    return sum * scale + bias;
}

double parity_tokens_lse(const parity_case *c, const parity_tokens *t, int head, int64_t q,
                         int64_t k0, int64_t n_keys, double *ret_absolute)
{
    double largest = -INFINITY, sum = 0, most = 0, absolute;
    for (int64_t k = 0; k < n_keys; k++) {
        double logit = parity_tokens_logit(c, t, head, q, k0 + k, &absolute);
        sum = logit > largest ? sum * exp(largest - logit) + 1 : sum + exp(logit - largest);
        largest = fmax(largest, logit);
        most = fmax(most, absolute);
    }
    *ret_absolute = most;
    return largest + log(sum);
}

const void *parity_tokens_at(const parity_case *c, const parity_side *side,
                             const parity_operand *operand)
{
    return parity_at(side, c, operand->array, operand->column);
}

void parity_tokens_mark(parity_case *c, const parity_tokens *t, parity_array *a, int64_t width)
{
    a->written = parity_alloc(c, a->count, sizeof *a->written);
    for (int64_t s = 0; s < t->n_spans; s++)
        for (int64_t i = t->spans[s].q0 * width; i < (t->spans[s].q0 + t->spans[s].nq) * width; i++)
            a->written[i] = true;
}

size_t parity_tokens_add_lse(parity_case *c, const parity_tokens *t, int64_t *ret_stride)
{
    int64_t stride = t->q_rows + (c->bench < 0 ? parity_range(&c->rng, 0, 3) : 0);
    parity_array *lse = parity_add(c, "lse", PARITY_F32, PARITY_IN, (size_t)(t->heads * stride));
    for (size_t i = 0; i < lse->count; i++)
        lse->values[i] = NAN;
    for (int64_t s = 0; s < t->n_spans; s++)
        for (int head = 0; head < t->heads; head++)
            for (int64_t r = 0; r < t->spans[s].nq; r++) {
                int64_t q = t->spans[s].q0 + r;
                double absolute;
                // The exact value takes too long at a benchmark's sizes. This is approximately
                // right for normally distributed logits.
                double value = c->bench >= 0 ? log((double)t->spans[s].nk) + 0.5
                                             : parity_tokens_lse(c, t, head, q, t->spans[s].k0,
                                                                 t->spans[s].nk, &absolute);
                lse->values[head * stride + q] = (float)value;
            }
    *ret_stride = stride;
    return c->n_arrays - 1;
}
