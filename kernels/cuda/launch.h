// The kernels of the cuda backend as C functions: each enqueues one operation, or one step of one,
// on a stream and returns what the launch returned. Shapes, dtypes and formulas are those of
// kernels.h. Pointers are [device]; structs go with the launch. Counts are above 0.
#ifndef ATEDM_KERNELS_CUDA_LAUNCH_H
#define ATEDM_KERNELS_CUDA_LAUNCH_H

#include "kernels/kernels.h"

#include <cuda.h>
#include <cuda_runtime_api.h>

#ifdef __cplusplus
extern "C" {
#endif

// Spans, and values that stand in [host] memory, travel as arguments of the kernel (4 KiB at most),
// so that nothing is staged and nobody waits; more of them are more launches.
#define ATEDM_CUDA_SPANS 32
#define ATEDM_CUDA_VALUES 256

// ---- elementwise.cu

cudaError_t atedm_cuda_launch_activate(atedm_dtype act, int activation, const void *x, void *y,
                                       int64_t count, cudaStream_t stream);
cudaError_t atedm_cuda_launch_add(atedm_dtype act, const void *a, const void *b, void *y,
                                  int64_t count, cudaStream_t stream);
cudaError_t atedm_cuda_launch_geglu(atedm_dtype act, const void *x, void *y, int64_t rows,
                                    int64_t f, cudaStream_t stream);
// y = x in F32.
cudaError_t atedm_cuda_launch_to_f32(atedm_dtype act, const void *x, float *y, int64_t count,
                                     cudaStream_t stream);
// y = activation(sums + bias) + residual; sums F32 [rows, out], bias F32 [out] or NULL, residual
// act [rows, out] or NULL.
cudaError_t atedm_cuda_launch_epilogue(atedm_dtype act, int activation, const float *sums,
                                       const float *bias, const void *residual, void *y,
                                       int64_t rows, int64_t out, cudaStream_t stream);
// y = act(a x).
cudaError_t atedm_cuda_launch_scale(atedm_dtype act, const float *x, double a, void *y,
                                    int64_t count, cudaStream_t stream);
cudaError_t atedm_cuda_launch_step(atedm_dtype act, const atedm_step_args *args,
                                   cudaStream_t stream);
cudaError_t atedm_cuda_launch_image(atedm_dtype act, const void *x, uint8_t *y, int64_t count,
                                    cudaStream_t stream);

// ---- embed.cu

typedef struct atedm_cuda_ids {
    int32_t n;
    int32_t id[ATEDM_CUDA_VALUES];
} atedm_cuda_ids;
// Rows first .. first + ids->n - 1 of y; table and position act.
cudaError_t atedm_cuda_launch_embed(atedm_dtype act, const void *table, const void *position,
                                    const atedm_cuda_ids *ids, int64_t first, int64_t tokens,
                                    int64_t c, void *y, cudaStream_t stream);
typedef struct atedm_cuda_numbers {
    int32_t n;
    double value[ATEDM_CUDA_VALUES];
} atedm_cuda_numbers;
cudaError_t atedm_cuda_launch_sinusoid(atedm_dtype act, const atedm_cuda_numbers *values,
                                       int64_t dim, void *y, cudaStream_t stream);

// ---- move.cu: whole rows, as bytes

cudaError_t atedm_cuda_launch_upsample2(size_t pixel_bytes, const void *x, void *y, int64_t n,
                                        int64_t h, int64_t w, cudaStream_t stream);
cudaError_t atedm_cuda_launch_concat(size_t a_bytes, const void *a, size_t b_bytes, const void *b,
                                     void *y, int64_t rows, cudaStream_t stream);
// y [rows]: the one row x each time.
cudaError_t atedm_cuda_launch_repeat(const void *x, void *y, size_t row_bytes, int64_t rows,
                                     cudaStream_t stream);
typedef struct atedm_cuda_gather_spans {
    int32_t n;
    atedm_gather_span span[ATEDM_CUDA_SPANS];
} atedm_cuda_gather_spans;
// The most rows that one of the spans has.
static inline int64_t atedm_cuda_most_rows(const atedm_cuda_gather_spans *spans)
{
    int64_t most = 0;
    for (int32_t i = 0; i < spans->n; i++)
        most = spans->span[i].n > most ? spans->span[i].n : most;
    return most;
}
cudaError_t atedm_cuda_launch_gather(const void *x, const int32_t *index, void *y, size_t row_bytes,
                                     const atedm_cuda_gather_spans *spans, cudaStream_t stream);

// y[to + i] += factor x[from + index[index_first + i]], rows of c; in elementwise.cu.
cudaError_t atedm_cuda_launch_add_rows(atedm_dtype act, const void *x, const int32_t *index,
                                       float factor, void *y, int64_t c,
                                       const atedm_cuda_gather_spans *spans, cudaStream_t stream);

// ---- norm.cu

cudaError_t atedm_cuda_launch_layer_norm(atedm_dtype act, const float *scale, const float *shift,
                                         const atedm_layer_norm_args *args, int64_t c,
                                         cudaStream_t stream);
// F32 elements of scratch that a group norm wants.
int64_t atedm_cuda_group_norm_scratch(const atedm_group_norm_args *args, int64_t c);
cudaError_t atedm_cuda_launch_group_norm(atedm_dtype act, const float *scale, const float *shift,
                                         const atedm_group_norm_args *args, int64_t c,
                                         float *scratch, cudaStream_t stream);

// ---- conv.cu

// y [rows, out] = activation(x * w + bias) + channel_add + residual, as an implicit matrix product:
// row r of y is a pixel, its inputs the kernel x kernel window around it. kernel 1 and stride 1
// with n = 1, h = rows, w = 1 is a linear layer.
typedef struct atedm_cuda_conv_call {
    const void *x;           // act [n, h, w, in]
    const void *weight;      // act [out, weight_stride]: [kernel, kernel, in], then zeros
    const float *bias;       // [out] or NULL
    const void *channel_add; // act [n, out] or NULL
    const void *residual;    // act [n, ho, wo, out] or NULL; may be y
    void *y;                 // act [n, ho, wo, out]
    int64_t n, h, w, ho, wo;
    int32_t in, out, kernel, stride, activation;
    int64_t weight_stride; // a multiple of ATEDM_CUDA_WEIGHT_STEP
} atedm_cuda_conv_call;
#define ATEDM_CUDA_WEIGHT_STEP 32
cudaError_t atedm_cuda_launch_conv(atedm_dtype act, const atedm_cuda_conv_call *conv,
                                   cudaStream_t stream);

// ---- conv_thin.cu: for conv.cu, convolutions of 16-bit types with few channels on one side

bool atedm_cuda_conv_is_thin(const atedm_cuda_conv_call *conv);
cudaError_t atedm_cuda_launch_conv_thin(atedm_dtype act, const atedm_cuda_conv_call *conv,
                                        cudaStream_t stream);

// ---- linear_hopper.cu

// y [rows, out] = x [rows, in] w [out, in]^T + residual + bias, for devices of compute capability
// 9.0, and what hopper_linear.c decides of it. `x`, `weight`: tensor maps with boxes of
// ATEDM_CUDA_HOPPER_CHANNELS columns and the rows that a block loads of its tile's.
//
// A cluster is `down` x `across` blocks, a tile each: those beside each other have the same rows,
// those below each other the same outputs. Clusters are numbered by rows and outputs, the latter
// first.
typedef struct atedm_cuda_linear_hopper {
    CUtensorMap x, weight;
    const void *bias;     // act [out] or NULL
    const void *residual; // act [rows, out] or NULL; may be y
    void *y;              // act [rows, out]; F32 where sums, without bias and residual
    int64_t rows;
    int32_t out, steps;              // outputs; boxes along a row of x
    bool sums, is_bias_first;        // which goes before the residual
    int32_t tile_rows, tile_outputs; // 64 times 64 or 128; 128 times 128 or 160
    int32_t down, across;            // at most ATEDM_CUDA_HOPPER_CLUSTER together
    int32_t clusters_across;         // along the outputs
} atedm_cuda_linear_hopper;
#define ATEDM_CUDA_HOPPER_CLUSTER 4
cudaError_t atedm_cuda_launch_linear_hopper(atedm_dtype act, const atedm_cuda_linear_hopper *linear,
                                            unsigned blocks, cudaStream_t stream);

// ---- conv_hopper.cu

// conv.cu's with stride 1, for devices of compute capability 9.0, and what hopper_conv.c decides of
// them. `x`: a tensor map of [n, h, w, in], with boxes of ATEDM_CUDA_HOPPER_CHANNELS channels, a
// part's width, and its height and kernel - 1 more; `weight`: of [out, kernel * kernel * in], with
// boxes of as many channels and a part's outputs.
//
// A part is 2^log_width x (pixels / 2^log_width) pixels of a sample times some outputs. They are
// numbered by sample, row, column and output, the last one first.
typedef struct atedm_cuda_conv_hopper {
    CUtensorMap x, weight;
    const float *bias;       // [out] or NULL
    const void *channel_add; // act [n, out] or NULL
    const void *residual;    // act [n, h, w, out] or NULL; may be y
    void *y;                 // act [n, h, w, out]
    int32_t in, out, kernel, h, w;
    int32_t log_width, pixels, outputs;   // of a part: pixels 128 or 256, outputs 128 or 160
    int32_t down, across, columns, parts; // of a sample in y, in x, in outputs; in all
} atedm_cuda_conv_hopper;
#define ATEDM_CUDA_HOPPER_CHANNELS 64
#define ATEDM_CUDA_HOPPER_WIDE 16 // most columns of a part, where the window is not a pixel
#define ATEDM_CUDA_HOPPER_OUTPUTS 160
#define ATEDM_CUDA_HOPPER_FEW_OUTPUTS 128
cudaError_t atedm_cuda_launch_conv_hopper(atedm_dtype act, const atedm_cuda_conv_hopper *conv,
                                          unsigned blocks, cudaStream_t stream);

// ---- attention.cu, attention64.cu, attention64_short.cu, attention512.cu

typedef struct atedm_cuda_spans {
    int32_t n;
    atedm_span span[ATEDM_CUDA_SPANS];
} atedm_cuda_spans;
// Largest head_dim: what fits into a block's shared memory.
#define ATEDM_CUDA_MAX_HEAD_DIM 1024
// Takes the spans from `spans`, not from args.
cudaError_t atedm_cuda_launch_attention(atedm_dtype act, const atedm_attention_args *args,
                                        const atedm_cuda_spans *spans, cudaStream_t stream);
// The same on tensor cores: head_dim 64, 16-bit act, rows aligned to 16 bytes. Whether args are so.
bool atedm_cuda_is_head64(atedm_dtype act, int head_dim, const void *const *rows,
                          const int64_t *strides, int n);
cudaError_t atedm_cuda_launch_attention64(atedm_dtype act, const atedm_attention_args *args,
                                          const atedm_cuda_spans *spans, cudaStream_t stream);
// attention64's, neither causal nor biased, of spans with at most ATEDM_CUDA_SHORT_KEYS keys.
// `multiprocessors`: of the device.
#define ATEDM_CUDA_SHORT_KEYS 80
cudaError_t atedm_cuda_launch_attention64_short(atedm_dtype act, const atedm_attention_args *args,
                                                const atedm_cuda_spans *spans, int multiprocessors,
                                                cudaStream_t stream);
// And with a head_dim that is a multiple of 8, ATEDM_CUDA_HEAD512 at most.
#define ATEDM_CUDA_HEAD512 512
bool atedm_cuda_is_head512(atedm_dtype act, int head_dim, const void *const *rows,
                           const int64_t *strides, int n);
cudaError_t atedm_cuda_launch_attention512(atedm_dtype act, const atedm_attention_args *args,
                                           const atedm_cuda_spans *spans, cudaStream_t stream);

// ---- attention64_hopper.cu

// attention64's, for devices of compute capability 9.0. Where it reads, as tensor maps of [rows,
// heads * 64], with boxes of 64 columns: hopper.c makes them.
typedef struct atedm_cuda_hopper_maps {
    CUtensorMap q, k, v;
} atedm_cuda_hopper_maps;
#define ATEDM_CUDA_HOPPER_QUERIES 64 // rows of a box of q
#define ATEDM_CUDA_HOPPER_KEYS 128   // of k and v
// `multiprocessors`: of the device.
cudaError_t atedm_cuda_launch_attention64_hopper(atedm_dtype act, const atedm_attention_args *args,
                                                 const atedm_cuda_spans *spans,
                                                 const atedm_cuda_hopper_maps *maps,
                                                 int multiprocessors, cudaStream_t stream);

// ---- trial.cu

// Random values, the same each time for a seed. All but plain and opposed ones are from 2^-8 to
// 2^7, and negative ones: a row that cancels, times one of the others, sums to 0 but for rounding,
// which depends on the order. Opposed ones are for what is added to sums: a first row of +-2^15,
// and its negatives below. Both added to a sum leave it rounded, in a way that depends on which
// comes first.
typedef enum atedm_cuda_noise {
    ATEDM_CUDA_NOISE_PLAIN, // from [-1, 1]
    ATEDM_CUDA_NOISE_CANCELS,
    ATEDM_CUDA_NOISE_ROWS,
    ATEDM_CUDA_NOISE_ONE_ROW, // all of them alike
    ATEDM_CUDA_NOISE_OPPOSED,
} atedm_cuda_noise;
// y [rows, columns]
cudaError_t atedm_cuda_launch_noise(atedm_dtype act, atedm_cuda_noise kind, uint32_t seed, void *y,
                                    int64_t rows, int64_t columns, int64_t stride,
                                    cudaStream_t stream);
// How many words of 32 bits differ: the sum of counts [ATEDM_CUDA_DIFFERENCES].
#define ATEDM_CUDA_DIFFERENCES 256
cudaError_t atedm_cuda_launch_differences(const void *a, const void *b, int64_t words,
                                          float *counts, cudaStream_t stream);

// ---- rank.cu, rank64.cu, rank64_hopper.cu

// Scores of every head while they are iterated. Rows stand compactly, the spans one after the
// other: row i of span s at span_at[s] + i, of `rows` in all; keys likewise.
typedef struct atedm_cuda_rank {
    int32_t n, heads, head_dim;
    bool cross, is_head64;
    const void *q, *k; // act
    int64_t q_stride, k_stride, lse_stride;
    const float *lse;
    float *scores[2]; // [heads, rows]: s^t in scores[t % 2]
    float *keys;      // [heads, n_keys]: k of the cross iteration
    int32_t *last;    // [n]: 0 while the span goes on, then the number of its last iteration
    float *changes;   // [n, heads, change_blocks, change_warps]: parts of |s^t - s^(t-1)|_1, the
                    // first blocks of each head: as many as hopper's parts have its keys, else one
    float *out;              // by row of q
    int32_t change_warps;    // ATEDM_CUDA_HOPPER_RANK_WARPS where hopper's are, else 1
    int32_t multiprocessors; // that blocks which stay may take
    int32_t *taken;          // parts of a launch that blocks took beyond their first ones
    // hopper's: [heads, offset_rows], row i of span s at offset_at[s] + i, where a box begins
    float *offsets[2]; // log2 s^t - lse log2 e in offsets[t % 2]; -inf behind the span's last row
    int64_t rows, n_keys, change_blocks, offset_rows;
    int64_t span_at[ATEDM_CUDA_SPANS], key_at[ATEDM_CUDA_SPANS], offset_at[ATEDM_CUDA_SPANS];
    atedm_span span[ATEDM_CUDA_SPANS];
    atedm_rank_params params[ATEDM_CUDA_SPANS];
} atedm_cuda_rank;
cudaError_t atedm_cuda_launch_rank_begin(const atedm_cuda_rank *rank, cudaStream_t stream);
// hopper's: q as a matrix of [rows, heads * 64] with boxes of ATEDM_CUDA_HOPPER_RANK_QUERIES rows,
// k likewise with ATEDM_CUDA_HOPPER_KEYS; offsets as [heads, 2 offset_rows] of 16 bits, which
// copies leave as they are, with boxes of one row and as many queries.
typedef struct atedm_cuda_hopper_rank_maps {
    CUtensorMap q, k, offsets[2];
} atedm_cuda_hopper_rank_maps;
#define ATEDM_CUDA_HOPPER_RANK_QUERIES 128
#define ATEDM_CUDA_HOPPER_RANK_WARPS 8 // with keys
// Iteration t = 1, 2, ..: s^t from s^(t-1), and whether it is the last. Spans that have ended do
// nothing. `maps`: for rank64_hopper.cu; NULL: portable.
cudaError_t atedm_cuda_launch_rank_iterate(atedm_dtype act, const atedm_cuda_rank *rank,
                                           const atedm_cuda_hopper_rank_maps *maps, int t,
                                           cudaStream_t stream);
cudaError_t atedm_cuda_launch_rank_end(const atedm_cuda_rank *rank, cudaStream_t stream);
// A part of rank_iterate on tensor cores: A^T s^(t-1), which is s^t or, where cross, the keys.
cudaError_t atedm_cuda_launch_columns64(atedm_dtype act, const atedm_cuda_rank *rank, int t,
                                        cudaStream_t stream);
// The same for devices of compute capability 9.0; self: the changes too.
cudaError_t atedm_cuda_launch_columns64_hopper(atedm_dtype act, const atedm_cuda_rank *rank,
                                               const atedm_cuda_hopper_rank_maps *maps, int t,
                                               cudaStream_t stream);

// ---- select.cu

typedef struct atedm_cuda_random_spans {
    int32_t n;
    atedm_random_span span[ATEDM_CUDA_SPANS];
} atedm_cuda_random_spans;
cudaError_t atedm_cuda_launch_random(const uint64_t *draws, const float *weights, float *scores,
                                     const atedm_cuda_random_spans *spans, cudaStream_t stream);
typedef struct atedm_cuda_prune_spans {
    int32_t n;
    atedm_prune_span span[ATEDM_CUDA_SPANS];
} atedm_cuda_prune_spans;
cudaError_t atedm_cuda_launch_select(const float *scores, int32_t *kept,
                                     const atedm_cuda_prune_spans *spans, cudaStream_t stream);

// ---- source.cu, source64.cu

// Own slots of kept tokens; pruned tokens become -1.
cudaError_t atedm_cuda_launch_source_own(const int32_t *kept, int32_t *source,
                                         const atedm_cuda_prune_spans *spans, cudaStream_t stream);
// Pruned tokens only, each of these.
cudaError_t atedm_cuda_launch_source_nearest(const int32_t *kept, int32_t *source,
                                             const int32_t *place, int64_t width,
                                             const atedm_cuda_prune_spans *spans,
                                             cudaStream_t stream);
cudaError_t atedm_cuda_launch_source_attention(atedm_dtype act, const int32_t *kept,
                                               int32_t *source, const atedm_source_map *map,
                                               const atedm_cuda_prune_spans *spans,
                                               cudaStream_t stream);
// Bytes of scratch that those on tensor cores want.
int64_t atedm_cuda_source64_scratch(const atedm_cuda_prune_spans *spans);
cudaError_t atedm_cuda_launch_source_attention64(atedm_dtype act, const int32_t *kept,
                                                 int32_t *source, const atedm_source_map *map,
                                                 void *scratch, const atedm_cuda_prune_spans *spans,
                                                 cudaStream_t stream);
// A warp a slot: atedm_source_weights.
cudaError_t atedm_cuda_launch_source_weights(const int32_t *source, const float *before,
                                             float *weights, const atedm_cuda_prune_spans *spans,
                                             cudaStream_t stream);
// Rows of c channels. norms: F32 scratch by slot of the kept lists, which the first one writes for
// the others: 1 over a row's length in entry kept_first + slot - first_slot.
typedef struct atedm_cuda_cosine {
    const void *x; // act
    int64_t c;
    float *norms;
    int64_t first_slot;
} atedm_cuda_cosine;
cudaError_t atedm_cuda_launch_source_norms(atedm_dtype act, const int32_t *kept,
                                           const atedm_cuda_cosine *cosine,
                                           const atedm_cuda_prune_spans *spans,
                                           cudaStream_t stream);
cudaError_t atedm_cuda_launch_source_cosine(atedm_dtype act, const int32_t *kept, int32_t *source,
                                            const atedm_cuda_cosine *cosine,
                                            const atedm_cuda_prune_spans *spans,
                                            cudaStream_t stream);
// For rows that atedm_cuda_is_cosine64 takes.
bool atedm_cuda_is_cosine64(atedm_dtype act, const void *x, int64_t c);
cudaError_t atedm_cuda_launch_source_cosine64(atedm_dtype act, const int32_t *kept, int32_t *source,
                                              const atedm_cuda_cosine *cosine, void *scratch,
                                              const atedm_cuda_prune_spans *spans,
                                              cudaStream_t stream);

#ifdef __cplusplus
}
#endif

#endif
