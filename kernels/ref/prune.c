// AT-EDM's operations of the reference backend: G-WPR, random scores, selection, similarity
// sources, gathering.
#include "kernels/ref/ref.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

// Loads rows of one head's queries or keys as F32 [n, head_dim]: row `first` + i, or `first` +
// list[i].
static float *load_rows(atedm_stream *s, const void *data, int64_t stride, int head,
                        int64_t head_dim, int64_t first, const int32_t *list, int64_t n)
{
    float *rows = ref_scratch(s, (size_t)(n * head_dim), sizeof *rows);
    for (int64_t i = 0; rows && i < n; i++)
        ref_load_row(s->act, data, (first + (list ? list[i] : i)) * stride + head * head_dim,
                     rows + i * head_dim, head_dim);
    return rows;
}

// A(i, j) = exp(scale q_i . k_j - lse_i) of one head, rows from q0, keys from k0.
static void attention_map(atedm_stream *s, const atedm_source_map *map, int head, int64_t q0,
                          int64_t nq, int64_t k0, int64_t nk, double *a)
{
    int64_t d = map->head_dim;
    double scale = 1 / sqrt((double)d);
    float *queries = load_rows(s, map->q, map->q_stride, head, d, q0, NULL, nq);
    float *keys = load_rows(s, map->k, map->k_stride, head, d, k0, NULL, nk);
    for (int64_t i = 0; !s->status && i < nq; i++) {
        double lse = (double)map->lse[head * map->lse_stride + q0 + i];
        for (int64_t j = 0; j < nk; j++)
            a[i * nk + j] = exp(ref_dot(queries + i * d, keys + j * d, d) * scale - lse);
    }
    free(queries);
    free(keys);
}

// y = A^T x, A [rows, columns].
static void transposed_product(const double *a, int64_t rows, int64_t columns, const double *x,
                               double *y)
{
    memset(y, 0, (size_t)columns * sizeof *y);
    for (int64_t i = 0; i < rows; i++)
        for (int64_t j = 0; j < columns; j++)
            y[j] += a[i * columns + j] * x[i];
}

static void product(const double *a, int64_t rows, int64_t columns, const double *x, double *y)
{
    for (int64_t i = 0; i < rows; i++) {
        y[i] = 0;
        for (int64_t j = 0; j < columns; j++)
            y[i] += a[i * columns + j] * x[j];
    }
}

static void normalize(double *x, int64_t n)
{
    double sum = 0;
    for (int64_t i = 0; i < n; i++)
        sum += fabs(x[i]);
    for (int64_t i = 0; i < n; i++)
        x[i] /= sum;
}

// One G-WPR iteration of every head: s [heads, nq] becomes `next`; returns the largest L1 change.
static double iterate(const double *maps, const atedm_span *span, int heads, bool cross,
                      const double *s, double *next, double *keys)
{
    double largest = 0;
    for (int head = 0; head < heads; head++) {
        const double *a = maps + head * span->nq * span->nk, *from = s + head * span->nq;
        double *to = next + head * span->nq, change = 0;
        if (cross) {
            transposed_product(a, span->nq, span->nk, from, keys);
            normalize(keys, span->nk);
            product(a, span->nq, span->nk, keys, to);
            normalize(to, span->nq);
        } else {
            transposed_product(a, span->nq, span->nk, from, to);
        }
        for (int64_t i = 0; i < span->nq; i++)
            change += fabs(to[i] - from[i]);
        largest = change > largest ? change : largest;
    }
    return largest;
}

static double combine(const double *s, int heads, int64_t n, int64_t i, atedm_head_combine how)
{
    double sum = 0;
    for (int head = 0; head < heads; head++) {
        double value = s[head * n + i];
        sum += how == ATEDM_HEADS_RMS ? value * value : value;
    }
    return how == ATEDM_HEADS_RMS ? sqrt(sum / heads) : sum / heads;
}

static void rank_span(atedm_stream *s, const atedm_rank_args *args, const atedm_span *span,
                      const atedm_rank_params *params)
{
    int64_t heads = args->heads, n = span->nq;
    const atedm_source_map map = {.q = args->q,
                                  .k = args->k,
                                  .q_stride = args->q_stride,
                                  .k_stride = args->k_stride,
                                  .lse = args->lse,
                                  .lse_stride = args->lse_stride,
                                  .heads = args->heads,
                                  .head_dim = args->head_dim};
    double *maps = ref_scratch(s, (size_t)(heads * n * span->nk), sizeof *maps);
    double *now = ref_scratch(s, (size_t)(heads * n), sizeof *now);
    double *next = ref_scratch(s, (size_t)(heads * n), sizeof *next);
    double *keys = ref_scratch(s, (size_t)span->nk, sizeof *keys);
    if (s->status)
        goto done;
    for (int head = 0; head < heads; head++)
        attention_map(s, &map, head, span->q0, n, span->k0, span->nk, maps + head * n * span->nk);
    for (int64_t i = 0; i < heads * n; i++)
        now[i] = 1 / (double)n;
    for (int t = 0; t < params->max_iterations; t++) {
        double change = iterate(maps, span, args->heads, args->cross, now, next, keys);
        double *swap = now;
        now = next;
        next = swap;
        if (change <= (double)params->tolerance)
            break;
    }
    for (int64_t i = 0; i < n; i++)
        args->scores[span->q0 + i] = (float)combine(now, args->heads, n, i, params->heads);
done:
    free(maps);
    free(now);
    free(next);
    free(keys);
}

