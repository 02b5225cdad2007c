// Attention with heads of 64 for compute capability 9.0, after FlashAttention-3 (Shah et al. 2024).
// It computes what attention64.cu computes, which runs everywhere.
//
// A block computes 192 or 128 queries of one head of one span. Its first warpgroup is the loader:
// one thread of it copies keys and values through tensor maps, 128 at a time, into two stages. Each
// of the other three or two warpgroups (the workers) has 64 queries. For each tile of keys a worker
// starts the product of logits and the previous tile's product with values. It computes
// exponentials while its own products and those of other workers run.
//
// Synchronisation: each stage has an mbarrier `_there`, which counts the bytes of the loader's
// copies, and an mbarrier `_free`, on which every worker warp arrives when it has finished reading.
// Named barriers make the workers start their products in turn.
//
// A query's results have the same bits in blocks of either size. Its warpgroup does the same work
// in both, and fmaf is explicit wherever the compiler could round once or twice.
#include "kernels/cuda/gpu_hopper.cuh"
#include "kernels/cuda/tile64.cuh"

namespace
{

constexpr int KEYS = ATEDM_CUDA_HOPPER_KEYS, STAGES = 2;
constexpr int WARPS = GPU_WARPGROUP / 32;
static_assert(TILE == ATEDM_CUDA_HOPPER_QUERIES);

// A block with N workers. All threads start with the same number of registers. The loader gives up
// those that it does not need, and the workers take them.
template <int N> struct groups {
    static constexpr int COUNT = N, THREADS = (1 + N) * GPU_WARPGROUP;
    static constexpr int LOADER_REGISTERS = N == 3 ? 32 : 40;
    static constexpr int WORKER_REGISTERS = N == 3 ? 160 : 232;
};

struct call {
    atedm_cuda_hopper_maps maps;
    const float *bias; // by row of k, or NULL
    void *o;
    float *lse;
    int64_t lse_stride;
    int heads;
    bool causal;
    atedm_cuda_spans spans;
};

// Tiles have the 128-byte swizzling of their tensor maps. A stage is free when every worker warp
// has arrived at its `_free` barrier.
template <class T, class G> struct alignas(GPU_TILE_ALIGN) tiles {
    T q[G::COUNT][TILE_ELEMENTS], k[STAGES][KEYS * TILE], v[STAGES][KEYS * TILE];
    gpu_mbarrier q_there, k_there[STAGES], k_free[STAGES], v_there[STAGES], v_free[STAGES];
    gpu_mbarrier last_v_there; // of a tile that has rows of other samples after the last key
};

// A block's work: queries from `row` on, against keys 0 .. end - 1 of the span.
struct part {
    int64_t q0, k0, nq, row;
    int end, n_tiles;
};

template <class T, class G> GPU_FN void init_barriers(tiles<T, G> &t)
{
    gpu_mbarrier_init(t.q_there, 1);
    gpu_mbarrier_init(t.last_v_there, 1);
    for (int stage = 0; stage < STAGES; stage++) {
        gpu_mbarrier_init(t.k_there[stage], 1);
        gpu_mbarrier_init(t.v_there[stage], 1);
        gpu_mbarrier_init(t.k_free[stage], G::COUNT * WARPS);
        gpu_mbarrier_init(t.v_free[stage], G::COUNT * WARPS);
    }
    gpu_mbarrier_fence();
}

// ---- loading: the first warp of the block

template <class T, class G> GPU_FN void load_tiles(const call &a, tiles<T, G> &t, const part &p)
{
    int column = (int)blockIdx.y * TILE;
    gpu_mbarrier_expect(t.q_there, sizeof t.q);
    for (int i = 0; i < G::COUNT; i++)
        gpu_tensor_load(t.q[i], a.maps.q, column, (int)(p.q0 + p.row) + i * TILE, t.q_there);
    for (int i = 0; i < p.n_tiles; i++) {
        int stage = i % STAGES, row = (int)p.k0 + i * KEYS;
        unsigned before = (i / STAGES & 1) ^ 1; // the phase in which this stage was last used
        gpu_mbarrier_wait(t.k_free[stage], before);
        gpu_mbarrier_expect(t.k_there[stage], sizeof t.k[stage]);
        gpu_tensor_load(t.k[stage], a.maps.k, column, row, t.k_there[stage]);
        gpu_mbarrier &v_there = (i + 1) * KEYS > p.end ? t.last_v_there : t.v_there[stage];
        gpu_mbarrier_wait(t.v_free[stage], before);
        gpu_mbarrier_expect(v_there, sizeof t.v[stage]);
        gpu_tensor_load(t.v[stage], a.maps.v, column, row, v_there);
    }
}

// Zeroes the rows of values after the span's last key. These rows belong to another sample or to
// nobody and may hold NaN: their exponentials are 0, but 0 times NaN is NaN. Keys after the last
// one do no harm, because mask replaces their logits.
template <class T, class G> GPU_FN void clear_last_values(tiles<T, G> &t, const part &p)
{
    int last = p.n_tiles - 1, stage = last % STAGES, first = (p.end - last * KEYS) * TILE_VECTORS;
    gpu_mbarrier_wait(t.last_v_there, 0);
    for (int i = first + (int)threadIdx.x; i < KEYS * TILE_VECTORS; i += 32)
        gpu_clear_16(t.v[stage] + i * 8);
    gpu_async_fence();
    __syncwarp();
    if (threadIdx.x == 0)
        gpu_mbarrier_arrive(t.v_there[stage]);
}

template <class T, class G> GPU_FN void load(const call &a, tiles<T, G> &t, const part &p)
{
    if (threadIdx.x == 0)
        load_tiles(a, t, p);
    __syncwarp();
    if (p.end % KEYS)
        clear_last_values(t, p);
}

// ---- products

// Starts s = q k^T.
template <class T> GPU_FN void start_scores(float (&s)[16][4], uint64_t q, const T *keys)
{
    uint64_t k = gpu_matrix(keys);
    gpu_wgmma_fence();
#pragma unroll
    for (int i = 0; i < TILE / GPU_MMA_K; i++)
        gpu_wgmma_rows(T(), s, gpu_matrix_step(q, i * GPU_MMA_K * 2),
                       gpu_matrix_step(k, i * GPU_MMA_K * 2), i > 0);
    gpu_wgmma_commit();
}

// Starts sums += p v.
template <class T>
GPU_FN void start_values(float (&sums)[8][4], const uint32_t (&p)[8][4], const T *values)
{
    uint64_t v = gpu_matrix(values);
    gpu_wgmma_fence();
#pragma unroll
    for (int i = 0; i < KEYS / GPU_MMA_K; i++)
        gpu_wgmma_columns(T(), sums, p[i], gpu_matrix_step(v, i * GPU_MMA_K * TILE * 2));
    gpu_wgmma_commit();
}

// Workers start their products in turn, so that their exponentials are staggered too. Worker g
// waits at named barrier 1 + g until the worker before it arrives there. The very first turn has no
// predecessor and does not wait. The very last turn has no successor and does not arrive.
GPU_FN void take_turn(int group, int i)
{
    if (group > 0 || i > 1)
        gpu_named_sync(1 + group, 2 * GPU_WARPGROUP);
}
template <class G> GPU_FN void pass_turn(int group, int i, int n_tiles)
{
    if (group < G::COUNT - 1 || i < n_tiles - 1)
        gpu_named_arrive(1 + (group + 1) % G::COUNT, 2 * GPU_WARPGROUP);
}

// ---- exponentials

// Adds the biases of the tile's keys to the unscaled logits, hence divided by the scale. `left`
// keys of the span are in the tile; with WHOLE it is full.
template <bool WHOLE> GPU_FN void add_bias(float (&s)[16][4], const float *bias, int left)
{
#pragma unroll
    for (int n = 0; n < KEYS / 8; n++)
#pragma unroll
        for (int i = 0; i < 2; i++) {
            int key = n * 8 + (int)threadIdx.x % 4 * 2 + i;
            float b = WHOLE || key < left ? bias[key] : 0.0f;
            s[n][i] = fmaf(b, 1.0f / TILE_SCALE, s[n][i]);
            s[n][i + 2] = fmaf(b, 1.0f / TILE_SCALE, s[n][i + 2]);
        }
}

// Masks keys that a row does not see: columns from seen[0] on in the thread's first row, from
// seen[1] on in its second.
GPU_FN void mask(float (&s)[16][4], const int (&seen)[2])
{
#pragma unroll
    for (int n = 0; n < KEYS / 8; n++)
#pragma unroll
        for (int i = 0; i < 4; i++)
            if (n * 8 + (int)threadIdx.x % 4 * 2 + i % 2 >= seen[i / 2])
                s[n][i] = -INFINITY;
}

// Adds biases, and masks keys after the end of the span or, if causal, after the row's own.
GPU_FN void adjust(const call &a, const part &p, float (&s)[16][4], int i, int row)
{
    int left = p.end - i * KEYS;
    if (a.bias && left >= KEYS)
        add_bias<true>(s, a.bias + p.k0 + i * KEYS, left);
    else if (a.bias)
        add_bias<false>(s, a.bias + p.k0 + i * KEYS, left);
    if (left < KEYS || a.causal) {
        int seen[2] = {left, left};
        for (int half = 0; a.causal && half < 2; half++)
            seen[half] = min(left, row + half * 8 + 1 - i * KEYS);
        mask(s, seen);
    }
}

// Replaces logits by exponentials relative to the new maximum. ret_shrink is the factor by which
// the exponentials and sums of earlier tiles have to be multiplied.
GPU_FN void exponentials(tile_attention &r, float (&s)[16][4], float (&ret_shrink)[2])
{
    float most2[2];
#pragma unroll
    for (int half = 0; half < 2; half++) {
        float largest = r.most[half];
#pragma unroll
        for (int n = 0; n < KEYS / 8; n++)
            largest = fmaxf(largest, fmaxf(s[n][half * 2], s[n][half * 2 + 1]));
        largest = quad_max(largest); // finite: every row sees key 0
        ret_shrink[half] = gpu_exp2((r.most[half] - largest) * TILE_SCALE2);
        r.most[half] = largest;
        most2[half] = largest * TILE_SCALE2;
    }
#pragma unroll
    for (int n = 0; n < KEYS / 8; n++)
#pragma unroll
        for (int i = 0; i < 4; i++) {
            s[n][i] = gpu_exp2(fmaf(s[n][i], TILE_SCALE2, -most2[i / 2]));
            r.total[i / 2] = n + i % 2 ? r.total[i / 2] + s[n][i]
                                       : fmaf(r.total[i / 2], ret_shrink[i / 2], s[n][i]);
        }
}

// Packs the exponentials as the first operand of the product with values.
template <class T> GPU_FN void pack(uint32_t (&p)[8][4], const float (&s)[16][4])
{
#pragma unroll
    for (int n = 0; n < KEYS / 8; n++) {
        p[n / 2][n % 2 * 2] = gpu_pack(T(), s[n][0], s[n][1]);
        p[n / 2][n % 2 * 2 + 1] = gpu_pack(T(), s[n][2], s[n][3]);
    }
}

GPU_FN void shrink_sums(tile_attention &r, const float (&shrink)[2])
{
#pragma unroll
    for (int n = 0; n < 8; n++)
#pragma unroll
        for (int i = 0; i < 4; i++)
            r.sums[n][i] *= shrink[i / 2];
}

// ---- a warpgroup's queries

template <class T>
GPU_FN void store(const call &a, const part &p, const tile_attention &r, int64_t row)
{
    int64_t o_stride = (int64_t)a.heads * TILE;
    tile_store(r, row, p.nq, static_cast<T *>(a.o) + p.q0 * o_stride + blockIdx.y * TILE, o_stride,
               a.lse ? a.lse + blockIdx.y * a.lse_stride + p.q0 : nullptr);
}

template <class T, class G> GPU_FN void work(const call &a, tiles<T, G> &t, const part &p)
{
    int group = (int)threadIdx.x / GPU_WARPGROUP - 1;
    int row = (int)p.row + group * TILE + (int)threadIdx.x % GPU_WARPGROUP / 32 * 16 +
              (int)threadIdx.x % 32 / 4;
    uint64_t queries = gpu_matrix(t.q[group]);
    tile_attention r = {{-INFINITY, -INFINITY}, {0, 0}, {}};
    float s[16][4], shrink[2];
    uint32_t e[8][4]; // exponentials of the previous tile, not yet multiplied with its values
    gpu_mbarrier_wait(t.q_there, 0);
    gpu_mbarrier_wait(t.k_there[0], 0);
    start_scores(s, queries, t.k[0]);
    gpu_wgmma_wait<0>(s);
    gpu_leave(t.k_free[0]);
    adjust(a, p, s, 0, row);
    exponentials(r, s, shrink);
    pack<T>(e, s);
    if (p.n_tiles > 1)
        gpu_mbarrier_wait(t.k_there[1], 0);
    for (int i = 1; i < p.n_tiles; i++) {
        int stage = i % STAGES, last = (i - 1) % STAGES;
        take_turn(group, i);
        start_scores(s, queries, t.k[stage]);
        gpu_mbarrier_wait(t.v_there[last], (i - 1) / STAGES & 1);
        start_values(r.sums, e, t.v[last]);
        pass_turn<G>(group, i, p.n_tiles);
        gpu_wgmma_wait<1>(s); // the product with values continues
        gpu_leave(t.k_free[stage]);
        adjust(a, p, s, i, row);
        exponentials(r, s, shrink);
        // This wait ends a basic block, and it is here for that. Otherwise ptxas would move the
        // wait for the sums up, before the exponentials, which are to overlap with that product.
        if (i + 1 < p.n_tiles)
            gpu_mbarrier_wait(t.k_there[(i + 1) % STAGES], (i + 1) / STAGES & 1);
        gpu_wgmma_wait<0>(r.sums);
        gpu_leave(t.v_free[last]);
        shrink_sums(r, shrink);
        pack<T>(e, s);
    }
    int last = p.n_tiles - 1;
    gpu_mbarrier_wait(t.v_there[last % STAGES], last / STAGES & 1);
    start_values(r.sums, e, t.v[last % STAGES]);
    gpu_wgmma_wait<0>(r.sums);
    store<T>(a, p, r, row);
}

template <class T, class G>
__global__ void __launch_bounds__(G::THREADS, 1)
    attention64_hopper_kernel(const __grid_constant__ call a)
{
    constexpr int rows = G::COUNT * TILE;
    const atedm_span &span = a.spans.span[blockIdx.z];
    int64_t row = (int64_t)blockIdx.x * rows, end = span.nk;
    if (row >= span.nq)
        return;
    if (a.causal && row + rows < end)
        end = row + rows;
    const part p = {span.q0, span.k0, span.nq, row, (int)end, (int)((end + KEYS - 1) / KEYS)};
    tiles<T, G> &t = *gpu_shared_tiles<tiles<T, G>>();
    if (threadIdx.x == 0)
        init_barriers(t);
    __syncthreads();
    if (threadIdx.x < GPU_WARPGROUP) {
        gpu_fewer_registers<G::LOADER_REGISTERS>();
        if (threadIdx.x < 32)
            load(a, t, p);
    } else {
        gpu_more_registers<G::WORKER_REGISTERS>();
        work(a, t, p);
    }
}

// The number of blocks with `queries` queries each.
int64_t count_blocks(const call &a, int64_t queries)
{
    int64_t blocks = 0;
    for (int32_t i = 0; i < a.spans.n; i++)
        blocks += (a.spans.span[i].nq + queries - 1) / queries;
    return blocks * a.heads;
}

// A multiprocessor runs one block at a time. Larger blocks are better: they load keys and values
// for more queries, and three workers fill each other's gaps better than two. Smaller blocks win
// where larger ones would lose more than an eighth of the time to a mostly empty last round.
bool is_small_better(const call &a, int multiprocessors)
{
    int64_t rounds[2];
    for (int i = 0; i < 2; i++)
        rounds[i] = (count_blocks(a, (2 + i) * TILE) + multiprocessors - 1) / multiprocessors;
    return 8 * 2 * rounds[0] < 7 * 3 * rounds[1];
}

template <class T, class G> cudaError_t attend(const call &a, cudaStream_t stream)
{
    unsigned x = gpu_blocks(gpu_most_queries(&a.spans), G::COUNT * TILE);
    return GPU_LAUNCH((attention64_hopper_kernel<T, G>),
                      dim3(x, (unsigned)a.heads, (unsigned)a.spans.n), dim3(G::THREADS),
                      sizeof(tiles<T, G>), stream, a);
}

template <class T>
cudaError_t attend_rounds(const call &a, int multiprocessors, cudaStream_t stream)
{
    return is_small_better(a, multiprocessors) ? attend<T, groups<2>>(a, stream)
                                               : attend<T, groups<3>>(a, stream);
}

} // namespace

cudaError_t atedm_cuda_launch_attention64_hopper(atedm_dtype act, const atedm_attention_args *args,
                                                 const atedm_cuda_spans *spans,
                                                 const atedm_cuda_hopper_maps *maps,
                                                 int multiprocessors, cudaStream_t stream)
{
    call a = {};
    a.bias = args->key_bias;
    a.o = args->o;
    a.lse = args->lse;
    a.lse_stride = args->lse_stride;
    a.heads = args->heads;
    a.causal = args->causal;
    a.maps = *maps;
    a.spans = *spans;
    return act == ATEDM_BF16 ? attend_rounds<gpu_bf16>(a, multiprocessors, stream)
                             : attend_rounds<gpu_f16>(a, multiprocessors, stream);
}
