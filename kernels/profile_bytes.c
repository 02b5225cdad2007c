// Bytes that operations have to move: see profile_bytes.h. Those of operations without structs of
// arguments stand with the operation, in profile.c.
#include "kernels/profile_bytes.h"

#include "kernels/backend.h"

uint64_t atedm_bytes_linear(const atedm_stream *s, const atedm_linear_args *a)
{
    int64_t in = a->weight->in, out = a->weight->out;
    return a->weight->bytes + atedm_bytes_act(s, a->rows * (in + out * (a->residual ? 2 : 1)));
}

uint64_t atedm_bytes_conv(const atedm_stream *s, const atedm_conv_args *a)
{
    const atedm_weight *w = a->weight;
    int64_t ho = atedm_conv_out(a->h, w->stride), wo = atedm_conv_out(a->w, w->stride);
    int64_t x = a->n * a->h * a->w * w->in, y = a->n * ho * wo * w->out;
    int64_t add = a->channel_add ? a->n * w->out : 0;
    return w->bytes + atedm_bytes_act(s, x + y * (a->residual ? 2 : 1) + add);
}

uint64_t atedm_bytes_group_norm(const atedm_stream *s, const atedm_group_norm_args *a)
{
    return a->weight->bytes + atedm_bytes_act(s, 2 * a->n * a->hw * a->weight->in);
}

uint64_t atedm_bytes_layer_norm(const atedm_stream *s, const atedm_layer_norm_args *a)
{
    return a->weight->bytes + atedm_bytes_act(s, 2 * a->rows * a->weight->in);
}

uint64_t atedm_bytes_attention(const atedm_stream *s, const atedm_attention_args *a)
{
    int64_t queries = 0, keys = 0;
    for (int64_t i = 0; i < a->n_spans; i++) {
        queries += a->spans[i].nq;
        keys += a->spans[i].nk;
    }
    int64_t rows = 2 * (queries + keys); // q, o and k, v
    uint64_t bias = a->key_bias ? (uint64_t)keys * sizeof(float) : 0;
    uint64_t lse = a->lse ? (uint64_t)(queries * a->heads) * sizeof(float) : 0;
    return atedm_bytes_act(s, rows * a->heads * a->head_dim) + lse + bias;
}

uint64_t atedm_bytes_rank(const atedm_stream *s, const atedm_rank_args *a)
{
    int64_t rows = 0, queries = 0;
    for (int64_t i = 0; i < a->n_spans; i++) {
        rows += a->spans[i].nq + a->spans[i].nk;
        queries += a->spans[i].nq;
    }
    return atedm_bytes_act(s, rows * a->heads * a->head_dim) +
           (uint64_t)(queries * (a->heads + 1)) * sizeof(float); // lse, scores
}

uint64_t atedm_bytes_random(const float *weights, const atedm_random_span *spans, int64_t n_spans)
{
    uint64_t bytes = 0;
    for (int64_t i = 0; i < n_spans; i++)
        bytes += (uint64_t)spans[i].n * sizeof(float);
    return weights ? 2 * bytes : bytes;
}

uint64_t atedm_bytes_select(const atedm_prune_span *spans, int64_t n_spans)
{
    uint64_t bytes = 0;
    for (int64_t i = 0; i < n_spans; i++)
        bytes += (uint64_t)spans[i].n * sizeof(float) + (uint64_t)spans[i].keep * sizeof(int32_t);
    return bytes;
}

uint64_t atedm_bytes_source(const atedm_source_args *a, uint64_t row)
{
    uint64_t bytes = 0;
    for (int64_t i = 0; i < a->n_spans; i++) // pruned and kept tokens' rows; slots
        bytes += (uint64_t)a->spans[i].n * (row + sizeof(int32_t)) +
                 (uint64_t)a->spans[i].keep * sizeof(int32_t);
    return bytes;
}

uint64_t atedm_bytes_weights(const atedm_prune_span *spans, int64_t n_spans, bool before)
{
    uint64_t bytes = 0;
    for (int64_t i = 0; i < n_spans; i++) // slots and weights before; weights
        bytes += (uint64_t)spans[i].n * (sizeof(int32_t) + (before ? sizeof(float) : 0)) +
                 (uint64_t)spans[i].keep * sizeof(float);
    return bytes;
}

uint64_t atedm_bytes_gather(const atedm_gather_span *spans, int64_t n_spans, uint64_t row)
{
    uint64_t bytes = 0;
    for (int64_t i = 0; i < n_spans; i++)
        bytes += (uint64_t)spans[i].n * (row + sizeof(int32_t));
    return bytes;
}

uint64_t atedm_bytes_step(const atedm_stream *s, const atedm_step_args *a)
{
    return atedm_bytes_act(s, a->count * (a->uncond ? 2 : 1)) +
           (2 + (a->history != NULL) + (a->history && a->step.earlier != 0)) * (uint64_t)a->count *
               sizeof(float);
}