void ref_rank_tokens(atedm_stream *s, const atedm_rank_args *args)
{
    for (int64_t i = 0; i < args->n_spans && !s->status; i++)
        rank_span(s, args, &args->spans[i], &args->params[i]);
}

#define SPLIT_MIX_STEP 0x9e3779b97f4a7c15u // the increment of its state

// The next output of SplitMix64.
static uint64_t split_mix(uint64_t *state)
{
    uint64_t z = *state += SPLIT_MIX_STEP;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
}

void ref_random_scores(atedm_stream *s, const uint64_t *draws, const float *weights, float *scores,
                       const atedm_random_span *spans, int64_t n_spans)
{
    for (int64_t k = 0; k < n_spans; k++) {
        uint64_t state = draws[spans[k].draw] + spans[k].salt * SPLIT_MIX_STEP;
        state = split_mix(&state);
        for (int64_t i = 0; i < spans[k].n; i++) {
            double u = ((double)(split_mix(&state) >> 41) + 0.5) * 0x1p-23;
            int64_t row = spans[k].first + i;
            scores[row] = (float)(weights ? (double)weights[row] / -log(u) : u);
        }
    }
}

// Whether a is better than b: a is larger, or a number while b is NaN.
static bool better(double a, double b)
{
    return a > b || (isnan(b) && !isnan(a));
}

// The number of the span's tokens that rank before token i: with a better score, or with an equal
// one and a lower position.
static int64_t rank_of(const float *scores, int64_t n, int64_t i)
{
    int64_t before = 0;
    for (int64_t j = 0; j < n; j++)
        before += better((double)scores[j], (double)scores[i]) ||
                  (j < i && !better((double)scores[i], (double)scores[j]));
    return before;
}

void ref_select_tokens(atedm_stream *s, const float *scores, int32_t *kept,
                       const atedm_prune_span *spans, int64_t n_spans)
{
    for (int64_t k = 0; k < n_spans; k++) {
        const atedm_prune_span *span = &spans[k];
        int64_t slot = 0;
        for (int64_t i = 0; i < span->n; i++)
            if (span->keep == span->n || rank_of(scores + span->first, span->n, i) < span->keep)
                kept[span->kept_first + slot++] = (int32_t)i;
    }
}

// Gives every kept token its own slot, and every other token -1.
static void own_slots(const atedm_source_args *args, const atedm_prune_span *span)
{
    for (int64_t i = 0; i < span->n; i++)
        args->source[span->first + i] = -1;
    for (int64_t slot = 0; slot < span->keep; slot++)
        args->source[span->first + args->kept[span->kept_first + slot]] = (int32_t)slot;
}

static int32_t best_slot(const double *similarity, int64_t n)
{
    int64_t best = 0;
    for (int64_t j = 1; j < n; j++)
        if (similarity[j] > similarity[best])
            best = j;
    return (int32_t)best;
}

// Adds one head's A(i, kept[j]), for every token i without a slot, to similarity [n, keep].
static void add_similarity(atedm_stream *s, const atedm_source_args *args,
                           const atedm_source_map *map, const atedm_prune_span *span, int head,
                           double *similarity)
{
    int64_t d = map->head_dim;
    double scale = 1 / sqrt((double)d);
    const float *lse = map->lse + head * map->lse_stride + span->first;
    float *queries = load_rows(s, map->q, map->q_stride, head, d, span->first, NULL, span->n);
    float *keys = load_rows(s, map->k, map->k_stride, head, d, span->first,
                            args->kept + span->kept_first, span->keep);
    for (int64_t i = 0; !s->status && i < span->n; i++)
        for (int64_t j = 0; args->source[span->first + i] < 0 && j < span->keep; j++)
            similarity[i * span->keep + j] +=
                exp(ref_dot(queries + i * d, keys + j * d, d) * scale - (double)lse[i]);
    free(queries);
    free(keys);
}

