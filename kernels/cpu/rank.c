// G-WPR of the cpu backend. It computes each head's attention map once, and runs all iterations of
// the span over it. The scores of every iteration are kept until the iteration at which the last
// head ends is known. The map's elements are rounded, so each row is divided by its sum. Otherwise
// scores would grow or shrink over the iterations, and the changes would include that.
#include "kernels/cpu/cpu.h"

#include <math.h>
#include <omp.h>
#include <string.h>

// The most columns that a thread sums at a time, and the rows that it sums in F32 before it
// continues in double.
#define COLUMNS 2048
#define ROWS 256

// One span's work.
typedef struct rank_work {
    const atedm_cpu_stream *s;
    const atedm_rank_args *args;
    const atedm_span *span;
    int64_t iterations;
    char *keys; // one head, packed
    char *map;  // [nq, map_stride] of the table's elements for maps
    int64_t map_stride;
    float *row_sums; // [nq]
    float *weights;  // [nq]
    float *history;  // [heads, iterations + 1, nq]: s_i^t
    double *changes; // [heads, iterations + 1]: |s_i^t - s_i^(t-1)|_1, t >= 1
    float *tokens;   // [map_stride]: k of the cross iteration, and zeros
    char *work;      // of each thread
    size_t work_bytes;
} rank_work;

// The address of element [row, column] of the map.
static char *map_at(const rank_work *w, int64_t row, int64_t column)
{
    return w->map + (row * w->map_stride + column) * (int64_t)w->s->act->map_size;
}

static void make_map(const rank_work *w, int64_t head)
{
    const atedm_cpu_stream *s = w->s;
    const atedm_rank_args *args = w->args;
    int64_t size = (int64_t)atedm_dtype_size(s->head.act), column = head * args->head_dim;
    const char *q = (const char *)args->q + (w->span->q0 * args->q_stride + column) * size;
    const char *k = (const char *)args->k + (w->span->k0 * args->k_stride + column) * size;
    const float *lse = args->lse + head * args->lse_stride + w->span->q0;
    const atedm_vec_head packed = {
        .keys = w->keys,
        .n = w->span->nk,
        .dim = args->head_dim,
        .scale = 1 / sqrtf((float)args->head_dim),
    };
    s->act->pack_keys(k, args->k_stride, w->span->nk, args->head_dim, w->keys);
#pragma omp parallel for schedule(dynamic)                                                         \
    num_threads(atedm_cpu_threads(w->span->nq * w->span->nk * args->head_dim))
    for (int64_t r = 0; r < w->span->nq; r += ATEDM_VEC_QUERY_ROWS) {
        int64_t rows =
            w->span->nq - r < ATEDM_VEC_QUERY_ROWS ? w->span->nq - r : ATEDM_VEC_QUERY_ROWS;
        s->act->packed_map(&packed, q + r * args->q_stride * size, args->q_stride, rows, lse + r,
                           map_at(w, r, 0), w->map_stride, w->row_sums + r,
                           w->work + (size_t)omp_get_thread_num() * w->work_bytes);
    }
}

// to = A^T from, [nk] from [nq].
static void apply_transposed(const rank_work *w, const float *from, float *to)
{
    int64_t nq = w->span->nq, nk = w->span->nk;
    int threads = atedm_cpu_threads(nq * nk);
    // As wide as possible with a share for every thread: a long piece of a row can be prefetched.
    int64_t share = ((nk + threads - 1) / threads + 63) / 64 * 64;
    int64_t columns = share < COLUMNS ? share : COLUMNS;
    for (int64_t r = 0; r < nq; r++)
        w->weights[r] = from[r] / w->row_sums[r];
#pragma omp parallel for schedule(static) num_threads(threads)
    for (int64_t j = 0; j < nk; j += columns) {
        int64_t n = nk - j < columns ? nk - j : columns;
        double total[COLUMNS] = {0};
        for (int64_t r = 0; r < nq; r += ROWS) {
            float sums[COLUMNS];
            w->s->act->weighted_rows(map_at(w, r, j), w->map_stride, w->weights + r,
                                     nq - r < ROWS ? nq - r : ROWS, n, sums);
            for (int64_t k = 0; k < n; k++)
                total[k] += (double)sums[k];
        }
        for (int64_t k = 0; k < n; k++)
            to[j + k] = (float)total[k];
    }
}

// to = A from, [nq] from [nk].
static void apply(const rank_work *w, const float *from, float *to)
{
#pragma omp parallel for schedule(static) num_threads(atedm_cpu_threads(w->span->nq * w->span->nk))
    for (int64_t r = 0; r < w->span->nq; r++)
        to[r] = w->s->act->dot(map_at(w, r, 0), from, w->span->nk) / w->row_sums[r];
}

static void normalize_sum(float *x, int64_t n)
{
    double sum = 0;
    for (int64_t i = 0; i < n; i++)
        sum += fabs((double)x[i]);
    for (int64_t i = 0; i < n; i++)
        x[i] = (float)((double)x[i] / sum);
}

