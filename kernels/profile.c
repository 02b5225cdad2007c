// Times operations: see profile.h. A device's table is replaced by one whose entries time those of
// the table that was there.
#include "kernels/profile.h"

#include "core/base/clock.h"
#include "kernels/backend.h"
#include "kernels/profile_bytes.h"

#include <math.h>
#include <stdlib.h>

// The operations, with their parameters behind the stream, and the bytes that they have to move.
#define OPERATIONS(X)                                                                              \
    X(linear, (atedm_stream * s, const atedm_linear_args *a), (s, a), atedm_bytes_linear(s, a))    \
    X(conv, (atedm_stream * s, const atedm_conv_args *a), (s, a), atedm_bytes_conv(s, a))          \
    X(group_norm, (atedm_stream * s, const atedm_group_norm_args *a), (s, a),                      \
      atedm_bytes_group_norm(s, a))                                                                \
    X(layer_norm, (atedm_stream * s, const atedm_layer_norm_args *a), (s, a),                      \
      atedm_bytes_layer_norm(s, a))                                                                \
    X(geglu, (atedm_stream * s, const void *x, void *y, int64_t rows, int64_t f),                  \
      (s, x, y, rows, f), atedm_bytes_act(s, 3 * rows * f))                                        \
    X(activate, (atedm_stream * s, atedm_activation kind, const void *x, void *y, int64_t count),  \
      (s, kind, x, y, count), atedm_bytes_act(s, 2 * count))                                       \
    X(add, (atedm_stream * s, const void *a, const void *b, void *y, int64_t count),               \
      (s, a, b, y, count), atedm_bytes_act(s, 3 * count))                                          \
    X(upsample2,                                                                                   \
      (atedm_stream * s, const void *x, void *y, int64_t n, int64_t h, int64_t w, int64_t c),      \
      (s, x, y, n, h, w, c), atedm_bytes_act(s, (h * w + (h + 1) / 2 * ((w + 1) / 2)) * (n * c)))  \
    X(concat,                                                                                      \
      (atedm_stream * s, const void *a, int64_t ca, const void *b, int64_t cb, void *y,            \
       int64_t rows),                                                                              \
      (s, a, ca, b, cb, y, rows), atedm_bytes_act(s, 2 * rows * (ca + cb)))                        \
    X(embed_tokens,                                                                                \
      (atedm_stream * s, const atedm_weight *table, const atedm_weight *position,                  \
       const int64_t *ids, int64_t rows, int64_t tokens, void *y),                                 \
      (s, table, position, ids, rows, tokens, y),                                                  \
      atedm_bytes_act(s, (2 * rows + tokens) * table->in))                                         \
    X(sinusoid, (atedm_stream * s, const double *values, int64_t n, int64_t dim, void *y),         \
      (s, values, n, dim, y), atedm_bytes_act(s, (n * dim)))                                       \
    X(to_f32, (atedm_stream * s, const void *x, float *y, int64_t count), (s, x, y, count),        \
      atedm_bytes_act(s, count) + (uint64_t)count * sizeof(float))                                 \
    X(from_f32, (atedm_stream * s, const float *x, void *y, int64_t count), (s, x, y, count),      \
      atedm_bytes_act(s, count) + (uint64_t)count * sizeof(float))                                 \
    X(attention, (atedm_stream * s, const atedm_attention_args *a), (s, a),                        \
      atedm_bytes_attention(s, a))                                                                 \
    X(rank_tokens, (atedm_stream * s, const atedm_rank_args *a), (s, a), atedm_bytes_rank(s, a))   \
    X(random_scores,                                                                               \
      (atedm_stream * s, const uint64_t *draws, const float *weights, float *scores,               \
       const atedm_random_span *spans, int64_t n),                                                 \
      (s, draws, weights, scores, spans, n), atedm_bytes_random(weights, spans, n))                \
    X(select_tokens,                                                                               \
      (atedm_stream * s, const float *scores, int32_t *kept, const atedm_prune_span *spans,        \
       int64_t n),                                                                                 \
      (s, scores, kept, spans, n), atedm_bytes_select(spans, n))                                   \
    X(source_attention,                                                                            \
      (atedm_stream * s, const atedm_source_args *a, const atedm_source_map *map), (s, a, map),    \
      atedm_bytes_source(a, atedm_bytes_act(s, (int64_t)map->heads * map->head_dim)))              \
    X(source_cosine, (atedm_stream * s, const atedm_source_args *a, const void *x, int64_t c),     \
      (s, a, x, c), atedm_bytes_source(a, atedm_bytes_act(s, c)))                                  \
    X(source_nearest,                                                                              \
      (atedm_stream * s, const atedm_source_args *a, const int32_t *place, int64_t width),         \
      (s, a, place, width), atedm_bytes_source(a, sizeof *place))                                  \
    X(source_zero, (atedm_stream * s, const atedm_source_args *a), (s, a),                         \
      atedm_bytes_source(a, 0))                                                                    \
    X(source_weights,                                                                              \
      (atedm_stream * s, const int32_t *source, const float *before, float *weights,               \
       const atedm_prune_span *spans, int64_t n),                                                  \
      (s, source, before, weights, spans, n), atedm_bytes_weights(spans, n, before != NULL))       \
    X(gather_rows,                                                                                 \
      (atedm_stream * s, const void *x, const int32_t *index, void *y, size_t row_bytes,           \
       const atedm_gather_span *spans, int64_t n),                                                 \
      (s, x, index, y, row_bytes, spans, n), atedm_bytes_gather(spans, n, 2 * row_bytes))          \
    X(add_rows,                                                                                    \
      (atedm_stream * s, const void *x, const int32_t *index, float factor, void *y, int64_t c,    \
       const atedm_gather_span *spans, int64_t n),                                                 \
      (s, x, index, factor, y, c, spans, n),                                                       \
      atedm_bytes_gather(spans, n, 3 * atedm_bytes_act(s, c)))                                     \
    X(scale_input,                                                                                 \
      (atedm_stream * s, const float *x, const double *a, void *y, int64_t n, int64_t count),      \
      (s, x, a, y, n, count),                                                                      \
      atedm_bytes_act(s, (n * count)) + (uint64_t)(n * count) * sizeof(float))                     \
    X(sampler_step, (atedm_stream * s, const atedm_step_args *a), (s, a), atedm_bytes_step(s, a))  \
    X(image_finish, (atedm_stream * s, const void *x, uint8_t *y, int64_t count),                  \
      (s, x, y, count), atedm_bytes_act(s, count) + (uint64_t)count)

