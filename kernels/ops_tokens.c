// The operations on packed tokens: attention and AT-EDM's. As in ops.c, each checks its arguments,
// counts its multiply-accumulates and calls the backend; one over no spans does nothing.
#include "kernels/check.h"

#include <inttypes.h>

// Rows of the largest matrix: kept far enough from the end of int64_t for sums.
#define MAX_ROW ATEDM_MAX_ELEMENTS

// ---- attention

static bool check_list(atedm_stream *s, const char *op, const void *spans, int64_t n_spans)
{
    return (spans && n_spans > 0) ||
           atedm_check_fail(s, ATEDM_ERR_INVALID, op, "%s",
                            spans ? "a negative number of spans" : "spans is NULL");
}

// A range of rows [first, first + n); grows *rows to its end.
static bool check_rows(atedm_stream *s, const char *op, int64_t span, int64_t first, int64_t n,
                       int64_t *rows)
{
    if (first < 0 || n < 1 || first > MAX_ROW || n > MAX_ROW - first)
        return atedm_check_fail(s, ATEDM_ERR_INVALID, op,
                                "span %" PRId64 " has %" PRId64 " rows from row %" PRId64 " on",
                                span, n, first);
    *rows = first + n > *rows ? first + n : *rows;
    return true;
}

// What an attention operation reads: columns of heads * head_dim in matrices with row strides.
typedef struct operand {
    const char *name;
    const void *data;
    int64_t stride, rows;
} operand;

static bool check_operand(atedm_stream *s, const char *op, const operand *o, int heads,
                          int head_dim, atedm_region *ret_region)
{
    int64_t width = (int64_t)heads * head_dim, elements;
    if (heads < 1 || head_dim < 1 || o->stride < width)
        return atedm_check_fail(s, ATEDM_ERR_INVALID, op,
                                "%d heads of %d in rows of %s with stride %" PRId64, heads,
                                head_dim, o->name, o->stride);
    if (!atedm_check_size(s, op, o->name, ATEDM_DIMS(o->rows, o->stride), &elements))
        return false;
    if (!o->data)
        return atedm_check_fail(s, ATEDM_ERR_INVALID, op, "%s is NULL", o->name);
    uint64_t reach = (uint64_t)(elements - o->stride + width); // the last row ends with its columns
    *ret_region = (atedm_region){o->name, o->data, reach * atedm_dtype_size(s->act)};
    return true;
}

// lse [heads, stride] has a place for every row.
static bool check_lse(atedm_stream *s, const char *op, const float *lse, int64_t stride, int heads,
                      int64_t rows, atedm_region *ret_region)
{
    if (stride < rows)
        return atedm_check_fail(s, ATEDM_ERR_INVALID, op,
                                "rows of lse have %" PRId64 " places for %" PRId64 " tokens",
                                stride, rows);
    return atedm_check_tensor(s, op, "lse", lse, sizeof *lse, ATEDM_DIMS(heads, stride),
                              ret_region);
}

// Rows of the spans within bounds. Square: as many keys as queries; same: of the same tokens.
static bool check_spans(atedm_stream *s, const char *op, const atedm_span *spans, int64_t n_spans,
                        bool square, bool same, int64_t *ret_q_rows, int64_t *ret_k_rows)
{
    if (!check_list(s, op, spans, n_spans))
        return false;
    *ret_q_rows = *ret_k_rows = 0;
    for (int64_t i = 0; i < n_spans; i++) {
        if (!check_rows(s, op, i, spans[i].q0, spans[i].nq, ret_q_rows) ||
            !check_rows(s, op, i, spans[i].k0, spans[i].nk, ret_k_rows))
            return false;
        if ((square && spans[i].nq != spans[i].nk) || (same && spans[i].q0 != spans[i].k0))
            return atedm_check_fail(
                s, ATEDM_ERR_INVALID, op,
                "queries and keys of span %" PRId64 " should be of the same tokens", i);
    }
    return true;
}

