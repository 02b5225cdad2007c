// Operations that only copy rows: upsampling, concatenating columns, repeating, gathering. A warp
// copies a row, in the largest pieces that its addresses allow.
#include "kernels/cuda/gpu.cuh"

namespace
{

constexpr int WARPS = 4;  // of a block
constexpr int BLOCKS = 8; // of a multiprocessor: without this, ptxas aims at more and spills

template <class T> GPU_FN void copy_pieces(char *to, const char *from, size_t bytes, unsigned lane)
{
    for (size_t i = lane; i < bytes / sizeof(T); i += 32)
        reinterpret_cast<T *>(to)[i] = reinterpret_cast<const T *>(from)[i];
}

GPU_FN void copy_row(char *to, const char *from, size_t bytes, unsigned lane)
{
    uintptr_t all = (uintptr_t)to | (uintptr_t)from | (uintptr_t)bytes;
    if (all % 16 == 0)
        copy_pieces<uint4>(to, from, bytes, lane);
    else if (all % 4 == 0)
        copy_pieces<uint32_t>(to, from, bytes, lane);
    else if (all % 2 == 0)
        copy_pieces<uint16_t>(to, from, bytes, lane);
    else
        copy_pieces<uint8_t>(to, from, bytes, lane);
}

GPU_FN int64_t warp_number()
{
    return (int64_t)blockIdx.x * WARPS + (threadIdx.x >> 5);
}

// y [n, h, w] from x [n, ceil(h / 2), ceil(w / 2)], in pixels. A warp copies one pixel.
__global__ void __launch_bounds__(WARPS * 32, BLOCKS)
    upsample2_kernel(size_t pixel, const char *x, char *y, int64_t n, int64_t h, int64_t w)
{
    int64_t at = warp_number();
    if (at >= n * h * w)
        return;
    int64_t column = at % w, row = at / w % h, sample = at / w / h;
    int64_t from = (sample * ((h + 1) / 2) + row / 2) * ((w + 1) / 2) + column / 2;
    copy_row(y + (size_t)at * pixel, x + (size_t)from * pixel, pixel, threadIdx.x & 31);
}

// Even warps copy rows of a, odd ones rows of b.
__global__ void __launch_bounds__(WARPS * 32, BLOCKS)
    concat_kernel(size_t a_bytes, const char *a, size_t b_bytes, const char *b, char *y,
                  int64_t rows)
{
    int64_t at = warp_number();
    size_t row = (size_t)(at / 2);
    if (at / 2 >= rows)
        return;
    bool left = at % 2 == 0;
    copy_row(y + row * (a_bytes + b_bytes) + (left ? 0 : a_bytes),
             left ? a + row * a_bytes : b + row * b_bytes, left ? a_bytes : b_bytes,
             threadIdx.x & 31);
}

__global__ void __launch_bounds__(WARPS * 32, BLOCKS)
    repeat_kernel(size_t row_bytes, const char *x, char *y, int64_t rows)
{
    int64_t at = warp_number();
    if (at < rows)
        copy_row(y + (size_t)at * row_bytes, x, row_bytes, threadIdx.x & 31);
}

__global__ void __launch_bounds__(WARPS * 32, BLOCKS)
    gather_kernel(const char *x, const int32_t *index, char *y, size_t row_bytes,
                  const __grid_constant__ atedm_cuda_gather_spans spans)
{
    const atedm_gather_span &span = spans.span[blockIdx.y];
    int64_t i = warp_number();
    if (i >= span.n)
        return;
    unsigned lane = threadIdx.x & 31;
    int32_t from = index[span.index_first + i];
    char *to = y + (size_t)(span.to + i) * row_bytes;
    if (from >= 0)
        copy_row(to, x + (size_t)(span.from + from) * row_bytes, row_bytes, lane);
    else
        for (size_t b = lane; b < row_bytes; b += 32)
            to[b] = 0;
}

} // namespace

cudaError_t atedm_cuda_launch_upsample2(size_t pixel_bytes, const void *x, void *y, int64_t n,
                                        int64_t h, int64_t w, cudaStream_t stream)
{
    return GPU_LAUNCH(upsample2_kernel, dim3(gpu_blocks(n * h * w, WARPS)), dim3(WARPS * 32), 0,
                      stream, pixel_bytes, static_cast<const char *>(x), static_cast<char *>(y), n,
                      h, w);
}

cudaError_t atedm_cuda_launch_concat(size_t a_bytes, const void *a, size_t b_bytes, const void *b,
                                     void *y, int64_t rows, cudaStream_t stream)
{
    return GPU_LAUNCH(concat_kernel, dim3(gpu_blocks(2 * rows, WARPS)), dim3(WARPS * 32), 0, stream,
                      a_bytes, static_cast<const char *>(a), b_bytes, static_cast<const char *>(b),
                      static_cast<char *>(y), rows);
}

cudaError_t atedm_cuda_launch_repeat(const void *x, void *y, size_t row_bytes, int64_t rows,
                                     cudaStream_t stream)
{
    return GPU_LAUNCH(repeat_kernel, dim3(gpu_blocks(rows, WARPS)), dim3(WARPS * 32), 0, stream,
                      row_bytes, static_cast<const char *>(x), static_cast<char *>(y), rows);
}

cudaError_t atedm_cuda_launch_gather(const void *x, const int32_t *index, void *y, size_t row_bytes,
                                     const atedm_cuda_gather_spans *spans, cudaStream_t stream)
{
    int64_t most = atedm_cuda_most_rows(spans);
    if (most == 0)
        return cudaSuccess;
    return GPU_LAUNCH(gather_kernel, dim3(gpu_blocks(most, WARPS), (unsigned)spans->n),
                      dim3(WARPS * 32), 0, stream, static_cast<const char *>(x), index,
                      static_cast<char *>(y), row_bytes, *spans);
}
