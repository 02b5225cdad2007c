// The compute backends behind one header: devices, streams, weights, and every tensor operation
// that the pipeline needs.
//
// A device is one backend on one piece of hardware. A stream is an ordered queue of operations on a
// device: operations are enqueued and may run later; results are there after atedm_stream_sync.
// Operations return nothing: the first failure is kept by the stream, later operations on it do
// nothing, and atedm_stream_sync reports it. All streams of a device belong to one thread at a
// time: an operation may wait for the whole device.
//
// Notation: "act" is the stream's activation dtype (F32, BF16 or F16). Pointers marked [device]
// point into device memory (atedm_device_alloc); pointers marked [host] are read before the call
// returns. A list in brackets behind a name is the tensor's shape: x [rows, c]. All tensors are
// dense and row-major unless a row stride is given. Feature maps are
// channels-last: [n, h, w, c]; a token matrix is [rows, c]; a feature map is the token matrix
// [n*h*w, c]. Inputs and outputs do not overlap, unless the operation says that they may be the
// same buffer.
//
// A sample's result does not depend on the other samples of the call, not even in one bit.
//
// Wrong arguments (NULL pointers, dimensions below 1, sizes over the limit, regions that overlap,
// weights of another operation) make the stream fail with ATEDM_ERR_INVALID or ATEDM_ERR_LIMIT.
// Only the number of rows, samples, spans or elements may be 0: then the operation does nothing. On
// the dry backend regions may overlap, since an address there can stand for any operand. What
// stands in device memory (indexes, places) is not checked.
#ifndef ATEDM_KERNELS_H
#define ATEDM_KERNELS_H

#include "core/base/status.h"
#include "core/base/tensor.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef struct atedm_device atedm_device;
typedef struct atedm_stream atedm_stream;
typedef struct atedm_weight atedm_weight;

// Elements of the largest tensor of an operation; sums and products of sizes stay within int64_t.
#define ATEDM_MAX_ELEMENTS ((int64_t)1 << 40)

// Largest dimension of a weight.
#define ATEDM_MAX_WEIGHT_DIM ((int64_t)1 << 28)

// ---- devices

// Backends: "ref" (plain C, double accumulation), "cpu" (oneDNN), "cuda" (an NVIDIA GPU; a shared
// object that may be missing), "dry" (computes nothing: checks arguments and counts; its memory is
// addresses only). A colon and what atedm_devices_select takes choose one of several devices:
// "cuda:1", "cuda:GPU-8932f937"; without them it is the first. ATEDM_ERR_NOT_FOUND where there is
// no such backend or device, ATEDM_ERR_UNSUPPORTED where it cannot run here.
ATEDM_MUST_CHECK atedm_status atedm_device_create(const char *backend, atedm_device **ret_device,
                                                  atedm_error *err);
// The backend that `name` stands for: "auto" is "cuda" where that loads and a device answers, else
// "cpu"; every other name is itself. Does not occupy a device.
const char *atedm_backend_of(const char *name);
// Whether "auto" is "cpu" although one would expect "cuda": the backend's file is here and does not
// load, or the environment names a file, or the machine has NVIDIA's driver. *ret_reason then says
// what is wrong.
bool atedm_cuda_is_missed(atedm_error *ret_reason);
// After its streams, weights and memory. NULL allowed.
void atedm_device_destroy(atedm_device *device);

// One of a backend's devices.
typedef struct atedm_device_facts {
    char name[32];  // as metrics have it: "cpu", "cuda:0"
    int index;      // the backend's number of it: 0 in "cuda:0"
    char model[96]; // as its maker calls it: "NVIDIA H200"; "": not known
    char uuid[48];  // "GPU-" and 36 characters; "": it has none
    size_t memory;  // bytes; 0: not known
} atedm_device_facts;

#define ATEDM_MAX_DEVICES 64 // of a backend; further ones are not seen

// The devices of a backend that `selection` names, in its order: "auto" for all of them, else
// indexes, UUIDs or beginnings of UUIDs with commas between them. Occupies none of them.
// ATEDM_ERR_NOT_FOUND where there is no such device (the message lists those that there are),
// ATEDM_ERR_INVALID where one is named twice or a beginning fits several.
ATEDM_MUST_CHECK atedm_status atedm_devices_select(const char *backend, const char *selection,
                                                   atedm_device_facts ret_facts[ATEDM_MAX_DEVICES],
                                                   size_t *ret_count, atedm_error *err);