void atedm_attention(atedm_stream *s, const atedm_attention_args *args)
{
    static const char op[] = "attention";
    int64_t q_rows, k_rows;
    atedm_region regions[3], o, lse, bias;
    if (!atedm_check_ahead(s, op) || args->n_spans == 0 ||
        !check_spans(s, op, args->spans, args->n_spans, args->causal, false, &q_rows, &k_rows))
        return;
    const operand operands[3] = {{"q", args->q, args->q_stride, q_rows},
                                 {"k", args->k, args->k_stride, k_rows},
                                 {"v", args->v, args->v_stride, k_rows}};
    if (!atedm_check_act(s, op, "o", args->o, ATEDM_DIMS(q_rows, args->heads, args->head_dim), &o))
        return;
    for (int i = 0; i < 3; i++)
        if (!check_operand(s, op, &operands[i], args->heads, args->head_dim, &regions[i]) ||
            !atedm_check_apart(s, op, &regions[i], &o))
            return;
    if (args->lse && (!check_lse(s, op, args->lse, args->lse_stride, args->heads, q_rows, &lse) ||
                      !atedm_check_apart(s, op, &lse, &o)))
        return;
    for (int i = 0; args->lse && i < 3; i++)
        if (!atedm_check_apart(s, op, &regions[i], &lse))
            return;
    if (args->key_bias && (!atedm_check_tensor(s, op, "key_bias", args->key_bias,
                                               sizeof *args->key_bias, ATEDM_DIMS(k_rows), &bias) ||
                           !atedm_check_apart(s, op, &bias, &o) ||
                           (args->lse && !atedm_check_apart(s, op, &bias, &lse))))
        return;
    uint64_t count = s->counts.attention;
    for (int64_t i = 0; i < args->n_spans; i++)
        if (!atedm_check_count(
                s, op,
                ATEDM_DIMS(2, args->heads, args->head_dim, args->spans[i].nq, args->spans[i].nk),
                &count))
            return;
    s->counts.attention = count;
    atedm_stream_backend(s)->ops.attention(s, args);
}

// ---- AT-EDM

static bool check_rank_params(atedm_stream *s, const atedm_rank_params *params, int64_t n)
{
    static const char op[] = "rank_tokens";
    if (!params)
        return atedm_check_fail(s, ATEDM_ERR_INVALID, op, "params is NULL");
    for (int64_t i = 0; i < n; i++) {
        const atedm_rank_params *p = &params[i];
        if (p->heads != ATEDM_HEADS_RMS && p->heads != ATEDM_HEADS_MEAN)
            return atedm_check_fail(s, ATEDM_ERR_INVALID, op, "there is no way %d to combine heads",
                                    (int)p->heads);
        if (p->max_iterations < 1 || p->max_iterations > ATEDM_MAX_RANK_ITERATIONS)
            return atedm_check_fail(s, ATEDM_ERR_LIMIT, op, "%d iterations, should be 1 to %d",
                                    p->max_iterations, ATEDM_MAX_RANK_ITERATIONS);
        if (!(p->tolerance >= 0))
            return atedm_check_fail(s, ATEDM_ERR_INVALID, op,
                                    "the tolerance is %g, should be at least 0",
                                    (double)p->tolerance);
    }
    return true;
}

void atedm_rank_tokens(atedm_stream *s, const atedm_rank_args *args)
{
    static const char op[] = "rank_tokens";
    int64_t q_rows, k_rows;
    atedm_region regions[3], scores;
    if (s->status || args->n_spans == 0 ||
        !check_spans(s, op, args->spans, args->n_spans, !args->cross, !args->cross, &q_rows,
                     &k_rows) ||
        !check_rank_params(s, args->params, args->n_spans))
        return;
    const operand q = {"q", args->q, args->q_stride, q_rows},
                  k = {"k", args->k, args->k_stride, k_rows};
    if (!check_operand(s, op, &q, args->heads, args->head_dim, &regions[0]) ||
        !check_operand(s, op, &k, args->heads, args->head_dim, &regions[1]) ||
        !check_lse(s, op, args->lse, args->lse_stride, args->heads, q_rows, &regions[2]) ||
        !atedm_check_tensor(s, op, "scores", args->scores, sizeof *args->scores, ATEDM_DIMS(q_rows),
                            &scores))
        return;
    for (int i = 0; i < 3; i++)
        if (!atedm_check_apart(s, op, &regions[i], &scores))
            return;
    uint64_t count = s->counts.overhead;
    for (int64_t i = 0; i < args->n_spans; i++) {
        const atedm_span *span = &args->spans[i];
        int64_t passes = (int64_t)args->params[i].max_iterations * (args->cross ? 2 : 1);
        if (!atedm_check_count(s, op,
                               ATEDM_DIMS(args->heads, span->nq, span->nk, args->head_dim + passes),
                               &count))
            return;
    }
    s->counts.overhead = count;
    atedm_stream_backend(s)->ops.rank_tokens(s, args);
}

