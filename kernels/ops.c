// The operations of kernels.h: each checks its arguments, counts its multiply-accumulates and calls
// the backend. An operation over nothing (no rows, no samples) does nothing.
#include "kernels/backend.h"

#include <math.h>

// Elements of the largest tensor that an operation takes; keeps index arithmetic within int64_t.
#define MAX_ELEMENTS ((int64_t)1 << 40)

#define OPS(s) ((s)->device->backend)

static void refuse(atedm_stream *s, const char *op)
{
    atedm_stream_fail(s, ATEDM_ERR_INVALID, "%s: wrong arguments", op);
}

// True when every factor is positive and their product is within MAX_ELEMENTS.
static bool fits(int64_t a, int64_t b, int64_t c, int64_t d)
{
    const int64_t factors[4] = {a, b, c, d};
    int64_t product = 1;
    for (int i = 0; i < 4; i++)
        if (factors[i] < 1 || __builtin_mul_overflow(product, factors[i], &product) ||
            product > MAX_ELEMENTS)
            return false;
    return true;
}

static bool is_weight(const atedm_stream *s, const atedm_weight *weight, atedm_weight_kind kind)
{
    return weight && weight->kind == kind && weight->device == s->device &&
           (weight->act == s->act || kind == ATEDM_WEIGHT_NORM);
}

// ---- copies
// ----------------------------------------------------------------------------------------

void atedm_upload(atedm_stream *s, const void *from_host, void *to_device, size_t bytes)
{
    if (!s->status && bytes)
        OPS(s)->upload(s, from_host, to_device, bytes);
}

void atedm_download(atedm_stream *s, const void *from_device, void *to_host, size_t bytes)
{
    if (!s->status && bytes)
        OPS(s)->download(s, from_device, to_host, bytes);
}

void atedm_copy(atedm_stream *s, const void *from_device, void *to_device, size_t bytes)
{
    if (!s->status && bytes)
        OPS(s)->copy(s, from_device, to_device, bytes);
}

// ---- dense operations
// ------------------------------------------------------------------------------

void atedm_linear(atedm_stream *s, const atedm_linear_args *args)
{
    if (s->status || args->rows == 0)
        return;
    if (!is_weight(s, args->weight, ATEDM_WEIGHT_LINEAR) || !args->x || !args->y ||
        !fits(args->rows, args->weight->in, 1, 1) || !fits(args->rows, args->weight->out, 1, 1)) {
        refuse(s, "linear");
        return;
    }
    s->counts.linear +=
        (uint64_t)args->rows * (uint64_t)args->weight->in * (uint64_t)args->weight->out;
    OPS(s)->linear(s, args);
}

void atedm_conv(atedm_stream *s, const atedm_conv_args *args)
{
    if (s->status || args->n == 0)
        return;
    const atedm_weight *weight = args->weight;
    if (!is_weight(s, weight, ATEDM_WEIGHT_CONV) || !args->x || !args->y ||
        !fits(args->n, args->h, args->w, weight->in) ||
        !fits(args->n, args->h, args->w, weight->out)) {
        refuse(s, "conv");
        return;
    }
    int64_t ho = (args->h + weight->stride - 1) / weight->stride;
    int64_t wo = (args->w + weight->stride - 1) / weight->stride;
    s->counts.conv += (uint64_t)(args->n * ho * wo) * (uint64_t)(weight->in * weight->out) *
                      (uint64_t)(weight->kernel * weight->kernel);
    OPS(s)->conv(s, args);
}

void atedm_group_norm(atedm_stream *s, const atedm_group_norm_args *args)
{
    if (s->status || args->n == 0)
        return;
    if (!is_weight(s, args->weight, ATEDM_WEIGHT_NORM) || !args->x || !args->y ||
        args->groups < 1 || args->weight->in % args->groups ||
        !fits(args->n, args->hw, args->weight->in, 1) || !(args->epsilon >= 0)) {
        refuse(s, "group_norm");
        return;
    }
    OPS(s)->group_norm(s, args);
}

