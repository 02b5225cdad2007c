// The list of all operations of kernels.h, in the order there. Made of it are the backends' tables
// (backend.h), the declarations of their functions, the dry backend's operations, the profile and
// the parity program.
//
// X(name, parameters, arguments, bytes): `arguments` are the names of the parameters. `bytes` is
// the least number of bytes that a call has to move, as an expression of the parameters and the
// functions of profile_bytes.h; only profile.c evaluates it.
#ifndef ATEDM_KERNELS_OPERATIONS_H
#define ATEDM_KERNELS_OPERATIONS_H

#include "kernels/kernels.h"

#define ATEDM_OPERATIONS(X)                                                                        \
    X(linear, (atedm_stream * s, const atedm_linear_args *args), (s, args),                        \
      atedm_bytes_linear(s, args))                                                                 \
    X(conv, (atedm_stream * s, const atedm_conv_args *args), (s, args), atedm_bytes_conv(s, args)) \
    X(group_norm, (atedm_stream * s, const atedm_group_norm_args *args), (s, args),                \
      atedm_bytes_group_norm(s, args))                                                             \
    X(layer_norm, (atedm_stream * s, const atedm_layer_norm_args *args), (s, args),                \
      atedm_bytes_layer_norm(s, args))                                                             \
    X(geglu, (atedm_stream * s, const void *x, void *y, int64_t rows, int64_t f),                  \
      (s, x, y, rows, f), atedm_bytes_act(s, 3 * rows * f))                                        \
    X(activate,                                                                                    \
      (atedm_stream * s, atedm_activation activation, const void *x, void *y, int64_t count),      \
      (s, activation, x, y, count), atedm_bytes_act(s, 2 * count))                                 \
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
    X(attention, (atedm_stream * s, const atedm_attention_args *args), (s, args),                  \
      atedm_bytes_attention(s, args))                                                              \
    X(rank_tokens, (atedm_stream * s, const atedm_rank_args *args), (s, args),                     \
      atedm_bytes_rank(s, args))                                                                   \
    X(random_scores,                                                                               \
      (atedm_stream * s, const uint64_t *draws, const float *weights, float *scores,               \
       const atedm_random_span *spans, int64_t n_spans),                                           \
      (s, draws, weights, scores, spans, n_spans), atedm_bytes_random(weights, spans, n_spans))    \
    X(select_tokens,                                                                               \
      (atedm_stream * s, const float *scores, int32_t *kept, const atedm_prune_span *spans,        \
       int64_t n_spans),                                                                           \
      (s, scores, kept, spans, n_spans), atedm_bytes_select(spans, n_spans))                       \
    X(source_attention,                                                                            \
      (atedm_stream * s, const atedm_source_args *args, const atedm_source_map *map),              \
      (s, args, map),                                                                              \
      atedm_bytes_source(args, atedm_bytes_act(s, (int64_t)map->heads * map->head_dim)))           \
    X(source_cosine, (atedm_stream * s, const atedm_source_args *args, const void *x, int64_t c),  \
      (s, args, x, c), atedm_bytes_source(args, atedm_bytes_act(s, c)))                            \
    X(source_nearest,                                                                              \
      (atedm_stream * s, const atedm_source_args *args, const int32_t *place, int64_t width),      \
      (s, args, place, width), atedm_bytes_source(args, sizeof *place))                            \
    X(source_zero, (atedm_stream * s, const atedm_source_args *args), (s, args),                   \
      atedm_bytes_source(args, 0))                                                                 \
    X(source_weights,                                                                              \
      (atedm_stream * s, const int32_t *source, const float *before, float *weights,               \
       const atedm_prune_span *spans, int64_t n_spans),                                            \
      (s, source, before, weights, spans, n_spans),                                                \
      atedm_bytes_weights(spans, n_spans, before != NULL))                                         \
    X(gather_rows,                                                                                 \
      (atedm_stream * s, const void *x, const int32_t *index, void *y, size_t row_bytes,           \
       const atedm_gather_span *spans, int64_t n_spans),                                           \
      (s, x, index, y, row_bytes, spans, n_spans),                                                 \
      atedm_bytes_gather(spans, n_spans, 2 * row_bytes))                                           \
    X(add_rows,                                                                                    \
      (atedm_stream * s, const void *x, const int32_t *index, float factor, void *y, int64_t c,    \
       const atedm_gather_span *spans, int64_t n_spans),                                           \
      (s, x, index, factor, y, c, spans, n_spans),                                                 \
      atedm_bytes_gather(spans, n_spans, 3 * atedm_bytes_act(s, c)))                               \
    X(scale_input,                                                                                 \
      (atedm_stream * s, const float *x, const double *a, void *y, int64_t n, int64_t count),      \
      (s, x, a, y, n, count),                                                                      \
      atedm_bytes_act(s, (n * count)) + (uint64_t)(n * count) * sizeof(float))                     \
    X(sampler_step, (atedm_stream * s, const atedm_step_args *args), (s, args),                    \
      atedm_bytes_step(s, args))                                                                   \
    X(image_finish, (atedm_stream * s, const void *x, uint8_t *y, int64_t count),                  \
      (s, x, y, count), atedm_bytes_act(s, count) + (uint64_t)count)

#endif