const char *atedm_device_backend(const atedm_device *device); // "ref", "cpu", "cuda", "dry"
const atedm_device_facts *atedm_device_describe(const atedm_device *device);
bool atedm_device_is_dry(const atedm_device *device);

// What a device says about itself at this moment: of all its users together, not of this process.
typedef enum atedm_device_figure {
    ATEDM_FIGURE_MEMORY_FREE, // bytes
    ATEDM_FIGURE_MEMORY_TOTAL,
    ATEDM_FIGURE_MEMORY_USED,
    ATEDM_FIGURE_UTILIZATION,  // share of the time lately in which it computed, 0..1
    ATEDM_FIGURE_POWER,        // watts
    ATEDM_FIGURE_TEMPERATURE,  // degrees Celsius
    ATEDM_FIGURE_SM_CLOCK,     // hertz
    ATEDM_FIGURE_MEMORY_CLOCK, // hertz
    ATEDM_FIGURE_COUNT,
} atedm_device_figure;
typedef struct atedm_device_figures {
    double value[ATEDM_FIGURE_COUNT]; // NAN: not known
} atedm_device_figures;
// False where the backend's devices have no figures. May take milliseconds. Other threads may use
// the device meanwhile, but only one thread at a time may measure.
bool atedm_device_measure(atedm_device *device, atedm_device_figures *ret_figures);

// Whether streams of this activation dtype can be made.
bool atedm_device_supports(const atedm_device *device, atedm_dtype dtype);
// The dtype to make pictures in on this device: BF16 where that is fast, else F32.
atedm_dtype atedm_device_best_dtype(const atedm_device *device);

// What atedm_device_alloc aligns to, and what operations want their tensors' first element aligned
// to for speed. Correct results only take the alignment of an element.
#define ATEDM_DEVICE_ALIGN 64

// Most bytes of one allocation: 512 GiB.
#define ATEDM_MAX_DEVICE_BYTES ((size_t)1 << 39)

// ATEDM_ERR_NOMEM where the device has no such memory. 0 bytes have an address, too.
ATEDM_MUST_CHECK atedm_status atedm_device_alloc(atedm_device *device, size_t bytes,
                                                 void **ret_memory, atedm_error *err);
void atedm_device_free(atedm_device *device, void *memory); // NULL allowed

// ---- streams

ATEDM_MUST_CHECK atedm_status atedm_stream_create(atedm_device *device, atedm_dtype act,
                                                  atedm_stream **ret_stream, atedm_error *err);
void atedm_stream_destroy(atedm_stream *stream); // NULL allowed
atedm_device *atedm_stream_device(const atedm_stream *stream);
atedm_dtype atedm_stream_dtype(const atedm_stream *stream);

// Waits for all that was enqueued. Returns (and clears) the first failure since the last call.
ATEDM_MUST_CHECK atedm_status atedm_stream_sync(atedm_stream *stream, atedm_error *err);

// For code between operations that leaves failures to the stream: waits for all that was enqueued,
// keeps the failure for atedm_stream_sync, and returns whether there is none.
bool atedm_stream_wait(atedm_stream *stream);

// Lowers the stream's priority: its operations run beside those of the device's other streams, and
// give way to them where there is not room for both. To be called before anything is enqueued.
// False where the backend's operations are done when they return, so that none run side by side.
bool atedm_stream_set_background(atedm_stream *stream);
// Whether all that was enqueued is done, without waiting. True for a stream that has failed.
bool atedm_stream_idle(atedm_stream *stream);

// Makes the stream fail, for callers that find a mistake of their own between operations.
void atedm_stream_fail(atedm_stream *stream, atedm_status status, const char *format, ...)
    ATEDM_PRINTF(3, 4);
bool atedm_stream_failed(const atedm_stream *stream);

// Multiply-accumulates of the stream's operations; FLOPs are twice that. Each operation adds to
// them when it is enqueued, from its arguments alone: what it adds stands with its declaration
// below ("Counts ..."), and operations without such a line add nothing.
typedef struct atedm_op_counts {
    uint64_t conv;      // convolutions
    uint64_t linear;    // linear layers
    uint64_t attention; // QK^T and PV
    uint64_t overhead;  // what pruning adds: G-WPR, similarity search
} atedm_op_counts;

