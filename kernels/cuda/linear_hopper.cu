// Linear layers y = x w^T for compute capability 9.0, by wgmma, in small tiles. They are for layers
// with so few rows that large tiles would leave multiprocessors without work.
//
// A block computes one tile: 64 or 128 rows times 64, 128 or 160 outputs. One thread is the loader.
// Each worker warpgroup multiplies 64 rows. In each step the loader fills one stage of a ring with
// 64 columns of x and of the weights.
//
// Small tiles need more bandwidth per product than the second-level cache has. So the blocks of a
// cluster share what they load. Each block loads a slice of the rows of x, which the copy sends to
// all blocks with the same rows, and a slice of the weights, which it sends to all blocks with the
// same outputs.
//
// A stage's mbarrier `there` counts the bytes of all slices that arrive in this block. Its mbarrier
// `free` counts the worker warps of all blocks that receive slices from this one.
//
// Each sum runs along the row from its start, in steps of 16, in one accumulator in F32, whatever
// the tile. cuBLASLt's kernels do the same, and the trials compare bits with theirs (ADR 16).
#include "kernels/cuda/gpu_hopper.cuh"

namespace
{

constexpr int STEP = ATEDM_CUDA_HOPPER_CHANNELS; // elements of a tile's row: 128 bytes
constexpr int ROW_BYTES = STEP * 2;
constexpr int STAGE_ROOM = 225 << 10; // of a block's 227 KiB; the barriers fit after the stages

// A tile has ROWS rows, 64 for each worker, and OUTPUTS outputs. One additional warp loads.
template <int ROWS, int OUTPUTS> struct tiling {
    static constexpr int rows = ROWS, outputs = OUTPUTS, workers = ROWS / 64;
    static constexpr int threads = workers * GPU_WARPGROUP + 32;
    static constexpr int stages = STAGE_ROOM / ((ROWS + OUTPUTS) * ROW_BYTES);
};

// A stage is free when every worker warp of every block that receives a slice from this block has
// left it.
template <class T, class S> struct alignas(GPU_TILE_ALIGN) tiles {
    T x[S::stages][S::rows * STEP], weight[S::stages][S::outputs * STEP];
    gpu_mbarrier there[S::stages], free[S::stages];
};
static_assert(sizeof(tiles<gpu_bf16, tiling<64, 64>>) <= 227 << 10 &&
              sizeof(tiles<gpu_bf16, tiling<64, 128>>) <= 227 << 10 &&
              sizeof(tiles<gpu_bf16, tiling<128, 128>>) <= 227 << 10 &&
              sizeof(tiles<gpu_bf16, tiling<128, 160>>) <= 227 << 10);

// A block's position in its cluster, and the first row and output of its tile.
struct place {
    int down, across;
    int64_t row;
    int output;
};

// The logarithm of `down` or `across`, which are powers of two. A division takes some fifty
// instructions, and there would be five before the first copy could begin.
GPU_FN int log2_of(int x)
{
    return __ffs(x) - 1;
}

template <class S> GPU_FN place find_place(const atedm_cuda_linear_hopper &a)
{
    int down = (int)blockIdx.x >> log2_of(a.across) & (a.down - 1),
        across = (int)blockIdx.x & (a.across - 1);
    unsigned cluster = blockIdx.x >> log2_of(a.down * a.across),
             beside = (unsigned)a.clusters_across;
    return {down, across, ((int64_t)(cluster / beside) * a.down + down) * S::rows,
            (int)(cluster % beside * (unsigned)a.across + (unsigned)across) * S::outputs};
}

// The number of blocks that share slices with this one, itself included.
GPU_FN int count_peers(const atedm_cuda_linear_hopper &a)
{
    return a.down + a.across - 1;
}

// The rank of the i-th of them: first the blocks with the same rows, then the others with the same
// outputs.
GPU_FN int find_peer(const atedm_cuda_linear_hopper &a, const place &p, int i)
{
    if (i < a.across)
        return p.down * a.across + i;
    int below = i - a.across;
    return (below < p.down ? below : below + 1) * a.across + p.across;
}

template <class T, class S>
GPU_FN void init_barriers(const atedm_cuda_linear_hopper &a, tiles<T, S> &t)
{
    for (int i = 0; i < S::stages; i++) {
        gpu_mbarrier_init(t.there[i], 1);
        gpu_mbarrier_init(t.free[i], S::workers * GPU_WARPGROUP / 32 * count_peers(a));
    }
    gpu_mbarrier_fence();
}

// ---- loading: one thread

// Loads a slice for all blocks that have their bit set in `blocks`, this one among them.
GPU_FN void load_slice(void *to, const CUtensorMap &map, int column, int row, gpu_mbarrier &there,
                       unsigned blocks)
{
    if (blocks & (blocks - 1))
        gpu_tensor_load_to_all(to, map, column, row, there, blocks);
    else
        gpu_tensor_load(to, map, column, row, there);
}

template <class T, class S>
GPU_FN void load(const atedm_cuda_linear_hopper &a, const place &p, tiles<T, S> &t)
{
    const int x_from = p.across * (S::rows >> log2_of(a.across));
    const int w_from = p.down * (S::outputs >> log2_of(a.down));
    const unsigned beside = ((1u << a.across) - 1) << p.down * a.across;
    unsigned below = 0;
#pragma unroll 1
    for (int i = 0; i < a.down; i++)
        below |= 1u << (i * a.across + p.across);
    gpu_ring<S::stages> r;
    for (int step = 0; step < a.steps; step++, gpu_advance(r)) {
        gpu_mbarrier &there = t.there[r.stage];
        gpu_mbarrier_wait(t.free[r.stage], r.phase ^ 1);
        gpu_mbarrier_expect(there, sizeof *t.x + sizeof *t.weight);
        load_slice(t.x[r.stage] + x_from * STEP, a.x, step * STEP, (int)p.row + x_from, there,
                   beside);
        load_slice(t.weight[r.stage] + w_from * STEP, a.weight, step * STEP, p.output + w_from,
                   there, below);
    }
    // Other blocks arrive at this block's barriers until they have left the last stages. Its shared
    // memory has to exist until then.
    for (int i = 0; i < S::stages; i++, gpu_advance(r))
        gpu_mbarrier_wait(t.free[r.stage], r.phase ^ 1);
}

// ---- products

template <class S> struct sums {
    float d[S::outputs / 8][4];
};

// Starts sums += x w^T over one stage, or sums = x w^T if it is the first.
template <class T, class S>
GPU_FN void start_products(sums<S> &r, const T *x, const T *w, bool is_first)
{
    gpu_wgmma_fence();
#pragma unroll
    for (int k = 0; k < STEP / GPU_MMA_K; k++)
        gpu_wgmma_rows(T(), r.d, gpu_matrix_step(gpu_matrix(x), k * GPU_MMA_K * 2),
                       gpu_matrix_step(gpu_matrix(w), k * GPU_MMA_K * 2), !is_first || k > 0);
    gpu_wgmma_commit();
}

// Reports to every block that loads a part of this stage that the warp has finished reading it.
// Each lane arrives at one block, `peer`; -1 for none.
GPU_FN void leave(gpu_mbarrier &free, int peer)
{
    if (peer >= 0)
        gpu_mbarrier_arrive_at(free, peer);
}

// Products of two steps run at a time, so a stage is released one step after its own.
template <class T, class S>
GPU_FN void multiply(const atedm_cuda_linear_hopper &a, const place &p, tiles<T, S> &t, int worker,
                     sums<S> &r)
{
    int lane = (int)threadIdx.x % 32, last = -1; // the stage whose products may still be running
    int peer = lane < count_peers(a) ? find_peer(a, p, lane) : -1;
    gpu_ring<S::stages> ring;
    for (int step = 0; step < a.steps; step++, gpu_advance(ring)) {
        gpu_mbarrier_wait(t.there[ring.stage], ring.phase);
        start_products<T, S>(r, t.x[ring.stage] + worker * 64 * STEP, t.weight[ring.stage],
                             step == 0);
        gpu_wgmma_wait_but<1>();
        if (last >= 0)
            leave(t.free[last], peer);
        last = ring.stage;
    }
    gpu_wgmma_wait<0>(r.d);
    leave(t.free[last], peer);
}

// ---- epilogue

// Adds two adjacent elements to two sums, if there are any.
template <class T> GPU_FN void add(bool is_there, uint32_t bits, float (&to)[2])
{
    float more[2];
    gpu_unpack_pair<T>(bits, more);
#pragma unroll
    for (int e = 0; e < 2; e++)
        to[e] = is_there ? to[e] + more[e] : to[e];
}

// Adds bias and residual to two sums, in the order that the call asks for, and packs them as
// elements.
template <class T>
GPU_FN uint32_t finish(const atedm_cuda_linear_hopper &a, float first, float second,
                       uint32_t residual, uint32_t bias)
{
    float v[2] = {first, second};
    add<T>(a.bias && a.is_bias_first, bias, v);
    add<T>(a.residual, residual, v);
    add<T>(a.bias && !a.is_bias_first, bias, v);
    return gpu_pack(T(), v[0], v[1]);
}

// Bias and residuals of the outputs that a thread loads and stores, by groups (see GPU_GROUP).
template <class S> struct addends {
    static constexpr int groups = S::outputs / 8 / GPU_GROUP;
    uint32_t bias[groups][GPU_GROUP], residual[groups][2][GPU_GROUP];
};

// `row` is the thread's first row; its second is row + 8. This is called before the products. After
// them the thread would wait for each of these loads in turn: none could move ahead of the store
// before it, because the residual may be y.
template <class T, class S>
GPU_FN void load_addends(const atedm_cuda_linear_hopper &a, int64_t row, int output,
                         addends<S> &ret_more)
{
    int own = output + (int)threadIdx.x % 4 * 8;
#pragma unroll
    for (int group = 0; group < addends<S>::groups; group++, own += GPU_GROUP * 8) {
        gpu_load_eight<T>(a.bias, own, a.bias && own < a.out, ret_more.bias[group]);
#pragma unroll
        for (int i = 0; i < 2; i++) {
            bool is_there = a.residual && row + i * 8 < a.rows && own < a.out;
            gpu_load_eight<T>(a.residual, (row + i * 8) * a.out + own, is_there,
                              ret_more.residual[group][i]);
        }
    }
}

// HAS_MORE: there is a bias or a residual. Half of a tile's instructions after its products are for
// these.
template <class T, class S, bool HAS_MORE>
GPU_FN void store(const atedm_cuda_linear_hopper &a, int64_t row, int output, const sums<S> &r,
                  addends<S> &more)
{
    int own = output + (int)threadIdx.x % 4 * 8;
#pragma unroll
    for (int group = 0; group < addends<S>::groups; group++, own += GPU_GROUP * 8) {
        if (HAS_MORE && a.bias)
            gpu_quad_transpose(more.bias[group]);
#pragma unroll
        for (int i = 0; i < 2; i++) {
            uint32_t(&words)[GPU_GROUP] = more.residual[group][i];
            if (HAS_MORE && a.residual)
                gpu_quad_transpose(words);
#pragma unroll
            for (int n = 0; n < GPU_GROUP; n++) {
                const float(&sum)[4] = r.d[group * GPU_GROUP + n];
                words[n] = HAS_MORE ? finish<T>(a, sum[i * 2], sum[i * 2 + 1], words[n],
                                                more.bias[group][n])
                                    : gpu_pack(T(), sum[i * 2], sum[i * 2 + 1]);
            }
            gpu_quad_transpose(words);
            if (row + i * 8 < a.rows && own < a.out)
                gpu_store_eight<T>(a.y, (row + i * 8) * a.out + own, words);
        }
    }
}

// In F32 no transposition is needed: the two outputs that each thread of a quad has of a chunk
// together make a whole sector.
template <class S>
GPU_FN void store_sums(const atedm_cuda_linear_hopper &a, int64_t row, int output, const sums<S> &r)
{
    int column = output + (int)threadIdx.x % 4 * 2;
#pragma unroll
    for (int n = 0; n < S::outputs / 8; n++, column += 8)
#pragma unroll
        for (int i = 0; i < 2; i++)
            if (row + i * 8 < a.rows && column < a.out)
                *reinterpret_cast<float2 *>(static_cast<float *>(a.y) + (row + i * 8) * a.out +
                                            column) = {r.d[n][i * 2], r.d[n][i * 2 + 1]};
}

template <class T, class S>
GPU_FN void work(const atedm_cuda_linear_hopper &a, const place &p, tiles<T, S> &t)
{
    int worker = gpu_uniform((int)threadIdx.x / GPU_WARPGROUP);
    int64_t row = p.row + (int)threadIdx.x / 32 * 16 + (int)threadIdx.x % 32 / 4;
    addends<S> more;
    sums<S> r;
    load_addends<T, S>(a, row, p.output, more);
    multiply<T, S>(a, p, t, worker, r);
    if (a.sums)
        store_sums<S>(a, row, p.output, r);
    else if (a.bias || a.residual)
        store<T, S, true>(a, row, p.output, r, more);
    else
        store<T, S, false>(a, row, p.output, r, more);
}

template <class T, class S>
__global__ void __launch_bounds__(S::threads, 1)
    linear_hopper_kernel(const __grid_constant__ atedm_cuda_linear_hopper a)
{
    tiles<T, S> &t = *gpu_shared_tiles<tiles<T, S>>();
    const place p = find_place<S>(a);
    if (threadIdx.x == 0)
        init_barriers(a, t);
    if (threadIdx.x == S::workers * GPU_WARPGROUP) {
        gpu_prefetch_map(a.x);
        gpu_prefetch_map(a.weight);
    }
    __syncwarp();
    gpu_cluster_sync(); // no block loads into another, or arrives there, before it has barriers
    if (threadIdx.x < S::workers * GPU_WARPGROUP)
        work(a, p, t);
    else if (threadIdx.x == S::workers * GPU_WARPGROUP)
        load(a, p, t);
}

template <class T, class S>
cudaError_t launch(const atedm_cuda_linear_hopper &a, unsigned blocks, cudaStream_t stream)
{
    return GPU_LAUNCH_CLUSTERS((linear_hopper_kernel<T, S>), a.down * a.across, dim3(blocks),
                               dim3(S::threads), sizeof(tiles<T, S>), stream, a);
}

using widest = tiling<128, 160>;

template <class T>
cudaError_t choose(const atedm_cuda_linear_hopper &a, unsigned blocks, cudaStream_t stream)
{
    if (a.tile_rows == 64)
        return a.tile_outputs == 64 ? launch<T, tiling<64, 64>>(a, blocks, stream)
                                    : launch<T, tiling<64, 128>>(a, blocks, stream);
    return a.tile_outputs == 128 ? launch<T, tiling<128, 128>>(a, blocks, stream)
                                 : launch<T, widest>(a, blocks, stream);
}

} // namespace

cudaError_t atedm_cuda_launch_linear_hopper(atedm_dtype act, const atedm_cuda_linear_hopper *linear,
                                            unsigned blocks, cudaStream_t stream)
{
    return act == ATEDM_BF16 ? choose<gpu_bf16>(*linear, blocks, stream)
                             : choose<gpu_f16>(*linear, blocks, stream);
}

// Of no tile do two blocks fit on a multiprocessor, so one stands for all.
cudaError_t atedm_cuda_linear_hopper_clusters(int cluster, int *ret_clusters)
{
    return gpu_count_clusters(linear_hopper_kernel<gpu_bf16, widest>, cluster,
                              dim3(widest::threads), sizeof(tiles<gpu_bf16, widest>), ret_clusters);
}