void atedm_random_scores(atedm_stream *s, const uint64_t *draws, const float *weights,
                         float *scores, const atedm_random_span *spans, int64_t n_spans)
{
    static const char op[] = "random_scores";
    int64_t rows = 0, n_draws = 0;
    atedm_region in[2], out;
    if (s->status || n_spans == 0 || !check_list(s, op, spans, n_spans))
        return;
    for (int64_t i = 0; i < n_spans; i++)
        if (!check_rows(s, op, i, spans[i].first, spans[i].n, &rows) ||
            !check_rows(s, op, i, spans[i].draw, 1, &n_draws))
            return;
    if (atedm_check_tensor(s, op, "draws", draws, sizeof *draws, ATEDM_DIMS(n_draws), &in[0]) &&
        (!weights || atedm_check_tensor(s, op, "weights", weights, sizeof *weights,
                                        ATEDM_DIMS(rows), &in[1])) &&
        atedm_check_tensor(s, op, "scores", scores, sizeof *scores, ATEDM_DIMS(rows), &out) &&
        atedm_check_apart(s, op, &in[0], &out) &&
        (!weights || atedm_check_apart(s, op, &in[1], &out)))
        atedm_stream_backend(s)->ops.random_scores(s, draws, weights, scores, spans, n_spans);
}

// Rows and kept lists of the spans within bounds.
static bool check_prune_spans(atedm_stream *s, const char *op, const atedm_prune_span *spans,
                              int64_t n_spans, int64_t *ret_rows, int64_t *ret_kept)
{
    if (!check_list(s, op, spans, n_spans))
        return false;
    *ret_rows = *ret_kept = 0;
    for (int64_t i = 0; i < n_spans; i++) {
        if (!check_rows(s, op, i, spans[i].first, spans[i].n, ret_rows) ||
            !check_rows(s, op, i, spans[i].kept_first, spans[i].keep, ret_kept))
            return false;
        if (spans[i].keep > spans[i].n || spans[i].n > INT32_MAX) // positions are int32_t
            return atedm_check_fail(s, ATEDM_ERR_INVALID, op,
                                    "span %" PRId64 " keeps %" PRId64 " of %" PRId64 " tokens", i,
                                    spans[i].keep, spans[i].n);
    }
    return true;
}

void atedm_select_tokens(atedm_stream *s, const float *scores, int32_t *kept,
                         const atedm_prune_span *spans, int64_t n_spans)
{
    static const char op[] = "select_tokens";
    int64_t rows, n_kept;
    atedm_region in, out;
    if (!s->status && n_spans != 0 && check_prune_spans(s, op, spans, n_spans, &rows, &n_kept) &&
        atedm_check_tensor(s, op, "scores", scores, sizeof *scores, ATEDM_DIMS(rows), &in) &&
        atedm_check_tensor(s, op, "kept", kept, sizeof *kept, ATEDM_DIMS(n_kept), &out) &&
        atedm_check_apart(s, op, &in, &out))
        atedm_stream_backend(s)->ops.select_tokens(s, scores, kept, spans, n_spans);
}