enum {
#define X(name, parameters, arguments, bytes) OP_##name,
    OPERATIONS(X)
#undef X
        N_OPERATIONS
};
_Static_assert(N_OPERATIONS <= ATEDM_PROFILE_MAX, "room for every operation");
_Static_assert(N_OPERATIONS == ATEDM_BACKEND_OPERATIONS, "every operation of the table is timed");

struct atedm_profile {
    atedm_backend table; // the device's, as long as it is profiled
    const atedm_backend *inner;
    atedm_device *device;
    atedm_profile_op ops[N_OPERATIONS];
    uint64_t flops; // counted by the stream before the operation
    atedm_profile_rates rates;
};

static atedm_profile *profile_of(const atedm_stream *s)
{
    return (atedm_profile *)(uintptr_t)s->device->backend; // its first member
}

static uint64_t counted(const atedm_op_counts *c)
{
    return 2 * (c->conv + c->linear + c->attention + c->overhead);
}

static void note(atedm_stream *s, int op, double start, uint64_t bytes)
{
    atedm_profile *p = profile_of(s);
    p->inner->stream_sync(s);
    uint64_t flops = counted(&s->counts);
    if (!atedm_device_is_dry(s->device))
        p->ops[op].seconds += atedm_clock_monotonic() - start;
    p->ops[op].calls++;
    // Operations are counted right before they are called; less than before: the counts were reset.
    uint64_t more = flops >= p->flops ? flops - p->flops : flops;
    p->ops[op].flops += more;
    p->flops = flops;
    p->ops[op].bytes += bytes;
    if (p->rates.flops_per_s > 0 && p->rates.bytes_per_s > 0)
        p->ops[op].floor_s +=
            fmax((double)more / p->rates.flops_per_s, (double)bytes / p->rates.bytes_per_s);
}

#define X(name, parameters, arguments, moved)                                                      \
    static void timed_##name parameters                                                            \
    {                                                                                              \
        double start = atedm_clock_monotonic();                                                    \
        profile_of(s)->inner->name arguments;                                                      \
        note(s, OP_##name, start, moved);                                                          \
    }
OPERATIONS(X)
#undef X

atedm_status atedm_profile_start(atedm_device *device, const atedm_profile_rates *rates,
                                 atedm_profile **ret_profile, atedm_error *err)
{
    atedm_profile *p = calloc(1, sizeof *p);
    if (!p)
        return atedm_error_set(err, ATEDM_ERR_NOMEM, "no memory for a profile");
    p->inner = device->backend;
    p->device = device;
    if (rates)
        p->rates = *rates;
    p->table = *p->inner;
    // Operations that wait cannot be recorded, and nothing runs beside them.
    p->table.stream_repeat = NULL;
    p->table.stream_begin_aside = NULL;
    p->table.stream_end_aside = NULL;
    p->table.stream_join_aside = NULL;
#define X(op, parameters, arguments, bytes)                                                        \
    p->table.op = timed_##op;                                                                      \
    p->ops[OP_##op].name = #op;
    OPERATIONS(X)
#undef X
    device->backend = &p->table;
    *ret_profile = p;
    return ATEDM_OK;
}

void atedm_profile_stop(atedm_profile *p)
{
    if (!p)
        return;
    p->device->backend = p->inner;
    free(p);
}

static bool is_longer(const atedm_profile_op *a, const atedm_profile_op *b)
{
    return a->seconds > b->seconds || (a->seconds == b->seconds && a->floor_s > b->floor_s);
}

size_t atedm_profile_read(const atedm_profile *p, atedm_profile_op ret_ops[ATEDM_PROFILE_MAX])
{
    size_t n = 0;
    for (int i = 0; i < N_OPERATIONS; i++) {
        const atedm_profile_op op = p->ops[i];
        if (!op.calls)
            continue;
        size_t at = n++;
        for (; at > 0 && is_longer(&op, &ret_ops[at - 1]); at--)
            ret_ops[at] = ret_ops[at - 1];
        ret_ops[at] = op;
    }
    return n;
}