static inline void atedm_op_counts_add(atedm_op_counts *sum, const atedm_op_counts *counts)
{
    sum->conv += counts->conv;
    sum->linear += counts->linear;
    sum->attention += counts->attention;
    sum->overhead += counts->overhead;
}

atedm_op_counts atedm_stream_counts(const atedm_stream *stream);
void atedm_stream_reset_counts(atedm_stream *stream);

// Copies between regions that do not overlap. `from_host` has been read when the call returns.
// `to_host` is written by the next sync or before it, and has to stay there until then.
void atedm_upload(atedm_stream *s, const void *from_host, void *to_device, size_t bytes);
void atedm_download(atedm_stream *s, const void *from_device, void *to_host, size_t bytes);
void atedm_copy(atedm_stream *s, const void *from_device, void *to_device, size_t bytes);

// ---- work aside

// A stream has a second queue for work whose results are needed only later. It is for AT-EDM's
// operations (the section below). Those that are called between begin_aside and end_aside see the
// results of all that was enqueued before begin_aside, and may run at the same time as what is
// enqueued after end_aside. What is enqueued after join_aside sees their results.
//
// The caller has to make sure that nothing enqueued between end_aside and join_aside touches the
// results of the work aside, or changes what it reads. The three calls come in this order, also on
// a stream that has failed, and one set of them ends before the next begins. Between begin_aside
// and end_aside no other operations and no copies are called; before join_aside the stream is
// not waited for, and no sequence (atedm_stream_repeat) begins. A backend without a second queue
// runs everything in order.
void atedm_stream_begin_aside(atedm_stream *s);
void atedm_stream_end_aside(atedm_stream *s);
void atedm_stream_join_aside(atedm_stream *s);

// ---- sequences that come again

typedef void (*atedm_enqueue_fn)(void *user);

// Has the device do what `enqueue` enqueues, once. `enqueue` only calls operations of this stream.
// A backend may record the device's work of a call, and launch the recording when the same key
// comes again, without calling `enqueue` at all. So equal keys have to mean equal operations: the
// same weights, sizes, spans, addresses and other values. `enqueue` may be called twice, the first
// time without effect on the device. It does not upload, download or wait, and joins what it begins
// aside. Results and counts are as if it had been called once. A key over the limit is not
// recorded.
#define ATEDM_REPEAT_KEY_MAX ((size_t)1 << 16)
void atedm_stream_repeat(atedm_stream *s, const void *key, size_t key_bytes,
                         atedm_enqueue_fn enqueue, void *user);

// How the calls of atedm_stream_repeat so far were done.
typedef struct atedm_repeat_figures {
    uint64_t direct;   // calls whose operations ran one by one
    uint64_t recorded; // calls that made a recording and ran it
    uint64_t replayed; // calls that ran a recording of an earlier one
    uint64_t dropped;  // recordings given up for newer ones, or since scratch memory moved
    size_t bytes;      // device memory of the recordings that there are now
    char refusal[ATEDM_ERROR_MAX]; // why nothing is recorded, any more or for now; "": nothing is
                                   // wrong
} atedm_repeat_figures;
const atedm_repeat_figures *atedm_stream_repeats(const atedm_stream *s);
// Gives up all recordings, and their memory.
void atedm_stream_forget(atedm_stream *s);

// ---- weights

// A weight is immutable and in the backend's own layout, for streams of activation dtype `act`. It
// is made from host tensors of dtype F32, BF16 or F16, which may be unaligned and are not needed
// afterwards. On the dry backend their data may be NULL. Values are rounded to act; biases and
// norms are kept in F32. ATEDM_ERR_INVALID for a wrong shape or dtype, ATEDM_ERR_LIMIT for a size
// over ATEDM_MAX_WEIGHT_DIM, ATEDM_ERR_UNSUPPORTED for an act, kernel or stride that there is no
// code for, ATEDM_ERR_NOMEM.

// Linear layer y = x W^T + b. `parts`: n_parts matrices [out_i, in] stacked along out (fused
// projections); `biases`: n_parts vectors [out_i] in the same order, or NULL for no bias.
ATEDM_MUST_CHECK atedm_status atedm_linear_weight_create(atedm_device *device, atedm_dtype act,
                                                         const atedm_host_tensor *parts,
                                                         const atedm_host_tensor *biases,
                                                         size_t n_parts, atedm_weight **ret_weight,
                                                         atedm_error *err);
