// Convolutions of stride 1 for compute capability 9.0, as implicit matrix products by wgmma: a sum
// for each pixel and output, over the window and its channels.
//
// A block computes one part at a time, a rectangle of 128 or 256 pixels times 160 or 128 outputs.
// Blocks are persistent: block b takes parts b, b + gridDim.x, and so on. One thread of the first
// warpgroup is the loader. Each of the other two warpgroups (the workers) has half of the part's
// pixels.
//
// For each 64 channels and each column of the window, the loader copies one slab of x: the
// rectangle shifted by that column, with the additional rows of pixels that the window's height
// needs. The window's rows are the same slab, offset by whole rows of pixels. So a 3 x 3 window
// loads x three times, not nine. The tensor map writes zeros outside the image, which are the
// padding. For each position of the window the loader also copies a tile of weights [outputs, 64].
//
// Slabs and weights each have a ring of stages. Copies arrive on a stage's mbarrier `_there`. Every
// worker warp arrives on its mbarrier `_free` when it has finished reading.
//
// Each sum runs over channels by 64, then over the window's columns, then its rows, in F32,
// whatever the number of pixels and the tiling.
#include "kernels/cuda/gpu_hopper.cuh"

namespace
{

constexpr int STEP = ATEDM_CUDA_HOPPER_CHANNELS; // elements of a tile's row: 128 bytes
constexpr int ROW_BYTES = STEP * 2;
constexpr int WORKERS = 2;
constexpr int THREADS = (1 + WORKERS) * GPU_WARPGROUP, WARPS = WORKERS * GPU_WARPGROUP / 32;
// All threads start with the same number of registers. The loader's warpgroup gives up those that
// it does not need, and the workers take them.
constexpr int LOADER_REGISTERS = 40, WORKER_REGISTERS = 232;
constexpr int MOST_SHARED = 227 * 1024; // of a block

// A part has PRODUCTS x 64 pixels for each worker, times OUTPUTS. Small parts are for few pixels. A
// slab serves as many steps of products as the window has rows. A window of one pixel uses up a
// slab in each step, so slabs then have as many stages as weights.
template <int PRODUCTS, int OUTPUTS, int KERNEL> struct tiling {
    static constexpr int products = PRODUCTS, outputs = OUTPUTS;
    static constexpr int pixels = PRODUCTS * 64 * WORKERS;
    static constexpr int slab = pixels + (KERNEL - 1) * ATEDM_CUDA_HOPPER_WIDE; // at most
    static constexpr int both = (MOST_SHARED - GPU_TILE_ALIGN) / ((slab + outputs) * ROW_BYTES);
    static constexpr int slabs = KERNEL == 1 ? both : 3; // stages
    static constexpr int weights = KERNEL == 1 ? both : PRODUCTS == 1 ? 7 : 5;
};

// A stage is free when every warp of the workers has arrived at its `_free` barrier.
template <class T, class S> struct alignas(GPU_TILE_ALIGN) tiles {
    T slab[S::slabs][S::slab * STEP], weight[S::weights][S::outputs * STEP];
    gpu_mbarrier slab_there[S::slabs], slab_free[S::slabs];
    gpu_mbarrier weight_there[S::weights], weight_free[S::weights];
};

// The work of a block between two epilogues: from pixel (y, x) of a sample and from `output` on.
struct part {
    int sample, y, x, output;
};

template <class S> GPU_FN part part_of(const atedm_cuda_conv_hopper &a, int number)
{
    int rest = number / a.columns, row = rest / a.across;
    return {row / a.down, row % a.down * (S::pixels >> a.log_width), rest % a.across << a.log_width,
            number % a.columns * S::outputs};
}

template <class T, class S> GPU_FN void init_barriers(tiles<T, S> &t)
{
    for (int i = 0; i < S::slabs; i++) {
        gpu_mbarrier_init(t.slab_there[i], 1);
        gpu_mbarrier_init(t.slab_free[i], WARPS);
    }
    for (int i = 0; i < S::weights; i++) {
        gpu_mbarrier_init(t.weight_there[i], 1);
        gpu_mbarrier_init(t.weight_free[i], WARPS);
    }
    gpu_mbarrier_fence();
}

// ---- loading: one thread

template <class T, class S> GPU_FN void load(const atedm_cuda_conv_hopper &a, tiles<T, S> &t)
{
    const int pad = (a.kernel - 1) / 2;
    const unsigned slab_bytes = (S::pixels + ((a.kernel - 1) << a.log_width)) * ROW_BYTES;
    gpu_ring<S::slabs> slab;
    gpu_ring<S::weights> weight;
    for (int number = blockIdx.x; number < a.parts; number += (int)gridDim.x) {
        const part p = part_of<S>(a, number);
        for (int channel = 0; channel < a.in; channel += STEP)
            for (int column = 0; column < a.kernel; column++, gpu_advance(slab)) {
                gpu_mbarrier_wait(t.slab_free[slab.stage], slab.phase ^ 1);
                gpu_mbarrier_expect(t.slab_there[slab.stage], slab_bytes);
                gpu_tensor_load_4(t.slab[slab.stage], a.x, channel, p.x + column - pad, p.y - pad,
                                  p.sample, t.slab_there[slab.stage]);
                for (int row = 0; row < a.kernel; row++, gpu_advance(weight)) {
                    gpu_mbarrier_wait(t.weight_free[weight.stage], weight.phase ^ 1);
                    gpu_mbarrier_expect(t.weight_there[weight.stage], sizeof *t.weight);
                    gpu_tensor_load(t.weight[weight.stage], a.weight,
                                    (row * a.kernel + column) * a.in + channel, p.output,
                                    t.weight_there[weight.stage]);
                }
            }
    }
}

// ---- products

template <class S> struct sums {
    float d[S::products][S::outputs / 8][4];
};

// Starts sums += x w^T over 64 channels, or sums = x w^T if it is the first step. `x` is the
// worker's first pixel in the slab.
template <class T, class S>
GPU_FN void start_products(sums<S> &r, const T *x, const T *w, bool is_first)
{
    gpu_wgmma_fence();
#pragma unroll
    for (int k = 0; k < STEP / GPU_MMA_K; k++)
#pragma unroll
        for (int i = 0; i < S::products; i++)
            gpu_wgmma_rows(T(), r.d[i],
                           gpu_matrix_step(gpu_matrix(x), i * 64 * ROW_BYTES + k * GPU_MMA_K * 2),
                           gpu_matrix_step(gpu_matrix(w), k * GPU_MMA_K * 2), !is_first || k > 0);
    gpu_wgmma_commit();
}

// Computes a part's sums. Products of two steps run at a time, so a stage is released one step
// after its own.
template <class T, class S>
GPU_FN void multiply(const atedm_cuda_conv_hopper &a, tiles<T, S> &t, int worker,
                     gpu_ring<S::slabs> &slab, gpu_ring<S::weights> &weight, sums<S> &r)
{
    int last_slab = -1, last_weight = -1; // stages whose products may still be running
    for (int channel = 0; channel < a.in; channel += STEP)
        for (int column = 0; column < a.kernel; column++, gpu_advance(slab)) {
            gpu_mbarrier_wait(t.slab_there[slab.stage], slab.phase);
            for (int row = 0; row < a.kernel; row++, gpu_advance(weight)) {
                gpu_mbarrier_wait(t.weight_there[weight.stage], weight.phase);
                int pixel = (row << a.log_width) + worker * S::products * 64;
                start_products<T, S>(r, t.slab[slab.stage] + pixel * STEP, t.weight[weight.stage],
                                     last_weight < 0);
                gpu_wgmma_wait_but<1>();
                if (last_weight >= 0)
                    gpu_leave(t.weight_free[last_weight]);
                if (last_slab >= 0 && row == 0)
                    gpu_leave(t.slab_free[last_slab]);
                last_weight = weight.stage;
            }
            last_slab = slab.stage;
        }
#pragma unroll
    for (int i = 0; i < S::products; i++)
        gpu_wgmma_wait<0>(r.d[i]);
    gpu_leave(t.weight_free[last_weight]);
    gpu_leave(t.slab_free[last_slab]);
}

// ---- epilogue

// The thread's pixels, as the offset of their first output in y; -1 for a pixel outside the image.
template <class S>
GPU_FN void find_pixels(const atedm_cuda_conv_hopper &a, const part &p, int worker,
                        int64_t (&ret_at)[S::products * 2])
{
    int first = worker * S::products * 64 + (int)threadIdx.x % GPU_WARPGROUP / 32 * 16 +
                (int)threadIdx.x % 32 / 4;
#pragma unroll
    for (int i = 0; i < S::products * 2; i++) {
        int pixel = first + i / 2 * 64 + i % 2 * 8;
        int y = p.y + (pixel >> a.log_width), x = p.x + (pixel & ((1 << a.log_width) - 1));
        ret_at[i] = y < a.h && x < a.w ? (((int64_t)p.sample * a.h + y) * a.w + x) * a.out : -1;
    }
}

// Loads the residuals of a group of outputs for each of the thread's pixels, zeros where there are
// none.
template <class T, class S>
GPU_FN void load_residuals(const atedm_cuda_conv_hopper &a, const int64_t (&at)[S::products * 2],
                           int own, uint32_t (&ret_words)[S::products * 2][GPU_GROUP])
{
#pragma unroll
    for (int i = 0; i < S::products * 2; i++) {
        uint4 words = {0, 0, 0, 0}; // gpu_load_eight would make ptxas spill
        if (a.residual && at[i] >= 0 && own < a.out)
            words =
                *reinterpret_cast<const uint4 *>(static_cast<const T *>(a.residual) + at[i] + own);
        memcpy(ret_words[i], &words, sizeof words);
    }
}

// Loads what is added at every pixel of the part: bias and time embedding of outputs `column` and
// column + 1.
template <class T>
GPU_FN void load_added(const atedm_cuda_conv_hopper &a, const part &p, int column,
                       float (&ret_added)[2])
{
    uint32_t more = 0;
    float2 bias = {0, 0};
    bool is_there = column < a.out;
    if (a.channel_add && is_there)
        more = *reinterpret_cast<const uint32_t *>(static_cast<const T *>(a.channel_add) +
                                                   (int64_t)p.sample * a.out + column);
    if (a.bias && is_there)
        bias = *reinterpret_cast<const float2 *>(a.bias + column);
    gpu_unpack_pair<T>(more, ret_added);
    ret_added[0] += bias.x;
    ret_added[1] += bias.y;
}

// The residual may be y itself, so nvcc keeps the order of these loads and stores. For that reason
// the residuals of the next group are loaded before this group is stored.
template <class T, class S>
GPU_FN void store(const atedm_cuda_conv_hopper &a, const part &p, int worker, const sums<S> &r)
{
    constexpr int eights = S::outputs / 8, rows = S::products * 2;
    static_assert(eights % GPU_GROUP == 0, "whole groups");
    int64_t at[rows];
    find_pixels<S>(a, p, worker, at);
    int lane = (int)threadIdx.x % 4, own = p.output + lane * 8;
    uint32_t next[rows][GPU_GROUP];
    load_residuals<T, S>(a, at, own, next);
#pragma unroll
    for (int first = 0; first < eights; first += GPU_GROUP, own += GPU_GROUP * 8) {
        uint32_t words[rows][GPU_GROUP];
        float added[GPU_GROUP][2];
#pragma unroll
        for (int n = 0; n < GPU_GROUP; n++)
            load_added<T>(a, p, p.output + (first + n) * 8 + lane * 2, added[n]);
        memcpy(words, next, sizeof words);
        if (first + GPU_GROUP < eights)
            load_residuals<T, S>(a, at, own + GPU_GROUP * 8, next);
#pragma unroll
        for (int i = 0; i < rows && a.residual; i++)
            gpu_quad_transpose(words[i]);
#pragma unroll
        for (int n = 0; n < GPU_GROUP; n++) {
            float more[2], v[2];
#pragma unroll
            for (int i = 0; i < rows; i++) {
                gpu_unpack_pair<T>(words[i][n], more);
#pragma unroll
                for (int e = 0; e < 2; e++)
                    v[e] = r.d[i / 2][first + n][i % 2 * 2 + e] + added[n][e] + more[e];
                words[i][n] = gpu_pack(T(), v[0], v[1]);
            }
        }
#pragma unroll
        for (int i = 0; i < rows; i++) {
            gpu_quad_transpose(words[i]);
            if (at[i] >= 0 && own < a.out)
                gpu_store_eight<T>(a.y, at[i] + own, words[i]);
        }
    }
}

template <class T, class S> GPU_FN void work(const atedm_cuda_conv_hopper &a, tiles<T, S> &t)
{
    int worker = gpu_uniform((int)threadIdx.x / GPU_WARPGROUP) - 1;
    gpu_ring<S::slabs> slab;
    gpu_ring<S::weights> weight;
    for (int number = blockIdx.x; number < a.parts; number += (int)gridDim.x) {
        sums<S> r;
        multiply<T, S>(a, t, worker, slab, weight, r);
        store<T, S>(a, part_of<S>(a, number), worker, r);
    }
}

template <class T, class S>
__global__ void __launch_bounds__(THREADS, 1)
    conv_hopper_kernel(const __grid_constant__ atedm_cuda_conv_hopper a)
{
    tiles<T, S> &t = *gpu_shared_tiles<tiles<T, S>>();
    if (threadIdx.x == 0)
        init_barriers(t);
    __syncthreads();
    if (threadIdx.x < GPU_WARPGROUP) {
        gpu_fewer_registers<LOADER_REGISTERS>();
        if (threadIdx.x == 0)
            load(a, t);
    } else {
        gpu_more_registers<WORKER_REGISTERS>();
        work(a, t);
    }
}

template <class T, class S>
cudaError_t launch(const atedm_cuda_conv_hopper &a, unsigned blocks, cudaStream_t stream)
{
    static_assert(sizeof(tiles<T, S>) <= MOST_SHARED, "fits");
    return GPU_LAUNCH((conv_hopper_kernel<T, S>), dim3(blocks), dim3(THREADS), sizeof(tiles<T, S>),
                      stream, a);
}

template <class T, int KERNEL>
cudaError_t choose(const atedm_cuda_conv_hopper &a, unsigned blocks, cudaStream_t stream)
{
    if (a.outputs == ATEDM_CUDA_HOPPER_OUTPUTS)
        return a.pixels == 128 ? launch<T, tiling<1, 160, KERNEL>>(a, blocks, stream)
                               : launch<T, tiling<2, 160, KERNEL>>(a, blocks, stream);
    return a.pixels == 128 ? launch<T, tiling<1, 128, KERNEL>>(a, blocks, stream)
                           : launch<T, tiling<2, 128, KERNEL>>(a, blocks, stream);
}

template <class T>
cudaError_t choose_window(const atedm_cuda_conv_hopper &a, unsigned blocks, cudaStream_t stream)
{
    return a.kernel == 1 ? choose<T, 1>(a, blocks, stream) : choose<T, 3>(a, blocks, stream);
}

} // namespace

cudaError_t atedm_cuda_launch_conv_hopper(atedm_dtype act, const atedm_cuda_conv_hopper *conv,
                                          unsigned blocks, cudaStream_t stream)
{
    return act == ATEDM_BF16 ? choose_window<gpu_bf16>(*conv, blocks, stream)
                             : choose_window<gpu_f16>(*conv, blocks, stream);
}
