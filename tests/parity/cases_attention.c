// Cases of attention and of G-WPR ranking.
#include "tests/parity/tokens.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

// ---- attention

typedef struct attention_params {
    parity_tokens tokens;
    bool causal;
    size_t o, lse; // arrays; lse 0: none
    int64_t lse_stride;
} attention_params;

// Magnitude of o: the sum of P |v|. F32 errors of the logits affect P, so they grow with the sums
// of absolute products in the logits.
static void attention_magnitude(parity_case *c, const attention_params *p, const atedm_span *span,
                                int head, int64_t row)
{
    const parity_tokens *t = &p->tokens;
    int64_t n_keys = p->causal ? row + 1 : span->nk, width = (int64_t)t->heads * t->head_dim;
    int64_t q = span->q0 + row;
    double absolute, most;
    double lse = parity_tokens_lse(c, t, head, q, span->k0, n_keys, &most);
    parity_array *o = &c->arrays[p->o];
    double *magnitude = o->magnitude + q * width + (int64_t)head * t->head_dim;
    for (int64_t k = span->k0; k < span->k0 + n_keys; k++) {
        double weight = exp(parity_tokens_logit(c, t, head, q, k, &absolute) - lse);
        const float *v = c->arrays[t->v.array].values + k * t->v.stride + t->v.column +
                         (int64_t)head * t->head_dim;
        for (int d = 0; d < t->head_dim; d++)
            magnitude[d] += weight * fabs((double)v[d]);
    }
    for (int d = 0; d < t->head_dim; d++)
        o->growth[q * width + (int64_t)head * t->head_dim + d] = 1 + most;
    if (p->lse)
        c->arrays[p->lse].magnitude[head * p->lse_stride + q] = 1 + fabs(lse) + most;
}

static void add_lse_output(parity_case *c, attention_params *p)
{
    const parity_tokens *t = &p->tokens;
    p->lse = c->n_arrays;
    p->lse_stride = t->q_rows + parity_range(&c->rng, 0, 3);
    parity_array *lse =
        parity_add(c, "lse", PARITY_F32, PARITY_OUT, (size_t)(t->heads * p->lse_stride));
    lse->magnitude = parity_alloc(c, lse->count, sizeof *lse->magnitude);
    lse->written = parity_alloc(c, lse->count, sizeof *lse->written);
    for (int head = 0; head < t->heads; head++)
        for (int64_t s = 0; s < t->n_spans; s++)
            for (int64_t r = 0; r < t->spans[s].nq; r++)
                lse->written[head * p->lse_stride + t->spans[s].q0 + r] = true;
}

void parity_build_attention(parity_case *c)
{
    static const int64_t bench[][5] = {// spans, queries, keys, heads, their size
                                       {2, 1024, 1024, 20, 64}, {2, 4096, 4096, 10, 64},
                                       {2, 307, 307, 20, 64},   {2, 1024, 77, 20, 64},
                                       {2, 4096, 77, 10, 64},   {2, 4096, 4096, 1, 512},
                                       {2, 307, 77, 20, 64},    {16, 307, 77, 20, 64}};
    attention_params *p = c->params = parity_alloc(c, 1, sizeof *p);
    parity_tokens_wish wish = {.self = parity_chance(&c->rng, 60),
                               .values = true,
                               .most_nq = 120,
                               .biased = true,
                               .wide = true};
    if (c->bench == PARITY_RANDOM && parity_chance(&c->rng, 25))
        wish = (parity_tokens_wish){.text = true, .values = true};
    if (c->bench >= 0) {
        const int64_t *size = bench[c->bench];
        wish = (parity_tokens_wish){.self = size[1] == size[2],
                                    .values = true,
                                    .bench_spans = size[0],
                                    .bench_nq = size[1],
                                    .bench_nk = size[2],
                                    .bench_heads = (int)size[3],
                                    .bench_head_dim = (int)size[4]};
    }
    parity_tokens_build(c, &p->tokens, &wish);
    const parity_tokens *t = &p->tokens;
    p->causal = wish.self && c->bench < 0 && parity_chance(&c->rng, 30);
    int64_t width = (int64_t)t->heads * t->head_dim;
    p->o = c->n_arrays;
    parity_array *o = parity_add(c, "o", PARITY_ACT, PARITY_OUT, (size_t)(t->q_rows * width));
    parity_tokens_mark(c, t, o, width);
    o->magnitude = parity_alloc(c, o->count, sizeof *o->magnitude);
    o->growth = parity_alloc(c, o->count, sizeof *o->growth);
    if (c->bench < 0 && parity_chance(&c->rng, 60))
        add_lse_output(c, p);
    for (int64_t s = 0; s < t->n_spans; s++) {
        c->counts.attention += (uint64_t)(2 * width * t->spans[s].nq * t->spans[s].nk);
        for (int head = 0; c->bench < 0 && head < t->heads; head++)
            for (int64_t row = 0; row < t->spans[s].nq; row++)
                attention_magnitude(c, p, &t->spans[s], head, row);
    }
    c->n_parts = (size_t)t->n_spans;
    c->bench_flops = 2 * (double)c->counts.attention;
    snprintf(c->text, sizeof c->text,
             "%" PRId64 " spans, the first %" PRId64 " x %" PRId64
             ", %d heads of %d, self %d, causal %d, bias %d, lse %d, q stride %" PRId64,
             t->n_spans, t->spans[0].nq, t->spans[0].nk, t->heads, t->head_dim, t->self, p->causal,
             t->bias != 0, p->lse != 0, t->q.stride);
}