// Square convolution: weight [out, in, k, k] with k = 1 or 3, bias [out] or NULL. Runs with stride
// 1 or 2 as given here and zero padding (k - 1) / 2 on each side.
ATEDM_MUST_CHECK atedm_status atedm_conv_weight_create(atedm_device *device, atedm_dtype act,
                                                       const atedm_host_tensor *weight,
                                                       const atedm_host_tensor *bias, int stride,
                                                       atedm_weight **ret_weight, atedm_error *err);
// Scale and shift of a group or layer norm, both [c]; kept in F32.
ATEDM_MUST_CHECK atedm_status atedm_norm_weight_create(atedm_device *device,
                                                       const atedm_host_tensor *scale,
                                                       const atedm_host_tensor *shift,
                                                       atedm_weight **ret_weight, atedm_error *err);
// Embedding table [entries, c], kept in act.
ATEDM_MUST_CHECK atedm_status atedm_table_weight_create(atedm_device *device, atedm_dtype act,
                                                        const atedm_host_tensor *table,
                                                        atedm_weight **ret_weight,
                                                        atedm_error *err);
void atedm_weight_destroy(atedm_weight *weight); // NULL allowed
// Linear and conv: input channels; norm and table: c.
int64_t atedm_weight_in(const atedm_weight *weight);
// Linear and conv: output channels; norm: c; table: entries.
int64_t atedm_weight_out(const atedm_weight *weight);
size_t atedm_weight_bytes(const atedm_weight *weight); // device memory that it holds

// ---- dense operations

typedef enum atedm_activation {
    ATEDM_ACT_NONE,
    ATEDM_ACT_SILU,       // x * sigmoid(x)
    ATEDM_ACT_GELU,       // x * Phi(x), exact (erf)
    ATEDM_ACT_QUICK_GELU, // x * sigmoid(1.702 x)
} atedm_activation;

// y = activation(x W^T + b) + residual. Counts rows * in * out.
typedef struct atedm_linear_args {
    const atedm_weight *weight;
    const void *x;        // [device] act [rows, in]
    const void *residual; // [device] act [rows, out] or NULL; may be y
    void *y;              // [device] act [rows, out]
    int64_t rows;
    atedm_activation activation;
} atedm_linear_args;
void atedm_linear(atedm_stream *s, const atedm_linear_args *args);

// y = conv(x) + b + channel_add + residual. Counts n * ho * wo * in * out * k * k, padding
// included.
typedef struct atedm_conv_args {
    const atedm_weight *weight;
    const void *x;           // [device] act [n, h, w, in]
    const void *channel_add; // [device] act [n, out] or NULL: added to every pixel of its sample
    const void *residual;    // [device] act [n, ho, wo, out] or NULL; may be y
    void *y;                 // [device] act [n, ho, wo, out], ho = ceil(h / stride)
    int64_t n, h, w;
} atedm_conv_args;
void atedm_conv(atedm_stream *s, const atedm_conv_args *args);

// Group norm (Wu & He 2018): for each sample and group, y = (x - mean) / sqrt(variance + epsilon)
// over its [hw, c / groups] elements, with the biased variance, computed from deviations from the
// mean; then the channel's scale and shift, then SiLU where `silu` says so. y may be x.
typedef struct atedm_group_norm_args {
    const atedm_weight *weight;
    const void *x; // [device] act [n, hw, c]
    void *y;       // [device] act [n, hw, c]
    int64_t n, hw;
    int groups; // divides c
    float epsilon;
    bool silu;
} atedm_group_norm_args;
void atedm_group_norm(atedm_stream *s, const atedm_group_norm_args *args);

// Layer norm (Ba et al. 2016): the same over the c elements of each row. y may be x.
typedef struct atedm_layer_norm_args {
    const atedm_weight *weight;
    const void *x; // [device] act [rows, c]
    void *y;       // [device] act [rows, c]
    int64_t rows;
    float epsilon;
} atedm_layer_norm_args;
void atedm_layer_norm(atedm_stream *s, const atedm_layer_norm_args *args);

// y[r, j] = x[r, j] * gelu(x[r, f + j]); x [rows, 2f], y [rows, f], both [device] act. Exact (erf)
// GELU.
void atedm_geglu(atedm_stream *s, const void *x, void *y, int64_t rows, int64_t f);

