// The kernels of the cuda backend as C functions. Each enqueues one operation, or one step of one,
// on a stream and returns what the launch returned. Where nothing else is said, shapes, dtypes and
// formulas are those of the operation in kernels.h. Pointers are [device]; structs are copied into
// the launch. Numbers of rows, samples and elements are above 0.
#ifndef ATEDM_KERNELS_CUDA_LAUNCH_H
#define ATEDM_KERNELS_CUDA_LAUNCH_H

#include "kernels/kernels.h"

#include <cuda.h>
#include <cuda_runtime_api.h>

#ifdef __cplusplus
extern "C" {
#endif

// Most spans, and most values from [host] memory, of one launch; more of them are more launches.
// They travel as arguments of the kernel (4 KiB at most), so that nothing is staged and nobody
// waits.
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
// Rows first .. first + ids->n - 1 of y, where ids->id[i] is that of row first + i. table and
// position: act.
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
// Elements of F32 scratch memory that a group norm takes.
int64_t atedm_cuda_group_norm_scratch(const atedm_group_norm_args *args, int64_t c);
cudaError_t atedm_cuda_launch_group_norm(atedm_dtype act, const float *scale, const float *shift,
                                         const atedm_group_norm_args *args, int64_t c,
                                         float *scratch, cudaStream_t stream);

// ---- conv.cu

// y [n * ho * wo, out] = activation(x * weight + bias) + channel_add + residual, as an implicit
// matrix product: a row of y is a pixel, and its inputs are the kernel x kernel window around it. A
// linear layer is a convolution with kernel 1, stride 1, n = 1, h = rows and w = 1.
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

// ---- conv_thin.cu, which conv.cu calls: few channels on one side, 16-bit types

bool atedm_cuda_conv_is_thin(const atedm_cuda_conv_call *conv);
cudaError_t atedm_cuda_launch_conv_thin(atedm_dtype act, const atedm_cuda_conv_call *conv,
                                        cudaStream_t stream);

// ---- linear_hopper.cu

// y [rows, out] = x [rows, in] weight [out, in]^T + residual + bias, for devices of compute
// capability 9.0, cut into tiles as hopper_linear.c decides. A block computes one tile. A cluster
// is `down` x `across` blocks: blocks side by side (across) have the same rows, blocks one below
// the other (down) the same outputs. Clusters are numbered along the outputs first, then along the
// rows.
typedef struct atedm_cuda_linear_hopper {
    // Tensor maps. Their boxes have ATEDM_CUDA_HOPPER_CHANNELS columns and as many rows as one
    // block of a cluster loads: the tile's, divided by the blocks that share them.
    CUtensorMap x, weight;
    const void *bias;     // act [out] or NULL
    const void *residual; // act [rows, out] or NULL; may be y
    void *y;              // act [rows, out]; F32 where `sums`
    int64_t rows;
    int32_t out;
    int32_t steps;                   // boxes along a row of x
    bool sums;                       // y is the products' sums; there are no bias and residual
    bool is_bias_first;              // the bias is added before the residual
    int32_t tile_rows, tile_outputs; // 64 x 64, 64 x 128, 128 x 128 or 128 x 160
    int32_t down, across;            // powers of two, 4 blocks together at most
    int32_t clusters_across;         // along the outputs
} atedm_cuda_linear_hopper;
cudaError_t atedm_cuda_launch_linear_hopper(atedm_dtype act, const atedm_cuda_linear_hopper *linear,
                                            unsigned blocks, cudaStream_t stream);
// How many of its clusters of 2 or 4 blocks run at once on the current device.
cudaError_t atedm_cuda_linear_hopper_clusters(int cluster, int *ret_clusters);

// ---- conv_hopper.cu

// Convolutions of stride 1 for devices of compute capability 9.0, cut into parts as hopper_conv.c
// decides. A part is a rectangle of a sample's pixels, 2^log_width wide and pixels / 2^log_width
// high, times some outputs. Parts are numbered along the outputs first, then along x, y and the
// samples.
typedef struct atedm_cuda_conv_hopper {
    // Tensor map of [n, h, w, in]; its boxes have ATEDM_CUDA_HOPPER_CHANNELS channels, a part's
    // width, and kernel - 1 rows more than a part's height.
    CUtensorMap x;
    // Tensor map of [out, kernel * kernel * in]; its boxes have ATEDM_CUDA_HOPPER_CHANNELS columns
    // and a part's outputs.
    CUtensorMap weight;
    const float *bias;       // [out] or NULL
    const void *channel_add; // act [n, out] or NULL
    const void *residual;    // act [n, h, w, out] or NULL; may be y
    void *y;                 // act [n, h, w, out]
    int32_t in, out, kernel, h, w;
    int32_t log_width, pixels, outputs; // of a part: pixels 128 or 256, outputs 128 or 160
    int32_t down, across, columns;      // parts of a sample: in y, in x, along the outputs
    int32_t parts;                      // of all samples
} atedm_cuda_conv_hopper;
#define ATEDM_CUDA_HOPPER_CHANNELS 64     // 128 bytes, a row of a swizzled box
#define ATEDM_CUDA_HOPPER_WIDE 16         // most columns of a part, where kernel > 1
#define ATEDM_CUDA_HOPPER_OUTPUTS 160     // of a part, where they divide a layer's
#define ATEDM_CUDA_HOPPER_FEW_OUTPUTS 128 // of a part, else
cudaError_t atedm_cuda_launch_conv_hopper(atedm_dtype act, const atedm_cuda_conv_hopper *conv,
                                          unsigned blocks, cudaStream_t stream);

// ---- attention.cu, attention64.cu, attention64_short.cu, attention512.cu

typedef struct atedm_cuda_spans {
    int32_t n;
    atedm_span span[ATEDM_CUDA_SPANS];
} atedm_cuda_spans;
// Largest head_dim of attention.cu: what fits into a block's shared memory.
#define ATEDM_CUDA_MAX_HEAD_DIM 1024
// These take their spans from `spans`; those of args are not looked at.
cudaError_t atedm_cuda_launch_attention(atedm_dtype act, const atedm_attention_args *args,
                                        const atedm_cuda_spans *spans, cudaStream_t stream);
// Whether the kernels for heads of 64 on tensor cores take this: head_dim 64, a 16-bit act, and
// rows aligned to 16 bytes of all `n` matrices, whose strides are in elements.
bool atedm_cuda_is_head64(atedm_dtype act, int head_dim, const void *const *rows,
                          const int64_t *strides, int n);
cudaError_t atedm_cuda_launch_attention64(atedm_dtype act, const atedm_attention_args *args,
                                          const atedm_cuda_spans *spans, cudaStream_t stream);
// The same for spans with at most ATEDM_CUDA_SHORT_KEYS keys, neither causal nor with key_bias.
// `multiprocessors`: of the device.
#define ATEDM_CUDA_SHORT_KEYS 80
cudaError_t atedm_cuda_launch_attention64_short(atedm_dtype act, const atedm_attention_args *args,
                                                const atedm_cuda_spans *spans, int multiprocessors,
                                                cudaStream_t stream);
// Tensor cores for other heads: head_dim a multiple of 8, ATEDM_CUDA_HEAD512 at most, else as
// atedm_cuda_is_head64.
#define ATEDM_CUDA_HEAD512 512
bool atedm_cuda_is_head512(atedm_dtype act, int head_dim, const void *const *rows,
                           const int64_t *strides, int n);
cudaError_t atedm_cuda_launch_attention512(atedm_dtype act, const atedm_attention_args *args,
                                           const atedm_cuda_spans *spans, cudaStream_t stream);

// ---- attention64_hopper.cu

// attention64.cu's for devices of compute capability 9.0. It reads by tensor maps, which hopper.c
// makes: of matrices [rows, heads * 64], with boxes of 64 columns.
typedef struct atedm_cuda_hopper_maps {
    CUtensorMap q, k, v;
} atedm_cuda_hopper_maps;
#define ATEDM_CUDA_HOPPER_QUERIES 64 // rows of a box of q
#define ATEDM_CUDA_HOPPER_KEYS 128   // rows of a box of k and v
// `multiprocessors`: of the device.
cudaError_t atedm_cuda_launch_attention64_hopper(atedm_dtype act, const atedm_attention_args *args,
                                                 const atedm_cuda_spans *spans,
                                                 const atedm_cuda_hopper_maps *maps,
                                                 int multiprocessors, cudaStream_t stream);

// ---- trial.cu

// Pseudorandom matrices, the same each time for a seed, which show in which order an algorithm adds
// up. In CANCELS, ROWS and ONE_ROW a column and the one as far from the row's other end have the
// same magnitude, 2^-8 to 2^7; in CANCELS they have opposite signs. The product of a row of CANCELS
// and one of the other two is 0 but for rounding, which depends on the order. In OPPOSED the rows
// below the first one are its negatives: added to a sum, the two leave it rounded in a way that
// depends on which comes first.
typedef enum atedm_cuda_noise {
    ATEDM_CUDA_NOISE_PLAIN, // uniform in [-1, 1]
    ATEDM_CUDA_NOISE_CANCELS,
    ATEDM_CUDA_NOISE_ROWS,
    ATEDM_CUDA_NOISE_ONE_ROW, // as ROWS, all rows alike
    ATEDM_CUDA_NOISE_OPPOSED, // +-2^15
} atedm_cuda_noise;
// y: act [rows, columns], rows `stride` elements apart.
cudaError_t atedm_cuda_launch_noise(atedm_dtype act, atedm_cuda_noise kind, uint32_t seed, void *y,
                                    int64_t rows, int64_t columns, int64_t stride,
                                    cudaStream_t stream);
// How many of the 32-bit words of a and b differ: the sum over counts [ATEDM_CUDA_DIFFERENCES].
#define ATEDM_CUDA_DIFFERENCES 256
cudaError_t atedm_cuda_launch_differences(const void *a, const void *b, int64_t words,
                                          float *counts, cudaStream_t stream);

// ---- rank.cu, rank64.cu, rank64_hopper.cu

// A ranking of some spans, and the scores of every head while they are iterated. In scratch memory
// rows are packed, the spans one behind the other: row i of span s stands at span_at[s] + i, and
// its key j at key_at[s] + j.
typedef struct atedm_cuda_rank {
    int32_t n; // spans
    int32_t heads, head_dim;
    bool cross, is_head64;
    const void *q, *k; // act
    int64_t q_stride, k_stride, lse_stride;
    const float *lse;
    float *scores[2]; // scratch [heads, rows]: s^t in scores[t % 2]
    float *keys;      // scratch [heads, n_keys]: k of the cross iteration
    int32_t *last;    // scratch [n]: the number of the span's last iteration; 0 while it goes on
    // Scratch [n, heads, change_blocks, change_warps]: parts of |s^t - s^(t-1)|_1. Of each head
    // only the first blocks are used: as many as rank64_hopper.cu has parts of its keys, else one.
    float *changes;
    float *out;              // by row of q: the scores of all heads together
    int32_t change_warps;    // ATEDM_CUDA_HOPPER_RANK_WARPS with rank64_hopper.cu, else 1
    int32_t multiprocessors; // the most that blocks of rank64_hopper.cu may stay on
    // Scratch: how many parts of a launch of rank64_hopper.cu blocks took after their first ones.
    int32_t *taken;
    float *offsets[2];
    int64_t rows, n_keys, change_blocks, offset_rows;
    int64_t span_at[ATEDM_CUDA_SPANS], key_at[ATEDM_CUDA_SPANS], offset_at[ATEDM_CUDA_SPANS];
    atedm_span span[ATEDM_CUDA_SPANS];
    atedm_rank_params params[ATEDM_CUDA_SPANS];
} atedm_cuda_rank;
cudaError_t atedm_cuda_launch_rank_begin(const atedm_cuda_rank *rank, cudaStream_t stream);
// Tensor maps for rank64_hopper.cu: q as a matrix [rows, heads * 64] with boxes of
// ATEDM_CUDA_HOPPER_RANK_QUERIES rows, k likewise with ATEDM_CUDA_HOPPER_KEYS; each of the offsets
// as a matrix [heads, 2 * offset_rows] of 16-bit elements (two for each float; copies do not look
// at them) with boxes of one row and as many queries.
typedef struct atedm_cuda_hopper_rank_maps {
    CUtensorMap q, k, offsets[2];
} atedm_cuda_hopper_rank_maps;
#define ATEDM_CUDA_HOPPER_RANK_QUERIES 128
#define ATEDM_CUDA_HOPPER_RANK_WARPS 8 // with keys
// Iteration t = 1, 2, ..: s^t from s^(t-1), and whether it is a span's last. Spans that have ended
// do nothing. maps: NULL: not by rank64_hopper.cu.
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

// source: the own slots of kept tokens, -1 for pruned ones.
cudaError_t atedm_cuda_launch_source_own(const int32_t *kept, int32_t *source,
                                         const atedm_cuda_prune_spans *spans, cudaStream_t stream);
// The following write the slots of pruned tokens only.
cudaError_t atedm_cuda_launch_source_nearest(const int32_t *kept, int32_t *source,
                                             const int32_t *place, int64_t width,
                                             const atedm_cuda_prune_spans *spans,
                                             cudaStream_t stream);
cudaError_t atedm_cuda_launch_source_attention(atedm_dtype act, const int32_t *kept,
                                               int32_t *source, const atedm_source_map *map,
                                               const atedm_cuda_prune_spans *spans,
                                               cudaStream_t stream);
// Bytes of [device] scratch memory that the kernels on tensor cores take.
int64_t atedm_cuda_source64_scratch(const atedm_cuda_prune_spans *spans);
cudaError_t atedm_cuda_launch_source_attention64(atedm_dtype act, const int32_t *kept,
                                                 int32_t *source, const atedm_source_map *map,
                                                 void *scratch, const atedm_cuda_prune_spans *spans,
                                                 cudaStream_t stream);
cudaError_t atedm_cuda_launch_source_weights(const int32_t *source, const float *before,
                                             float *weights, const atedm_cuda_prune_spans *spans,
                                             cudaStream_t stream);
// Rows whose cosines are compared, and scratch memory that atedm_cuda_launch_source_norms fills for
// the two functions behind it.
typedef struct atedm_cuda_cosine {
    const void *x; // act [rows, c]
    int64_t c;
    // 1 / length of each kept row, in entry kept_first + slot - first_slot; 0 where that is 0.
    float *norms;
    int64_t first_slot; // the least kept_first of the spans
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
