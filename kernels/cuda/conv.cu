// Convolutions as implicit matrix products, [pixels, window] times [window, out]. Windows are
// gathered on the way into shared memory. 16-bit types with channels in whole vectors use tensor
// cores; F32 and the rest use a plain kernel. conv_thin.cu has convolutions with few channels on
// one side.
//
// On tensor cores a block computes 128 x 128 or 64 x 64 [pixels, outputs]. It goes over the window
// in steps of CONV_STEP elements. cp.async loads the tiles of the next steps through three stages,
// with one barrier for each step.
//
// Each sum runs over the window in order, in F32, whatever the number of pixels.
#include "kernels/cuda/conv.cuh"

namespace
{

// Offset of the first channel of x that the pixel's window has at `tap`, or -1 in the padding.
GPU_FN int64_t tap_offset(const atedm_cuda_conv_call &p, const conv_pixel &at, int tap)
{
    int64_t offset = conv_offset(p, at.sample, at.y + tap / p.kernel, at.x + tap % p.kernel);
    return tap < p.kernel * p.kernel ? offset : -1;
}

// ---- any type, any number of channels

constexpr int PLAIN_THREADS = 128, PLAIN_TILE = 32, PLAIN_STEP = 32;
constexpr int PLAIN_STRIDE = PLAIN_STEP + 1; // odd: rows start in different banks

// A block computes 32 pixels x 32 outputs; a thread 2 rows of 4 columns.
template <class T>
__global__ void __launch_bounds__(PLAIN_THREADS)
    plain_kernel(const __grid_constant__ atedm_cuda_conv_call p)
{
    float *xs = gpu_shared<float>(), *ws = xs + PLAIN_TILE * PLAIN_STRIDE;
    const T *x = static_cast<const T *>(p.x), *w = static_cast<const T *>(p.weight);
    int64_t row0 = (int64_t)blockIdx.x * PLAIN_TILE, column0 = (int64_t)blockIdx.y * PLAIN_TILE;
    int window = p.kernel * p.kernel * p.in, lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    int r = threadIdx.x / 8, c = threadIdx.x % 8;
    float sums[2][4] = {};
    for (int k0 = 0; k0 < window; k0 += PLAIN_STEP) {
        int k = k0 + lane, tap = k / p.in;
        __syncthreads();
        for (int i = warp; i < PLAIN_TILE; i += PLAIN_THREADS / 32) {
            int64_t at = k < window ? tap_offset(p, conv_pixel_of(p, row0 + i), tap) : -1;
            xs[i * PLAIN_STRIDE + lane] = at < 0 ? 0.0f : gpu_load(x[at + k % p.in]);
            // Rows of weights are padded with zeros to a multiple of PLAIN_STEP.
            ws[i * PLAIN_STRIDE + lane] =
                column0 + i < p.out ? gpu_load(w[(column0 + i) * p.weight_stride + k]) : 0.0f;
        }
        __syncthreads();
        for (int i = 0; i < PLAIN_STEP; i++)
#pragma unroll
            for (int a = 0; a < 2; a++)
#pragma unroll
                for (int b = 0; b < 4; b++)
                    sums[a][b] +=
                        xs[(r + 16 * a) * PLAIN_STRIDE + i] * ws[(c + 8 * b) * PLAIN_STRIDE + i];
    }
#pragma unroll
    for (int a = 0; a < 2; a++) {
        conv_row row = conv_row_of(p, row0 + r + 16 * a);
#pragma unroll
        for (int b = 0; b < 4; b++)
            conv_finish<T>(p, row, column0 + c + 8 * b, sums[a][b]);
    }
}

template <class T> cudaError_t plain(const atedm_cuda_conv_call *p, cudaStream_t stream)
{
    static_assert(PLAIN_STEP == ATEDM_CUDA_WEIGHT_STEP, "weights are padded to whole steps");
    return GPU_LAUNCH(
        (plain_kernel<T>),
        dim3(gpu_blocks(p->n * p->ho * p->wo, PLAIN_TILE), gpu_blocks(p->out, PLAIN_TILE)),
        dim3(PLAIN_THREADS), 2 * PLAIN_TILE * PLAIN_STRIDE * sizeof(float), stream, *p);
}

// ---- tensor cores

constexpr int STAGES = 3; // steps whose tiles are in shared memory or being loaded

// A block computes ROWS pixels x COLUMNS outputs; each of its warps 32 x 32 or 64 x 32 of them.
template <int ROWS, int COLUMNS, int WARP_ROWS> struct tiling {
    static constexpr int rows = ROWS, columns = COLUMNS, warp_rows = WARP_ROWS;
    static constexpr int warps_down = ROWS / WARP_ROWS, warps_across = COLUMNS / 32;
    static constexpr int threads = warps_down * warps_across * 32;
    static constexpr int loads = threads / 4; // rows that all threads load at once
    static constexpr size_t shared = (size_t)STAGES * (ROWS + COLUMNS) * CONV_STEP * 2;
};
typedef tiling<128, 128, 64> large;
typedef tiling<64, 64, 32> small;

// Loads the tiles of one step: x [rows, CONV_STEP] and w [columns, CONV_STEP].
template <class T, class S>
GPU_FN void load_step(const atedm_cuda_conv_call &p, const conv_pixel (&at)[S::rows / S::loads],
                      T *xs, T *ws, int step, int64_t column0)
{
    int vector = threadIdx.x % 4, row = threadIdx.x / 4,
        k = step * CONV_STEP + vector * CONV_VECTOR;
    int tap = k / p.in, channel = k % p.in;
#pragma unroll
    for (int i = 0; i < S::rows / S::loads; i++) {
        int64_t from = tap_offset(p, at[i], tap);
        gpu_copy_16(xs + conv_tile_at(row + i * S::loads, vector),
                    static_cast<const T *>(p.x) + (from < 0 ? 0 : from + channel), from >= 0);
    }
#pragma unroll
    for (int i = 0; i < S::columns / S::loads; i++) {
        int64_t column = column0 + row + i * S::loads;
        bool valid = column < p.out;
        gpu_copy_16(ws + conv_tile_at(row + i * S::loads, vector),
                    static_cast<const T *>(p.weight) + (valid ? column * p.weight_stride + k : 0),
                    valid);
    }
}

template <class T, class S>
GPU_FN void multiply_step(const T *xs, const T *ws, int warp_row, int warp_column,
                          float (&sums)[S::warp_rows / 16][4][4])
{
    int lane = threadIdx.x % 32;
#pragma unroll
    for (int k = 0; k < CONV_STEP / 16; k++) {
        uint32_t b[2][4];
#pragma unroll
        for (int j = 0; j < 2; j++)
            gpu_ldmatrix(b[j],
                         ws + conv_tile_at(warp_column + j * 16 + (lane & 7) + (lane >> 4 << 3),
                                           k * 2 + (lane >> 3 & 1)));
#pragma unroll
        for (int i = 0; i < S::warp_rows / 16; i++) {
            uint32_t a[4];
            gpu_ldmatrix(a,
                         xs + conv_tile_at(warp_row + i * 16 + (lane & 15), k * 2 + (lane >> 4)));
#pragma unroll
            for (int j = 0; j < 4; j++)
                gpu_mma(T(), sums[i][j], a, b[j / 2][j % 2 * 2], b[j / 2][j % 2 * 2 + 1]);
        }
    }
}

template <class T, class S>
__global__ void __launch_bounds__(S::threads)
    tensor_kernel(const __grid_constant__ atedm_cuda_conv_call p)
{
    T *xs = gpu_shared<T>(), *ws = xs + STAGES * S::rows * CONV_STEP;
    int64_t row0 = (int64_t)blockIdx.x * S::rows, column0 = (int64_t)blockIdx.y * S::columns;
    int steps = (p.kernel * p.kernel * p.in + CONV_STEP - 1) / CONV_STEP, lane = threadIdx.x % 32;
    int warp_row = threadIdx.x / 32 / S::warps_across * S::warp_rows;
    int warp_column = threadIdx.x / 32 % S::warps_across * 32;
    conv_pixel at[S::rows / S::loads];
#pragma unroll
    for (int i = 0; i < S::rows / S::loads; i++)
        at[i] = conv_pixel_of(p, row0 + threadIdx.x / 4 + i * S::loads);
#pragma unroll
    for (int i = 0; i < STAGES - 1; i++) {
        if (i < steps)
            load_step<T, S>(p, at, xs + i * S::rows * CONV_STEP, ws + i * S::columns * CONV_STEP, i,
                            column0);
        gpu_copy_commit();
    }
    float sums[S::warp_rows / 16][4][4] = {};
    for (int step = 0; step < steps; step++) {
        gpu_copy_wait<STAGES - 2>();
        __syncthreads(); // this step's tiles are there; no warp reads the last step's any more
        int next = step + STAGES - 1;
        if (next < steps)
            load_step<T, S>(p, at, xs + next % STAGES * S::rows * CONV_STEP,
                            ws + next % STAGES * S::columns * CONV_STEP, next, column0);
        gpu_copy_commit();
        multiply_step<T, S>(xs + step % STAGES * S::rows * CONV_STEP,
                            ws + step % STAGES * S::columns * CONV_STEP, warp_row, warp_column,
                            sums);
    }
    gpu_copy_wait<0>();
#pragma unroll
    for (int i = 0; i < S::warp_rows / 16; i++)
#pragma unroll
        for (int half = 0; half < 2; half++) {
            conv_row row = conv_row_of(p, row0 + warp_row + i * 16 + lane / 4 + half * 8);
#pragma unroll
            for (int j = 0; j < 4; j++)
#pragma unroll
                for (int e = 0; e < 2; e++)
                    conv_finish<T>(p, row, column0 + warp_column + j * 8 + lane % 4 * 2 + e,
                                   sums[i][j][half * 2 + e]);
        }
}

template <class T, class S> cudaError_t tensor(const atedm_cuda_conv_call *p, cudaStream_t stream)
{
    return GPU_LAUNCH(
        (tensor_kernel<T, S>),
        dim3(gpu_blocks(p->n * p->ho * p->wo, S::rows), gpu_blocks(p->out, S::columns)),
        dim3(S::threads), S::shared, stream, *p);
}

// Sums have the same bits in both tilings, so the number of pixels may decide between them.
template <class T> cudaError_t choose(const atedm_cuda_conv_call *p, cudaStream_t stream)
{
    if (p->in % CONV_VECTOR || (uintptr_t)p->x % 16)
        return plain<T>(p, stream);
    if (p->n * p->ho * p->wo >= 2 * large::rows && p->out >= large::columns)
        return tensor<T, large>(p, stream);
    return tensor<T, small>(p, stream);
}

} // namespace

cudaError_t atedm_cuda_launch_conv(atedm_dtype act, const atedm_cuda_conv_call *conv,
                                   cudaStream_t stream)
{
    if (act == ATEDM_F32)
        return plain<float>(conv, stream);
    if (atedm_cuda_conv_is_thin(conv))
        return atedm_cuda_launch_conv_thin(act, conv, stream);
    return act == ATEDM_BF16 ? choose<gpu_bf16>(conv, stream) : choose<gpu_f16>(conv, stream);
}