void parity_run_attention(const parity_case *c, const parity_side *side, int64_t part)
{
    const attention_params *p = c->params;
    const parity_tokens *t = &p->tokens;
    atedm_attention_args args = {.q = parity_tokens_at(c, side, &t->q),
                                 .k = parity_tokens_at(c, side, &t->k),
                                 .v = parity_tokens_at(c, side, &t->v),
                                 .q_stride = t->q.stride,
                                 .k_stride = t->k.stride,
                                 .v_stride = t->v.stride,
                                 .key_bias = t->bias ? side->data[t->bias] : NULL,
                                 .o = side->data[p->o],
                                 .lse = p->lse ? side->data[p->lse] : NULL,
                                 .lse_stride = p->lse_stride,
                                 .spans = part < 0 ? t->spans : t->spans + part,
                                 .n_spans = part < 0 ? t->n_spans : 1,
                                 .heads = t->heads,
                                 .head_dim = t->head_dim,
                                 .causal = p->causal};
    atedm_attention(side->stream, &args);
}

// ---- ranking

typedef struct rank_params {
    parity_tokens tokens;
    size_t lse, scores; // arrays
    int64_t lse_stride;
    atedm_rank_params *params; // one for each span
} rank_params;

void parity_build_rank_tokens(parity_case *c)
{
    static const float tolerances[] = {0, 1e-3f, 1e-3f, 1e-2f, 0.3f, 3};
    static const int64_t bench[][4] = {{2, 1024, 1024, 20}, {2, 4096, 4096, 10}, {2, 1024, 77, 20}};
    rank_params *p = c->params = parity_alloc(c, 1, sizeof *p);
    parity_tokens_wish wish = {.self = parity_chance(&c->rng, 60), .most_nq = 90};
    if (c->bench >= 0) {
        const int64_t *size = bench[c->bench];
        wish = (parity_tokens_wish){.self = size[1] == size[2],
                                    .bench_spans = size[0],
                                    .bench_nq = size[1],
                                    .bench_nk = size[2],
                                    .bench_heads = (int)size[3],
                                    .bench_head_dim = 64};
    }
    parity_tokens_build(c, &p->tokens, &wish);
    const parity_tokens *t = &p->tokens;
    p->lse = parity_tokens_add_lse(c, t, &p->lse_stride);
    p->scores = c->n_arrays;
    parity_array *scores = parity_add(c, "scores", PARITY_F32, PARITY_OUT, (size_t)t->q_rows);
    parity_tokens_mark(c, t, scores, 1);
    scores->growth = parity_alloc(c, scores->count, sizeof *scores->growth);
    scores->passes = parity_alloc(c, scores->count, sizeof *scores->passes);
    p->params = parity_alloc(c, (size_t)t->n_spans, sizeof *p->params);
    for (int64_t s = 0; s < t->n_spans; s++) {
        const atedm_span *span = &t->spans[s];
        int iterations = (int)parity_range(&c->rng, 1, parity_chance(&c->rng, 80) ? 9 : 64);
        p->params[s] =
            (atedm_rank_params){parity_chance(&c->rng, 50) ? ATEDM_HEADS_RMS : ATEDM_HEADS_MEAN,
                                iterations, tolerances[parity_range(&c->rng, 0, 5)]};
        if (c->bench >= 0)
            p->params[s] = (atedm_rank_params){ATEDM_HEADS_RMS, 8, 1e-3f};
        iterations = p->params[s].max_iterations;
        c->counts.overhead += (uint64_t)(t->heads * span->nq * span->nk) *
                              (uint64_t)(t->head_dim + iterations * (t->self ? 1 : 2));
        double most = 0, absolute;
        for (int head = 0; c->bench < 0 && head < t->heads; head++)
            for (int64_t r = 0; r < span->nq; r++) {
                (void)parity_tokens_lse(c, t, head, span->q0 + r, span->k0, span->nk, &absolute);
                most = fmax(most, absolute);
            }
        for (int64_t r = 0; r < span->nq; r++) { // errors of the map accumulate over the iterations
            scores->growth[span->q0 + r] = (1 + most) * iterations;
            // Roundings of elements and of rows' sums; with the cross map also of scores' sums.
            scores->passes[span->q0 + r] = (t->self ? 2 : 4) * iterations;
        }
    }
    c->n_parts = (size_t)t->n_spans;
    c->bench_flops = 2 * (double)c->counts.overhead;
    snprintf(c->text, sizeof c->text,
             "%" PRId64 " spans, the first %" PRId64 " x %" PRId64
             ", %d heads of %d, self %d, iterations %d, tolerance %g, combine %d",
             t->n_spans, t->spans[0].nq, t->spans[0].nk, t->heads, t->head_dim, t->self,
             p->params[0].max_iterations, (double)p->params[0].tolerance, p->params[0].heads);
}