// y = activation(x), `count` elements, [device] act; y may be x.
void atedm_activate(atedm_stream *s, atedm_activation activation, const void *x, void *y,
                    int64_t count);

// y = a + b, `count` elements, [device] act; y may be a or b.
void atedm_add(atedm_stream *s, const void *a, const void *b, void *y, int64_t count);

// Nearest-neighbour upsampling by 2 to h x w, which may be odd: y[i, j] = x[i / 2, j / 2].
// x [n, ceil(h / 2), ceil(w / 2), c], y [n, h, w, c], [device] act.
void atedm_upsample2(atedm_stream *s, const void *x, void *y, int64_t n, int64_t h, int64_t w,
                     int64_t c);

// Columns side by side: a [rows, ca], b [rows, cb] -> y [rows, ca + cb], [device] act.
void atedm_concat(atedm_stream *s, const void *a, int64_t ca, const void *b, int64_t cb, void *y,
                  int64_t rows);

// y[i] = table[ids[i]] + position[i % tokens], i < rows. ids [host] [rows], each < the table's
// entries. y [device] act [rows, c].
void atedm_embed_tokens(atedm_stream *s, const atedm_weight *table, const atedm_weight *position,
                        const int64_t *ids, int64_t rows, int64_t tokens, void *y);

// Sinusoidal embedding (Ho et al. 2020, with flip_sin_to_cos and freq_shift 0 as SDXL): for j < dim
// / 2, f_j = exp(-ln(10000) j / (dim / 2)); y[i] = [cos(v_i f_0).. | sin(v_i f_0)..]. values [host]
// [n]; y [device] act [n, dim], dim even.
void atedm_sinusoid(atedm_stream *s, const double *values, int64_t n, int64_t dim, void *y);

// ---- attention

// The tokens of several samples are rows of one matrix, a sample's rows one behind the other; a
// span says which rows are one sample's.
typedef struct atedm_span {
    int64_t q0, nq; // first query row, number of query rows
    int64_t k0, nk; // first key row, number of key rows
} atedm_span;

// For each span and head i: O_i = softmax(scale Q_i K_i^T) V_i, scale = 1 / sqrt(head_dim).
// Head i of a row is its columns [i * head_dim, (i + 1) * head_dim). Row strides are in elements,
// so that q, k and v can be column ranges of a fused projection. Spans have nq >= 1 and nk >= 1.
// key_bias[row of k] is added to the scaled logits of that key: with the logarithm of how many
// tokens a key stands for it is proportional attention (Bolya et al., ToMe, ICLR 2023).
// Counts heads * head_dim * 2 * nq * nk for each span (QK^T and PV), the whole product where
// causal.
typedef struct atedm_attention_args {
    const void *q, *k, *v; // [device] act
    int64_t q_stride, k_stride, v_stride;
    const float *key_bias; // [device] or NULL: F32, by row of k, finite
    void *o;               // [device] act, rows as q, row stride heads * head_dim
    float *lse;         // [device] or NULL: [heads, lse_stride] natural log-sum-exp of the logits
    int64_t lse_stride; // of each row of q, at [head, row]; lse_stride >= number of rows of q
    const atedm_span *spans; // [host]
    int64_t n_spans;
    int heads, head_dim;
    bool causal; // row r of a span sees keys 0..r only (nq == nk)
} atedm_attention_args;
void atedm_attention(atedm_stream *s, const atedm_attention_args *args);

// ---- AT-EDM (Wang et al., CVPR 2024)

typedef enum atedm_head_combine {
    ATEDM_HEADS_RMS,  // sqrt(mean_i s_i^2)
    ATEDM_HEADS_MEAN, // mean_i s_i
} atedm_head_combine;

// Limit of atedm_rank_params.max_iterations.
#define ATEDM_MAX_RANK_ITERATIONS 64

typedef struct atedm_rank_params {
    atedm_head_combine heads;
    int max_iterations; // 1..ATEDM_MAX_RANK_ITERATIONS
    float tolerance;    // >= 0
} atedm_rank_params;

