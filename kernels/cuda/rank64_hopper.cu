// A^T s with heads of 64 for compute capability 9.0: the results of rank64.cu (the method is in
// rank.cu).
//
// A block computes one part at a time: 128 keys of one head of one span, against all its queries.
// One thread of the first warpgroup is the loader; it copies queries, 128 at a time, through four
// stages. Each of the other two warpgroups (the workers) has 64 keys. They hold their keys in
// registers as the first operand of products, so that only queries are read from shared memory,
// whose bandwidth would otherwise be the limit. Exponentials take most of the time. A worker
// computes those of one tile of logits while the product of the next tile runs.
//
// Logits are [keys, queries] here. So a thread has the sums of two rows, and nothing is added up
// across warps. The offset that a query adds to its logits is computed once, not once for each
// block of keys.
//
// Blocks are persistent: each takes the next part that is left, whose loads have then already
// begun. A start and an end for each 128 keys would take a tenth of the time with 4096 queries, and
// a third with 1024.
//
// A stage's mbarrier `there` counts the copies; every worker warp arrives at its mbarrier `free`.
// k_there and k_free do the same for keys and for `now`, the part's name.
#include "kernels/cuda/gpu_hopper.cuh"
#include "kernels/cuda/tile64.cuh"

namespace
{

constexpr int GROUPS = 2, STAGES = 4;
constexpr int THREADS = (1 + GROUPS) * GPU_WARPGROUP, WARPS = GROUPS * GPU_WARPGROUP / 32;
// All threads start with the same number of registers. The loader's warpgroup gives up those that
// it does not need, and the workers take them.
constexpr int LOADER_REGISTERS = 40, WORKER_REGISTERS = 232;
constexpr int KEYS = GROUPS * TILE, QUERIES = ATEDM_CUDA_HOPPER_RANK_QUERIES;
static_assert(KEYS == ATEDM_CUDA_HOPPER_KEYS && WARPS == ATEDM_CUDA_HOPPER_RANK_WARPS);
static_assert(ATEDM_CUDA_SPANS <= 32, "a lane each");

struct call {
    CUtensorMap q, k, offsets;
    atedm_cuda_rank rank;
    int t;
};

// The work of a block between two stores: keys from `key0` on. NO_SPAN: no part is left.
constexpr int NO_SPAN = -1;
struct part {
    int span, head, key0;
};

// Tiles of queries and keys have the 128-byte swizzling of their tensor maps. A stage is free when
// every worker warp has arrived at its `free`. The place of the keys and of `now` is free when
// every worker warp has arrived at k_free.
template <class T> struct alignas(GPU_TILE_ALIGN) tiles {
    T k[GROUPS][TILE_ELEMENTS], q[STAGES][QUERIES * TILE];
    alignas(128) float offsets[STAGES][QUERIES];
    part now;
    gpu_mbarrier k_there, k_free, there[STAGES], free[STAGES];
};

template <class T> GPU_FN void init_barriers(tiles<T> &t)
{
    gpu_mbarrier_init(t.k_there, 1);
    gpu_mbarrier_init(t.k_free, WARPS);
    for (int stage = 0; stage < STAGES; stage++) {
        gpu_mbarrier_init(t.there[stage], 1);
        gpu_mbarrier_init(t.free[stage], WARPS);
    }
    gpu_mbarrier_fence();
}

// ---- offsets: what queries add to their logits

// A query's offset, log2 s - lse log2 e. Then 2^(scaled logit + offset) is A(query, key) s(query).
GPU_FN float offset_of(float score, float lse)
{
    return fmaf(lse, -TILE_LOG2E, gpu_log2(score));
}

// The offsets of s^t for a head of a span. Rows after the last one, up to the next whole tile, have
// offsets too.
GPU_FN float *offsets_at(const atedm_cuda_rank &a, int t, int64_t head, int span)
{
    return a.offsets[t % 2] + head * a.offset_rows + a.offset_at[span];
}

// Computes the offsets of s^t. Rows that do not exist get -inf, in both buffers (t % 2), because
// columns64_hopper_kernel writes existing rows only.
__global__ void __launch_bounds__(QUERIES)
    offsets_kernel(const __grid_constant__ atedm_cuda_rank a, int t)
{
    int number = blockIdx.z;
    const atedm_span &span = a.span[number];
    int64_t row = (int64_t)blockIdx.x * QUERIES + threadIdx.x, head = blockIdx.y;
    if ((int64_t)blockIdx.x * QUERIES >= span.nq || a.last[number] != 0)
        return;
    float offset = -INFINITY;
    if (row < span.nq)
        offset = offset_of(a.scores[t % 2][head * a.rows + a.span_at[number] + row],
                           a.lse[head * a.lse_stride + span.q0 + row]);
    offsets_at(a, t, head, number)[row] = offset;
    if (row >= span.nq)
        offsets_at(a, t + 1, head, number)[row] = offset;
}

// ---- parts: 128 keys each, of all heads of the spans that go on; keys vary fastest

__host__ GPU_FN int parts_of(const atedm_cuda_rank &a, int span)
{
    return (int)((a.span[span].nk + KEYS - 1) / KEYS) * a.heads;
}

// A bit for each span that goes on. The whole warp must call it.
GPU_FN unsigned spans_going_on(const atedm_cuda_rank &a)
{
    int lane = (int)threadIdx.x % 32;
    return __ballot_sync(0xffffffffu, lane < a.n && a.last[lane] == 0);
}

GPU_FN part part_of(const atedm_cuda_rank &a, unsigned going_on, int number)
{
    for (int span = 0; span < a.n; span++) {
        if (!(going_on >> span & 1))
            continue;
        int parts = parts_of(a, span), blocks = parts / a.heads;
        if (number < parts)
            return {span, number / blocks, number % blocks * KEYS};
        number -= parts;
    }
    return {NO_SPAN, 0, 0};
}

// ---- loading: one thread

template <class T>
GPU_FN void load_queries(const call &a, tiles<T> &t, const part &p, gpu_ring<STAGES> &r)
{
    const atedm_span &span = a.rank.span[p.span];
    int offset0 = (int)a.rank.offset_at[p.span];
    for (int row = 0; row < span.nq; row += QUERIES, gpu_advance(r)) {
        gpu_mbarrier &there = t.there[r.stage];
        gpu_mbarrier_wait(t.free[r.stage], r.phase ^ 1);
        gpu_mbarrier_expect(there, sizeof *t.q + sizeof *t.offsets);
        gpu_tensor_load(t.q[r.stage], a.q, p.head * TILE, (int)span.q0 + row, there);
        gpu_tensor_load(t.offsets[r.stage], a.offsets, (offset0 + row) * 2, p.head, there);
    }
}

// A block's first part is the one with the block's number. A shared counter gives out the others,
// because a block may have to wait for a multiprocessor while the rest already work.
template <class T> GPU_FN void load(const call &a, tiles<T> &t, unsigned going_on)
{
    gpu_prefetch_map(a.k);
    gpu_prefetch_map(a.q);
    gpu_prefetch_map(a.offsets);
    gpu_ring<STAGES> r;
    int number = blockIdx.x;
    for (unsigned phase = 1;; phase ^= 1) {
        const part p = part_of(a.rank, going_on, number);
        gpu_mbarrier_wait(t.k_free, phase);
        t.now = p;
        if (p.span == NO_SPAN)
            break;
        gpu_mbarrier_expect(t.k_there, sizeof t.k);
        gpu_tensor_load(t.k, a.k, p.head * TILE, (int)a.rank.span[p.span].k0 + p.key0, t.k_there);
        load_queries(a, t, p, r);
        number = (int)gridDim.x + atomicAdd(a.rank.taken, 1);
    }
    gpu_mbarrier_arrive(t.k_there);
}

// ---- exponentials

// sum + 2^x on the FMA units. A multiprocessor has eight times as many of these as of the units for
// exponentials, so three in sixteen exponentials are computed here, as in FlashAttention-4. 2^x =
// 2^n 2^f with f in [-1/2, 1/2]; a polynomial gives 2^f with a relative error of 2.7e-6 (our own
// fit). x is at least -126, so the smallest result is 2^-126. NaN stays NaN.
GPU_FN float add_exp2(float sum, float x)
{
    constexpr float ROUND = 12582912.0f; // 1.5 * 2^23: its last bits hold the integer
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

// The offsets of the thread's columns 8 n + l % 4 * 2 and the one after it.
GPU_FN float2 column_offsets(const float *offsets, int n)
{
    return gpu_read_copied(
        reinterpret_cast<const float2 *>(offsets + n * 8 + (int)threadIdx.x % 4 * 2));
}

// Clears the logits of queries after the span's last one. These rows belong to another sample or to
// nobody, so their logits may be anything.
GPU_FN void clear_others(float (&s)[16][4], const float *offsets)
{
#pragma unroll
    for (int n = 0; n < QUERIES / 8; n++) {
        const float2 offset = column_offsets(offsets, n);
#pragma unroll
        for (int i = 0; i < 4; i++)
            s[n][i] = (i % 2 ? offset.y : offset.x) == -INFINITY ? 0.0f : s[n][i];
    }
}

// total[i] += A(column, row) s(column), over the thread's logits s[.][i].
GPU_FN void add_rows(float (&total)[4], const float (&s)[16][4], const float *offsets)
{
#pragma unroll
    for (int n = 0; n < QUERIES / 8; n++) {
        const float2 offset = column_offsets(offsets, n);
#pragma unroll
        for (int i = 0; i < 4; i++) {
            float x = fmaf(s[n][i], TILE_SCALE2, i % 2 ? offset.y : offset.x);
            total[i] = n % 4 < 3 && i == n % 4 ? add_exp2(total[i], x) : total[i] + gpu_exp2(x);
        }
    }
}

// ---- a warpgroup's keys

// Starts s = k q^T.
template <class T>
GPU_FN void start_logits(float (&s)[16][4], const uint32_t (&k)[4][4], const T *queries)
{
    uint64_t q = gpu_matrix(queries);
    gpu_wgmma_fence();
#pragma unroll
    for (int i = 0; i < TILE / GPU_MMA_K; i++)
        gpu_wgmma_rows(T(), s, k[i], gpu_matrix_step(q, i * GPU_MMA_K * (int)sizeof(T)), i > 0);
    gpu_wgmma_commit();
}

template <class T> struct worker {
    tiles<T> &t;
    gpu_ring<STAGES> now, next;
    unsigned k_phase; // for the next part's keys
    uint32_t keys[4][4];
    float total[4];
};

template <class T> GPU_FN void await_keys(worker<T> &w)
{
    gpu_mbarrier_wait(w.t.k_there, w.k_phase);
    w.k_phase ^= 1;
}

template <class T> GPU_FN void start_next(worker<T> &w, float (&s)[16][4])
{
    gpu_mbarrier_wait(w.t.there[w.next.stage], w.next.phase);
    start_logits<T>(s, w.keys, w.t.q[w.next.stage]);
    gpu_advance(w.next);
}

// Adds up the tile whose logits are in s. Their product must be complete.
template <class T> GPU_FN void add_tile(worker<T> &w, const float (&s)[16][4])
{
    add_rows(w.total, s, w.t.offsets[w.now.stage]);
    gpu_async_fence(); // after this, the next copy may overwrite the offsets
    __syncwarp();      // all lanes have read them
    gpu_leave(w.t.free[w.now.stage]);
    gpu_advance(w.now);
}

// Adds up one tile while the next tile's product runs.
template <class T>
GPU_FN void add_and_start(worker<T> &w, float (&s)[16][4], float (&following)[16][4])
{
    start_next(w, following);
    gpu_wgmma_wait<1>(s);
    add_tile(w, s);
}

// Adds up the part's last tile. It waits for the next part's keys first, because that wait ends a
// basic block. Otherwise ptxas would move the wait for the product up, before the previous tile's
// exponentials, which are to overlap with that product.
template <class T> GPU_FN void add_last(worker<T> &w, float (&s)[16][4], bool is_whole)
{
    await_keys(w);
    gpu_wgmma_wait<0>(s);
    if (!is_whole)
        clear_others(s, w.t.offsets[w.now.stage]);
    add_tile(w, s);
}

// Reads the warpgroup's keys into registers, and releases their place in shared memory for the next
// part.
template <class T> GPU_FN void take_keys(worker<T> &w, int group)
{
    tile_rows(w.keys, w.t.k[group]);
    gpu_async_fence(); // after this, the next copy may overwrite them
    __syncwarp();      // all lanes have read them
    gpu_leave(w.t.k_free);
}

// Computes the sums of the warpgroup's keys over all queries. All four threads of a quad get the
// sums of keys 16 (warp % 4) + lane / 4 and 8 further on. It calls meanwhile() while the first
// product runs.
template <class T, class MEANWHILE>
GPU_FN void add_tiles(worker<T> &w, int nq, MEANWHILE meanwhile, float (&ret_sums)[2])
{
    int left = (nq + QUERIES - 1) / QUERIES;
    bool is_whole = nq % QUERIES == 0;
    float s[16][4], other[16][4];
    for (float &total : w.total)
        total = 0;
    start_next(w, s);
    meanwhile();
    for (; left > 2; left -= 2) {
        add_and_start(w, s, other);
        add_and_start(w, other, s);
    }
    if (left == 2) {
        add_and_start(w, s, other);
        add_last(w, other, is_whole);
    } else {
        add_last(w, s, is_whole);
    }
#pragma unroll
    for (int half = 0; half < 2; half++)
        ret_sums[half] = quad_sum(w.total[half * 2] + w.total[half * 2 + 1]);
}

// s^(t-1) and log-sum-exp of the thread's columns, `key` and key + 8, for self-attention. They are
// loaded long before they are needed.
struct column_state {
    float score[2], lse[2];
};

GPU_FN bool has_column(const atedm_cuda_rank &rank, const part &p, int64_t key)
{
    return threadIdx.x % 4 == 0 && key < rank.span[p.span].nk;
}

GPU_FN column_state load_columns(const atedm_cuda_rank &rank, int t, const part &p, int64_t key)
{
    int64_t scores_at = p.head * rank.rows + rank.span_at[p.span];
    int64_t lse_at = p.head * rank.lse_stride + rank.span[p.span].q0;
    column_state c = {};
#pragma unroll
    for (int half = 0; half < 2; half++, key += 8)
        if (!rank.cross && has_column(rank, p, key)) {
            c.score[half] = rank.scores[(t - 1) % 2][scores_at + key];
            c.lse[half] = rank.lse[lse_at + key];
        }
    return c;
}

// Stores the sums of the thread's columns of A. If these are s^t (self-attention), it also stores
// their offsets, and returns how much they changed.
GPU_FN float store_sums(const atedm_cuda_rank &rank, int t, const part &p, int64_t key,
                        const column_state &before, const float (&sums)[2])
{
    int64_t scores_at = p.head * rank.rows + rank.span_at[p.span];
    float change = 0;
#pragma unroll
    for (int half = 0; half < 2; half++, key += 8) {
        if (!has_column(rank, p, key))
            continue;
        if (rank.cross) {
            rank.keys[p.head * rank.n_keys + rank.key_at[p.span] + key] = sums[half];
            continue;
        }
        rank.scores[t % 2][scores_at + key] = sums[half];
        change += fabsf(sums[half] - before.score[half]);
        offsets_at(rank, t, p.head, p.span)[key] = offset_of(sums[half], before.lse[half]);
    }
    return change;
}

template <class T> GPU_FN void work(const call &a, tiles<T> &t)
{
    const atedm_cuda_rank &rank = a.rank;
    int group = gpu_uniform((int)threadIdx.x / GPU_WARPGROUP) - 1;
    int warp = (int)threadIdx.x / 32 - GPU_WARPGROUP / 32, lane = (int)threadIdx.x % 32;
    worker<T> w = {t, {}, {}, 0, {}, {}};
    await_keys(w);
    for (part p = t.now; p.span != NO_SPAN; p = t.now) {
        int64_t key = p.key0 + warp * 16 + lane / 4;
        column_state before;
        float sums[2];
        take_keys(w, group);
        // Not earlier: the fence in take_keys would wait for these loads.
        auto load_before = [&] { before = load_columns(rank, a.t, p, key); };
        add_tiles(w, (int)rank.span[p.span].nq, load_before, sums);
        float change = gpu_warp_sum(store_sums(rank, a.t, p, key, before, sums));
        int64_t block =
            ((int64_t)p.span * rank.heads + p.head) * rank.change_blocks + p.key0 / KEYS;
        if (lane == 0 && !rank.cross)
            rank.changes[block * WARPS + warp] = change;
    }
}

template <class T>
__global__ void __launch_bounds__(THREADS, 1)
    columns64_hopper_kernel(const __grid_constant__ call a)
{
    tiles<T> &t = *gpu_shared_tiles<tiles<T>>();
    if (threadIdx.x == 0)
        init_barriers(t);
    __syncthreads();
    if (threadIdx.x < GPU_WARPGROUP) {
        gpu_fewer_registers<LOADER_REGISTERS>();
        unsigned going_on = spans_going_on(a.rank);
        if (threadIdx.x == 0)
            load(a, t, going_on);
    } else {
        gpu_more_registers<WORKER_REGISTERS>();
        work(a, t);
    }
}

// Blocks of QUERIES rows for the longest span.
unsigned count_blocks(const atedm_cuda_rank &a)
{
    int64_t most = 0;
    for (int32_t i = 0; i < a.n; i++)
        most = a.span[i].nq > most ? a.span[i].nq : most;
    return gpu_blocks(most, QUERIES);
}

template <class T> cudaError_t columns64(const call &a, cudaStream_t stream)
{
    int64_t parts = 0; // 8192 elements of q each, so at most ATEDM_MAX_ELEMENTS / 8192
    for (int32_t i = 0; i < a.rank.n; i++)
        parts += parts_of(a.rank, i);
    int64_t blocks = parts < a.rank.multiprocessors ? parts : a.rank.multiprocessors;
    return GPU_LAUNCH((columns64_hopper_kernel<T>), dim3((unsigned)blocks), dim3(THREADS),
                      sizeof(tiles<T>), stream, a);
}

} // namespace

cudaError_t atedm_cuda_launch_columns64_hopper(atedm_dtype act, const atedm_cuda_rank *rank,
                                               const atedm_cuda_hopper_rank_maps *maps, int t,
                                               cudaStream_t stream)
{
    const call a = {maps->q, maps->k, maps->offsets[(t - 1) % 2], *rank, t};
    // For later s^t the previous pass has stored the offsets, except with cross-attention, where
    // rows_kernel (rank.cu) computes s^t.
    if (t == 1 || rank->cross) {
        cudaError_t error = GPU_LAUNCH(
            offsets_kernel, dim3(count_blocks(*rank), (unsigned)rank->heads, (unsigned)rank->n),
            dim3(QUERIES), 0, stream, *rank, t - 1);
        if (error)
            return error;
    }
    return act == ATEDM_BF16 ? columns64<gpu_bf16>(a, stream) : columns64<gpu_f16>(a, stream);
}
