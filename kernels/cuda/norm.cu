// Layer norm, a warp a row; group norm, in three launches: mean and squared deviations of pieces of
// each group, these merged (Chan, Golub & LeVeque 1983, eq. 2.1), the result. Pieces have the same
// size whatever the batch, and are merged in the same order.
#include "kernels/cuda/gpu.cuh"

namespace
{

constexpr int WARPS = 4;                // rows of a block of the layer norm
constexpr int THREADS = 256;            // of a block of the group norm
constexpr int64_t PIECE = THREADS * 16; // elements of a group that one block sums, about
constexpr int STATISTICS = 3;           // count, mean, squared deviations

template <class T>
__global__ void __launch_bounds__(WARPS * 32)
    layer_norm_kernel(const float *scale, const float *shift, const T *x, T *y, int64_t rows,
                      int64_t c, float epsilon)
{
    int64_t row = (int64_t)blockIdx.x * WARPS + (threadIdx.x >> 5);
    if (row >= rows)
        return;
    int lane = threadIdx.x & 31;
    x += row * c;
    y += row * c;
    float sum = 0, squares = 0;
    for (int64_t i = lane; i < c; i += 32)
        sum += gpu_load(x[i]);
    float mean = gpu_warp_sum(sum) / (float)c;
    for (int64_t i = lane; i < c; i += 32) {
        float d = gpu_load(x[i]) - mean;
        squares += d * d;
    }
    float factor = 1.0f / sqrtf(gpu_warp_sum(squares) / (float)c + epsilon);
    for (int64_t i = lane; i < c; i += 32)
        gpu_store(&y[i], (gpu_load(x[i]) - mean) * factor * scale[i] + shift[i]);
}

template <class T>
cudaError_t layer_norm(const float *scale, const float *shift, const atedm_layer_norm_args *args,
                       int64_t c, cudaStream_t stream)
{
    return GPU_LAUNCH((layer_norm_kernel<T>), dim3(gpu_blocks(args->rows, WARPS)), dim3(WARPS * 32),
                      0, stream, scale, shift, static_cast<const T *>(args->x),
                      static_cast<T *>(args->y), args->rows, c, args->epsilon);
}

// A group norm's sizes; groups of `width` channels, cut into pieces of `rows` pixels.
struct shape {
    int64_t hw, c, width, rows, pieces;
    int groups;
};

shape shape_of(const atedm_group_norm_args *args, int64_t c)
{
    shape s;
    s.hw = args->hw;
    s.c = c;
    s.groups = args->groups;
    s.width = c / args->groups;
    s.rows = s.width < PIECE ? PIECE / s.width : 1;
    s.pieces = (s.hw + s.rows - 1) / s.rows;
    return s;
}

// Element i of a piece: pixel i / width, channel i % width.
template <class T> GPU_FN float piece_element(const T *x, const shape &s, int64_t i)
{
    return gpu_load(x[i / s.width * s.c + i % s.width]);
}

// Block: a piece of a group of a sample. partial [n, groups, pieces, STATISTICS].
template <class T>
__global__ void __launch_bounds__(THREADS) piece_kernel(const T *x, float *partial, shape s)
{
    float *shared = gpu_shared<float>();
    int64_t piece = blockIdx.x, group = blockIdx.y, sample = blockIdx.z, row = piece * s.rows;
    int64_t count = (s.hw - row < s.rows ? s.hw - row : s.rows) * s.width;
    x += (sample * s.hw + row) * s.c + group * s.width;
    float sum = 0, squares = 0;
    for (int64_t i = threadIdx.x; i < count; i += THREADS)
        sum += piece_element(x, s, i);
    float mean = gpu_block_sum(sum, shared) / (float)count;
    for (int64_t i = threadIdx.x; i < count; i += THREADS) {
        float d = piece_element(x, s, i) - mean;
        squares += d * d;
    }
    squares = gpu_block_sum(squares, shared);
    if (threadIdx.x == 0) {
        float *to = partial + ((sample * s.groups + group) * s.pieces + piece) * STATISTICS;
        to[0] = (float)count;
        to[1] = mean;
        to[2] = squares;
    }
}

struct statistics {
    float count, mean, squares;
};

GPU_FN statistics merge(const statistics &a, const statistics &b)
{
    float count = a.count + b.count;
    if (count == 0)
        return a;
    float d = b.mean - a.mean, share = b.count / count;
    return {count, a.mean + d * share, a.squares + b.squares + d * d * a.count * share};
}

// Warp: all pieces of a group of a sample. merged [n * groups, 2]: mean, 1 / sqrt(variance +
// epsilon).
__global__ void __launch_bounds__(32)
    merge_kernel(const float *partial, float *merged, int64_t pieces, float epsilon)
{
    int64_t at = blockIdx.x;
    partial += at * pieces * STATISTICS;
    statistics mine = {0, 0, 0};
    for (int64_t i = threadIdx.x; i < pieces; i += 32)
        mine = merge(mine, {partial[i * STATISTICS], partial[i * STATISTICS + 1],
                            partial[i * STATISTICS + 2]});
    for (int with = 16; with; with >>= 1) { // the lower lane is the first in both lanes
        statistics other = {__shfl_xor_sync(0xffffffffu, mine.count, with),
                            __shfl_xor_sync(0xffffffffu, mine.mean, with),
                            __shfl_xor_sync(0xffffffffu, mine.squares, with)};
        mine = threadIdx.x & with ? merge(other, mine) : merge(mine, other);
    }
    if (threadIdx.x == 0) {
        merged[at * 2] = mine.mean;
        merged[at * 2 + 1] = 1.0f / sqrtf(mine.squares / mine.count + epsilon);
    }
}

// Each thread takes GPU_VECTOR neighbours of a sample.
template <class T>
__global__ void __launch_bounds__(THREADS)
    apply_kernel(const float *scale, const float *shift, const float *merged, const T *x, T *y,
                 shape s, bool silu)
{
    int64_t i = ((int64_t)blockIdx.x * THREADS + threadIdx.x) * GPU_VECTOR, n = s.hw * s.c - i;
    if (n <= 0)
        return;
    x += blockIdx.y * s.hw * s.c;
    y += blockIdx.y * s.hw * s.c;
    merged += blockIdx.y * s.groups * 2;
    float v[GPU_VECTOR];
    gpu_load_vector(x + i, n, n >= GPU_VECTOR && gpu_is_aligned(x), v);
    int64_t channel = i % s.c;
#pragma unroll
    for (int j = 0; j < GPU_VECTOR; j++) {
        int64_t at = channel / s.width * 2;
        float value = (v[j] - merged[at]) * merged[at + 1] * scale[channel] + shift[channel];
        v[j] = silu ? gpu_activate(ATEDM_ACT_SILU, value) : value;
        channel = channel + 1 < s.c ? channel + 1 : 0;
    }
    gpu_store_vector(y + i, n, n >= GPU_VECTOR && gpu_is_aligned(y), v);
}

template <class T>
cudaError_t group_norm(const float *scale, const float *shift, const atedm_group_norm_args *args,
                       int64_t c, float *scratch, cudaStream_t stream)
{
    shape s = shape_of(args, c);
    unsigned n = (unsigned)args->n, groups = (unsigned)s.groups;
    float *merged = scratch + args->n * s.groups * s.pieces * STATISTICS;
    const T *x = static_cast<const T *>(args->x);
    cudaError_t error =
        GPU_LAUNCH((piece_kernel<T>), dim3((unsigned)s.pieces, groups, n), dim3(THREADS),
                   THREADS / 32 * sizeof(float), stream, x, scratch, s);
    if (!error)
        error = GPU_LAUNCH(merge_kernel, dim3(n * groups), dim3(32), 0, stream,
                           (const float *)scratch, merged, s.pieces, args->epsilon);
    if (!error)
        error = GPU_LAUNCH((apply_kernel<T>), dim3(gpu_blocks(s.hw * c, THREADS * GPU_VECTOR), n),
                           dim3(THREADS), 0, stream, scale, shift, (const float *)merged, x,
                           static_cast<T *>(args->y), s, args->silu);
    return error;
}

} // namespace

cudaError_t atedm_cuda_launch_layer_norm(atedm_dtype act, const float *scale, const float *shift,
                                         const atedm_layer_norm_args *args, int64_t c,
                                         cudaStream_t stream)
{
    return GPU_FOR_ACT(act, layer_norm, scale, shift, args, c, stream);
}

int64_t atedm_cuda_group_norm_scratch(const atedm_group_norm_args *args, int64_t c)
{
    return args->n * args->groups * (shape_of(args, c).pieces * STATISTICS + 2);
}

cudaError_t atedm_cuda_launch_group_norm(atedm_dtype act, const float *scale, const float *shift,
                                         const atedm_group_norm_args *args, int64_t c,
                                         float *scratch, cudaStream_t stream)
{
    return GPU_FOR_ACT(act, group_norm, scale, shift, args, c, scratch, stream);
}
