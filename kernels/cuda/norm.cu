// Layer norm: one warp for each row.
//
// Group norm: a first kernel computes mean and squared deviations of each chunk of pixels, in
// blocks that hold their chunk in registers. The chunks' statistics are merged (Chan, Golub &
// LeVeque 1983, eq. 2.1, over all chunks at once), in a kernel of its own or in each block of the
// last kernel, which applies them. Chunks have the same size whatever the batch, and are merged in
// the same order, so a sample's bits do not depend on its batch.
#include "kernels/cuda/gpu.cuh"

namespace
{

// ---- layer norm

constexpr int WARPS = 4; // of a block

// For any row: three passes through memory, one element at a time.
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

// For rows of whole vectors, which stay in registers. A lane has every 32nd vector of its row. With
// four blocks each, the 132 multiprocessors of a Hopper hold 2048 rows at once: those of an SDXL
// picture.
template <class T, int VECTORS>
__global__ void __launch_bounds__(WARPS * 32, VECTORS > 5 || sizeof(T) > 2 ? 2 : 4)
    layer_norm_vectors_kernel(const float *__restrict__ scale, const float *__restrict__ shift,
                              const T *x, T *y, int64_t rows, int vectors, float epsilon)
{
    constexpr int STEP = 32 * GPU_VECTOR;
    int64_t row = (int64_t)blockIdx.x * WARPS + (threadIdx.x >> 5);
    if (row >= rows)
        return;
    int lane = threadIdx.x & 31, mine = (vectors - lane + 31) / 32; // vectors of this lane
    int64_t at = (row * vectors + lane) * GPU_VECTOR;
    gpu_vector<T> held[VECTORS] = {};
    float v[GPU_VECTOR], a[VECTORS][GPU_VECTOR], b[VECTORS][GPU_VECTOR];
    float sum = 0, squares = 0, c = (float)(vectors * GPU_VECTOR);
#pragma unroll
    for (int i = 0; i < VECTORS; i++)
        if (i < mine)
            gpu_read_vector(x + at + i * STEP, GPU_VECTOR, true, held[i]);
#pragma unroll
    for (int i = 0; i < VECTORS; i++) { // loaded here, for one wait for all
        gpu_load_vector(scale + lane * GPU_VECTOR + i * STEP, 0, i < mine, a[i]);
        gpu_load_vector(shift + lane * GPU_VECTOR + i * STEP, 0, i < mine, b[i]);
    }
#pragma unroll
    for (int i = 0; i < VECTORS; i++) {
        gpu_unpack(held[i], v);
#pragma unroll
        for (int j = 0; j < GPU_VECTOR; j++)
            sum += v[j];
    }
    float mean = gpu_warp_sum(sum) / c;
#pragma unroll
    for (int i = 0; i < VECTORS; i++) {
        gpu_forget_unpacked(held[i]);
        gpu_unpack(held[i], v);
#pragma unroll
        for (int j = 0; j < GPU_VECTOR; j++)
            squares += i < mine ? (v[j] - mean) * (v[j] - mean) : 0.0f;
    }
    float factor = 1.0f / sqrtf(gpu_warp_sum(squares) / c + epsilon);
#pragma unroll
    for (int i = 0; i < VECTORS; i++) {
        gpu_forget_unpacked(held[i]);
        gpu_unpack(held[i], v);
#pragma unroll
        for (int j = 0; j < GPU_VECTOR; j++)
            v[j] = (v[j] - mean) * factor * a[i][j] + b[i][j];
        if (i < mine)
            gpu_store_vector(y + at + i * STEP, GPU_VECTOR, true, v);
    }
}

template <class T, int VECTORS>
cudaError_t layer_norm_vectors(const float *scale, const float *shift,
                               const atedm_layer_norm_args *args, int64_t c, cudaStream_t stream)
{
    return GPU_LAUNCH((layer_norm_vectors_kernel<T, VECTORS>), dim3(gpu_blocks(args->rows, WARPS)),
                      dim3(WARPS * 32), 0, stream, scale, shift, static_cast<const T *>(args->x),
                      static_cast<T *>(args->y), args->rows, (int)(c / GPU_VECTOR), args->epsilon);
}

template <class T>
cudaError_t layer_norm(const float *scale, const float *shift, const atedm_layer_norm_args *args,
                       int64_t c, cudaStream_t stream)
{
    constexpr int64_t WIDTH = 32 * GPU_VECTOR; // elements of one vector from each lane
    bool vectors = c % GPU_VECTOR == 0 && gpu_is_aligned(args->x) && gpu_is_aligned(args->y);
    if (vectors && c <= 3 * WIDTH)
        return layer_norm_vectors<T, 3>(scale, shift, args, c, stream);
    if (vectors && c <= 5 * WIDTH)
        return layer_norm_vectors<T, 5>(scale, shift, args, c, stream);
    if (vectors && c <= 8 * WIDTH)
        return layer_norm_vectors<T, 8>(scale, shift, args, c, stream);
    return GPU_LAUNCH((layer_norm_kernel<T>), dim3(gpu_blocks(args->rows, WARPS)), dim3(WARPS * 32),
                      0, stream, scale, shift, static_cast<const T *>(args->x),
                      static_cast<T *>(args->y), args->rows, c, args->epsilon);
}

// ---- group norm: how the work is cut

constexpr int THREADS = 256;  // of a block
constexpr int DEPTH = 8;      // pixels that a thread holds in registers
constexpr int MOST_ROWS = 32; // of vectors in a block: one thread adds up their sums
constexpr int SLICE = 512;    // about a block's channels: slices give blocks to few pixels too
constexpr int MOST_CHANNELS = THREADS * GPU_VECTOR; // that a block can process
// Up to this many pieces of a slice's groups, each block of apply_kernel merges them by itself:
// they are less than it reads anyway, and another launch takes longer.
constexpr int MOST_PIECES = 1536;

// A block processes a chunk of the pixels in a slice of the channels. Statistics are those of
// parts. A part is a group, or a fraction of a group that is too wide for a block.
struct shape {
    int64_t hw, c;
    int groups, width;    // channels of a group
    int part, parts;      // channels of a part; parts of all channels
    int channels, slices; // of a slice, which consists of whole parts; slices of all channels
    int slice_parts;      // of a slice
    int vectors;          // of a slice's pixel
    int rows;             // pixels that a block's threads load at a time
    int lanes;            // threads that add up a part, a power of two
    int pixels, chunks;   // of a chunk; of a sample
    int pieces;           // of a group: its parts in all chunks
    bool merges_at_once;
};

// Channels of a slice: as many parts as fit into SLICE, and whole vectors if possible.
int slice_of(int64_t c, int part)
{
    int best = part;
    for (int channels = 2 * part; channels <= MOST_CHANNELS; channels += part) {
        bool better = channels % GPU_VECTOR == 0 ? channels <= SLICE || best % GPU_VECTOR != 0
                                                 : channels <= SLICE && best % GPU_VECTOR != 0;
        if (c % channels == 0 && better)
            best = channels;
    }
    return best;
}

shape shape_of(const atedm_group_norm_args *args, int64_t c)
{
    shape s;
    s.hw = args->hw;
    s.c = c;
    s.groups = args->groups;
    s.width = (int)(c / args->groups);
    for (s.part = s.width < MOST_CHANNELS ? s.width : MOST_CHANNELS; s.width % s.part; s.part--)
        ;
    s.parts = (int)(c / s.part);
    s.channels = slice_of(c, s.part);
    s.slices = (int)(c / s.channels);
    s.slice_parts = s.channels / s.part;
    s.vectors = (s.channels + GPU_VECTOR - 1) / GPU_VECTOR;
    s.rows = THREADS / s.vectors < MOST_ROWS ? THREADS / s.vectors : MOST_ROWS;
    for (s.lanes = 32; s.lanes > 1 && s.lanes * s.slice_parts > THREADS; s.lanes /= 2)
        ;
    s.pixels = s.rows * DEPTH;
    s.chunks = (int)((s.hw + s.pixels - 1) / s.pixels);
    s.pieces = s.width / s.part * s.chunks;
    int64_t groups = s.channels > s.width ? s.channels / s.width : 1; // of a slice
    s.merges_at_once = groups * s.pieces <= MOST_PIECES;
    return s;
}

GPU_FN int pixels_of(const shape &s, int chunk)
{
    int64_t left = s.hw - (int64_t)chunk * s.pixels;
    return left < s.pixels ? (int)left : s.pixels;
}

// A thread's share of its block's chunk: one vector of every s.rows-th pixel.
struct place {
    int64_t at;  // offset of the first vector in the tensor
    int channel; // in the slice
    int count;   // elements of the vector
    int pixels;  // from the first one to the chunk's end; 0 in surplus threads
};

GPU_FN place place_of(const shape &s, int chunk, int slice, int sample)
{
    int row = (int)threadIdx.x / s.vectors;
    place p;
    p.channel = ((int)threadIdx.x - row * s.vectors) * GPU_VECTOR;
    p.count = min(s.channels - p.channel, GPU_VECTOR);
    p.pixels = row < s.rows ? pixels_of(s, chunk) - row : 0;
    p.at = (sample * s.hw + (int64_t)chunk * s.pixels + row) * s.c + (int64_t)slice * s.channels +
           p.channel;
    return p;
}

// Blocks that must fit on a multiprocessor, so that one block's loads continue while another one
// computes. With whole vectors of 16-bit elements the asked number fits. Other tiles take more
// registers.
template <class T, bool WHOLE> constexpr int blocks_of(int vectors)
{
    return WHOLE && sizeof(T) == 2 ? vectors : 2;
}

template <class T> struct tile {
    gpu_vector<T> pixel[DEPTH];
};

// If WHOLE, all vectors are whole and aligned.
template <bool WHOLE, class T>
GPU_FN void load_tile(const T *x, const shape &s, const place &p, tile<T> &t)
{
    x += p.at;
#pragma unroll
    for (int k = 0; k < DEPTH; k++, x += s.rows * s.c)
        if (k * s.rows < p.pixels)
            gpu_read_vector(x, p.count, WHOLE, t.pixel[k]);
}

// ---- group norm: the statistics

// The sum of a part's channels over all rows; each of the part's s.lanes threads gets the same sum.
// All threads of a warp must call it. sums [THREADS, GPU_VECTOR] is indexed by thread. `part`
// counts within the slice, and may be beyond its end.
GPU_FN float sum_part(const float *sums, const shape &s, int part)
{
    float sum = 0;
    int stride = s.vectors * GPU_VECTOR, lane = (int)threadIdx.x & (s.lanes - 1);
    for (int i = lane; part < s.slice_parts && i < s.part; i += s.lanes)
#pragma unroll 4
        for (int row = 0; row < s.rows; row++)
            sum += sums[row * stride + part * s.part + i];
    for (int with = s.lanes / 2; with; with >>= 1)
        sum += __shfl_xor_sync(0xffffffffu, sum, with);
    return sum;
}

// A block computes the statistics of a chunk of a slice of a sample. pieces [n, parts, chunks]:
// mean and squared deviations.
template <class T, bool WHOLE>
__global__ void __launch_bounds__(THREADS, (blocks_of<T, WHOLE>(4)))
    statistics_kernel(const T *x, float2 *pieces, shape s)
{
    float *sums = gpu_shared<float>(), *means = sums + MOST_CHANNELS; // by channel
    int chunk = (int)blockIdx.x, slice = (int)blockIdx.y, lane = threadIdx.x & (s.lanes - 1);
    int segment = (int)threadIdx.x / s.lanes;
    place p = place_of(s, chunk, slice, (int)blockIdx.z);
    tile<T> t;
    load_tile<WHOLE>(x, s, p, t);
    float v[GPU_VECTOR], sum[GPU_VECTOR] = {}, mean[GPU_VECTOR], squares[GPU_VECTOR] = {};
#pragma unroll
    for (int k = 0; k < DEPTH; k++)
        if (k * s.rows < p.pixels) {
            gpu_unpack(t.pixel[k], v);
#pragma unroll
            for (int j = 0; j < GPU_VECTOR; j++)
                sum[j] += v[j];
        }
    gpu_store_vector(sums + threadIdx.x * GPU_VECTOR, GPU_VECTOR, true, sum);
    __syncthreads();
    float count = (float)(pixels_of(s, chunk) * s.part);
    for (int first = 0; first < s.slice_parts; first += THREADS / s.lanes) {
        int part = first + segment;
        float of_part = sum_part(sums, s, part) / count;
        for (int i = lane; part < s.slice_parts && i < s.part; i += s.lanes)
            means[part * s.part + i] = of_part;
    }
    __syncthreads(); // means are there, and no thread reads the sums any more
    gpu_load_vector(means + p.channel, GPU_VECTOR, true, mean);
#pragma unroll
    for (int k = 0; k < DEPTH; k++)
        if (k * s.rows < p.pixels) {
            gpu_unpack(t.pixel[k], v);
#pragma unroll
            for (int j = 0; j < GPU_VECTOR; j++)
                squares[j] += (v[j] - mean[j]) * (v[j] - mean[j]);
        }
    gpu_store_vector(sums + threadIdx.x * GPU_VECTOR, GPU_VECTOR, true, squares);
    __syncthreads();
    pieces += ((int64_t)blockIdx.z * s.parts + slice * s.slice_parts) * s.chunks + chunk;
    for (int first = 0; first < s.slice_parts; first += THREADS / s.lanes) {
        int part = first + segment;
        float of_part = sum_part(sums, s, part);
        if (part < s.slice_parts && lane == 0)
            pieces[(int64_t)part * s.chunks] = make_float2(means[part * s.part], of_part);
    }
}

// The chunk of the piece that is `ahead` < s.chunks pieces after one of `chunk`.
GPU_FN int next_chunk(const shape &s, int chunk, int ahead)
{
    chunk += ahead;
    return chunk < s.chunks ? chunk : chunk - s.chunks;
}

// Mean and 1 / sqrt(variance + epsilon) of a group, from its pieces. This thread adds up every
// `step`-th piece from `first` on, UNROLL at a time; sum_of adds up over the threads that share the
// work.
template <int UNROLL, class Sum>
GPU_FN float2 merge(const float2 *piece, const shape &s, float epsilon, int first, int step,
                    Sum sum_of)
{
    float sum = 0, squares = 0;
    int chunk = first % s.chunks, ahead = step % s.chunks;
#pragma unroll UNROLL
    for (int i = first; i < s.pieces; i += step) {
        sum += (float)pixels_of(s, chunk) * piece[i].x;
        chunk = next_chunk(s, chunk, ahead);
    }
    float mean = sum_of(sum) / ((float)s.hw * (float)(s.width / s.part));
    chunk = first % s.chunks;
#pragma unroll UNROLL
    for (int i = first; i < s.pieces; i += step) {
        float d = piece[i].x - mean;
        squares += piece[i].y + (float)(pixels_of(s, chunk) * s.part) * d * d;
        chunk = next_chunk(s, chunk, ahead);
    }
    float variance = sum_of(squares) / ((float)s.hw * (float)s.width);
    return make_float2(mean, 1.0f / sqrtf(variance + epsilon));
}

// A block merges the pieces of one group of a sample. merged [n, groups].
__global__ void __launch_bounds__(THREADS)
    merge_kernel(const float2 *pieces, float2 *merged, shape s, float epsilon)
{
    float *shared = gpu_shared<float>();
    float2 found = merge<8>(pieces + (int64_t)blockIdx.x * s.pieces, s, epsilon, (int)threadIdx.x,
                            THREADS, [=](float x) { return gpu_block_sum(x, shared); });
    if (threadIdx.x == 0)
        merged[blockIdx.x] = found;
}

// ---- group norm: the result

// Computes the statistics of the groups that the slice has a share in, one warp for each, into
// `found`.
GPU_FN void merge_groups(const float2 *pieces, const shape &s, float epsilon, int first, int end,
                         float2 *found)
{
    for (int group = first + (int)(threadIdx.x >> 5); group < end; group += THREADS / 32) {
        float2 merged = merge<2>(pieces + (int64_t)group * s.pieces, s, epsilon, threadIdx.x & 31,
                                 32, [](float x) { return gpu_warp_sum(x); });
        if ((threadIdx.x & 31) == 0)
            found[group - first] = merged;
    }
}

// Computes factor and offset of y = x factor + offset, by channel of the slice.
GPU_FN void prepare_channels(const float *scale, const float *shift, const float2 *statistics,
                             const shape &s, int slice, float *factor, float *offset)
{
    for (int i = (int)threadIdx.x; i < s.channels; i += THREADS) {
        int channel = slice * s.channels + i;
        float2 of_group = statistics[channel / s.width];
        factor[i] = of_group.y * scale[channel];
        offset[i] = shift[channel] - of_group.x * factor[i];
    }
}

template <class T> GPU_FN float silu(float x)
{
    return sizeof(T) == sizeof(float) ? gpu_activate(ATEDM_ACT_SILU, x) : gpu_quick_silu(x);
}

// A block normalizes a chunk of a slice of a sample. Blocks start with the last chunks, because
// these are still in the L2 cache. `statistics` are the pieces if merges_at_once, else the results
// of merge_kernel.
template <class T, bool WHOLE>
__global__ void __launch_bounds__(THREADS, (blocks_of<T, WHOLE>(3)))
    apply_kernel(const float *scale, const float *shift, const float2 *statistics, const T *x, T *y,
                 shape s, float epsilon, bool activates)
{
    int sample = (int)(gridDim.z - 1 - blockIdx.z), slice = (int)blockIdx.y;
    place p = place_of(s, (int)(gridDim.x - 1 - blockIdx.x), slice, sample);
    float *factors = gpu_shared<float>(), *offsets = factors + s.vectors * GPU_VECTOR;
    float2 *found = reinterpret_cast<float2 *>(offsets + s.vectors * GPU_VECTOR);
    tile<T> t;
    load_tile<WHOLE>(x, s, p, t);
    statistics += (int64_t)sample * s.groups * (s.merges_at_once ? s.pieces : 1);
    if (s.merges_at_once) {
        int first = slice * s.channels / s.width;
        int end = ((slice + 1) * s.channels - 1) / s.width + 1;
        merge_groups(statistics, s, epsilon, first, end, found);
        __syncthreads();
        statistics = found - first;
    }
    prepare_channels(scale, shift, statistics, s, slice, factors, offsets);
    __syncthreads();
    float factor[GPU_VECTOR], offset[GPU_VECTOR];
    gpu_load_vector(factors + p.channel, GPU_VECTOR, true, factor);
    gpu_load_vector(offsets + p.channel, GPU_VECTOR, true, offset);
    y += p.at;
#pragma unroll
    for (int k = 0; k < DEPTH; k++, y += s.rows * s.c) {
        if (k * s.rows >= p.pixels)
            break;
        float v[GPU_VECTOR];
        gpu_unpack(t.pixel[k], v);
#pragma unroll
        for (int j = 0; j < GPU_VECTOR; j++)
            v[j] = v[j] * factor[j] + offset[j];
        if (activates)
#pragma unroll
            for (int j = 0; j < GPU_VECTOR; j++)
                v[j] = silu<T>(v[j]);
        gpu_store_vector(y, p.count, WHOLE, v);
    }
}

template <class T, bool WHOLE>
cudaError_t group_norm_as(const float *scale, const float *shift, const shape &s,
                          const atedm_group_norm_args *args, float *scratch, cudaStream_t stream)
{
    dim3 grid((unsigned)s.chunks, (unsigned)s.slices, (unsigned)args->n);
    float2 *pieces = reinterpret_cast<float2 *>(scratch);
    float2 *merged = pieces + args->n * s.parts * s.chunks;
    const T *x = static_cast<const T *>(args->x);
    const size_t channels = (size_t)s.vectors * GPU_VECTOR;
    cudaError_t error =
        GPU_LAUNCH((statistics_kernel<T, WHOLE>), grid, dim3(THREADS),
                   (MOST_CHANNELS + channels) * sizeof(float), stream, x, pieces, s);
    if (!error && !s.merges_at_once)
        error = GPU_LAUNCH(merge_kernel, dim3((unsigned)(args->n * s.groups)), dim3(THREADS),
                           THREADS / 32 * sizeof(float), stream, (const float2 *)pieces, merged, s,
                           args->epsilon);
    if (!error)
        error = GPU_LAUNCH((apply_kernel<T, WHOLE>), grid, dim3(THREADS),
                           channels * (2 * sizeof(float) + sizeof(float2)), stream, scale, shift,
                           (const float2 *)(s.merges_at_once ? pieces : merged), x,
                           static_cast<T *>(args->y), s, args->epsilon, args->silu);
    return error;
}

template <class T>
cudaError_t group_norm(const float *scale, const float *shift, const atedm_group_norm_args *args,
                       int64_t c, float *scratch, cudaStream_t stream)
{
    shape s = shape_of(args, c);
    bool whole = s.channels % GPU_VECTOR == 0 && gpu_is_aligned(args->x) && gpu_is_aligned(args->y);
    return whole ? group_norm_as<T, true>(scale, shift, s, args, scratch, stream)
                 : group_norm_as<T, false>(scale, shift, s, args, scratch, stream);
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
    shape s = shape_of(args, c);
    return args->n * ((int64_t)s.parts * s.chunks + s.groups) * 2;
}

cudaError_t atedm_cuda_launch_group_norm(atedm_dtype act, const float *scale, const float *shift,
                                         const atedm_group_norm_args *args, int64_t c,
                                         float *scratch, cudaStream_t stream)
{
    return GPU_FOR_ACT(act, group_norm, scale, shift, args, c, scratch, stream);
}
