// Kernels for trials of the libraries' algorithms (trial.h): they make operands whose products add
// up to nothing but rounding errors, and compare results.
#include "kernels/cuda/gpu.cuh"

namespace
{

constexpr int THREADS = 128;

// A value of magnitude 2^-8 to 2^7 made from hash bits. Magnitudes are so far apart that every
// addition of products rounds. Sums of products of similar 16-bit values would be exact in F32.
GPU_FN float noise_value(uint32_t h)
{
    uint32_t sign = h << 31, exponent = 127 - 8 + (h >> 8) % 15, mantissa = h >> 1 & 127;
    return __uint_as_float(sign | exponent << 23 | mantissa << 16);
}

// The finalizer of MurmurHash3.
GPU_FN uint32_t hash(uint32_t h)
{
    h = (h ^ h >> 16) * 0x85ebca6bu;
    h = (h ^ h >> 13) * 0xc2b2ae35u;
    return h ^ h >> 16;
}

// For all kinds but plain and opposed: column j and the column as far from the end share a value,
// and the middle column is 0. For NOISE_CANCELS the second of the two is negated.
GPU_FN float value_of(atedm_cuda_noise kind, uint32_t seed, uint32_t row, int64_t j,
                      int64_t columns)
{
    int64_t other = columns - 1 - j;
    if (kind == ATEDM_CUDA_NOISE_PLAIN)
        return (float)hash(hash(seed + row) + (uint32_t)j) * 0x1p-31f - 1.0f;
    if (kind == ATEDM_CUDA_NOISE_OPPOSED)
        return (hash(hash(seed) + (uint32_t)j) & 1) == (row > 0) ? 0x1p15f : -0x1p15f;
    if (j == other)
        return 0;
    if (kind == ATEDM_CUDA_NOISE_ONE_ROW)
        row = 0;
    float value = noise_value(hash(hash(seed + row) + (uint32_t)(j < other ? j : other)));
    return kind == ATEDM_CUDA_NOISE_CANCELS && j > other ? -value : value;
}

// A block fills one row.
template <class T>
__global__ void __launch_bounds__(THREADS)
    noise_kernel(T *y, int64_t columns, int64_t stride, atedm_cuda_noise kind, uint32_t seed)
{
    for (int64_t j = threadIdx.x; j < columns; j += THREADS)
        gpu_store(&y[blockIdx.x * stride + j], value_of(kind, seed, blockIdx.x, j, columns));
}

template <class T>
cudaError_t noise(atedm_cuda_noise kind, uint32_t seed, void *y, int64_t rows, int64_t columns,
                  int64_t stride, cudaStream_t stream)
{
    return GPU_LAUNCH((noise_kernel<T>), dim3((unsigned)rows), dim3(THREADS), 0, stream,
                      static_cast<T *>(y), columns, stride, kind, seed);
}

// counts [blocks]: the number of differing words that each block found.
__global__ void __launch_bounds__(THREADS)
    differences_kernel(const uint32_t *a, const uint32_t *b, int64_t words, float *counts)
{
    float count = 0;
    for (int64_t i = (int64_t)blockIdx.x * THREADS + threadIdx.x; i < words;
         i += (int64_t)gridDim.x * THREADS)
        count += a[i] != b[i];
    count = gpu_block_sum(count, gpu_shared<float>());
    if (threadIdx.x == 0)
        counts[blockIdx.x] = count;
}

} // namespace

cudaError_t atedm_cuda_launch_noise(atedm_dtype act, atedm_cuda_noise kind, uint32_t seed, void *y,
                                    int64_t rows, int64_t columns, int64_t stride,
                                    cudaStream_t stream)
{
    return GPU_FOR_ACT(act, noise, kind, seed, y, rows, columns, stride, stream);
}

cudaError_t atedm_cuda_launch_differences(const void *a, const void *b, int64_t words,
                                          float *counts, cudaStream_t stream)
{
    return GPU_LAUNCH(differences_kernel, dim3(ATEDM_CUDA_DIFFERENCES), dim3(THREADS),
                      THREADS / 32 * sizeof(float), stream, static_cast<const uint32_t *>(a),
                      static_cast<const uint32_t *>(b), words, counts);
}
