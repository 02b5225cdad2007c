// Convolutions with few channels on one side, on tensor cores: SDXL's first and last ones. The
// bytes of their other side limit their speed, so the kernels read or write these only once.
// few_inputs_kernel is for few input channels, few_outputs_kernel for few output channels; their
// methods stand below.
#include "kernels/cuda/conv.cuh"

namespace
{

constexpr int THREADS = 128;

// ---- few inputs: a block computes 128 pixels x 160 outputs, with all windows and weights in
// shared memory. One barrier separates loading and products.

constexpr int MOST_IN = 8, MOST_WINDOW = 128;
constexpr int PIXELS = THREADS, COLUMNS = 160; // of a block; COLUMNS is half of SDXL's 320 outputs
constexpr int GROUP = 32;                      // columns whose sums a warp has at a time

// Steps of 16 elements (K of an mma) that a window takes.
__host__ GPU_FN int window_steps(const atedm_cuda_conv_call &p)
{
    return (p.kernel * p.kernel * p.in + 15) / 16;
}

// Elements from one row to the next in shared memory: an odd number of vectors, so that the eight
// rows that one ldmatrix phase reads lie in different banks.
__host__ GPU_FN int row_stride(const atedm_cuda_conv_call &p)
{
    return window_steps(p) * 16 + CONV_VECTOR;
}

// Loads the window of the thread's pixel and fills up with zeros. It reads the channels of a tap
// together, but element by element, because they need not be aligned.
template <class T> GPU_FN void load_window(const atedm_cuda_conv_call &p, T *to)
{
    T zero, *end = to + window_steps(p) * 16;
    gpu_store(&zero, 0.0f);
    conv_pixel at = conv_pixel_of(p, (int64_t)blockIdx.x * PIXELS + threadIdx.x);
    for (int y = 0; y < p.kernel; y++)
        for (int x = 0; x < p.kernel; x++, to += p.in) {
            int64_t from = conv_offset(p, at.sample, at.y + y, at.x + x);
            T v[MOST_IN];
#pragma unroll
            for (int c = 0; c < MOST_IN; c++)
                v[c] = from >= 0 && c < p.in ? static_cast<const T *>(p.x)[from + c] : zero;
#pragma unroll
            for (int c = 0; c < MOST_IN; c++)
                if (c < p.in)
                    to[c] = v[c];
        }
    while (to < end)
        *to++ = zero;
}

// Starts to load the weights of the block's columns. It permutes rows within a group. mma gives
// thread q of a quad the elements 2 q and 2 q + 1 of each eight columns; after the permutation
// these are columns 8 q .. 8 q + 7 of the group, which are one vector of y.
template <class T> GPU_FN void load_weights(const atedm_cuda_conv_call &p, T *ws, int64_t column0)
{
    int vectors = window_steps(p) * 2;
    for (int unit = threadIdx.x; unit < COLUMNS * vectors; unit += THREADS) {
        int row = unit / vectors, k = unit % vectors * CONV_VECTOR;
        int in_group = row % 8 / 2 * 8 + row % GROUP / 8 * 2 + row % 2;
        int64_t column = column0 + row / GROUP * GROUP + in_group;
        bool valid = column < p.out;
        gpu_copy_16(ws + row * row_stride(p) + k,
                    static_cast<const T *>(p.weight) + (valid ? column * p.weight_stride + k : 0),
                    valid);
    }
    gpu_copy_commit();
}

// Computes the sums of the warp's 32 pixels and a group's columns.
template <class T>
GPU_FN void multiply_group(float (&sums)[2][4][4], const T *xs, const T *ws, int steps, int stride)
{
    int lane = threadIdx.x % 32;
    xs += (threadIdx.x / 32 * 32 + (lane & 15)) * stride + (lane >> 4) * CONV_VECTOR;
    ws += ((lane & 7) + (lane >> 4 << 3)) * stride + (lane >> 3 & 1) * CONV_VECTOR;
    for (int k = 0; k < steps; k++) {
        uint32_t b[2][4];
#pragma unroll
        for (int j = 0; j < 2; j++)
            gpu_ldmatrix(b[j], ws + j * 16 * stride + k * 16);
#pragma unroll
        for (int i = 0; i < 2; i++) {
            uint32_t a[4];
            gpu_ldmatrix(a, xs + i * 16 * stride + k * 16);
#pragma unroll
            for (int j = 0; j < 4; j++)
                gpu_mma(T(), sums[i][j], a, b[j / 2][j % 2 * 2], b[j / 2][j % 2 * 2 + 1]);
        }
    }
}

// Whether y and everything that is added to the sums can be moved as whole vectors.
GPU_FN bool has_vectors(const atedm_cuda_conv_call &p)
{
    return p.out % GPU_VECTOR == 0 && gpu_is_aligned(p.bias) && gpu_is_aligned(p.channel_add) &&
           gpu_is_aligned(p.residual) && gpu_is_aligned(p.y);
}

// conv_finish for the columns of a vector. Without a bias, `bias` has zeros.
template <class T>
GPU_FN void finish_vector(const atedm_cuda_conv_call &p, int64_t row, int64_t column, bool whole,
                          const float (&bias)[GPU_VECTOR], float (&sums)[GPU_VECTOR])
{
    const T *residual = static_cast<const T *>(p.residual);
    const T *channel_add = static_cast<const T *>(p.channel_add);
    T *y = static_cast<T *>(p.y);
    int64_t n = p.out - column, at = row * p.out + column;
    float addend[GPU_VECTOR];
#pragma unroll
    for (int i = 0; i < GPU_VECTOR; i++)
        sums[i] += bias[i];
    if (channel_add) {
        gpu_load_vector(channel_add + row / (p.ho * p.wo) * p.out + column, n, whole, addend);
#pragma unroll
        for (int i = 0; i < GPU_VECTOR; i++)
            sums[i] += addend[i];
    }
    if (residual) {
        gpu_load_vector(residual + at, n, whole, addend);
#pragma unroll
        for (int i = 0; i < GPU_VECTOR; i++)
            sums[i] += addend[i];
    }
    if (whole)
        gpu_store_16(y + at, {gpu_pack(T(), sums[0], sums[1]), gpu_pack(T(), sums[2], sums[3]),
                              gpu_pack(T(), sums[4], sums[5]), gpu_pack(T(), sums[6], sums[7])});
    else
        gpu_store_vector(y + at, n, false, sums);
}

// Writes the thread's sums: one vector in each of 4 rows.
template <class T>
GPU_FN void finish_group(const atedm_cuda_conv_call &p, int64_t row0, int64_t column,
                         const float (&sums)[2][4][4])
{
    if (column >= p.out)
        return;
    bool whole = has_vectors(p);
    float bias[GPU_VECTOR] = {};
    if (p.bias)
        gpu_load_vector(p.bias + column, p.out - column, whole, bias);
#pragma unroll
    for (int r = 0; r < 4; r++) {
        int64_t row = row0 + r * 8;
        float vector[GPU_VECTOR];
#pragma unroll
        for (int i = 0; i < GPU_VECTOR; i++)
            vector[i] = sums[r / 2][i / 2][r % 2 * 2 + i % 2];
        if (row < p.n * p.ho * p.wo)
            finish_vector<T>(p, row, column, whole, bias, vector);
    }
}

template <class T>
__global__ void __launch_bounds__(THREADS)
    few_inputs_kernel(const __grid_constant__ atedm_cuda_conv_call p)
{
    int stride = row_stride(p), lane = threadIdx.x % 32;
    T *xs = gpu_shared<T>(), *ws = xs + PIXELS * stride;
    int64_t column0 = (int64_t)blockIdx.y * COLUMNS;
    int64_t row0 = (int64_t)blockIdx.x * PIXELS + threadIdx.x / 32 * 32 + lane / 4;
    load_weights(p, ws, column0);
    load_window(p, xs + threadIdx.x * stride);
    gpu_copy_wait<0>();
    __syncthreads(); // windows and weights are there
    for (int group = 0; group < COLUMNS && column0 + group < p.out; group += GROUP) {
        float sums[2][4][4] = {};
        multiply_group(sums, xs, ws + group * stride, window_steps(p), stride);
        finish_group<T>(p, row0, column0 + group + lane % 4 * GPU_VECTOR, sums);
    }
}

template <class T> cudaError_t few_inputs(const atedm_cuda_conv_call *p, cudaStream_t stream)
{
    size_t shared = (size_t)(PIXELS + COLUMNS) * row_stride(*p) * sizeof(T);
    return GPU_LAUNCH((few_inputs_kernel<T>),
                      dim3(gpu_blocks(p->n * p->ho * p->wo, PIXELS), gpu_blocks(p->out, COLUMNS)),
                      dim3(THREADS), shared, stream, *p);
}

// ---- few outputs, 3x3: a block computes all outputs of 8 x 16 pixels. One product multiplies
// every pixel of x with the weights of all taps, which are the product's columns. Then each output
// adds up the products of its nine neighbours. So a pixel is read from shared memory once, not once
// for each tap. Tiles arrive by cp.async through three stages, with one barrier for each step.

constexpr int TAPS = 9, MOST_OUT = 4;
constexpr int DOWN = 8, ACROSS = 16;                               // pixels of y of a block
constexpr int PATCH_DOWN = DOWN + 2, PATCH_ACROSS = ACROSS + 2;    // pixels of x of a block
constexpr int PATCH_ROWS = 192, PATCH_COLUMNS = 40;                // product, in whole mmas
constexpr int WARP_MMAS = PATCH_ROWS / (THREADS / 32) / 16;        // mmas of a warp along the rows
constexpr int STAGES = 3;                                          // as in conv.cu
constexpr int LOADS = THREADS / 4, ROW_LOADS = PATCH_ROWS / LOADS; // rows that all load at once
static_assert(PATCH_DOWN * PATCH_ACROSS <= PATCH_ROWS, "the product has all pixels");
static_assert(TAPS * MOST_OUT <= PATCH_COLUMNS, "the product has all taps");

template <class T> struct patch_stage {
    T x[PATCH_ROWS * CONV_STEP], w[PATCH_COLUMNS * CONV_STEP];
};
constexpr size_t PATCH_SHARED = STAGES * sizeof(patch_stage<gpu_bf16>);
static_assert(PATCH_ROWS * PATCH_COLUMNS * sizeof(float) <= PATCH_SHARED, "products, at the end");

// Offsets of the first channels of the pixels that the thread loads; -1 outside the image.
GPU_FN void place_patch(const atedm_cuda_conv_call &p, int64_t (&ret_at)[ROW_LOADS])
{
#pragma unroll
    for (int i = 0; i < ROW_LOADS; i++) {
        int row = threadIdx.x / 4 + i * LOADS;
        int64_t y = (int64_t)blockIdx.y * DOWN + row / PATCH_ACROSS - 1;
        int64_t x = (int64_t)blockIdx.x * ACROSS + row % PATCH_ACROSS - 1;
        ret_at[i] = row < PATCH_DOWN * PATCH_ACROSS ? conv_offset(p, blockIdx.z, y, x) : -1;
    }
}

// Starts to load the step's channels of the pixels, and of the weights, [tap, output].
template <class T>
GPU_FN void load_patch(const atedm_cuda_conv_call &p, const int64_t (&at)[ROW_LOADS],
                       patch_stage<T> &to, int step)
{
    int vector = threadIdx.x % 4, channel = step * CONV_STEP + vector * CONV_VECTOR;
#pragma unroll
    for (int i = 0; i < ROW_LOADS; i++) {
        bool valid = at[i] >= 0 && channel < p.in;
        gpu_copy_16(to.x + conv_tile_at(threadIdx.x / 4 + i * LOADS, vector),
                    static_cast<const T *>(p.x) + (valid ? at[i] + channel : 0), valid);
    }
    for (int row = threadIdx.x / 4; row < PATCH_COLUMNS; row += LOADS) {
        int tap = row / MOST_OUT, output = row % MOST_OUT;
        bool valid = tap < TAPS && output < p.out && channel < p.in;
        int64_t from = valid ? output * p.weight_stride + tap * p.in + channel : 0;
        gpu_copy_16(to.w + conv_tile_at(row, vector), static_cast<const T *>(p.weight) + from,
                    valid);
    }
}

typedef float patch_sums[WARP_MMAS][PATCH_COLUMNS / 8][4];

template <class T> GPU_FN void multiply_patch(patch_sums &sums, const patch_stage<T> &s)
{
    int lane = threadIdx.x % 32, row = threadIdx.x / 32 * WARP_MMAS * 16 + (lane & 15);
    uint32_t b[PATCH_COLUMNS / 8][4]; // all of the step's channels
#pragma unroll
    for (int j = 0; j < PATCH_COLUMNS / 8; j++)
        gpu_ldmatrix(b[j], s.w + conv_tile_at(j * 8 + (lane & 7), lane >> 3));
#pragma unroll
    for (int i = 0; i < WARP_MMAS; i++)
#pragma unroll
        for (int k = 0; k < CONV_STEP / 16; k++) {
            uint32_t a[4];
            gpu_ldmatrix(a, s.x + conv_tile_at(row + i * 16, k * 2 + (lane >> 4)));
#pragma unroll
            for (int j = 0; j < PATCH_COLUMNS / 8; j++)
                gpu_mma(T(), sums[i][j], a, b[j][k * 2], b[j][k * 2 + 1]);
        }
}

GPU_FN void store_products(float *products, const patch_sums &sums)
{
    int lane = threadIdx.x % 32, row = threadIdx.x / 32 * WARP_MMAS * 16 + lane / 4;
#pragma unroll
    for (int i = 0; i < WARP_MMAS; i++)
#pragma unroll
        for (int j = 0; j < PATCH_COLUMNS / 8; j++)
#pragma unroll
            for (int half = 0; half < 2; half++)
                *reinterpret_cast<float2 *>(products + (row + i * 16 + half * 8) * PATCH_COLUMNS +
                                            j * 8 + lane % 4 * 2) =
                    make_float2(sums[i][j][half * 2], sums[i][j][half * 2 + 1]);
}

template <class T> GPU_FN void finish_patch(const atedm_cuda_conv_call &p, const float *products)
{
    for (int i = threadIdx.x; i < DOWN * ACROSS * MOST_OUT; i += THREADS) {
        int output = i % MOST_OUT, down = i / MOST_OUT / ACROSS, across = i / MOST_OUT % ACROSS;
        int64_t y = (int64_t)blockIdx.y * DOWN + down, x = (int64_t)blockIdx.x * ACROSS + across;
        if (y >= p.ho || x >= p.wo)
            continue;
        float sum = 0;
#pragma unroll
        for (int tap = 0; tap < TAPS; tap++)
            sum += products[((down + tap / 3) * PATCH_ACROSS + across + tap % 3) * PATCH_COLUMNS +
                            tap * MOST_OUT + output];
        conv_finish<T>(p, conv_row_of(p, (blockIdx.z * p.ho + y) * p.wo + x), output, sum);
    }
}

// A block computes 8 x 16 pixels of a sample, all outputs.
template <class T>
__global__ void __launch_bounds__(THREADS, 4)
    few_outputs_kernel(const __grid_constant__ atedm_cuda_conv_call p)
{
    patch_stage<T> *stages = gpu_shared<patch_stage<T>>();
    int steps = (p.in + CONV_STEP - 1) / CONV_STEP;
    int64_t at[ROW_LOADS];
    place_patch(p, at);
#pragma unroll
    for (int i = 0; i < STAGES - 1; i++) {
        if (i < steps)
            load_patch(p, at, stages[i], i);
        gpu_copy_commit();
    }
    patch_sums sums = {};
    for (int step = 0; step < steps; step++) {
        gpu_copy_wait<STAGES - 2>();
        __syncthreads(); // this step's tiles are there; no warp reads the last step's any more
        int next = step + STAGES - 1;
        if (next < steps)
            load_patch(p, at, stages[next % STAGES], next);
        gpu_copy_commit();
        multiply_patch(sums, stages[step % STAGES]);
    }
    gpu_copy_wait<0>();
    __syncthreads(); // no warp reads tiles any more; products overwrite them
    float *products = gpu_shared<float>();
    store_products(products, sums);
    __syncthreads(); // products are there
    finish_patch<T>(p, products);
}

template <class T> cudaError_t few_outputs(const atedm_cuda_conv_call *p, cudaStream_t stream)
{
    return GPU_LAUNCH((few_outputs_kernel<T>),
                      dim3(gpu_blocks(p->wo, ACROSS), gpu_blocks(p->ho, DOWN), (unsigned)p->n),
                      dim3(THREADS), PATCH_SHARED, stream, *p);
}

bool has_few_inputs(const atedm_cuda_conv_call *p)
{
    return p->in <= MOST_IN && p->kernel * p->kernel * p->in <= MOST_WINDOW &&
           p->activation == ATEDM_ACT_NONE; // as in all but linear layers
}

bool has_few_outputs(const atedm_cuda_conv_call *p)
{
    return p->out <= MOST_OUT && p->kernel == 3 && p->stride == 1 && p->in % CONV_VECTOR == 0 &&
           gpu_is_aligned(p->x);
}

template <class T> cudaError_t choose(const atedm_cuda_conv_call *p, cudaStream_t stream)
{
    return has_few_inputs(p) ? few_inputs<T>(p, stream) : few_outputs<T>(p, stream);
}

} // namespace

bool atedm_cuda_conv_is_thin(const atedm_cuda_conv_call *conv)
{
    return has_few_inputs(conv) || has_few_outputs(conv);
}

cudaError_t atedm_cuda_launch_conv_thin(atedm_dtype act, const atedm_cuda_conv_call *conv,
                                        cudaStream_t stream)
{
    return act == ATEDM_BF16 ? choose<gpu_bf16>(conv, stream) : choose<gpu_f16>(conv, stream);
}