void parity_run_rank_tokens(const parity_case *c, const parity_side *side, int64_t part)
{
    const rank_params *p = c->params;
    const parity_tokens *t = &p->tokens;
    int64_t first = part < 0 ? 0 : part;
    atedm_rank_args args = {.q = parity_tokens_at(c, side, &t->q),
                            .k = parity_tokens_at(c, side, &t->k),
                            .q_stride = t->q.stride,
                            .k_stride = t->k.stride,
                            .lse = side->data[p->lse],
                            .lse_stride = p->lse_stride,
                            .scores = side->data[p->scores],
                            .spans = t->spans + first,
                            .params = p->params + first,
                            .n_spans = part < 0 ? t->n_spans : 1,
                            .heads = t->heads,
                            .head_dim = t->head_dim,
                            .cross = !t->self};
    atedm_rank_tokens(side->stream, &args);
}

// The smallest value that a map in 16 bits holds. Scores are 1/n on average.
#define LEAST_SCORE 0x1p-39

static bool span_is_close(const parity_case *c, const rank_params *p, const atedm_span *span,
                          const parity_side *reference, const parity_side *candidate, char *why,
                          size_t size)
{
    for (int64_t i = span->q0; i < span->q0 + span->nq; i++) {
        double r = parity_value(reference, c, p->scores, (size_t)i);
        double v = parity_value(candidate, c, p->scores, (size_t)i);
        if (parity_close(c, p->scores, (size_t)i, r, v) ||
            (c->act != ATEDM_F32 && fabs(v - r) <= LEAST_SCORE))
            continue;
        snprintf(why, size, "score of row %" PRId64 " is %.9g, should be %.9g", i, v, r);
        return false;
    }
    return true;
}

// Runs the reference again, with every tolerance moved by `relative` and `absolute`.
static void rerun(const parity_case *c, parity_side *side, atedm_stream *stream, double relative,
                  double absolute)
{
    rank_params moved = *(const rank_params *)c->params;
    parity_case k = *c;
    char why[512];
    atedm_rank_params params[4];
    for (int64_t s = 0; s < moved.tokens.n_spans; s++) {
        double tolerance = (double)moved.params[s].tolerance;
        params[s] = moved.params[s];
        params[s].tolerance = (float)fmax(0, tolerance * (1 + relative) + absolute);
    }
    moved.params = params;
    k.params = &moved;
    parity_side_init(side, &k, stream, false);
    parity_run_rank_tokens(&k, side, -1);
    if (!parity_side_fetch(side, &k, why, sizeof why)) {
        fprintf(stderr, "parity: the reference failed: %s\n", why);
        exit(1);
    }
}

// Each span must agree with the reference. If the change of an iteration is so close to the
// tolerance that rounding decides which one is the last, the span may agree with the iteration
// before or after instead.
bool parity_check_rank_tokens(const parity_case *c, const parity_side *reference,
                              const parity_side *candidate, char *why, size_t size)
{
    const rank_params *p = c->params;
    double relative = c->act == ATEDM_F32 ? 1e-3 : 2e-2, absolute = 2e-6;
    parity_side less, more;
    bool good = true;
    rerun(c, &less, reference->stream, -relative, -absolute);
    rerun(c, &more, reference->stream, relative, absolute);
    for (int64_t s = 0; good && s < p->tokens.n_spans; s++) {
        const atedm_span *span = &p->tokens.spans[s];
        good = span_is_close(c, p, span, &less, candidate, why, size) ||
               span_is_close(c, p, span, &more, candidate, why, size) ||
               span_is_close(c, p, span, reference, candidate, why, size);
    }
    parity_side_finish(&less, c);
    parity_side_finish(&more, c);
    return good;
}
