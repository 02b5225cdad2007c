// A^T s with heads of 64 for compute capability 9.0: what rank64.cu computes, see rank.cu. A block
// has 128 keys of a head of a span, 64 for each of its warpgroups, which walk over the queries
// together, so that these are loaded once for all 128 (for 64, the L2 cache is the limit). Three
// blocks stand on a multiprocessor: products of some warpgroups go on while others make
// exponentials. These are what takes the time, and all other instructions nearly as long: so what a
// row adds to its logits is made once a row, not once a row and block of keys.
#include "kernels/cuda/gpu_hopper.cuh"
#include "kernels/cuda/tile64.cuh"

namespace
{

constexpr int GROUPS = 2, STAGES = 6;
constexpr int LAG = 2; // steps that warpgroups may be apart before one waits
static_assert(LAG < STAGES);
constexpr int THREADS = GROUPS * GPU_WARPGROUP, WARPS = THREADS / 32, GROUP_WARPS = WARPS / GROUPS;
constexpr int KEYS = GROUPS * TILE;
constexpr int BLOCKS = 3; // on a multiprocessor
static_assert(TILE == ATEDM_CUDA_HOPPER_QUERIES && KEYS == ATEDM_CUDA_HOPPER_KEYS);

struct call {
    CUtensorMap q, k;
    atedm_cuda_rank rank;
    int t;
};

// Each tile is a swizzled one, as its tensor map leaves it. A stage is free when every warp has
// arrived there.
template <class T> struct alignas(GPU_TILE_ALIGN) tiles {
    T k[GROUPS][TILE_ELEMENTS], q[STAGES][TILE_ELEMENTS];
    float sums[WARPS][TILE], changes[KEYS / 32];
    gpu_mbarrier k_there, q_there[STAGES], q_free[STAGES];
};

template <class T> GPU_FN void init_barriers(tiles<T> &t)
{
    gpu_mbarrier_init(t.k_there, 1);
    for (int stage = 0; stage < STAGES; stage++) {
        gpu_mbarrier_init(t.q_there[stage], 1);
        gpu_mbarrier_init(t.q_free[stage], WARPS);
    }
    gpu_mbarrier_fence();
}

// Starts to load the queries' tile of that number into a stage.
template <class T>
GPU_FN void load_queries(const call &a, tiles<T> &t, const atedm_span &span, int number, int stage)
{
    gpu_mbarrier_expect(t.q_there[stage], sizeof t.q[stage]);
    gpu_tensor_load(t.q[stage], a.q, (int)blockIdx.y * TILE, (int)span.q0 + number * TILE,
                    t.q_there[stage]);
}

// sum + 2^x on the arithmetic units. Multiprocessors have eight times as many of these as of those
// that know exponentials, so that some of the exponentials, one in eight, are made here, as
// FlashAttention-4 does it: 2^x = 2^n 2^f with f in [-1/2, 1/2], and a polynomial for the latter
// that is off by 2.7e-6 of it (our own fit). The least is 2^-126; NaN stays.
GPU_FN float add_exp2(float sum, float x)
{
    constexpr float ROUND = 12582912.0f; // 1.5 * 2^23: integers in the last bits
    constexpr uint32_t ONE = 0x3f800000;
    x = gpu_max_nan(x, -126.0f);
    float n = x + ROUND, f = x - (n - ROUND);
    float scale = __uint_as_float((__float_as_uint(n) << 23) + ONE);
    float p = fmaf(0.009570102f, f, 0.055917863f);
    p = fmaf(p, f, 0.24024744f);
    p = fmaf(p, f, 0.6931218f);
    p = fmaf(p, f, 0.9999993f);
    return fmaf(p, scale, sum);
}

// total[n][i] += A(row, column) s(row) of the thread's two rows, where A(row, column) s(row) = 2^(
// scaled logit + offset(row)). An offset of -inf is a row that there is not, with logits of others;
// such are only in the last tile, which need not be `whole`.
GPU_FN void add_columns(float (&total)[8][2], float (&s)[8][4], const float (&offset)[2],
                        bool whole)
{
    if (!whole) {
#pragma unroll
        for (int n = 0; n < TILE / 8; n++)
#pragma unroll
            for (int i = 0; i < 4; i++)
                s[n][i] = offset[i / 2] == -INFINITY ? 0.0f : s[n][i];
    }
#pragma unroll
    for (int n = 0; n < TILE / 8; n++)
#pragma unroll
        for (int i = 0; i < 4; i++) {
            float x = fmaf(s[n][i], TILE_SCALE2, offset[i / 2]), &sum = total[n][i % 2];
            sum = n % 2 && i == 3 ? add_exp2(sum, x) : sum + gpu_exp2(x);
        }
}

// ---- what rows add to their logits

// log2 s(row) - lse(row) log2 e, so that 2^(scaled logit + that) is A(row, column) s(row).
GPU_FN float offset_of(float score, float lse)
{
    return fmaf(lse, -TILE_LOG2E, gpu_log2(score));
}

// Of s^t of a head of a span; rows up to the next whole tile have one.
GPU_FN float *offsets_at(const atedm_cuda_rank &a, int t, int64_t head, int span)
{
    return a.offsets[t % 2] + head * a.offset_rows + a.offset_at[span];
}

// Of s^t, and -inf where there is no row: of both t % 2, since blocks of keys fill in only rows.
__global__ void __launch_bounds__(THREADS)
    offsets_kernel(const __grid_constant__ atedm_cuda_rank a, int t)
{
    int number = blockIdx.z;
    const atedm_span &span = a.span[number];
    int64_t row = (int64_t)blockIdx.x * THREADS + threadIdx.x, head = blockIdx.y;
    if (row >= (span.nq + TILE - 1) / TILE * TILE || a.last[number] != 0)
        return;
    float offset = -INFINITY;
    if (row < span.nq)
        offset = offset_of(a.scores[t % 2][head * a.rows + a.span_at[number] + row],
                           a.lse[head * a.lse_stride + span.q0 + row]);
    offsets_at(a, t, head, number)[row] = offset;
    if (row >= span.nq)
        offsets_at(a, t + 1, head, number)[row] = offset;
}

// ---- products

// The next stage, in turn, and the parity of the phase in which it is used.
struct ring {
    int stage = 0;
    unsigned phase = 0;
};
GPU_FN void advance(ring &r)
{
    r.stage = r.stage + 1 < STAGES ? r.stage + 1 : 0;
    r.phase ^= r.stage == 0;
}

// The warpgroup's keys, over all queries.
template <class T>
GPU_FN void work(const call &a, tiles<T> &t, const atedm_span &span, const float *offsets)
{
    int group = gpu_uniform((int)threadIdx.x / GPU_WARPGROUP), lane = threadIdx.x & 31;
    int nq = (int)span.nq;
    int end = (nq + TILE - 1) / TILE;
    float total[8][2] = {}, s[8][4], offset[2];
    ring next, left; // whose queries are multiplied, and whose are left for others
    offsets += (int)threadIdx.x % GPU_WARPGROUP / 32 * 16 + lane / 4;
    float next_offset[2] = {offsets[0], offsets[8]};
    gpu_mbarrier_wait(t.k_there, 0);
    for (int i = 0; i < end; i++, advance(next)) {
        offset[0] = next_offset[0];
        offset[1] = next_offset[1];
        if (i + 1 < end) { // meanwhile
            offsets += TILE;
            next_offset[0] = offsets[0];
            next_offset[1] = offsets[8];
        }
        gpu_mbarrier_wait(t.q_there[next.stage], next.phase);
        gpu_start_scores<T>(s, gpu_matrix(t.q[next.stage]), gpu_matrix(t.k[group]));
        gpu_wgmma_wait<0>(s);
        if (lane == 0)
            gpu_mbarrier_arrive(t.q_free[next.stage]);
        if (threadIdx.x == 0 && i >= LAG && i - LAG + STAGES < end) {
            gpu_mbarrier_wait(t.q_free[left.stage], left.phase);
            load_queries(a, t, span, i - LAG + STAGES, left.stage);
            advance(left);
        }
        add_columns(total, s, offset, (i + 1) * TILE <= nq);
    }
    tile_store_columns(total, t.sums[threadIdx.x / 32]);
}

// The block's columns; where they are s^t, also how much they have changed, and their offsets.
template <class T>
GPU_FN void store_columns(const call &a, tiles<T> &t, const atedm_span &span, int64_t key0)
{
    const atedm_cuda_rank &rank = a.rank;
    int number = blockIdx.z, c = threadIdx.x;
    float change = 0;
    const float *from = rank.scores[(a.t - 1) % 2] + blockIdx.y * rank.rows + rank.span_at[number];
    float *to = rank.cross ? rank.keys + blockIdx.y * rank.n_keys + rank.key_at[number]
                           : rank.scores[a.t % 2] + blockIdx.y * rank.rows + rank.span_at[number];
    if (c < KEYS && key0 + c < span.nk) {
        float sum = 0;
#pragma unroll
        for (int warp = 0; warp < GROUP_WARPS; warp++)
            sum += t.sums[c / TILE * GROUP_WARPS + warp][c % TILE];
        to[key0 + c] = sum;
        if (!rank.cross) {
            change = fabsf(sum - from[key0 + c]);
            offsets_at(rank, a.t, blockIdx.y, number)[key0 + c] =
                offset_of(sum, rank.lse[blockIdx.y * rank.lse_stride + span.q0 + key0 + c]);
        }
    }
    change = gpu_warp_sum(change);
    if (c < KEYS && c % 32 == 0)
        t.changes[c / 32] = change;
    __syncthreads();
    if (c == 0 && !rank.cross)
        rank.changes[((int64_t)number * rank.heads + blockIdx.y) * rank.change_blocks +
                     blockIdx.x] = (t.changes[0] + t.changes[1]) + (t.changes[2] + t.changes[3]);
}

template <class T>
__global__ void __launch_bounds__(THREADS, BLOCKS)
    columns64_hopper_kernel(const __grid_constant__ call a)
{
    int number = blockIdx.z;
    const atedm_span &span = a.rank.span[number];
    int64_t key0 = (int64_t)blockIdx.x * KEYS;
    if (key0 >= span.nk || a.rank.last[number] != 0)
        return;
    tiles<T> &t = *gpu_shared_tiles<tiles<T>>();
    if (threadIdx.x == 0) {
        init_barriers(t);
        gpu_mbarrier_expect(t.k_there, sizeof t.k);
        gpu_tensor_load(t.k, a.k, (int)blockIdx.y * TILE, (int)(span.k0 + key0), t.k_there);
        for (int i = 0; i < STAGES && i * TILE < span.nq; i++)
            load_queries(a, t, span, i, i);
    }
    __syncthreads();
    work(a, t, span, offsets_at(a.rank, a.t - 1, blockIdx.y, number));
    __syncthreads();
    store_columns(a, t, span, key0);
}

// Blocks of so many rows for the longest span of queries, or keys.
unsigned count_blocks(const atedm_cuda_rank &a, bool keys, int64_t rows)
{
    int64_t most = 0;
    for (int32_t i = 0; i < a.n; i++) {
        int64_t n = keys ? a.span[i].nk : a.span[i].nq;
        most = n > most ? n : most;
    }
    return gpu_blocks(most, rows);
}

template <class T> cudaError_t columns64(const call &a, cudaStream_t stream)
{
    return GPU_LAUNCH(
        (columns64_hopper_kernel<T>),
        dim3(count_blocks(a.rank, true, KEYS), (unsigned)a.rank.heads, (unsigned)a.rank.n),
        dim3(THREADS), sizeof(tiles<T>), stream, a);
}

} // namespace

cudaError_t atedm_cuda_launch_columns64_hopper(atedm_dtype act, const atedm_cuda_rank *rank,
                                               const atedm_cuda_hopper_maps *maps, int t,
                                               cudaStream_t stream)
{
    const call a = {maps->q, maps->k, *rank, t};
    // Those of later s^t are there already, but where they are of rows, not columns.
    if (t == 1 || rank->cross) {
        static_assert(THREADS % TILE == 0, "blocks of rows have whole tiles");
        cudaError_t error = GPU_LAUNCH(
            offsets_kernel,
            dim3(count_blocks(*rank, false, THREADS), (unsigned)rank->heads, (unsigned)rank->n),
            dim3(THREADS), 0, stream, *rank, t - 1);
        if (error)
            return error;
    }
    return act == ATEDM_BF16 ? columns64<gpu_bf16>(a, stream) : columns64<gpu_f16>(a, stream);
}
