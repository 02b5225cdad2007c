// Attention of the reference backend: one query row at a time, with the softmax of its logits in
// double.
#include "kernels/ref/ref.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

// Computes the logits of query row `row` against the keys of the span. Returns their log-sum-exp.
static double row_logits(const atedm_stream *s, const atedm_attention_args *args,
                         const atedm_span *span, int head, int64_t row, int64_t n_keys,
                         const float *keys, float *query, double *logits)
{
    int64_t d = args->head_dim;
    double largest = -INFINITY, sum = 0, scale = 1 / sqrt((double)d);
    ref_load_row(s->act, args->q, (span->q0 + row) * args->q_stride + head * d, query, d);
    for (int64_t j = 0; j < n_keys; j++) {
        logits[j] = ref_dot(query, keys + j * d, d) * scale +
                    (args->key_bias ? (double)args->key_bias[span->k0 + j] : 0);
        largest = logits[j] > largest ? logits[j] : largest;
    }
    for (int64_t j = 0; j < n_keys; j++)
        sum += exp(logits[j] - largest);
    return largest + log(sum);
}

typedef struct attention_scratch {
    float *keys, *values; // [nk, head_dim]
    float *query;         // [head_dim]
    double *logits;       // [nk]
    double *sum;          // [head_dim]
} attention_scratch;

static void attend_head(const atedm_stream *s, const atedm_attention_args *args,
                        const atedm_span *span, int head, const attention_scratch *t)
{
    int64_t d = args->head_dim;
    for (int64_t j = 0; j < span->nk; j++) {
        ref_load_row(s->act, args->k, (span->k0 + j) * args->k_stride + head * d, t->keys + j * d,
                     d);
        ref_load_row(s->act, args->v, (span->k0 + j) * args->v_stride + head * d, t->values + j * d,
                     d);
    }
    for (int64_t row = 0; row < span->nq; row++) {
        int64_t n_keys = args->causal ? row + 1 : span->nk;
        double lse = row_logits(s, args, span, head, row, n_keys, t->keys, t->query, t->logits);
        memset(t->sum, 0, (size_t)d * sizeof *t->sum);
        for (int64_t j = 0; j < n_keys; j++) {
            double p = exp(t->logits[j] - lse);
            for (int64_t c = 0; c < d; c++)
                t->sum[c] += p * (double)t->values[j * d + c];
        }
        int64_t to = (span->q0 + row) * args->heads * d + head * d;
        for (int64_t c = 0; c < d; c++)
            ref_store(s->act, args->o, to + c, t->sum[c]);
        if (args->lse)
            args->lse[head * args->lse_stride + span->q0 + row] = (float)lse;
    }
}

void ref_attention(atedm_stream *s, const atedm_attention_args *args)
{
    int64_t most_keys = 1, d = args->head_dim;
    for (int64_t i = 0; i < args->n_spans; i++)
        most_keys = args->spans[i].nk > most_keys ? args->spans[i].nk : most_keys;
    attention_scratch t = {
        .keys = ref_scratch(s, (size_t)(most_keys * d), sizeof *t.keys),
        .values = ref_scratch(s, (size_t)(most_keys * d), sizeof *t.values),
        .query = ref_scratch(s, (size_t)d, sizeof *t.query),
        .logits = ref_scratch(s, (size_t)most_keys, sizeof *t.logits),
        .sum = ref_scratch(s, (size_t)d, sizeof *t.sum),
    };
    if (!s->status)
        for (int64_t i = 0; i < args->n_spans; i++)
            for (int head = 0; head < args->heads; head++)
                attend_head(s, args, &args->spans[i], head, &t);
    free(t.keys);
    free(t.values);
    free(t.query);
    free(t.logits);
    free(t.sum);
}