// What all source operations are given. ret_source: their result, which has to be apart from what
// they read besides; *ret_rows: the rows of all spans.
static bool check_source(atedm_stream *s, const char *op, const atedm_source_args *args,
                         int64_t *ret_rows, atedm_region *ret_source)
{
    int64_t n_kept;
    atedm_region kept;
    return check_prune_spans(s, op, args->spans, args->n_spans, ret_rows, &n_kept) &&
           atedm_check_tensor(s, op, "kept", args->kept, sizeof *args->kept, ATEDM_DIMS(n_kept),
                              &kept) &&
           atedm_check_tensor(s, op, "source", args->source, sizeof *args->source,
                              ATEDM_DIMS(*ret_rows), ret_source) &&
           atedm_check_apart(s, op, &kept, ret_source);
}

// Counts `each` for every pair of a pruned and a kept token.
static bool count_pairs(atedm_stream *s, const char *op, const atedm_source_args *args,
                        int64_t each)
{
    uint64_t count = s->counts.overhead;
    for (int64_t i = 0; i < args->n_spans; i++) {
        int64_t keep = args->spans[i].keep, pruned = args->spans[i].n - keep;
        if (!atedm_check_count(s, op, ATEDM_DIMS(pruned, keep, each), &count))
            return false;
    }
    s->counts.overhead = count;
    return true;
}

void atedm_source_attention(atedm_stream *s, const atedm_source_args *args,
                            const atedm_source_map *map)
{
    static const char op[] = "source_attention";
    int64_t rows;
    atedm_region source, read[3];
    if (s->status || args->n_spans == 0 || !check_source(s, op, args, &rows, &source))
        return;
    const operand q = {"q", map->q, map->q_stride, rows}, k = {"k", map->k, map->k_stride, rows};
    if (!check_operand(s, op, &q, map->heads, map->head_dim, &read[0]) ||
        !check_operand(s, op, &k, map->heads, map->head_dim, &read[1]) ||
        !check_lse(s, op, map->lse, map->lse_stride, map->heads, rows, &read[2]))
        return;
    for (int i = 0; i < 3; i++)
        if (!atedm_check_apart(s, op, &read[i], &source))
            return;
    if (count_pairs(s, op, args, (int64_t)map->heads * map->head_dim))
        atedm_stream_backend(s)->ops.source_attention(s, args, map);
}

void atedm_source_cosine(atedm_stream *s, const atedm_source_args *args, const void *x, int64_t c)
{
    static const char op[] = "source_cosine";
    int64_t rows;
    atedm_region source, in;
    if (!s->status && args->n_spans != 0 && check_source(s, op, args, &rows, &source) &&
        atedm_check_act(s, op, "x", x, ATEDM_DIMS(rows, c), &in) &&
        atedm_check_apart(s, op, &in, &source) && count_pairs(s, op, args, c))
        atedm_stream_backend(s)->ops.source_cosine(s, args, x, c);
}

void atedm_source_nearest(atedm_stream *s, const atedm_source_args *args, const int32_t *place,
                          int64_t width)
{
    static const char op[] = "source_nearest";
    int64_t rows;
    atedm_region source, in;
    if (s->status || args->n_spans == 0 || !check_source(s, op, args, &rows, &source) ||
        !atedm_check_tensor(s, op, "place", place, sizeof *place, ATEDM_DIMS(rows), &in) ||
        !atedm_check_apart(s, op, &in, &source))
        return;
    if (width < 1 || width > INT32_MAX) // places are int32_t
        atedm_check_fail(s, ATEDM_ERR_INVALID, op, "the grid is %" PRId64 " wide", width);
    else
        atedm_stream_backend(s)->ops.source_nearest(s, args, place, width);
}

void atedm_source_zero(atedm_stream *s, const atedm_source_args *args)
{
    int64_t rows;
    atedm_region source;
    if (!s->status && args->n_spans != 0 && check_source(s, "source_zero", args, &rows, &source))
        atedm_stream_backend(s)->ops.source_zero(s, args);
}

