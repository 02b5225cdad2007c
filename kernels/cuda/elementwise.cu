// Element-wise kernels: activations, sums, conversions, the sampler's arithmetic, the image's last
// step, and the epilogue of products that cuBLASLt leaves in F32. Each thread processes GPU_VECTOR
// neighbouring elements.
#include "kernels/cuda/gpu.cuh"

namespace
{

constexpr int THREADS = 256;

// The thread's row and columns, for rows that are cut into `pieces` of GPU_VECTOR columns. The
// arithmetic is in 32 bits: a 64-bit division takes longer than the arithmetic of a piece, and no
// device has memory for more pieces.
struct piece {
    int64_t row, column;
};
GPU_FN piece piece_of_thread(uint32_t pieces)
{
    uint32_t unit = blockIdx.x * THREADS + threadIdx.x, row = unit / pieces;
    return {row, (unit - row * pieces) * GPU_VECTOR};
}
inline uint32_t pieces_of(int64_t columns)
{
    return (uint32_t)((columns + GPU_VECTOR - 1) / GPU_VECTOR);
}

struct activation {
    int which;
    GPU_FN float operator()(float x) const
    {
        return gpu_activate(which, x);
    }
};

// y = f(x).
template <class FROM, class TO, class F>
__global__ void __launch_bounds__(THREADS) map_kernel(const FROM *x, TO *y, int64_t count, F f)
{
    int64_t i = ((int64_t)blockIdx.x * THREADS + threadIdx.x) * GPU_VECTOR, n = count - i;
    if (n <= 0)
        return;
    float v[GPU_VECTOR];
    gpu_load_vector(x + i, n, n >= GPU_VECTOR && gpu_is_aligned(x), v);
#pragma unroll
    for (int j = 0; j < GPU_VECTOR; j++)
        v[j] = f(v[j]);
    gpu_store_vector(y + i, n, n >= GPU_VECTOR && gpu_is_aligned(y), v);
}

template <class FROM, class TO, class F>
cudaError_t map(const void *x, void *y, int64_t count, F f, cudaStream_t stream)
{
    return GPU_LAUNCH((map_kernel<FROM, TO, F>), dim3(gpu_blocks(count, THREADS * GPU_VECTOR)),
                      dim3(THREADS), 0, stream, static_cast<const FROM *>(x), static_cast<TO *>(y),
                      count, f);
}

template <class T>
cudaError_t activate(int which, const void *x, void *y, int64_t count, cudaStream_t stream)
{
    return map<T, T>(x, y, count, activation{which}, stream);
}

template <class T> cudaError_t to_f32(const void *x, float *y, int64_t count, cudaStream_t stream)
{
    return map<T, float>(x, y, count, activation{ATEDM_ACT_NONE}, stream);
}

struct factor {
    double a;
    GPU_FN float operator()(float x) const
    {
        return (float)(a * (double)x);
    }
};

template <class T>
cudaError_t scale(const float *x, double a, void *y, int64_t count, cudaStream_t stream)
{
    return map<float, T>(x, y, count, factor{a}, stream);
}

template <class T>
__global__ void __launch_bounds__(THREADS) add_kernel(const T *a, const T *b, T *y, int64_t count)
{
    int64_t i = ((int64_t)blockIdx.x * THREADS + threadIdx.x) * GPU_VECTOR, n = count - i;
    if (n <= 0)
        return;
    float u[GPU_VECTOR], v[GPU_VECTOR];
    gpu_load_vector(a + i, n, n >= GPU_VECTOR && gpu_is_aligned(a), u);
    gpu_load_vector(b + i, n, n >= GPU_VECTOR && gpu_is_aligned(b), v);
#pragma unroll
    for (int j = 0; j < GPU_VECTOR; j++)
        u[j] += v[j];
    gpu_store_vector(y + i, n, n >= GPU_VECTOR && gpu_is_aligned(y), u);
}

template <class T>
cudaError_t add(const void *a, const void *b, void *y, int64_t count, cudaStream_t stream)
{
    return GPU_LAUNCH((add_kernel<T>), dim3(gpu_blocks(count, THREADS * GPU_VECTOR)), dim3(THREADS),
                      0, stream, static_cast<const T *>(a), static_cast<const T *>(b),
                      static_cast<T *>(y), count);
}

template <class T>
__global__ void __launch_bounds__(THREADS)
    geglu_kernel(const T *x, T *y, int64_t rows, int64_t f, uint32_t pieces)
{
    const auto [row, column] = piece_of_thread(pieces);
    if (row >= rows)
        return;
    int64_t n = f - column;
    bool whole = f % GPU_VECTOR == 0 && gpu_is_aligned(x);
    float value[GPU_VECTOR], gate[GPU_VECTOR];
    gpu_load_vector(x + row * 2 * f + column, n, whole, value);
    gpu_load_vector(x + row * 2 * f + f + column, n, whole, gate);
#pragma unroll
    for (int j = 0; j < GPU_VECTOR; j++)
        value[j] *= gpu_activate(ATEDM_ACT_GELU, gate[j]);
    gpu_store_vector(y + row * f + column, n, f % GPU_VECTOR == 0 && gpu_is_aligned(y), value);
}

template <class T>
cudaError_t geglu(const void *x, void *y, int64_t rows, int64_t f, cudaStream_t stream)
{
    uint32_t pieces = pieces_of(f);
    return GPU_LAUNCH((geglu_kernel<T>), dim3(gpu_blocks(rows * pieces, THREADS)), dim3(THREADS), 0,
                      stream, static_cast<const T *>(x), static_cast<T *>(y), rows, f, pieces);
}

// Rows of the span number blockIdx.y. A thread processes as much as in geglu_kernel.
template <class T>
__global__ void __launch_bounds__(THREADS)
    add_rows_kernel(const T *x, const int32_t *index, float factor, T *y, int64_t c,
                    uint32_t pieces, const __grid_constant__ atedm_cuda_gather_spans spans)
{
    const atedm_gather_span &span = spans.span[blockIdx.y];
    const auto [row, column] = piece_of_thread(pieces);
    if (row >= span.n)
        return;
    int32_t from = index[span.index_first + row];
    if (from < 0)
        return;
    int64_t n = c - column;
    const T *source = x + (span.from + from) * c + column;
    T *to = y + (span.to + row) * c + column;
    bool whole = c % GPU_VECTOR == 0;
    float u[GPU_VECTOR], v[GPU_VECTOR];
    gpu_load_vector(source, n, whole && gpu_is_aligned(source), u);
    gpu_load_vector(to, n, whole && gpu_is_aligned(to), v);
#pragma unroll
    for (int j = 0; j < GPU_VECTOR; j++)
        v[j] += factor * u[j];
    gpu_store_vector(to, n, whole && gpu_is_aligned(to), v);
}

template <class T>
cudaError_t add_rows(const void *x, const int32_t *index, float factor, void *y, int64_t c,
                     const atedm_cuda_gather_spans *spans, cudaStream_t stream)
{
    uint32_t pieces = pieces_of(c);
    int64_t most = atedm_cuda_most_rows(spans);
    if (most == 0)
        return cudaSuccess;
    return GPU_LAUNCH((add_rows_kernel<T>),
                      dim3(gpu_blocks(most * pieces, THREADS), (unsigned)spans->n), dim3(THREADS),
                      0, stream, static_cast<const T *>(x), index, factor, static_cast<T *>(y), c,
                      pieces, *spans);
}

template <class T>
__global__ void __launch_bounds__(THREADS)
    epilogue_kernel(int which, const float *sums, const float *bias, const T *residual, T *y,
                    int64_t rows, int64_t out, uint32_t pieces)
{
    const auto [row, column] = piece_of_thread(pieces);
    if (row >= rows)
        return;
    int64_t n = out - column, at = row * out + column;
    bool whole = out % GPU_VECTOR == 0;
    float v[GPU_VECTOR], r[GPU_VECTOR];
    gpu_load_vector(sums + at, n, whole && gpu_is_aligned(sums), v);
    if (bias) {
        gpu_load_vector(bias + column, n, whole && gpu_is_aligned(bias), r);
#pragma unroll
        for (int j = 0; j < GPU_VECTOR; j++)
            v[j] += r[j];
    }
#pragma unroll
    for (int j = 0; j < GPU_VECTOR; j++)
        v[j] = gpu_activate(which, v[j]);
    if (residual) {
        gpu_load_vector(residual + at, n, whole && gpu_is_aligned(residual), r);
#pragma unroll
        for (int j = 0; j < GPU_VECTOR; j++)
            v[j] += r[j];
    }
    gpu_store_vector(y + at, n, whole && gpu_is_aligned(y), v);
}

template <class T>
cudaError_t epilogue(int which, const float *sums, const float *bias, const void *residual, void *y,
                     int64_t rows, int64_t out, cudaStream_t stream)
{
    uint32_t pieces = pieces_of(out);
    return GPU_LAUNCH((epilogue_kernel<T>), dim3(gpu_blocks(rows * pieces, THREADS)), dim3(THREADS),
                      0, stream, which, sums, bias, static_cast<const T *>(residual),
                      static_cast<T *>(y), rows, out, pieces);
}

// In double: there are few elements, and the result is the state of the whole sampling.
template <class T>
__global__ void __launch_bounds__(THREADS) step_kernel(const __grid_constant__ atedm_step_args args)
{
    int64_t i = (int64_t)blockIdx.x * THREADS + threadIdx.x;
    if (i >= args.count)
        return;
    double x = (double)args.x[i], m = (double)gpu_load(static_cast<const T *>(args.cond)[i]);
    if (args.uncond) {
        double u = (double)gpu_load(static_cast<const T *>(args.uncond)[i]);
        m = u + (double)args.guidance_scale * (m - u);
    }
    double next = args.step.x * x + args.step.output * m;
    if (args.history) {
        if (args.step.earlier != 0.0)
            next += args.step.earlier * (double)args.history[i];
        args.history[i] = (float)(args.step.keep_x * x + args.step.keep_output * m);
    }
    args.x[i] = (float)next;
}

template <class T> cudaError_t step(const atedm_step_args *args, cudaStream_t stream)
{
    return GPU_LAUNCH((step_kernel<T>), dim3(gpu_blocks(args->count, THREADS)), dim3(THREADS), 0,
                      stream, *args);
}

template <class T>
__global__ void __launch_bounds__(THREADS) image_kernel(const T *x, uint8_t *y, int64_t count)
{
    int64_t i = (int64_t)blockIdx.x * THREADS + threadIdx.x;
    if (i >= count)
        return;
    float value = gpu_load(x[i]) * 0.5f + 0.5f;
    value = value > 0.0f ? (value < 1.0f ? value : 1.0f) : 0.0f; // NaN becomes 0
    y[i] = (uint8_t)rintf(255.0f * value);
}

template <class T> cudaError_t image(const void *x, uint8_t *y, int64_t count, cudaStream_t stream)
{
    return GPU_LAUNCH((image_kernel<T>), dim3(gpu_blocks(count, THREADS)), dim3(THREADS), 0, stream,
                      static_cast<const T *>(x), y, count);
}

} // namespace