void atedm_layer_norm(atedm_stream *s, const atedm_layer_norm_args *args)
{
    if (s->status || args->rows == 0)
        return;
    if (!is_weight(s, args->weight, ATEDM_WEIGHT_NORM) || !args->x || !args->y ||
        !fits(args->rows, args->weight->in, 1, 1) || !(args->epsilon >= 0)) {
        refuse(s, "layer_norm");
        return;
    }
    OPS(s)->layer_norm(s, args);
}

void atedm_geglu(atedm_stream *s, const void *x, void *y, int64_t rows, int64_t f)
{
    if (s->status || rows == 0)
        return;
    if (!x || !y || !fits(rows, f, 2, 1)) {
        refuse(s, "geglu");
        return;
    }
    OPS(s)->geglu(s, x, y, rows, f);
}

void atedm_activate(atedm_stream *s, atedm_activation activation, const void *x, void *y,
                    int64_t count)
{
    if (s->status || count == 0)
        return;
    if (!x || !y || !fits(count, 1, 1, 1)) {
        refuse(s, "activate");
        return;
    }
    OPS(s)->activate(s, activation, x, y, count);
}

void atedm_add(atedm_stream *s, const void *a, const void *b, void *y, int64_t count)
{
    if (s->status || count == 0)
        return;
    if (!a || !b || !y || !fits(count, 1, 1, 1)) {
        refuse(s, "add");
        return;
    }
    OPS(s)->add(s, a, b, y, count);
}

void atedm_upsample2(atedm_stream *s, const void *x, void *y, int64_t n, int64_t h, int64_t w,
                     int64_t c)
{
    if (s->status || n == 0)
        return;
    if (!x || !y || !fits(n, h, w, c)) {
        refuse(s, "upsample2");
        return;
    }
    OPS(s)->upsample2(s, x, y, n, h, w, c);
}

void atedm_concat(atedm_stream *s, const void *a, int64_t ca, const void *b, int64_t cb, void *y,
                  int64_t rows)
{
    if (s->status || rows == 0)
        return;
    if (!a || !b || !y || ca < 1 || cb < 1 || !fits(rows, ca + cb, 1, 1)) {
        refuse(s, "concat");
        return;
    }
    OPS(s)->concat(s, a, ca, b, cb, y, rows);
}

void atedm_embed_tokens(atedm_stream *s, const atedm_weight *table, const atedm_weight *position,
                        const int64_t *ids, int64_t rows, int64_t tokens, void *y)
{
    if (s->status || rows == 0)
        return;
    bool good = is_weight(s, table, ATEDM_WEIGHT_TABLE) &&
                is_weight(s, position, ATEDM_WEIGHT_TABLE) && ids && y && tokens >= 1 &&
                tokens <= position->out && position->in == table->in && fits(rows, table->in, 1, 1);
    for (int64_t i = 0; good && i < rows; i++)
        good = ids[i] >= 0 && ids[i] < table->out;
    if (!good) {
        refuse(s, "embed_tokens");
        return;
    }
    OPS(s)->embed_tokens(s, table, position, ids, rows, tokens, y);
}

void atedm_sinusoid(atedm_stream *s, const double *values, int64_t n, int64_t dim, void *y)
{
    if (s->status || n == 0)
        return;
    if (!values || !y || dim % 2 || !fits(n, dim, 1, 1)) {
        refuse(s, "sinusoid");
        return;
    }
    OPS(s)->sinusoid(s, values, n, dim, y);
}

void atedm_to_f32(atedm_stream *s, const void *x, float *y, int64_t count)
{
    if (s->status || count == 0)
        return;
    if (!x || !y || !fits(count, 1, 1, 1)) {
        refuse(s, "to_f32");
        return;
    }
    OPS(s)->to_f32(s, x, y, count);
}

void atedm_from_f32(atedm_stream *s, const float *x, void *y, int64_t count)
{
    if (s->status || count == 0)
        return;
    if (!x || !y || !fits(count, 1, 1, 1)) {
        refuse(s, "from_f32");
        return;
    }
    OPS(s)->from_f32(s, x, y, count);
}

// ---- attention
// -------------------------------------------------------------------------------------