static void iterate_head(const rank_work *w, int64_t head)
{
    int64_t n = w->span->nq;
    float *now = w->history + head * (w->iterations + 1) * n;
    double *changes = w->changes + head * (w->iterations + 1);
    make_map(w, head);
    for (int64_t i = 0; i < n; i++)
        now[i] = (float)(1 / (double)n);
    for (int64_t t = 1; t <= w->iterations; t++, now += n) {
        float *next = now + n;
        if (w->args->cross) {
            apply_transposed(w, now, w->tokens);
            normalize_sum(w->tokens, w->span->nk);
            apply(w, w->tokens, next);
            normalize_sum(next, n);
        } else {
            apply_transposed(w, now, next);
        }
        changes[t] = 0;
        for (int64_t i = 0; i < n; i++)
            changes[t] += fabs((double)next[i] - (double)now[i]);
    }
}

// The first iteration at which every head's change is within the tolerance, or the last one.
static int64_t last_iteration(const rank_work *w, double tolerance)
{
    for (int64_t t = 1; t < w->iterations; t++) {
        int within = 0;
        for (int64_t h = 0; h < w->args->heads; h++)
            within += w->changes[h * (w->iterations + 1) + t] <= tolerance;
        if (within == w->args->heads)
            return t;
    }
    return w->iterations;
}

static void combine_heads(const rank_work *w, int64_t t, atedm_head_combine combine)
{
    int64_t n = w->span->nq, heads = w->args->heads;
#pragma omp parallel for schedule(static)                                                          \
    num_threads(atedm_cpu_threads(n *heads *ATEDM_CPU_ELEMENT_WORK))
    for (int64_t i = 0; i < n; i++) {
        double sum = 0;
        for (int64_t h = 0; h < heads; h++) {
            double score = (double)w->history[(h * (w->iterations + 1) + t) * n + i];
            sum += combine == ATEDM_HEADS_RMS ? score * score : score;
        }
        sum /= (double)heads;
        w->args->scores[w->span->q0 + i] = (float)(combine == ATEDM_HEADS_RMS ? sqrt(sum) : sum);
    }
}

static void rank_span(atedm_cpu_stream *s, const atedm_rank_args *args, int64_t span)
{
    const atedm_rank_params *params = &args->params[span];
    rank_work w = {.s = s, .args = args, .span = &args->spans[span]};
    int64_t nq = w.span->nq, nk = w.span->nk;
    w.iterations = params->max_iterations;
    w.map_stride = (nk + ATEDM_VEC_MAP_COLUMNS - 1) / ATEDM_VEC_MAP_COLUMNS * ATEDM_VEC_MAP_COLUMNS;
    w.work_bytes = s->act->work_bytes(args->head_dim);
    int64_t steps = args->heads * (w.iterations + 1);
    size_t history = atedm_cpu_bytes(steps, nq, sizeof *w.history);
    size_t tokens = atedm_cpu_bytes(w.map_stride, 1, sizeof *w.tokens);
    size_t rows = atedm_cpu_bytes(nq, 2, sizeof *w.row_sums);
    size_t changes = atedm_cpu_bytes(steps, 1, sizeof *w.changes);
    if (history > SIZE_MAX / 4) // only it can grow so far: the others are bounded by it or small
        history = SIZE_MAX / 2;
    char *sums = atedm_cpu_scratch_get(s, ATEDM_SCRATCH_SUMS, changes + history + tokens + rows);
    w.keys = atedm_cpu_scratch_get(s, ATEDM_SCRATCH_KEYS, s->act->keys_bytes(nk, args->head_dim));
    w.map = atedm_cpu_scratch_get(s, ATEDM_SCRATCH_MAP,
                                  atedm_cpu_bytes(nq, w.map_stride, s->act->map_size));
    w.work = atedm_cpu_scratch_get(s, ATEDM_SCRATCH_THREADS,
                                   atedm_cpu_bytes(omp_get_max_threads(), 1, w.work_bytes));
    if (!sums || !w.keys || !w.map || !w.work)
        return;
    w.changes = (double *)(void *)sums;
    w.history = (float *)(void *)(sums + changes);
    w.tokens = (float *)(void *)(sums + changes + history);
    memset(w.tokens, 0, tokens);
    w.row_sums = (float *)(void *)(sums + changes + history + tokens);
    w.weights = w.row_sums + nq;
    for (int64_t h = 0; h < args->heads; h++)
        iterate_head(&w, h);
    combine_heads(&w, last_iteration(&w, (double)params->tolerance), params->heads);
}

void atedm_cpu_rank_tokens(atedm_stream *stream, const atedm_rank_args *args)
{
    for (int64_t i = 0; i < args->n_spans && !stream->status; i++)
        rank_span(atedm_cpu_stream_of(stream), args, i);
}
