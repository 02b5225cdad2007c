// Shared by the kernels of convolutions: pixels and their windows, the layout of tiles for tensor
// cores, and the epilogue.
#ifndef ATEDM_KERNELS_CUDA_CONV_CUH
#define ATEDM_KERNELS_CUDA_CONV_CUH

#include "kernels/cuda/gpu.cuh"

constexpr int CONV_STEP = ATEDM_CUDA_WEIGHT_STEP; // elements of a tile's row: four vectors
constexpr int CONV_VECTOR = 8;                    // elements of 16 bytes

// Offset of a vector in a swizzled tile. Vectors are permuted within their row, so that the eight
// rows that one ldmatrix phase reads lie in different banks.
GPU_FN int conv_tile_at(int row, int vector)
{
    return row * CONV_STEP + ((vector ^ (row >> 1 & 3)) * CONV_VECTOR);
}

// The sample of a row of y, and the upper left corner of its window in x.
struct conv_pixel {
    int64_t sample; // -1: there is no such row
    int64_t y, x;
};

GPU_FN conv_pixel conv_pixel_of(const atedm_cuda_conv_call &p, int64_t row)
{
    if (row >= p.n * p.ho * p.wo)
        return {-1, 0, 0};
    int pad = (p.kernel - 1) / 2;
    int64_t in_sample = row % (p.ho * p.wo);
    return {row / (p.ho * p.wo), in_sample / p.wo * p.stride - pad,
            in_sample % p.wo * p.stride - pad};
}

// Offset of the first channel of x at (y, x) of a sample, or -1 outside the image.
GPU_FN int64_t conv_offset(const atedm_cuda_conv_call &p, int64_t sample, int64_t y, int64_t x)
{
    bool inside = sample >= 0 && y >= 0 && y < p.h && x >= 0 && x < p.w;
    return inside ? ((sample * p.h + y) * p.w + x) * p.in : -1;
}

// A row of y: where its first column is in y and in the residual (-1: there is no such row), and
// where in channel_add.
struct conv_row {
    int64_t first, add;
};

GPU_FN conv_row conv_row_of(const atedm_cuda_conv_call &p, int64_t row)
{
    if (row >= p.n * p.ho * p.wo)
        return {-1, 0};
    return {row * p.out, p.channel_add ? row / (p.ho * p.wo) * p.out : 0};
}

// The epilogue for a row's sum at a column: bias, activation, time embedding, residual, store.
template <class T>
GPU_FN void conv_finish(const atedm_cuda_conv_call &p, const conv_row &row, int64_t column,
                        float sum)
{
    if (row.first < 0 || column >= p.out)
        return;
    if (p.bias)
        sum += p.bias[column];
    sum = gpu_activate(p.activation, sum);
    if (p.channel_add)
        sum += gpu_load(static_cast<const T *>(p.channel_add)[row.add + column]);
    if (p.residual)
        sum += gpu_load(static_cast<const T *>(p.residual)[row.first + column]);
    gpu_store(static_cast<T *>(p.y) + row.first + column, sum);
}

#endif