// Spans within bounds; head columns within the row strides.
static bool good_spans(const atedm_span *spans, int64_t n_spans, bool square)
{
    if (n_spans < 0 || (n_spans && !spans))
        return false;
    for (int64_t i = 0; i < n_spans; i++) {
        const atedm_span *p = &spans[i];
        if (p->q0 < 0 || p->k0 < 0 || p->nq < 1 || p->nk < 1 || p->nq > MAX_ELEMENTS ||
            p->nk > MAX_ELEMENTS || p->q0 > MAX_ELEMENTS || p->k0 > MAX_ELEMENTS)
            return false;
        if (square && p->nq != p->nk)
            return false;
    }
    return true;
}

static bool good_heads(int heads, int head_dim, const int64_t *strides, int n_strides)
{
    if (heads < 1 || head_dim < 1)
        return false;
    for (int i = 0; i < n_strides; i++)
        if (strides[i] < (int64_t)heads * head_dim)
            return false;
    return true;
}

// Every span's rows have a place in each row of lse.
static bool good_lse(const float *lse, int64_t lse_stride, const atedm_span *spans, int64_t n_spans)
{
    for (int64_t i = 0; lse && i < n_spans; i++)
        if (spans[i].q0 + spans[i].nq > lse_stride)
            return false;
    return true;
}

void atedm_attention(atedm_stream *s, const atedm_attention_args *args)
{
    if (s->status || args->n_spans == 0)
        return;
    int64_t strides[3] = {args->q_stride, args->k_stride, args->v_stride};
    if (!args->q || !args->k || !args->v || !args->o ||
        !good_spans(args->spans, args->n_spans, args->causal) ||
        !good_heads(args->heads, args->head_dim, strides, 3) ||
        !good_lse(args->lse, args->lse_stride, args->spans, args->n_spans)) {
        refuse(s, "attention");
        return;
    }
    uint64_t width = (uint64_t)args->heads * (uint64_t)args->head_dim;
    for (int64_t i = 0; i < args->n_spans; i++)
        s->counts.attention +=
            2 * width * (uint64_t)args->spans[i].nq * (uint64_t)args->spans[i].nk;
    OPS(s)->attention(s, args);
}

// ---- AT-EDM
// ----------------------------------------------------------------------------------------

void atedm_rank_tokens(atedm_stream *s, const atedm_rank_args *args)
{
    if (s->status || args->n_spans == 0)
        return;
    int64_t strides[2] = {args->q_stride, args->k_stride};
    bool good = args->q && args->k && args->lse && args->scores && args->params &&
                good_spans(args->spans, args->n_spans, !args->cross) &&
                good_heads(args->heads, args->head_dim, strides, 2) &&
                good_lse(args->lse, args->lse_stride, args->spans, args->n_spans);
    for (int64_t i = 0; good && i < args->n_spans; i++)
        good = args->params[i].max_iterations >= 1 &&
               args->params[i].max_iterations <= ATEDM_MAX_RANK_ITERATIONS &&
               args->params[i].tolerance >= 0;
    if (!good) {
        refuse(s, "rank_tokens");
        return;
    }
    for (int64_t i = 0; i < args->n_spans; i++) {
        uint64_t map = (uint64_t)args->spans[i].nq * (uint64_t)args->spans[i].nk;
        uint64_t passes = (uint64_t)args->params[i].max_iterations * (args->cross ? 2 : 1);
        s->counts.overhead += (uint64_t)args->heads * map * ((uint64_t)args->head_dim + passes);
    }
    OPS(s)->rank_tokens(s, args);
}

static bool good_prune_spans(const atedm_prune_span *spans, int64_t n_spans)
{
    if (n_spans < 0 || (n_spans && !spans))
        return false;
    for (int64_t i = 0; i < n_spans; i++)
        if (spans[i].first < 0 || spans[i].kept_first < 0 || spans[i].keep < 1 ||
            spans[i].keep > spans[i].n || spans[i].n > INT32_MAX || spans[i].first > MAX_ELEMENTS ||
            spans[i].kept_first > MAX_ELEMENTS)
            return false;
    return true;
}

void atedm_select_tokens(atedm_stream *s, const float *scores, int32_t *kept,
                         const atedm_prune_span *spans, int64_t n_spans)
{
    if (s->status || n_spans == 0)
        return;
    if (!scores || !kept || !good_prune_spans(spans, n_spans)) {
        refuse(s, "select_tokens");
        return;
    }
    OPS(s)->select_tokens(s, scores, kept, spans, n_spans);
}

