// Embeddings: tokens plus their positions, and numbers as sinusoids.
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

// In double: angles reach a thousand, where sines in F32 would be inaccurate.
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
