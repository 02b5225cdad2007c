// The least number of bytes that an operation has to read from and write to device memory: each
// operand once, without rows that it does not touch. Divided by the device's bandwidth that is a
// lower bound of its time.
#ifndef ATEDM_KERNELS_PROFILE_BYTES_H
#define ATEDM_KERNELS_PROFILE_BYTES_H

#include "kernels/kernels.h"

uint64_t atedm_bytes_linear(const atedm_stream *s, const atedm_linear_args *a);
uint64_t atedm_bytes_conv(const atedm_stream *s, const atedm_conv_args *a);
uint64_t atedm_bytes_group_norm(const atedm_stream *s, const atedm_group_norm_args *a);
uint64_t atedm_bytes_layer_norm(const atedm_stream *s, const atedm_layer_norm_args *a);
uint64_t atedm_bytes_attention(const atedm_stream *s, const atedm_attention_args *a);
// Queries and keys once, however many passes over them the iterations take.
uint64_t atedm_bytes_rank(const atedm_stream *s, const atedm_rank_args *a);
uint64_t atedm_bytes_random(const float *weights, const atedm_random_span *spans, int64_t n_spans);
uint64_t atedm_bytes_select(const atedm_prune_span *spans, int64_t n_spans);
// `row`: bytes of a token's row that similarities are made of.
uint64_t atedm_bytes_source(const atedm_source_args *a, uint64_t row);
uint64_t atedm_bytes_weights(const atedm_prune_span *spans, int64_t n_spans, bool before);
// `row`: bytes that are moved for a row.
uint64_t atedm_bytes_gather(const atedm_gather_span *spans, int64_t n_spans, uint64_t row);
uint64_t atedm_bytes_step(const atedm_stream *s, const atedm_step_args *a);

// Bytes of `count` elements of act.
static inline uint64_t atedm_bytes_act(const atedm_stream *s, int64_t count)
{
    return (uint64_t)count * atedm_dtype_size(atedm_stream_dtype(s));
}

#endif
