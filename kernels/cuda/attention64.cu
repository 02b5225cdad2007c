// Attention with heads of 64 on tensor cores, after FlashAttention-2 (Dao 2023).
//
// A block computes 64 queries of a head of a span, 16 for each warp. It goes over the keys 64 at a
// time. Keys and values have two stages each: cp.async loads the next tile into one while the
// products read the other. The order of loads is keys, values, next keys, next values, one group
// each, so waiting for all but one group is enough. A barrier follows each wait, because every warp
// reads what all threads have loaded.
#include "kernels/cuda/attention_call.cuh"
#include "kernels/cuda/tile64.cuh"

namespace
{

using call = attention_call;

template <class T> struct tiles {
    T q[TILE_ELEMENTS], k[2][TILE_ELEMENTS], v[2][TILE_ELEMENTS];
};

// Replaces a tile of logits by exponentials, as fragments of the first operand of the product with
// values. Multiplies earlier sums to match the new maximum.
template <class T>
GPU_FN void exponentials(tile_attention &r, float (&s)[8][4], uint32_t (&p)[4][4])
{
#pragma unroll
    for (int half = 0; half < 2; half++) {
        float largest = r.most[half];
#pragma unroll
        for (int n = 0; n < 8; n++)
            largest = fmaxf(largest, fmaxf(s[n][half * 2], s[n][half * 2 + 1]));
        largest = quad_max(largest); // finite: every row sees key 0
        float shrink = exp2f((r.most[half] - largest) * TILE_SCALE2);
        r.most[half] = largest;
        r.total[half] *= shrink;
#pragma unroll
        for (int n = 0; n < 8; n++) {
            r.sums[n][half * 2] *= shrink;
            r.sums[n][half * 2 + 1] *= shrink;
        }
    }
#pragma unroll
    for (int n = 0; n < 8; n++) {
#pragma unroll
        for (int i = 0; i < 4; i++) {
            s[n][i] = exp2f((s[n][i] - r.most[i / 2]) * TILE_SCALE2);
            r.total[i / 2] += s[n][i];
        }
        p[n / 2][n % 2 * 2] = gpu_pack(T(), s[n][0], s[n][1]);
        p[n / 2][n % 2 * 2 + 1] = gpu_pack(T(), s[n][2], s[n][3]);
    }
}

template <class T> GPU_FN void add_values(tile_attention &r, const uint32_t (&p)[4][4], const T *v)
{
    int lane = threadIdx.x & 31;
#pragma unroll
    for (int k = 0; k < 4; k++)
#pragma unroll
        for (int n = 0; n < 4; n++) {
            uint32_t f[4];
            gpu_ldmatrix_transposed(f, v + tile_at(k * 16 + (lane & 15), n * 2 + (lane >> 4)));
            gpu_mma(T(), r.sums[2 * n], p[k], f[0], f[1]);
            gpu_mma(T(), r.sums[2 * n + 1], p[k], f[2], f[3]);
        }
}

// Adds the biases of keys key0 .. key0 + 63 below `end` to the unscaled logits, hence divided by
// the scale.
GPU_FN void add_bias(float (&s)[8][4], const float *bias, int64_t key0, int64_t end)
{
    int lane = threadIdx.x & 31;
#pragma unroll
    for (int n = 0; n < 8; n++)
#pragma unroll
        for (int i = 0; i < 2; i++) {
            int64_t key = key0 + n * 8 + lane % 4 * 2 + i;
            float b = key < end ? bias[key] * (1.0f / TILE_SCALE) : 0.0f;
            s[n][i] += b;
            s[n][i + 2] += b;
        }
}

// Masks columns that the row does not see: after the last key, or, if causal, after the row's own.
GPU_FN void mask(float (&s)[8][4], int64_t key0, int64_t n_keys, int64_t row, bool causal)
{
    int lane = threadIdx.x & 31;
#pragma unroll
    for (int n = 0; n < 8; n++)
#pragma unroll
        for (int i = 0; i < 4; i++) {
            int64_t key = key0 + n * 8 + lane % 4 * 2 + i % 2;
            if (key >= n_keys || (causal && key > row + i / 2 * 8))
                s[n][i] = -INFINITY;
        }
}

template <class T>
GPU_FN void store(const call &a, const atedm_span &span, const tile_attention &r, int64_t row)
{
    int64_t o_stride = (int64_t)a.heads * TILE;
    tile_store(r, row, span.nq, static_cast<T *>(a.o) + span.q0 * o_stride + blockIdx.y * TILE,
               o_stride, a.lse ? a.lse + blockIdx.y * a.lse_stride + span.q0 : nullptr);
}

template <class T>
__global__ void __launch_bounds__(TILE_THREADS) attention64_kernel(const __grid_constant__ call a)
{
    const atedm_span &span = a.spans.span[blockIdx.z];
    int64_t row0 = (int64_t)blockIdx.x * TILE, end = span.nk;
    if (row0 >= span.nq)
        return;
    if (a.causal && row0 + TILE < end)
        end = row0 + TILE;
    tiles<T> &t = *gpu_shared<tiles<T>>();
    const T *q = static_cast<const T *>(a.q) + blockIdx.y * TILE;
    const T *k = static_cast<const T *>(a.k) + blockIdx.y * TILE;
    const T *v = static_cast<const T *>(a.v) + blockIdx.y * TILE;
    int64_t last_key = span.k0 + end;
    tile_load(t.q, q, a.q_stride, tile_range{span.q0 + row0, span.q0 + span.nq});
    tile_load(t.k[0], k, a.k_stride, tile_range{span.k0, last_key});
    gpu_copy_commit();
    tile_load(t.v[0], v, a.v_stride, tile_range{span.k0, last_key});
    gpu_copy_commit();
    int64_t row = row0 + (threadIdx.x >> 5) * 16 + (threadIdx.x & 31) / 4;
    tile_attention r = {{-INFINITY, -INFINITY}, {0, 0}, {}};
    uint32_t queries[4][4], p[4][4];
    for (int64_t key0 = 0, stage = 0; key0 < end; key0 += TILE, stage ^= 1) {
        tile_range next = {span.k0 + key0 + TILE, last_key};
        gpu_copy_wait<1>(); // queries and keys are there; values may be on their way
        __syncthreads();
        if (key0 == 0)
            tile_rows(queries, t.q);
        if (key0 + TILE < end)
            tile_load(t.k[stage ^ 1], k, a.k_stride, next);
        gpu_copy_commit();
        float s[8][4];
        tile_scores(s, queries, t.k[stage]);
        if (a.bias)
            add_bias(s, a.bias + span.k0, key0, end);
        if (key0 + TILE > end || a.causal)
            mask(s, key0, end, row, a.causal);
        exponentials<T>(r, s, p);
        gpu_copy_wait<1>(); // values are there; the next keys may be on their way
        __syncthreads();
        if (key0 + TILE < end)
            tile_load(t.v[stage ^ 1], v, a.v_stride, next);
        gpu_copy_commit();
        add_values(r, p, t.v[stage]);
    }
    gpu_copy_wait<0>();
    store<T>(a, span, r, row);
}

template <class T> cudaError_t attend(const call &a, int64_t most_queries, cudaStream_t stream)
{
    return GPU_LAUNCH((attention64_kernel<T>),
                      dim3(gpu_blocks(most_queries, TILE), (unsigned)a.heads, (unsigned)a.spans.n),
                      dim3(TILE_THREADS), sizeof(tiles<T>), stream, a);
}

} // namespace

bool atedm_cuda_is_head64(atedm_dtype act, int head_dim, const void *const *matrices,
                          const int64_t *strides, int n)
{
    return head_dim == TILE && act != ATEDM_F32 && tile_rows_align(matrices, strides, n);
}

cudaError_t atedm_cuda_launch_attention64(atedm_dtype act, const atedm_attention_args *args,
                                          const atedm_cuda_spans *spans, cudaStream_t stream)
{
    const call a = make_attention_call(args, spans);
    int64_t most = gpu_most_queries(spans);
    return act == ATEDM_BF16 ? attend<gpu_bf16>(a, most, stream) : attend<gpu_f16>(a, most, stream);
}
