// Tiles of 64 rows of 64 elements of a 16-bit type, for heads of 64 on tensor cores: their layout
// in shared memory, loading, and the product of two tiles. A block has four warps; warp w
// multiplies rows 16 w .. 16 w + 15 of the first tile with all of the second. (attention512.cu has
// eight warps, of which two share each set of rows.)
#ifndef ATEDM_KERNELS_CUDA_TILE64_CUH
#define ATEDM_KERNELS_CUDA_TILE64_CUH

#include "kernels/cuda/gpu.cuh"

constexpr int TILE = 64, TILE_THREADS = 128, TILE_VECTORS = TILE / 8;
constexpr int TILE_ELEMENTS = TILE * TILE;
// Exponentials have base 2. TILE_SCALE is 1 / sqrt(64); TILE_SCALE2 includes the factor log2 e.
constexpr float TILE_SCALE = 0.125f, TILE_LOG2E = 1.4426950408889634f;
constexpr float TILE_SCALE2 = TILE_SCALE * TILE_LOG2E;

// Offset of a vector in a swizzled tile. Vectors of 16 bytes are permuted within their row, so that
// the same vector of eight rows lies in eight different banks.
GPU_FN int tile_at(int row, int vector)
{
    return row * TILE + ((vector ^ (row & 7)) * 8);
}

// Whether every row of the n matrices starts at a multiple of 16 bytes. Strides are in elements.
inline bool tile_rows_align(const void *const *matrices, const int64_t *strides, int n)
{
    bool align = true;
    for (int i = 0; align && i < n; i++)
        align = (uintptr_t)matrices[i] % 16 == 0 && strides[i] % 8 == 0;
    return align;
}

// Row numbers first, first + 1, ..; -1 from `end` on.
struct tile_range {
    int64_t first, end;
    GPU_FN int64_t operator()(int i) const
    {
        return first + i < end ? first + i : -1;
    }
};

// Starts to load rows row_of(0) .. row_of(63) of a matrix. A row number of -1 gives zeros.
template <class T, class ROWS>
GPU_FN void tile_load(T *tile, const T *matrix, int64_t stride, ROWS row_of)
{
#pragma unroll
    for (int i = 0; i < TILE * TILE_VECTORS / TILE_THREADS; i++) {
        int unit = i * TILE_THREADS + threadIdx.x, r = unit / TILE_VECTORS,
            vector = unit % TILE_VECTORS;
        int64_t row = row_of(r);
        gpu_copy_16(tile + tile_at(r, vector), matrix + (row < 0 ? 0 : row * stride + vector * 8),
                    row >= 0);
    }
}

// The warp's 16 rows of a tile, as fragments of the mma's first operand, one for each 16 columns.
template <class T> GPU_FN void tile_rows(uint32_t (&a)[4][4], const T *tile)
{
    int lane = threadIdx.x & 31, warp = threadIdx.x >> 5 & 3;
#pragma unroll
    for (int k = 0; k < 4; k++)
        gpu_ldmatrix(a[k], tile + tile_at(warp * 16 + (lane & 15), k * 2 + (lane >> 4)));
}

// s = a b^T. Thread l of a warp has s[n][i] of row 16 warp + l / 4 + (i / 2) * 8, column 8 n + l %
// 4 * 2 + i % 2.
template <class T> GPU_FN void tile_scores(float (&s)[8][4], const uint32_t (&a)[4][4], const T *b)
{
    int lane = threadIdx.x & 31;
#pragma unroll
    for (int n = 0; n < 8; n++)
#pragma unroll
        for (int i = 0; i < 4; i++)
            s[n][i] = 0;
#pragma unroll
    for (int k = 0; k < 4; k++)
#pragma unroll
        for (int n = 0; n < 4; n++) {
            uint32_t f[4];
            gpu_ldmatrix(
                f, b + tile_at(n * 16 + (lane & 7) + (lane >> 4 << 3), k * 2 + (lane >> 3 & 1)));
            gpu_mma(T(), s[2 * n], a[k], f[0], f[1]);
            gpu_mma(T(), s[2 * n + 1], a[k], f[2], f[3]);
        }
}

// The running state of a thread's two rows of attention, `row` and row + 8: the largest logit,
// unscaled; the thread's share of the sum of exponentials; and the sums of values, in the layout of
// tile_scores.
struct tile_attention {
    float most[2], total[2], sums[8][4];
};

// Sum, and maximum, over the four threads of a row.
GPU_FN float quad_sum(float x)
{
    x += __shfl_xor_sync(0xffffffffu, x, 1);
    return x + __shfl_xor_sync(0xffffffffu, x, 2);
}
GPU_FN float quad_max(float x)
{
    x = fmaxf(x, __shfl_xor_sync(0xffffffffu, x, 1));
    return fmaxf(x, __shfl_xor_sync(0xffffffffu, x, 2));
}

// Writes rows below nq, and their log-sum-exp if lse is not NULL. o points at the head's columns in
// the span's first row, lse at that row's entry.
template <class T>
GPU_FN void tile_store(const tile_attention &r, int64_t row, int64_t nq, T *o, int64_t o_stride,
                       float *lse)
{
    int lane = threadIdx.x & 31;
#pragma unroll
    for (int half = 0; half < 2; half++, row += 8) {
        float total = quad_sum(r.total[half]), factor = 1.0f / total;
        if (row >= nq)
            continue;
        if (lse && lane % 4 == 0)
            lse[row] = fmaf(r.most[half], TILE_SCALE, logf(total));
        T *to = o + row * o_stride + lane % 4 * 2;
#pragma unroll
        for (int n = 0; n < 8; n++)
            *reinterpret_cast<uint32_t *>(to + n * 8) =
                gpu_pack(T(), r.sums[n][half * 2] * factor, r.sums[n][half * 2 + 1] * factor);
    }
}

#endif