// Scores of the query tokens of each span by generalized weighted page rank, G-WPR (section 3 of
// the paper), from the attention maps A_i = exp(scale Q_i K_i^T - lse_i) of the heads i, which no
// caller ever sees. Of N query tokens:
//   self (cross == false; queries and keys are the same tokens): s_i^0 = 1/N,
//     s_i^{t+1} = A_i^T s_i^t;
//   cross: s_i^0 = 1/N, k = normalize_1(A_i^T s_i^t), s_i^{t+1} = normalize_1(A_i k).
// The iteration ends at the first t with |s_i^t - s_i^{t-1}|_1 <= tolerance for every head of the
// span, or after max_iterations. Backends may run further iterations as long as the scores are
// those of that t. A token's score combines its scores of all heads as params.heads says.
// Counts, for each span, heads * nq * nk * (head_dim + max_iterations), twice the iterations where
// cross: the map once, and a product with it each time, whether the iteration ends early or not.
typedef struct atedm_rank_args {
    const void *q, *k; // [device] act, as in atedm_attention_args
    int64_t q_stride, k_stride;
    const float *lse; // [device] as written by atedm_attention for the same q, k and spans
    int64_t lse_stride;
    float *scores;                   // [device] indexed by the rows of q
    const atedm_span *spans;         // [host]
    const atedm_rank_params *params; // [host] one a span
    int64_t n_spans;
    int heads, head_dim;
    bool cross;
} atedm_rank_args;
void atedm_rank_tokens(atedm_stream *s, const atedm_rank_args *args);

// Random scores of `n` tokens from row `first` on, which follow from two numbers.
typedef struct atedm_random_span {
    int64_t first, n;
    int64_t draw;  // index in `draws` of the first one
    uint64_t salt; // the second one: tells apart what starts from the same draw
} atedm_random_span;

// scores[first + i] = u_i, or where weights are given weights[first + i] / -ln(u_i), with
// u_i = 2^-23 (floor(2^-41 v) + 1/2) in (0, 1), v output i = 0, 1, .. of SplitMix64 started at
// its own output number `salt` when started at draws[draw] (Steele, Lea & Flood, OOPSLA 2014; with
// the constants of Java's SplittableRandom and Vigna's splitmix64.c). Output i of it started at key
// is: z = key + (i + 1) 0x9e3779b97f4a7c15, z = (z xor z >> 30) 0xbf58476d1ce4e5b9,
// z = (z xor z >> 27) 0x94d049bb133111eb, v = z xor z >> 31.
// The largest scores are a uniformly random selection, with weights one that takes token after
// token with chances proportional to the weights of those that are left (Efraimidis & Spirakis,
// Inf. Process. Lett. 97(5), 2006: their keys are u^(1/w), which order alike). Without weights
// exact: the same in every bit on every backend, whatever the stream's dtype; 4096 tokens have one
// equal pair on average, which atedm_select_tokens takes by position. draws, weights (>= 0, or
// NULL), scores [device], the latter two by row.
void atedm_random_scores(atedm_stream *s, const uint64_t *draws, const float *weights,
                         float *scores, const atedm_random_span *spans, int64_t n_spans);

// One sample's part in a pruning: `n` tokens from row `first` of which `keep` stay. Its kept list
// has `keep` entries from `kept_first` on.
typedef struct atedm_prune_span {
    int64_t first, n;
    int64_t kept_first, keep; // 1 <= keep <= n
} atedm_prune_span;

// kept[kept_first ..]: the `keep` tokens of the span with the largest scores, as positions 0..n-1
// in the span, ascending; ties go to the lower position, and NaN comes after every number. Where
// keep == n the list is 0..n-1 and the scores are not read. scores [device] by row, kept [device].
void atedm_select_tokens(atedm_stream *s, const float *scores, int32_t *kept,
                         const atedm_prune_span *spans, int64_t n_spans);

// Where pruned tokens will take their values from. For each token i of the span, source[first + i]
// becomes a slot of the span's kept list (0..keep-1): a kept token's own slot, else the slot j that
// maximises
//   attention: mean over heads of A(i, kept[j]);
//   cosine:    the cosine similarity of rows i and kept[j] of x, 0 where one of them is zero;
//   nearest:   minus the squared distance of the tokens' grid places (place / width, place %
//   width);
// ties go to the lower slot; where similarities are NaN it is any slot. zero: -1 for pruned tokens.
// Counts (n - keep) * keep for each span, times heads * head_dim (attention) or c (cosine).
typedef struct atedm_source_args {
    const int32_t *kept; // [device] lists as atedm_select_tokens writes them: ascending positions
    int32_t *source;     // [device] by row
    const atedm_prune_span *spans; // [host]
    int64_t n_spans;
} atedm_source_args;
// The maps A, as in atedm_rank_args.
typedef struct atedm_source_map {
    const void *q, *k; // [device] act
    int64_t q_stride, k_stride;
    const float *lse; // [device]
    int64_t lse_stride;
    int heads, head_dim;
} atedm_source_map;
// x: [device] act [rows, c]. place: [device] by row, the token's place in a grid `width` places
// wide.
void atedm_source_attention(atedm_stream *s, const atedm_source_args *args,
                            const atedm_source_map *map);
