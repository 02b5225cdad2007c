// Where pruned tokens will take their values from, in the cpu backend.
#include "kernels/cpu/cpu.h"

#include <math.h>
#include <omp.h>
#include <string.h>

#define BLOCK ATEDM_VEC_QUERY_ROWS // pruned tokens that a thread processes at a time

// One span's lists. `pruned` are the positions that are not kept, ascending.
typedef struct span_lists {
    const int32_t *kept;
    int32_t *source, *pruned;
    int64_t n_kept, n_pruned;
} span_lists;

// Gives every kept token its own slot, and lists the pruned ones.
static void list_span(const atedm_source_args *args, int64_t span, int32_t *pruned,
                      span_lists *ret_lists)
{
    const atedm_prune_span *p = &args->spans[span];
    span_lists lists = {.kept = args->kept + p->kept_first,
                        .source = args->source + p->first,
                        .pruned = pruned,
                        .n_kept = p->keep};
    int64_t slot = 0;
    for (int64_t i = 0; i < p->n; i++) {
        if (slot < p->keep && lists.kept[slot] == i)
            lists.source[i] = (int32_t)slot++;
        else
            pruned[lists.n_pruned++] = (int32_t)i;
    }
    *ret_lists = lists;
}

// Position of the largest value; of equal ones, the lowest. NaN is smaller than every number.
static int32_t argmax(const float *values, int64_t n)
{
    int64_t best = 0;
    for (int64_t j = 1; j < n; j++)
        if (values[j] > values[best] || (isnan(values[best]) && !isnan(values[j])))
            best = j;
    return (int32_t)best;
}

// Operands and working memory for computing similarities.
typedef struct similarity_work {
    atedm_cpu_stream *s;
    const atedm_vec_act *act; // of the rows
    char *kept_rows;          // [n_kept, heads * head_dim] of the keys
    char *keys;               // every head, packed
    float *similarity;        // of each thread: [BLOCK, stride]
    int64_t stride;
    char *rows; // of each thread: [BLOCK, heads * head_dim] queries
    char *work; // of each thread
    size_t keys_bytes, rows_bytes, work_bytes;
    int heads, head_dim;
    float scale;
} similarity_work;

// Takes scratch memory for every span of `args`. If there is none, it fails the stream and returns
// false. `size` is the size of an element of the rows.
static bool take_memory(similarity_work *w, const atedm_source_args *args, size_t size,
                        int32_t **ret_pruned)
{
    int64_t threads = omp_get_max_threads(), most_kept = 0, most = 0;
    for (int64_t i = 0; i < args->n_spans; i++) {
        most = args->spans[i].n > most ? args->spans[i].n : most;
        most_kept = args->spans[i].keep > most_kept ? args->spans[i].keep : most_kept;
    }
    size_t row = (size_t)w->heads * (size_t)w->head_dim * size;
    w->stride = (most_kept + 15) / 16 * 16;
    w->keys_bytes = w->act->keys_bytes(most_kept, w->head_dim);
    w->rows_bytes = BLOCK * row;
    w->work_bytes = w->act->work_bytes(w->head_dim);
    size_t gathered = atedm_cpu_bytes(most_kept, 1, row);
    w->kept_rows =
        atedm_cpu_scratch_get(w->s, ATEDM_SCRATCH_ROWS, gathered + (size_t)threads * w->rows_bytes);
    w->keys = atedm_cpu_scratch_get(w->s, ATEDM_SCRATCH_KEYS, (size_t)w->heads * w->keys_bytes);
    w->similarity =
        atedm_cpu_scratch_get(w->s, ATEDM_SCRATCH_MAP,
                              atedm_cpu_bytes(threads * BLOCK, w->stride, sizeof *w->similarity));
    w->work = atedm_cpu_scratch_get(w->s, ATEDM_SCRATCH_THREADS, (size_t)threads * w->work_bytes);
    *ret_pruned = atedm_cpu_scratch_get(w->s, ATEDM_SCRATCH_SUMS,
                                        atedm_cpu_bytes(most, 1, sizeof **ret_pruned));
    if (!w->kept_rows || !w->keys || !w->similarity || !w->work || !*ret_pruned)
        return false;
    w->rows = w->kept_rows + gathered;
    return true;
}

static void pack_kept(const similarity_work *w, const char *k, size_t row_bytes, size_t size,
                      const span_lists *lists)
{
    int64_t width = (int64_t)w->heads * w->head_dim;
    size_t width_bytes = (size_t)width * size;
#pragma omp parallel for schedule(static)                                                          \
    num_threads(atedm_cpu_threads(lists->n_kept *width *ATEDM_CPU_ELEMENT_WORK))
    for (int64_t j = 0; j < lists->n_kept; j++)
        memcpy(w->kept_rows + (size_t)j * width_bytes, k + (size_t)lists->kept[j] * row_bytes,
               width_bytes);
#pragma omp parallel for schedule(static)                                                          \
    num_threads(atedm_cpu_threads(lists->n_kept *width *ATEDM_CPU_ELEMENT_WORK))
    for (int64_t h = 0; h < w->heads; h++)
        w->act->pack_keys(w->kept_rows + (size_t)(h * w->head_dim) * size, width, lists->n_kept,
                          w->head_dim, w->keys + (size_t)h * w->keys_bytes);
}