void ref_source_attention(atedm_stream *s, const atedm_source_args *args,
                          const atedm_source_map *map)
{
    for (int64_t k = 0; k < args->n_spans && !s->status; k++) {
        const atedm_prune_span *span = &args->spans[k];
        double *similarity = ref_scratch(s, (size_t)(span->n * span->keep), sizeof *similarity);
        own_slots(args, span);
        for (int head = 0; head < map->heads && !s->status; head++)
            add_similarity(s, args, map, span, head, similarity);
        for (int64_t i = 0; i < span->n && !s->status; i++)
            if (args->source[span->first + i] < 0) // the largest sum is also the largest mean
                args->source[span->first + i] = best_slot(similarity + i * span->keep, span->keep);
        free(similarity);
    }
}

// Cosine similarity; 0 if a row is all zeros.
static double cosine(const float *a, const float *b, int64_t c)
{
    double norms = sqrt(ref_dot(a, a, c)) * sqrt(ref_dot(b, b, c));
    return norms == 0 ? 0 : ref_dot(a, b, c) / norms;
}

void ref_source_cosine(atedm_stream *s, const atedm_source_args *args, const void *x, int64_t c)
{
    for (int64_t k = 0; k < args->n_spans && !s->status; k++) {
        const atedm_prune_span *span = &args->spans[k];
        const int32_t *kept = args->kept + span->kept_first;
        double *similarity = ref_scratch(s, (size_t)span->keep, sizeof *similarity);
        float *rows = load_rows(s, x, c, 0, c, span->first, NULL, span->n);
        own_slots(args, span);
        for (int64_t i = 0; !s->status && i < span->n; i++) {
            if (args->source[span->first + i] >= 0)
                continue;
            for (int64_t j = 0; j < span->keep; j++)
                similarity[j] = cosine(rows + i * c, rows + kept[j] * c, c);
            args->source[span->first + i] = best_slot(similarity, span->keep);
        }
        free(similarity);
        free(rows);
    }
}

void ref_source_nearest(atedm_stream *s, const atedm_source_args *args, const int32_t *place,
                        int64_t width)
{
    for (int64_t k = 0; k < args->n_spans; k++) {
        const atedm_prune_span *span = &args->spans[k];
        own_slots(args, span);
        for (int64_t i = 0; i < span->n; i++) {
            int32_t *source = &args->source[span->first + i];
            if (*source >= 0)
                continue;
            int64_t at = place[span->first + i], best = INT64_MAX;
            for (int64_t slot = 0; slot < span->keep; slot++) {
                int64_t to = place[span->first + args->kept[span->kept_first + slot]];
                int64_t dy = at / width - to / width, dx = at % width - to % width;
                if (dy * dy + dx * dx < best) {
                    best = dy * dy + dx * dx;
                    *source = (int32_t)slot;
                }
            }
        }
    }
}

void ref_source_zero(atedm_stream *s, const atedm_source_args *args)
{
    for (int64_t k = 0; k < args->n_spans; k++)
        own_slots(args, &args->spans[k]);
}

void ref_source_weights(atedm_stream *s, const int32_t *source, const float *before, float *weights,
                        const atedm_prune_span *spans, int64_t n_spans)
{
    for (int64_t k = 0; k < n_spans; k++)
        for (int64_t slot = 0; slot < spans[k].keep; slot++) {
            double sum = 0;
            for (int64_t i = spans[k].first; i < spans[k].first + spans[k].n; i++)
                if (source[i] == slot)
                    sum += before ? exp((double)before[i]) : 1;
            weights[spans[k].kept_first + slot] = (float)log(sum);
        }
}

void ref_gather_rows(atedm_stream *s, const void *x, const int32_t *index, void *y,
                     size_t row_bytes, const atedm_gather_span *spans, int64_t n_spans)
{
    for (int64_t k = 0; k < n_spans; k++)
        for (int64_t i = 0; i < spans[k].n; i++) {
            int32_t from = index[spans[k].index_first + i];
            char *to = (char *)y + (size_t)(spans[k].to + i) * row_bytes;
            if (from < 0)
                memset(to, 0, row_bytes);
            else
                memcpy(to, (const char *)x + (size_t)(spans[k].from + from) * row_bytes, row_bytes);
        }
}

void ref_add_rows(atedm_stream *s, const void *x, const int32_t *index, float factor, void *y,
                  int64_t c, const atedm_gather_span *spans, int64_t n_spans)
{
    for (int64_t k = 0; k < n_spans; k++)
        for (int64_t i = 0; i < spans[k].n; i++) {
            int32_t from = index[spans[k].index_first + i];
            for (int64_t j = 0; from >= 0 && j < c; j++) {
                int64_t to = (spans[k].to + i) * c + j;
                ref_store(s->act, y, to,
                          (double)ref_load(s->act, y, to) +
                              (double)factor *
                                  (double)ref_load(s->act, x, (spans[k].from + from) * c + j));
            }
        }
}
