// Attention for any head size up to ATEDM_CUDA_MAX_HEAD_DIM and any element type, without tensor
// cores. attention64.cu and attention512.cu are the fast paths.
//
// A block computes 16 queries of a head of a span. It goes over the keys once, 32 at a time, with a
// running maximum (Milakov & Gimelshein 2018). Whenever the maximum grows, the sums so far are
// multiplied by `shrink`. Sums of values are in shared memory.
#include "kernels/cuda/attention_call.cuh"
#include "kernels/cuda/plain_tile.cuh"

namespace
{

constexpr int P_STRIDE = PLAIN_COLUMNS + 1;

// Shared memory. [PLAIN_ROWS, head_dim] sums of values follow it.
struct tiles {
    plain_tiles scores;
    float p[PLAIN_ROWS * P_STRIDE], shrink[PLAIN_ROWS], total[PLAIN_ROWS];
};

using call = attention_call;

// sums = sums * shrink + P V. The threads divide the columns among them.
template <class T>
GPU_FN void add_values(const tiles &t, float *sums, const T *v, int64_t v_stride, int dim)
{
    for (int c = threadIdx.x; c < dim; c += PLAIN_THREADS) {
        float mine[PLAIN_ROWS];
#pragma unroll
        for (int r = 0; r < PLAIN_ROWS; r++)
            mine[r] = sums[r * dim + c] * t.shrink[r];
        for (int j = 0; j < PLAIN_COLUMNS && t.scores.column[j] >= 0; j++) {
            float value = gpu_load(v[t.scores.column[j] * v_stride + c]);
#pragma unroll
            for (int r = 0; r < PLAIN_ROWS; r++)
                mine[r] += t.p[r * P_STRIDE + j] * value;
        }
#pragma unroll
        for (int r = 0; r < PLAIN_ROWS; r++)
            sums[r * dim + c] = mine[r];
    }
}

// A block computes PLAIN_ROWS queries of a head of a span.
template <class T>
__global__ void __launch_bounds__(PLAIN_THREADS) attention_kernel(const __grid_constant__ call a)
{
    const atedm_span &span = a.spans.span[blockIdx.z];
    int64_t row0 = (int64_t)blockIdx.x * PLAIN_ROWS, head = (int64_t)blockIdx.y * a.head_dim;
    if (row0 >= span.nq)
        return;
    tiles &t = *gpu_shared<tiles>();
    float *sums = reinterpret_cast<float *>(&t + 1);
    const T *q = static_cast<const T *>(a.q) + head, *k = static_cast<const T *>(a.k) + head;
    int r = threadIdx.x / 8, c = threadIdx.x % 8;
    int64_t row = row0 + r, end = span.nk;
    if (a.causal && row0 + PLAIN_ROWS < end)
        end = row0 + PLAIN_ROWS;
    float scale = 1.0f / sqrtf((float)a.head_dim), most = -INFINITY, total = 0;
    plain_name(t.scores.row, PLAIN_ROWS, span.q0 + row0, span.q0 + span.nq);
    for (int i = threadIdx.x; i < PLAIN_ROWS * a.head_dim; i += PLAIN_THREADS)
        sums[i] = 0;
    for (int64_t key0 = 0; key0 < end; key0 += PLAIN_COLUMNS) {
        __syncthreads(); // the last tile's keys are done with
        plain_name(t.scores.column, PLAIN_COLUMNS, span.k0 + key0, span.k0 + end);
        float s[4], largest = most, sum = 0;
        plain_scores(t.scores, plain_matrix<T>{q, a.q_stride}, plain_matrix<T>{k, a.k_stride},
                     a.head_dim, s);
#pragma unroll
        for (int j = 0; j < 4; j++) {
            int64_t key = key0 + c + 8 * j;
            s[j] = key < end && (!a.causal || key <= row)
                       ? s[j] * scale + (a.bias ? a.bias[span.k0 + key] : 0.0f)
                       : -INFINITY;
            largest = fmaxf(largest, s[j]);
        }
        largest = plain_row_max(largest); // finite: every row sees key 0
        float shrink = expf(most - largest);
#pragma unroll
        for (int j = 0; j < 4; j++) {
            float p = expf(s[j] - largest);
            sum += p;
            t.p[r * P_STRIDE + c + 8 * j] = p;
        }
        total = total * shrink + plain_row_sum(sum);
        most = largest;
        if (c == 0)
            t.shrink[r] = shrink;
        __syncthreads();
        add_values(t, sums, static_cast<const T *>(a.v) + head, a.v_stride, a.head_dim);
    }
    if (c == 0)
        t.total[r] = total;
    if (c == 0 && a.lse && row < span.nq)
        a.lse[blockIdx.y * a.lse_stride + span.q0 + row] = most + logf(total);
    __syncthreads();
    int64_t o_stride = (int64_t)a.heads * a.head_dim;
    for (int i = threadIdx.x; i < PLAIN_ROWS * a.head_dim; i += PLAIN_THREADS) {
        int64_t to = row0 + i / a.head_dim;
        if (to < span.nq)
            gpu_store(static_cast<T *>(a.o) + (span.q0 + to) * o_stride + head + i % a.head_dim,
                      sums[i] / t.total[i / a.head_dim]);
    }
}

template <class T> cudaError_t attend(const call &a, int64_t most_queries, cudaStream_t stream)
{
    return GPU_LAUNCH(
        (attention_kernel<T>),
        dim3(gpu_blocks(most_queries, PLAIN_ROWS), (unsigned)a.heads, (unsigned)a.spans.n),
        dim3(PLAIN_THREADS), sizeof(tiles) + PLAIN_ROWS * (size_t)a.head_dim * sizeof(float),
        stream, a);
}

} // namespace

cudaError_t atedm_cuda_launch_attention(atedm_dtype act, const atedm_attention_args *args,
                                        const atedm_cuda_spans *spans, cudaStream_t stream)
{
    const call a = make_attention_call(args, spans);
    int64_t most = gpu_most_queries(spans);
    return GPU_FOR_ACT(act, attend, a, most, stream);
}