// Finds the sources of pruned tokens first .. first + BLOCK - 1 from the sum of all heads' maps. q
// points at the row of the span's first token; lse [heads, lse_stride] starts at the same token.
static void attend_block(const similarity_work *w, const atedm_source_map *map, const char *q,
                         const float *lse, const span_lists *lists, int64_t first)
{
    size_t size = atedm_dtype_size(w->s->head.act), thread = (size_t)omp_get_thread_num();
    int64_t width = (int64_t)w->heads * w->head_dim;
    int64_t n = lists->n_pruned - first < BLOCK ? lists->n_pruned - first : BLOCK;
    const int32_t *pruned = lists->pruned + first;
    char *rows = w->rows + thread * w->rows_bytes;
    float *similarity = w->similarity + (int64_t)thread * BLOCK * w->stride;
    for (int64_t r = 0; r < n; r++)
        memcpy(rows + (size_t)(r * width) * size, q + (size_t)(pruned[r] * map->q_stride) * size,
               (size_t)width * size);
    for (int64_t h = 0; h < w->heads; h++) {
        float lse_of[BLOCK];
        for (int64_t r = 0; r < n; r++)
            lse_of[r] = lse[h * map->lse_stride + pruned[r]];
        const atedm_vec_head head = {.keys = w->keys + (size_t)h * w->keys_bytes,
                                     .n = lists->n_kept,
                                     .dim = w->head_dim,
                                     .scale = w->scale};
        w->act->map(&head, rows + (size_t)(h * w->head_dim) * size, width, n, lse_of, similarity,
                    w->stride, h > 0, w->work + thread * w->work_bytes);
    }
    for (int64_t r = 0; r < n; r++)
        lists->source[pruned[r]] = argmax(similarity + r * w->stride, lists->n_kept);
}

void atedm_cpu_source_attention(atedm_stream *stream, const atedm_source_args *args,
                                const atedm_source_map *map)
{
    atedm_cpu_stream *s = atedm_cpu_stream_of(stream);
    similarity_work w = {.s = s,
                         .act = s->act,
                         .heads = map->heads,
                         .head_dim = map->head_dim,
                         .scale = 1 / sqrtf((float)map->head_dim)};
    size_t size = atedm_dtype_size(stream->act);
    int32_t *pruned;
    if (!take_memory(&w, args, size, &pruned))
        return;
    for (int64_t i = 0; i < args->n_spans; i++) {
        size_t first = (size_t)args->spans[i].first;
        span_lists lists;
        list_span(args, i, pruned, &lists);
        const char *q = (const char *)map->q + first * (size_t)map->q_stride * size;
        const char *k = (const char *)map->k + first * (size_t)map->k_stride * size;
        pack_kept(&w, k, (size_t)map->k_stride * size, size, &lists);
#pragma omp parallel for schedule(dynamic)                                                         \
    num_threads(atedm_cpu_threads(lists.n_pruned *lists.n_kept * map->heads * map->head_dim))
        for (int64_t p = 0; p < lists.n_pruned; p += BLOCK)
            attend_block(&w, map, q, map->lse + first, &lists, p);
    }
}

// Scales the row to length 1. A row of zeros is unchanged.
static void normalize_row(float *row, int64_t c)
{
    double sum = 0;
    for (int64_t j = 0; j < c; j++)
        sum += (double)row[j] * (double)row[j];
    double factor = sum > 0 ? 1 / sqrt(sum) : 0;
    for (int64_t j = 0; j < c; j++)
        row[j] = (float)((double)row[j] * factor);
}

// Finds the sources of pruned tokens first .. first + BLOCK - 1 by cosine. x points at the span's
// first row.
static void compare_block(const similarity_work *w, const char *x, const span_lists *lists,
                          int64_t first)
{
    size_t size = atedm_dtype_size(w->s->head.act), thread = (size_t)omp_get_thread_num();
    int64_t c = w->head_dim;
    int64_t n = lists->n_pruned - first < BLOCK ? lists->n_pruned - first : BLOCK;
    const int32_t *pruned = lists->pruned + first;
    float *rows = (float *)(void *)(w->rows + thread * w->rows_bytes);
    float *similarity = w->similarity + (int64_t)thread * BLOCK * w->stride;
    for (int64_t r = 0; r < n; r++) {
        w->s->act->to_f32(x + (size_t)(pruned[r] * c) * size, rows + r * c, c);
        normalize_row(rows + r * c, c);
    }
    const atedm_vec_head head = {.keys = w->keys, .n = lists->n_kept, .dim = c, .scale = 1};
    w->act->map(&head, rows, c, n, NULL, similarity, w->stride, false,
                w->work + thread * w->work_bytes);
    for (int64_t r = 0; r < n; r++)
        lists->source[pruned[r]] = argmax(similarity + r * w->stride, lists->n_kept);
}