void atedm_source_weights(atedm_stream *s, const int32_t *source, const float *before,
                          float *weights, const atedm_prune_span *spans, int64_t n_spans)
{
    static const char op[] = "source_weights";
    int64_t rows, n_kept;
    atedm_region in, out, more = {0};
    if (!s->status && n_spans != 0 && check_prune_spans(s, op, spans, n_spans, &rows, &n_kept) &&
        atedm_check_tensor(s, op, "source", source, sizeof *source, ATEDM_DIMS(rows), &in) &&
        atedm_check_tensor(s, op, "weights", weights, sizeof *weights, ATEDM_DIMS(n_kept), &out) &&
        atedm_check_apart(s, op, &in, &out) &&
        (!before ||
         (atedm_check_tensor(s, op, "before", before, sizeof *before, ATEDM_DIMS(rows), &more) &&
          atedm_check_apart(s, op, &more, &out))))
        atedm_stream_backend(s)->ops.source_weights(s, source, before, weights, spans, n_spans);
}

// Spans within bounds: entries of the index lists and rows of y; some of them may be empty.
static bool check_gather_spans(atedm_stream *s, const char *op, const atedm_gather_span *spans,
                               int64_t n_spans, int64_t *ret_entries, int64_t *ret_rows)
{
    if (!check_list(s, op, spans, n_spans))
        return false;
    *ret_entries = *ret_rows = 0;
    for (int64_t i = 0; i < n_spans; i++) {
        if (spans[i].n == 0)
            continue;
        if (!check_rows(s, op, i, spans[i].index_first, spans[i].n, ret_entries) ||
            !check_rows(s, op, i, spans[i].to, spans[i].n, ret_rows))
            return false;
        if (spans[i].from < 0 || spans[i].from > MAX_ROW)
            return atedm_check_fail(s, ATEDM_ERR_INVALID, op,
                                    "span %" PRId64 " gathers from row %" PRId64 " on", i,
                                    spans[i].from);
    }
    return true;
}

// What gathering and adding rows ask of their operands; row_bytes are those of a row. True where
// there is something to do.
static bool check_gather(atedm_stream *s, const char *op, const void *x, const int32_t *index,
                         const void *y, size_t row_bytes, const atedm_gather_span *spans,
                         int64_t n_spans)
{
    int64_t entries, rows;
    atedm_region list, out;
    if (s->status || n_spans == 0 || !check_gather_spans(s, op, spans, n_spans, &entries, &rows) ||
        rows == 0)
        return false;
    if (row_bytes < 1 || row_bytes > (size_t)ATEDM_MAX_ELEMENTS)
        return atedm_check_fail(s, ATEDM_ERR_INVALID, op, "rows of %zu bytes", row_bytes);
    // Which rows of x are read stands in device memory; what is known is that y is not x.
    const atedm_region in = {"x", x, row_bytes};
    if (!x)
        return atedm_check_fail(s, ATEDM_ERR_INVALID, op, "x is NULL");
    return atedm_check_tensor(s, op, "index", index, sizeof *index, ATEDM_DIMS(entries), &list) &&
           atedm_check_tensor(s, op, "y", y, 1, ATEDM_DIMS(rows, (int64_t)row_bytes), &out) &&
           atedm_check_apart(s, op, &in, &out) && atedm_check_apart(s, op, &list, &out);
}

void atedm_gather_rows(atedm_stream *s, const void *x, const int32_t *index, void *y,
                       size_t row_bytes, const atedm_gather_span *spans, int64_t n_spans)
{
    if (check_gather(s, "gather_rows", x, index, y, row_bytes, spans, n_spans))
        atedm_stream_backend(s)->ops.gather_rows(s, x, index, y, row_bytes, spans, n_spans);
}

void atedm_add_rows(atedm_stream *s, const void *x, const int32_t *index, float factor, void *y,
                    int64_t c, const atedm_gather_span *spans, int64_t n_spans)
{
    static const char op[] = "add_rows";
    if (s->status || n_spans == 0)
        return;
    if (c < 1 || c > ATEDM_MAX_ELEMENTS)
        atedm_check_fail(s, ATEDM_ERR_INVALID, op, "rows of %" PRId64 " elements", c);
    else if (check_gather(s, op, x, index, y, (size_t)c * atedm_dtype_size(s->act), spans, n_spans))
        atedm_stream_backend(s)->ops.add_rows(s, x, index, factor, y, c, spans, n_spans);
}