static bool good_source(const atedm_source_args *args)
{
    return args->kept && args->source && good_prune_spans(args->spans, args->n_spans);
}

// Sum over spans of pruned x kept tokens.
static uint64_t pairs(const atedm_source_args *args)
{
    uint64_t sum = 0;
    for (int64_t i = 0; i < args->n_spans; i++)
        sum += (uint64_t)(args->spans[i].n - args->spans[i].keep) * (uint64_t)args->spans[i].keep;
    return sum;
}

void atedm_source_attention(atedm_stream *s, const atedm_source_args *args,
                            const atedm_source_map *map)
{
    if (s->status || args->n_spans == 0)
        return;
    int64_t strides[2] = {map->q_stride, map->k_stride};
    bool good = good_source(args) && map->q && map->k && map->lse &&
                good_heads(map->heads, map->head_dim, strides, 2);
    for (int64_t i = 0; good && i < args->n_spans; i++)
        good = args->spans[i].first + args->spans[i].n <= map->lse_stride;
    if (!good) {
        refuse(s, "source_attention");
        return;
    }
    s->counts.overhead += pairs(args) * (uint64_t)map->heads * (uint64_t)map->head_dim;
    OPS(s)->source_attention(s, args, map);
}

void atedm_source_cosine(atedm_stream *s, const atedm_source_args *args, const void *x, int64_t c)
{
    if (s->status || args->n_spans == 0)
        return;
    if (!good_source(args) || !x || c < 1) {
        refuse(s, "source_cosine");
        return;
    }
    s->counts.overhead += pairs(args) * (uint64_t)c;
    OPS(s)->source_cosine(s, args, x, c);
}

void atedm_source_nearest(atedm_stream *s, const atedm_source_args *args, const int32_t *place,
                          int64_t width)
{
    if (s->status || args->n_spans == 0)
        return;
    if (!good_source(args) || !place || width < 1) {
        refuse(s, "source_nearest");
        return;
    }
    OPS(s)->source_nearest(s, args, place, width);
}

void atedm_source_zero(atedm_stream *s, const atedm_source_args *args)
{
    if (s->status || args->n_spans == 0)
        return;
    if (!good_source(args)) {
        refuse(s, "source_zero");
        return;
    }
    OPS(s)->source_zero(s, args);
}

void atedm_gather_rows(atedm_stream *s, const void *x, const int32_t *index, void *y,
                       size_t row_bytes, const atedm_gather_span *spans, int64_t n_spans)
{
    if (s->status || n_spans == 0)
        return;
    bool good = x && index && y && x != y && row_bytes && spans && n_spans > 0;
    for (int64_t i = 0; good && i < n_spans; i++)
        good =
            spans[i].from >= 0 && spans[i].index_first >= 0 && spans[i].to >= 0 && spans[i].n >= 0;
    if (!good) {
        refuse(s, "gather_rows");
        return;
    }
    OPS(s)->gather_rows(s, x, index, y, row_bytes, spans, n_spans);
}

// ---- sampler
// ---------------------------------------------------------------------------------------

void atedm_scale_input(atedm_stream *s, const float *x, const double *a, void *y, int64_t n,
                       int64_t count)
{
    if (s->status || n == 0 || count == 0)
        return;
    if (!x || !a || !y || !fits(n, count, 1, 1)) {
        refuse(s, "scale_input");
        return;
    }
    OPS(s)->scale_input(s, x, a, y, n, count);
}

void atedm_sampler_step(atedm_stream *s, const atedm_step_args *args)
{
    if (s->status || args->count == 0)
        return;
    if (!args->cond || !args->x || !fits(args->count, 1, 1, 1) || !isfinite(args->guidance_scale) ||
        !isfinite(args->a) || !isfinite(args->b)) {
        refuse(s, "sampler_step");
        return;
    }
    OPS(s)->sampler_step(s, args);
}

void atedm_image_finish(atedm_stream *s, const void *x, uint8_t *y, int64_t count)
{
    if (s->status || count == 0)
        return;
    if (!x || !y || !fits(count, 1, 1, 1)) {
        refuse(s, "image_finish");
        return;
    }
    OPS(s)->image_finish(s, x, y, count);
}
