// The argument of the attention kernels that read q, k and v by their addresses: the fields of
// atedm_attention_args (kernels.h), with the spans in it, which a kernel cannot read on the host.
#ifndef ATEDM_CUDA_ATTENTION_CALL_CUH
#define ATEDM_CUDA_ATTENTION_CALL_CUH

#include "kernels/cuda/gpu.cuh"

struct attention_call {
    const void *q, *k, *v;
    const float *bias; // by row of k, or NULL
    int64_t q_stride, k_stride, v_stride, lse_stride;
    void *o;
    float *lse;
    int heads, head_dim;
    bool causal;
    atedm_cuda_spans spans;
};

inline attention_call make_attention_call(const atedm_attention_args *args,
                                          const atedm_cuda_spans *spans)
{
    attention_call a = {};
    a.q = args->q;
    a.k = args->k;
    a.v = args->v;
    a.bias = args->key_bias;
    a.q_stride = args->q_stride;
    a.k_stride = args->k_stride;
    a.v_stride = args->v_stride;
    a.lse_stride = args->lse_stride;
    a.o = args->o;
    a.lse = args->lse;
    a.heads = args->heads;
    a.head_dim = args->head_dim;
    a.causal = args->causal;
    a.spans = *spans;
    return a;
}

#endif