void atedm_source_cosine(atedm_stream *s, const atedm_source_args *args, const void *x, int64_t c);
void atedm_source_nearest(atedm_stream *s, const atedm_source_args *args, const int32_t *place,
                          int64_t width);
void atedm_source_zero(atedm_stream *s, const atedm_source_args *args);

// The logarithm of how many tokens each kept one stands for: for each span and slot j,
// weights[kept_first + j] = log(sum of exp(before[first + i]) over the tokens i with
// source[first + i] == j), summed in ascending order of i; -INFINITY where there is no such token.
// before[row] is the logarithm of how many tokens that one stood for before; NULL: each for itself.
// source as above; before and weights [device] F32.
void atedm_source_weights(atedm_stream *s, const int32_t *source, const float *before,
                          float *weights, const atedm_prune_span *spans, int64_t n_spans);

// y[to + i] = x[from + index[index_first + i]] for i < n; a row of zeros where the index is -1.
typedef struct atedm_gather_span {
    int64_t from;        // first row of the sample in x
    int64_t index_first; // first entry of its index list
    int64_t to, n;       // first row in y, number of rows
} atedm_gather_span;
// Rows of `row_bytes` bytes; x, y, index [device]. Serves dropping (index = kept) and recovery
// (index = source) of activations, and of anything else that goes with a token (grid places).
void atedm_gather_rows(atedm_stream *s, const void *x, const int32_t *index, void *y,
                       size_t row_bytes, const atedm_gather_span *spans, int64_t n_spans);
// y[to + i] += factor * x[from + index[index_first + i]] for i < n, in f32, rounded once; nothing
// is added where the index is -1. x, y act, rows of c; index [device]. The rows of y are those of
// one span each. Serves recovery by update.
void atedm_add_rows(atedm_stream *s, const void *x, const int32_t *index, float factor, void *y,
                    int64_t c, const atedm_gather_span *spans, int64_t n_spans);

// ---- sampler

// y[i, :] = act(a[i] * x[i, :]): the sampler's input scaling; with a[i] == 1 the conversion alone.
// x [device] F32 [n, count], y [device] act [n, count], a [host] [n].
void atedm_scale_input(atedm_stream *s, const float *x, const double *a, void *y, int64_t n,
                       int64_t count);

// Coefficients of a sampler's step, which is linear in the latents x, in the guided model output m
// and in the history: what the step before left there, or noise.
//   new x       = x * x + output * m + earlier * history
//   new history = keep_x * x + keep_output * m, of the x before the step
// (the first factor of each product is the field of this name). core/sampler.c has each sampler's.
typedef struct atedm_step {
    double x, output, earlier; // earlier: 0 in the first step, unless the history is noise
    double keep_x, keep_output;
} atedm_step;

// One sample's step. m = uncond + guidance_scale * (cond - uncond) (Ho & Salimans 2022, eq. 6 in
// diffusers' form), or m = cond where uncond is NULL; then the step.
typedef struct atedm_step_args {
    const void *cond;   // [device] act [count]
    const void *uncond; // [device] act [count] or NULL
    float *x;           // [device] F32 [count]: the latents, before and after
    int64_t count;
    float guidance_scale;
    atedm_step step;
    float *history; // [device] F32 [count], before and after; not read where step.earlier is 0.
                    // NULL: there is none, and nothing is kept
} atedm_step_args;
void atedm_sampler_step(atedm_stream *s, const atedm_step_args *args);

// The finished image: y = round_half_even(255 * clamp(x / 2 + 1/2, 0, 1)), 0 for NaN. x [device]
// act, y [device] U8, `count` elements.
void atedm_image_finish(atedm_stream *s, const void *x, uint8_t *y, int64_t count);

#endif
