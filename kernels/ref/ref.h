// What the files of the reference backend share. Plain C, double accumulation: the readable
// definition of every operation, against which the other backends are held.
#ifndef ATEDM_KERNELS_REF_H
#define ATEDM_KERNELS_REF_H

#include "kernels/backend.h"

// Weights are f32 copies of the host's values, rounded to act first: what a backend in that dtype
// sees.
typedef struct ref_weight {
    atedm_weight head;
    float *values; // linear [out, in]; conv [out, k, k, in]; norm: scale [c]; table [entries, c]
    float *bias;   // linear, conv: [out] or NULL; norm: shift [c]
} ref_weight;

// Element i of an act tensor.
float ref_load(atedm_dtype dtype, const void *data, int64_t i);
void ref_store(atedm_dtype dtype, void *data, int64_t i, double value);
// `count` elements from element `first` on, as f32.
void ref_load_row(atedm_dtype dtype, const void *data, int64_t first, float *row, int64_t count);

double ref_dot(const float *a, const float *b, int64_t n);

// Scratch of the host; NULL after failing the stream.
void *ref_scratch(atedm_stream *s, size_t count, size_t size);

double ref_activate_value(atedm_activation activation, double x);

// weights.c
atedm_status ref_linear_weight_create(const atedm_weight *head, const atedm_host_tensor *parts,
                                      const atedm_host_tensor *biases, size_t n_parts,
                                      atedm_weight **ret_weight, atedm_error *err);
atedm_status ref_conv_weight_create(const atedm_weight *head, const atedm_host_tensor *weight,
                                    const atedm_host_tensor *bias, atedm_weight **ret_weight,
                                    atedm_error *err);
atedm_status ref_norm_weight_create(const atedm_weight *head, const atedm_host_tensor *scale,
                                    const atedm_host_tensor *shift, atedm_weight **ret_weight,
                                    atedm_error *err);
atedm_status ref_table_weight_create(const atedm_weight *head, const atedm_host_tensor *table,
                                     atedm_weight **ret_weight, atedm_error *err);
void ref_weight_destroy(atedm_weight *weight);

// dense.c
void ref_linear(atedm_stream *s, const atedm_linear_args *args);
void ref_conv(atedm_stream *s, const atedm_conv_args *args);
void ref_group_norm(atedm_stream *s, const atedm_group_norm_args *args);
void ref_layer_norm(atedm_stream *s, const atedm_layer_norm_args *args);

// elementwise.c
void ref_geglu(atedm_stream *s, const void *x, void *y, int64_t rows, int64_t f);
void ref_activate(atedm_stream *s, atedm_activation activation, const void *x, void *y,
                  int64_t count);
void ref_add(atedm_stream *s, const void *a, const void *b, void *y, int64_t count);
void ref_upsample2(atedm_stream *s, const void *x, void *y, int64_t n, int64_t h, int64_t w,
                   int64_t c);
void ref_concat(atedm_stream *s, const void *a, int64_t ca, const void *b, int64_t cb, void *y,
                int64_t rows);
void ref_embed_tokens(atedm_stream *s, const atedm_weight *table, const atedm_weight *position,
                      const int64_t *ids, int64_t rows, int64_t tokens, void *y);
void ref_sinusoid(atedm_stream *s, const double *values, int64_t n, int64_t dim, void *y);
void ref_to_f32(atedm_stream *s, const void *x, float *y, int64_t count);
void ref_from_f32(atedm_stream *s, const float *x, void *y, int64_t count);
void ref_scale_input(atedm_stream *s, const float *x, const double *a, void *y, int64_t n,
                     int64_t count);
void ref_sampler_step(atedm_stream *s, const atedm_step_args *args);
void ref_image_finish(atedm_stream *s, const void *x, uint8_t *y, int64_t count);

// attention.c
void ref_attention(atedm_stream *s, const atedm_attention_args *args);

// prune.c
void ref_rank_tokens(atedm_stream *s, const atedm_rank_args *args);
void ref_random_scores(atedm_stream *s, const uint64_t *draws, const float *weights, float *scores,
                       const atedm_random_span *spans, int64_t n_spans);
void ref_select_tokens(atedm_stream *s, const float *scores, int32_t *kept,
                       const atedm_prune_span *spans, int64_t n_spans);
void ref_source_attention(atedm_stream *s, const atedm_source_args *args,
                          const atedm_source_map *map);
void ref_source_cosine(atedm_stream *s, const atedm_source_args *args, const void *x, int64_t c);
void ref_source_nearest(atedm_stream *s, const atedm_source_args *args, const int32_t *place,
                        int64_t width);
void ref_source_zero(atedm_stream *s, const atedm_source_args *args);
void ref_source_weights(atedm_stream *s, const int32_t *source, const float *before, float *weights,
                        const atedm_prune_span *spans, int64_t n_spans);
void ref_gather_rows(atedm_stream *s, const void *x, const int32_t *index, void *y,
                     size_t row_bytes, const atedm_gather_span *spans, int64_t n_spans);
void ref_add_rows(atedm_stream *s, const void *x, const int32_t *index, float factor, void *y,
                  int64_t c, const atedm_gather_span *spans, int64_t n_spans);

#endif