cudaError_t atedm_cuda_launch_activate(atedm_dtype act, int which, const void *x, void *y,
                                       int64_t count, cudaStream_t stream)
{
    return GPU_FOR_ACT(act, activate, which, x, y, count, stream);
}

cudaError_t atedm_cuda_launch_add(atedm_dtype act, const void *a, const void *b, void *y,
                                  int64_t count, cudaStream_t stream)
{
    return GPU_FOR_ACT(act, add, a, b, y, count, stream);
}

cudaError_t atedm_cuda_launch_geglu(atedm_dtype act, const void *x, void *y, int64_t rows,
                                    int64_t f, cudaStream_t stream)
{
    return GPU_FOR_ACT(act, geglu, x, y, rows, f, stream);
}

cudaError_t atedm_cuda_launch_to_f32(atedm_dtype act, const void *x, float *y, int64_t count,
                                     cudaStream_t stream)
{
    return GPU_FOR_ACT(act, to_f32, x, y, count, stream);
}

cudaError_t atedm_cuda_launch_add_rows(atedm_dtype act, const void *x, const int32_t *index,
                                       float factor, void *y, int64_t c,
                                       const atedm_cuda_gather_spans *spans, cudaStream_t stream)
{
    return GPU_FOR_ACT(act, add_rows, x, index, factor, y, c, spans, stream);
}

cudaError_t atedm_cuda_launch_epilogue(atedm_dtype act, int which, const float *sums,
                                       const float *bias, const void *residual, void *y,
                                       int64_t rows, int64_t out, cudaStream_t stream)
{
    return GPU_FOR_ACT(act, epilogue, which, sums, bias, residual, y, rows, out, stream);
}

cudaError_t atedm_cuda_launch_scale(atedm_dtype act, const float *x, double a, void *y,
                                    int64_t count, cudaStream_t stream)
{
    return GPU_FOR_ACT(act, scale, x, a, y, count, stream);
}

cudaError_t atedm_cuda_launch_step(atedm_dtype act, const atedm_step_args *args,
                                   cudaStream_t stream)
{
    return GPU_FOR_ACT(act, step, args, stream);
}

cudaError_t atedm_cuda_launch_image(atedm_dtype act, const void *x, uint8_t *y, int64_t count,
                                    cudaStream_t stream)
{
    return GPU_FOR_ACT(act, image, x, y, count, stream);
}
