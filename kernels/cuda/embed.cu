// Embeddings: tokens with their positions, and numbers as sinusoids. And noise, for trials.
#include "kernels/cuda/gpu.cuh"

namespace
{

constexpr int THREADS = 128;

template <class T>
__global__ void __launch_bounds__(THREADS)
    embed_kernel(const T *table, const T *position, const __grid_constant__ atedm_cuda_ids ids,
                 int64_t first, int64_t tokens, int64_t c, T *y)
{
    int64_t row = first + blockIdx.x, id = ids.id[blockIdx.x];
    for (int64_t j = threadIdx.x; j < c; j += THREADS)
        gpu_store(&y[row * c + j],
                  gpu_load(table[id * c + j]) + gpu_load(position[row % tokens * c + j]));
}

template <class T>
cudaError_t embed(const void *table, const void *position, const atedm_cuda_ids *ids, int64_t first,
                  int64_t tokens, int64_t c, void *y, cudaStream_t stream)
{
    return GPU_LAUNCH((embed_kernel<T>), dim3((unsigned)ids->n), dim3(THREADS), 0, stream,
                      static_cast<const T *>(table), static_cast<const T *>(position), *ids, first,
                      tokens, c, static_cast<T *>(y));
}

// In double, since angles reach a thousand: their sines would be off in f32.
template <class T>
__global__ void __launch_bounds__(THREADS)
    sinusoid_kernel(const __grid_constant__ atedm_cuda_numbers values, int64_t dim, T *y)
{
    int64_t half = dim / 2;
    for (int64_t j = threadIdx.x; j < half; j += THREADS) {
        double angle = values.value[blockIdx.x] * exp(-log(10000.0) * (double)j / (double)half);
        gpu_store(&y[blockIdx.x * dim + j], (float)cos(angle));
        gpu_store(&y[blockIdx.x * dim + half + j], (float)sin(angle));
    }
}

template <class T>
cudaError_t sinusoid(const atedm_cuda_numbers *values, int64_t dim, void *y, cudaStream_t stream)
{
    return GPU_LAUNCH((sinusoid_kernel<T>), dim3((unsigned)values->n), dim3(THREADS), 0, stream,
                      *values, dim, static_cast<T *>(y));
}

// Block: a row. A hash (the finalizer of MurmurHash3) as a value from [-16, 16), for a column and
// the one as far from the end, which is negated where it is to be; 0 in the middle.
template <class T>
__global__ void __launch_bounds__(THREADS)
    noise_kernel(T *y, int64_t columns, int64_t stride, float second)
{
    for (int64_t j = threadIdx.x; j < columns; j += THREADS) {
        int64_t other = columns - 1 - j;
        uint32_t h = (uint32_t)(blockIdx.x * columns + (j < other ? j : other));
        h = (h ^ h >> 16) * 0x85ebca6bu;
        h = (h ^ h >> 13) * 0xc2b2ae35u;
        float value = (float)(h ^ h >> 16) * 0x1p-27f - 16.0f;
        gpu_store(&y[blockIdx.x * stride + j], j < other ? value : j > other ? value * second : 0);
    }
}

template <class T>
cudaError_t noise(void *y, int64_t rows, int64_t columns, int64_t stride, bool cancels,
                  cudaStream_t stream)
{
    return GPU_LAUNCH((noise_kernel<T>), dim3((unsigned)rows), dim3(THREADS), 0, stream,
                      static_cast<T *>(y), columns, stride, cancels ? -1.0f : 1.0f);
}

} // namespace

cudaError_t atedm_cuda_launch_embed(atedm_dtype act, const void *table, const void *position,
                                    const atedm_cuda_ids *ids, int64_t first, int64_t tokens,
                                    int64_t c, void *y, cudaStream_t stream)
{
    return GPU_FOR_ACT(act, embed, table, position, ids, first, tokens, c, y, stream);
}

cudaError_t atedm_cuda_launch_sinusoid(atedm_dtype act, const atedm_cuda_numbers *values,
                                       int64_t dim, void *y, cudaStream_t stream)
{
    return GPU_FOR_ACT(act, sinusoid, values, dim, y, stream);
}

cudaError_t atedm_cuda_launch_noise(atedm_dtype act, void *y, int64_t rows, int64_t columns,
                                    int64_t stride, bool cancels, cudaStream_t stream)
{
    return GPU_FOR_ACT(act, noise, y, rows, columns, stride, cancels, stream);
}
