// Attention of the cpu backend. It packs keys and values once, then divides blocks of query rows
// among the threads (vec.h).
#include "kernels/cpu/cpu.h"

#include <math.h>
#include <omp.h>

// The offsets of a span's packed keys and values, and its first task.
typedef struct span_plan {
    size_t keys, values;           // bytes, of head 0
    size_t head_keys, head_values; // bytes of each head
    int64_t first_task, blocks;    // tasks go head by head, block by block
} span_plan;

typedef struct attention_plan {
    span_plan *spans;
    size_t keys_bytes, values_bytes;
    int64_t tasks, macs;
} attention_plan;

static attention_plan make_plan(const atedm_vec_act *act, const atedm_attention_args *args,
                                span_plan *spans)
{
    attention_plan plan = {.spans = spans};
    size_t heads = (size_t)args->heads;
    for (int64_t i = 0; i < args->n_spans; i++) {
        int64_t nq = args->spans[i].nq, nk = args->spans[i].nk;
        spans[i] = (span_plan){
            .keys = plan.keys_bytes,
            .values = plan.values_bytes,
            .head_keys = act->keys_bytes(nk, args->head_dim),
            .head_values = act->values_bytes(nk, args->head_dim),
            .first_task = plan.tasks,
            .blocks = (nq + ATEDM_VEC_QUERY_ROWS - 1) / ATEDM_VEC_QUERY_ROWS,
        };
        plan.keys_bytes += heads * spans[i].head_keys;
        plan.values_bytes += heads * spans[i].head_values;
        plan.tasks += args->heads * spans[i].blocks;
        plan.macs += 2 * nq * nk * args->heads * args->head_dim;
    }
    return plan;
}

// Element `column` of row `row` of a matrix of activations.
static const char *element(const void *matrix, size_t size, int64_t stride, int64_t row,
                           int64_t column)
{
    return (const char *)matrix + (size_t)(row * stride + column) * size;
}

static void pack_head(const atedm_cpu_stream *s, const atedm_attention_args *args, int64_t span,
                      int64_t head, const span_plan *plan, char *keys, char *values)
{
    size_t size = atedm_dtype_size(s->head.act);
    int64_t k0 = args->spans[span].k0, nk = args->spans[span].nk, column = head * args->head_dim;
    s->act->pack_keys(element(args->k, size, args->k_stride, k0, column), args->k_stride, nk,
                      args->head_dim, keys + plan->keys + (size_t)head * plan->head_keys);
    s->act->pack_values(element(args->v, size, args->v_stride, k0, column), args->v_stride, nk,
                        args->head_dim, values + plan->values + (size_t)head * plan->head_values);
}

// Runs one task: one block of query rows of one head of one span.
static void run_task(const atedm_cpu_stream *s, const atedm_attention_args *args,
                     const attention_plan *plan, int64_t task, const char *keys, const char *values,
                     void *work)
{
    int64_t i = args->n_spans - 1;
    while (plan->spans[i].first_task > task)
        i--;
    const span_plan *p = &plan->spans[i];
    const atedm_span *span = &args->spans[i];
    int64_t head = (task - p->first_task) / p->blocks;
    int64_t first = (task - p->first_task) % p->blocks * ATEDM_VEC_QUERY_ROWS;
    int64_t rows = span->nq - first;
    if (rows > ATEDM_VEC_QUERY_ROWS)
        rows = ATEDM_VEC_QUERY_ROWS;
    const atedm_vec_head packed = {
        .keys = keys + p->keys + (size_t)head * p->head_keys,
        .values = values + p->values + (size_t)head * p->head_values,
        .n = span->nk,
        .dim = args->head_dim,
        .scale = 1 / sqrtf((float)args->head_dim),
        .bias = args->key_bias ? args->key_bias + span->k0 : NULL,
        .causal = args->causal,
    };
    size_t size = atedm_dtype_size(s->head.act);
    int64_t row = span->q0 + first, column = head * args->head_dim;
    int64_t o_stride = (int64_t)args->heads * args->head_dim;
    char *o = (char *)args->o + (size_t)(row * o_stride + column) * size;
    float *lse = args->lse ? args->lse + head * args->lse_stride + row : NULL;
    s->act->attention(&packed, element(args->q, size, args->q_stride, row, column), args->q_stride,
                      first, rows, o, o_stride, lse, work);
}

void atedm_cpu_attention(atedm_stream *stream, const atedm_attention_args *args)
{
    atedm_cpu_stream *s = atedm_cpu_stream_of(stream);
    span_plan *spans = atedm_cpu_scratch_get(s, ATEDM_SCRATCH_ROWS,
                                             atedm_cpu_bytes(args->n_spans, 1, sizeof *spans));
    if (!spans)
        return;
    attention_plan plan = make_plan(s->act, args, spans);
    size_t work_bytes = s->act->work_bytes(args->head_dim);
    char *keys = atedm_cpu_scratch_get(s, ATEDM_SCRATCH_KEYS, plan.keys_bytes);
    char *values = atedm_cpu_scratch_get(s, ATEDM_SCRATCH_VALUES, plan.values_bytes);
    char *work = atedm_cpu_scratch_get(s, ATEDM_SCRATCH_THREADS,
                                       atedm_cpu_bytes(omp_get_max_threads(), 1, work_bytes));
    if (!keys || !values || !work)
        return;
#pragma omp parallel num_threads(atedm_cpu_threads(plan.macs))
    {
        void *own = work + (size_t)omp_get_thread_num() * work_bytes;
#pragma omp for schedule(static)
        for (int64_t i = 0; i < args->n_spans * args->heads; i++)
            pack_head(s, args, i / args->heads, i % args->heads, &spans[i / args->heads], keys,
                      values);
#pragma omp for schedule(dynamic)
        for (int64_t i = 0; i < plan.tasks; i++)
            run_task(s, args, &plan, i, keys, values, own);
    }
}