void atedm_cpu_source_cosine(atedm_stream *stream, const atedm_source_args *args, const void *x,
                             int64_t c)
{
    atedm_cpu_stream *s = atedm_cpu_stream_of(stream);
    if (c > INT32_MAX) {
        atedm_stream_fail(stream, ATEDM_ERR_LIMIT, "source_cosine: too many channels");
        return;
    }
    similarity_work w = {.s = s, .act = s->vec->f32, .heads = 1, .head_dim = (int)c, .scale = 1};
    size_t size = atedm_dtype_size(stream->act);
    int32_t *pruned;
    if (!take_memory(&w, args, sizeof(float), &pruned))
        return;
    for (int64_t i = 0; i < args->n_spans; i++) {
        span_lists lists;
        list_span(args, i, pruned, &lists);
        const char *rows = (const char *)x + (size_t)(args->spans[i].first * c) * size;
        float *kept = (float *)(void *)w.kept_rows;
#pragma omp parallel for schedule(static)                                                          \
    num_threads(atedm_cpu_threads(lists.n_kept *c *ATEDM_CPU_ELEMENT_WORK))
        for (int64_t j = 0; j < lists.n_kept; j++) {
            s->act->to_f32(rows + (size_t)(lists.kept[j] * c) * size, kept + j * c, c);
            normalize_row(kept + j * c, c);
        }
        w.act->pack_keys(kept, c, lists.n_kept, c, w.keys);
#pragma omp parallel for schedule(dynamic)                                                         \
    num_threads(atedm_cpu_threads(lists.n_pruned *lists.n_kept *c))
        for (int64_t p = 0; p < lists.n_pruned; p += BLOCK)
            compare_block(&w, rows, &lists, p);
    }
}

// The slot of the kept token that is nearest to `place` in the grid.
static int32_t nearest_slot(const int32_t *places, const span_lists *lists, int64_t place,
                            int64_t width)
{
    int64_t least = INT64_MAX, y = place / width, x = place % width;
    int32_t best = 0;
    for (int64_t j = 0; j < lists->n_kept; j++) {
        int64_t other = places[lists->kept[j]];
        int64_t dy = other / width - y, dx = other % width - x;
        int64_t distance = dy * dy + dx * dx;
        if (distance < least) {
            least = distance;
            best = (int32_t)j;
        }
    }
    return best;
}

void atedm_cpu_source_nearest(atedm_stream *stream, const atedm_source_args *args,
                              const int32_t *place, int64_t width)
{
    atedm_cpu_stream *s = atedm_cpu_stream_of(stream);
    for (int64_t i = 0; i < args->n_spans; i++) {
        const int32_t *places = place + args->spans[i].first;
        span_lists lists;
        int32_t *pruned = atedm_cpu_scratch_get(
            s, ATEDM_SCRATCH_SUMS, atedm_cpu_bytes(args->spans[i].n, 1, sizeof *pruned));
        if (!pruned)
            return;
        list_span(args, i, pruned, &lists);
#pragma omp parallel for schedule(static)                                                          \
    num_threads(atedm_cpu_threads(lists.n_pruned *lists.n_kept * 8))
        for (int64_t p = 0; p < lists.n_pruned; p++)
            lists.source[lists.pruned[p]] =
                nearest_slot(places, &lists, places[lists.pruned[p]], width);
    }
}

void atedm_cpu_source_zero(atedm_stream *stream, const atedm_source_args *args)
{
    for (int64_t i = 0; i < args->n_spans; i++) {
        const atedm_prune_span *p = &args->spans[i];
        for (int64_t j = 0; j < p->n; j++)
            args->source[p->first + j] = -1;
        for (int64_t slot = 0; slot < p->keep; slot++)
            args->source[p->first + args->kept[p->kept_first + slot]] = (int32_t)slot;
    }
}

// Serial, in the order of the tokens, so that a sum does not depend on the threads.
void atedm_cpu_source_weights(atedm_stream *stream, const int32_t *source, const float *before,
                              float *weights, const atedm_prune_span *spans, int64_t n_spans)
{
    for (int64_t k = 0; k < n_spans; k++) {
        const int32_t *from = source + spans[k].first;
        float *to = weights + spans[k].kept_first;
        memset(to, 0, (size_t)spans[k].keep * sizeof *to);
        for (int64_t i = 0; i < spans[k].n; i++)
            if (from[i] >= 0)
                to[from[i]] += before ? expf(before[spans[k].first + i]) : 1.0f;
        for (int64_t j = 0; j < spans[k].keep; j++)
            to[j] = logf(to[j]);
    }
}
