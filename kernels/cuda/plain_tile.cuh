// Dot products of a tile of 16 rows with a tile of 32 columns, for any element type and length,
// without tensor cores. Attention, the passes over attention maps, and the search for similar rows
// use it where the kernels for tensor cores do not fit. A block has PLAIN_THREADS threads. Thread t
// computes row t / 8 and columns t % 8 + 8 j.
#ifndef ATEDM_KERNELS_CUDA_PLAIN_TILE_CUH
#define ATEDM_KERNELS_CUDA_PLAIN_TILE_CUH

#include "kernels/cuda/gpu.cuh"

constexpr int PLAIN_THREADS = 128, PLAIN_ROWS = 16, PLAIN_COLUMNS = 32, PLAIN_DEPTH = 32;
constexpr int PLAIN_STRIDE = PLAIN_DEPTH + 1; // odd, so that rows start in different banks
constexpr int PLAIN_BLOCKS = 6; // of a multiprocessor: without this, ptxas aims at more and spills

// The tiles in shared memory. Before each call of plain_scores the caller names their rows, in
// `row` and `column`; -1 stands for a row of zeros.
struct plain_tiles {
    int64_t row[PLAIN_ROWS], column[PLAIN_COLUMNS];
    float a[PLAIN_ROWS * PLAIN_STRIDE], b[PLAIN_COLUMNS * PLAIN_STRIDE];
};

// A matrix from which rows are loaded: element type T, row stride in elements.
template <class T> struct plain_matrix {
    const T *data;
    int64_t stride;
};

// sums[j] = dot product of the thread's row of a and its column j of b, over `dim` elements, in
// order.
template <class T>
GPU_FN void plain_scores(plain_tiles &tiles, plain_matrix<T> a, plain_matrix<T> b, int64_t dim,
                         float (&sums)[4])
{
    int lane = threadIdx.x % 32, warp = threadIdx.x / 32, r = threadIdx.x / 8, c = threadIdx.x % 8;
#pragma unroll
    for (int j = 0; j < 4; j++)
        sums[j] = 0;
    for (int64_t d = 0; d < dim; d += PLAIN_DEPTH) {
        __syncthreads(); // the rows are named, and all threads have read the previous tiles
        for (int i = warp; i < PLAIN_ROWS; i += PLAIN_THREADS / 32)
            tiles.a[i * PLAIN_STRIDE + lane] =
                tiles.row[i] >= 0 && d + lane < dim
                    ? gpu_load(a.data[tiles.row[i] * a.stride + d + lane])
                    : 0.0f;
        for (int i = warp; i < PLAIN_COLUMNS; i += PLAIN_THREADS / 32)
            tiles.b[i * PLAIN_STRIDE + lane] =
                tiles.column[i] >= 0 && d + lane < dim
                    ? gpu_load(b.data[tiles.column[i] * b.stride + d + lane])
                    : 0.0f;
        __syncthreads();
        for (int i = 0; i < PLAIN_DEPTH; i++)
#pragma unroll
            for (int j = 0; j < 4; j++)
                sums[j] += tiles.a[r * PLAIN_STRIDE + i] * tiles.b[(c + 8 * j) * PLAIN_STRIDE + i];
    }
}

// Names rows first, first + 1, .. below end. The caller puts a barrier between the last reader of
// the names and this call.
GPU_FN void plain_name(int64_t *names, int n, int64_t first, int64_t end)
{
    for (int i = threadIdx.x; i < n; i += PLAIN_THREADS)
        names[i] = first + i < end ? first + i : -1;
}

// Sum, and maximum, over the eight threads of a row.
GPU_FN float plain_row_sum(float x)
{
#pragma unroll
    for (int with = 1; with < 8; with *= 2)
        x += __shfl_xor_sync(0xffffffffu, x, with);
    return x;
}
GPU_FN float plain_row_max(float x)
{
#pragma unroll
    for (int with = 1; with < 8; with *= 2)
        x = fmaxf(x, __shfl_xor_sync(0xffffffffu, x, with));
    return x;
}

#endif
