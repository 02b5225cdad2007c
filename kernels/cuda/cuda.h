// What the host files of the cuda backend share. They are plain C on the CUDA runtime and cuBLASLt;
// our own kernels stand behind launch.h. The backend is a shared object that kernels/cuda_load.c
// loads at run time; tests/emulated builds the same files against a runtime on the host.
//
// Each atedm_stream has one CUDA stream, the main queue, and a second one for work aside (aside.c).
// A row's result does not depend on how many rows there are: kernels add up in an order that
// follows from the sample alone, and of cuBLASLt's and cuDNN's algorithms only those are taken that
// give the same bits (linear_plan.c, dnn_trial.c).
#ifndef ATEDM_KERNELS_CUDA_CUDA_H
#define ATEDM_KERNELS_CUDA_CUDA_H

#include "kernels/backend.h"
#include "kernels/cuda/launch.h"

#include <cublasLt.h>

// cuTensorMapEncodeTiled, as cuda.h of CUDA 12 and 13 declares it.
typedef CUresult(CUDAAPI *atedm_cuda_encode_fn)(CUtensorMap *, CUtensorMapDataType, cuuint32_t,
                                                void *, const cuuint64_t *, const cuuint64_t *,
                                                const cuuint32_t *, const cuuint32_t *,
                                                CUtensorMapInterleave, CUtensorMapSwizzle,
                                                CUtensorMapL2promotion, CUtensorMapFloatOOBfill);

// Which linear layers are linear_hopper.cu's.
typedef enum atedm_cuda_linear_choice {
    ATEDM_CUDA_LINEAR_CUBLAS, // none: all are cuBLASLt's
    ATEDM_CUDA_LINEAR_TRIED,  // those for which a trial finds it to be the fastest
    ATEDM_CUDA_LINEAR_HOPPER, // all that it can compute
} atedm_cuda_linear_choice;

// Which operations the kernels for compute capability 9.0 (*_hopper.cu) do, and what their launches
// need.
typedef struct atedm_cuda_hopper {
    atedm_cuda_encode_fn encode; // makes tensor maps; NULL where no such kernel is used
    bool attention;              // attention and ranking with heads of 64
    bool conv;                   // the convolutions that hopper_conv.c takes
    atedm_cuda_linear_choice linear;
    int linear_clusters[3]; // how many clusters of 1, 2 and 4 blocks of linear_hopper.cu run at
                            // once; known where `linear` is not ATEDM_CUDA_LINEAR_CUBLAS
    int multiprocessors;    // known of every device, whatever its compute capability
} atedm_cuda_hopper;

typedef struct atedm_cuda_device {
    atedm_device head;
    int index;
    cublasLtHandle_t blas;
    struct atedm_cuda_nvml *nvml;       // nvml.c's, opened when figures are first asked for
    struct atedm_cuda_dnn_library *dnn; // NULL: our own kernels do all convolutions
    atedm_cuda_hopper hopper;
} atedm_cuda_device;

// A stream's scratch memory. It is allocated with the stream, so that no operation allocates.
// Operations that want more work in pieces; where one cannot, that scratch memory grows, and stays
// so. Each kind is overwritten by the next operation that uses it.
typedef enum atedm_cuda_scratch {
    ATEDM_CUDA_SCRATCH_SUMS,      // F32 sums before their epilogue, statistics, scores
    ATEDM_CUDA_SCRATCH_WORKSPACE, // for cuBLASLt and cuDNN
    ATEDM_CUDA_SCRATCH_ASIDE,     // what SUMS is to the main queue, for the queue aside
    ATEDM_CUDA_SCRATCH_PADDED,    // linear_padded.c's; empty until it is first needed
    ATEDM_CUDA_SCRATCH_COUNT,
} atedm_cuda_scratch;

// Bytes of each at the start. ASIDE is enough to rank 32 samples of 4096 tokens with 10 heads, and
// to find their sources. The emulated backend defines small ones, so that toy sizes come in pieces
// too.
#ifndef ATEDM_CUDA_SUMS_BYTES
#define ATEDM_CUDA_SUMS_BYTES ((size_t)128 << 20)
#define ATEDM_CUDA_WORKSPACE_BYTES ((size_t)32 << 20)
#define ATEDM_CUDA_ASIDE_BYTES ((size_t)24 << 20)
#define ATEDM_CUDA_STAGE_BYTES ((size_t)4 << 20)
#endif

// Copies between host and device go through a ring of stages in pinned memory, since CUDA makes the
// host wait for copies from and to other host memory: staging.c.
#define ATEDM_CUDA_STAGES 4
#define ATEDM_CUDA_STAGE_DOWNLOADS 64

typedef struct atedm_cuda_stage {
    char *memory;     // [host] pinned, ATEDM_CUDA_STAGE_BYTES
    size_t used;      // bytes
    cudaEvent_t done; // recorded behind the stage's copies, when it is full
    bool full;        // nothing more goes in before `done` has been waited for
    int n_downloads;  // downloads that the device brings here and that go on to the caller's memory
    struct {
        const char *from; // in `memory`
        void *to;         // the caller's
        size_t bytes;
    } downloads[ATEDM_CUDA_STAGE_DOWNLOADS];
} atedm_cuda_stage;

typedef struct atedm_cuda_staging {
    atedm_cuda_stage stages[ATEDM_CUDA_STAGES];
    int at; // the stage that is being filled; the one behind it in the ring is the oldest
} atedm_cuda_staging;

// Limits of what graph.c keeps of atedm_stream_repeat's sequences; the latest ones stay.
#define ATEDM_CUDA_MAX_KEYS 64
#define ATEDM_CUDA_MAX_GRAPHS 16
#define ATEDM_CUDA_MAX_GRAPH_BYTES ((size_t)256 << 20)
#define ATEDM_CUDA_GRAPH_PAUSE 256 // sequences that run directly after memory for a graph ran out
typedef struct atedm_cuda_graphs {
    struct atedm_cuda_graph *latest; // a list, the sequence that came last first
    bool off;                        // nothing is captured, by ATEDM_CUDA_GRAPHS or after an error
    bool capturing;
    int pause; // sequences that are still to run directly
} atedm_cuda_graphs;

// A stream's second queue: aside.c.
typedef struct atedm_cuda_aside {
    cudaStream_t stream;     // NULL: there is none
    cudaEvent_t begun;       // recorded in the main queue: where work aside may begin
    cudaEvent_t done;        // recorded in this queue: the end of the work aside
    int32_t multiprocessors; // the most that a ranking takes in this queue
    bool open;               // between begin_aside and end_aside: operations go here
    bool unjoined;           // the main queue does not wait for this one yet
} atedm_cuda_aside;

typedef struct atedm_cuda_stream {
    atedm_stream head;
    cudaStream_t stream; // the main queue
    atedm_cuda_aside aside;
    void *scratch[ATEDM_CUDA_SCRATCH_COUNT]; // [device]
    size_t scratch_bytes[ATEDM_CUDA_SCRATCH_COUNT];
    atedm_cuda_staging staging;
    struct atedm_cuda_plan *plans; // a list, of linear layers' shapes: linear_plan.c
    struct atedm_cuda_dnn *dnn;    // cuDNN's handle and plans: dnn.c; NULL: it is not used
    atedm_cuda_graphs graphs;
} atedm_cuda_stream;

typedef struct atedm_cuda_weight {
    atedm_weight head;
    // [device] Linear and conv: act [out, row_elements]; table: act [entries, c]; norm: the scale,
    // F32 [c].
    void *values;
    float *bias;    // [device] F32. Linear and conv: [out] or NULL; norm: the shift [c]
    void *act_bias; // [device] act [out]: the bias again, where act holds it exactly; else NULL
    int64_t row_elements; // of a row of a linear or conv: [kernel, kernel, in], then zeros
} atedm_cuda_weight;

// ---- devices.c

// The devices that this backend can run on; returns their number. Makes no context on them, since
// programs call this that leave the devices to others.
size_t atedm_cuda_devices(atedm_device_facts ret_facts[ATEDM_MAX_DEVICES]);
// ATEDM_OK where there is a device, else why there is none.
ATEDM_MUST_CHECK atedm_status atedm_cuda_find_devices(atedm_error *err);
// Directs the calling thread's CUDA calls to the device.
cudaError_t atedm_cuda_use(const atedm_device *device);

// The backend's stream. Every operation begins with this, so that its CUDA calls go to the stream's
// device.
static inline atedm_cuda_stream *atedm_cuda_stream_of(atedm_stream *s)
{
    (void)atedm_cuda_use(s->device); // where this fails, so do the calls that follow
    return (atedm_cuda_stream *)s;
}

static inline const atedm_cuda_weight *atedm_cuda_weight_of(const atedm_weight *w)
{
    return (const atedm_cuda_weight *)w;
}

// ---- error.c

// Makes the stream fail if `error` is one; `what` was being done. The message says so where the
// context is lost: from then on every call on the device fails, and only a new process helps.
void atedm_cuda_check(atedm_stream *s, cudaError_t error, const char *what);
// The same as a status: ATEDM_ERR_NOMEM where memory is out, else ATEDM_ERR_DEVICE.
ATEDM_MUST_CHECK atedm_status atedm_cuda_status(cudaError_t error, const char *what,
                                                atedm_error *err);

// ---- nvml.c

void atedm_cuda_measure(atedm_device *device, atedm_device_figures *figures);
void atedm_cuda_nvml_close(struct atedm_cuda_nvml *nvml); // NULL allowed

// ---- memory.c

ATEDM_MUST_CHECK atedm_status atedm_cuda_alloc(atedm_device *device, size_t bytes,
                                               void **ret_memory, atedm_error *err);
void atedm_cuda_free(atedm_device *device, void *memory);
ATEDM_MUST_CHECK atedm_status atedm_cuda_scratch_init(atedm_cuda_stream *s, atedm_error *err);
// Scratch memory for `elements` elements of `element` bytes, good until the next call for the same
// `which`. NULL after failing the stream. May wait for the device, and drops all graphs, where it
// has to grow; in a capture it cannot grow, and the stream fails.
void *atedm_cuda_scratch_get(atedm_cuda_stream *s, atedm_cuda_scratch which, int64_t elements,
                             size_t element);
void atedm_cuda_copy(atedm_stream *s, const void *from_device, void *to_device, size_t bytes);

// ---- staging.c

// On failure there may be something to finish.
ATEDM_MUST_CHECK atedm_status atedm_cuda_staging_init(atedm_cuda_staging *staging,
                                                      atedm_error *err);
void atedm_cuda_staging_finish(atedm_cuda_staging *staging);
void atedm_cuda_upload(atedm_stream *s, const void *from_host, void *to_device, size_t bytes);
void atedm_cuda_download(atedm_stream *s, const void *from_device, void *to_host, size_t bytes);
// Waits for both queues, and copies downloads from their stages to the callers' memory.
void atedm_cuda_sync(atedm_stream *s);

// ---- weights.c

atedm_status atedm_cuda_linear_weight_create(const atedm_weight *head,
                                             const atedm_host_tensor *parts,
                                             const atedm_host_tensor *biases, size_t n_parts,
                                             atedm_weight **ret_weight, atedm_error *err);
atedm_status atedm_cuda_conv_weight_create(const atedm_weight *head,
                                           const atedm_host_tensor *weight,
                                           const atedm_host_tensor *bias, atedm_weight **ret_weight,
                                           atedm_error *err);
atedm_status atedm_cuda_norm_weight_create(const atedm_weight *head, const atedm_host_tensor *scale,
                                           const atedm_host_tensor *shift,
                                           atedm_weight **ret_weight, atedm_error *err);
atedm_status atedm_cuda_table_weight_create(const atedm_weight *head,
                                            const atedm_host_tensor *table,
                                            atedm_weight **ret_weight, atedm_error *err);
void atedm_cuda_weight_destroy(atedm_weight *weight); // NULL allowed

// ---- linear_plan.c

void atedm_cuda_plans_destroy(struct atedm_cuda_plan *plans);

// ---- dnn.c; where cuDNN's headers were not there, dnn_missing.c

// Loads the library where ATEDM_CUDA_CONV ("auto", "hopper", "cudnn" or "own") wants it; NULL where
// it does not, or where the library is not there and need not be.
ATEDM_MUST_CHECK atedm_status atedm_cuda_dnn_load(struct atedm_cuda_dnn_library **ret_library,
                                                  atedm_error *err);
void atedm_cuda_dnn_unload(struct atedm_cuda_dnn_library *library); // NULL allowed
ATEDM_MUST_CHECK atedm_status atedm_cuda_dnn_create(const struct atedm_cuda_dnn_library *library,
                                                    cudaStream_t stream, atedm_dtype act,
                                                    struct atedm_cuda_dnn **ret_dnn,
                                                    atedm_error *err);
void atedm_cuda_dnn_destroy(struct atedm_cuda_dnn *dnn); // NULL allowed
// Moves later calls to this stream. False: cuDNN refuses. `dnn`: NULL allowed.
bool atedm_cuda_dnn_move(struct atedm_cuda_dnn *dnn, cudaStream_t stream);
// True: the convolution is enqueued, or the stream has failed. False: cuDNN does not take it, and
// nothing has happened.
bool atedm_cuda_dnn_conv(atedm_stream *s, const atedm_conv_args *args);

// ---- hopper.c

// Chooses for the device with this number, which is the current one, as ATEDM_CUDA_ATTENTION,
// ATEDM_CUDA_CONV and ATEDM_CUDA_LINEAR say. ATEDM_ERR_UNSUPPORTED for a wrong value, or where the
// device is none for the kernels that are asked for by name.
ATEDM_MUST_CHECK atedm_status atedm_cuda_hopper_choose(int index, atedm_cuda_hopper *ret_hopper,
                                                       atedm_error *err);
// Attention that atedm_cuda_is_head64 takes, of `spans`; those of args are not looked at.
cudaError_t atedm_cuda_hopper_attention(const atedm_cuda_hopper *hopper, atedm_dtype act,
                                        const atedm_attention_args *args,
                                        const atedm_cuda_spans *spans, cudaStream_t stream);

// Whether rank64_hopper.cu ranks these spans.
bool atedm_cuda_hopper_takes_rank(const atedm_cuda_hopper *hopper, const atedm_cuda_rank *rank);
// The tensor maps of q, k and offsets. False: the driver refuses.
bool atedm_cuda_hopper_rank_maps_make(const atedm_cuda_hopper *hopper, atedm_dtype act,
                                      const atedm_cuda_rank *rank,
                                      atedm_cuda_hopper_rank_maps *ret_maps);
// The tensor map of a tensor of 16-bit elements, by the driver's `function`. It has `rank`
// dimensions, the dense one first: their elements (dims), the bytes from one index to the next of
// each but the first (strides [rank - 1]), and the elements that a copy takes (box). Copies read
// zeros outside the tensor. Boxes with rows of 128 bytes are swizzled, as products want them.
// False: the driver refuses.
bool atedm_cuda_hopper_encode(atedm_cuda_encode_fn function, atedm_dtype act, const void *tensor,
                              cuuint32_t rank, const cuuint64_t *dims, const cuuint64_t *strides,
                              const cuuint32_t *box, CUtensorMap *ret_map);
// Most rows of a tensor with a map: a copy's coordinates are 32 bits, also those in the last box
// behind the last row: 256 rows at most, in a cluster 512.
#define ATEDM_CUDA_HOPPER_MOST_ROWS (INT32_MAX - 512)

// ---- hopper_conv.c

// True: the convolution is enqueued, or the stream has failed. False: conv_hopper.cu does not take
// it, and nothing has happened.
bool atedm_cuda_hopper_conv(atedm_stream *s, const atedm_cuda_conv_call *conv, cudaStream_t stream);

// ---- stream.c

// The priority of a CUDA stream: whose blocks start first where several wait for multiprocessors.
typedef enum atedm_cuda_urgency {
    ATEDM_CUDA_URGENT,     // a stream's main queue
    ATEDM_CUDA_BESIDE,     // its queue aside, by default: the next lower one, of three at least
    ATEDM_CUDA_BACKGROUND, // both queues of a stream in the background: the lowest one
} atedm_cuda_urgency;
ATEDM_MUST_CHECK cudaError_t atedm_cuda_stream_make(atedm_cuda_urgency urgency,
                                                    cudaStream_t *ret_stream);
bool atedm_cuda_stream_set_background(atedm_stream *s);
bool atedm_cuda_stream_idle(atedm_stream *s);

// ---- aside.c

// On failure there may be something to finish.
ATEDM_MUST_CHECK atedm_status atedm_cuda_aside_init(atedm_cuda_aside *aside, atedm_error *err);
void atedm_cuda_aside_finish(atedm_cuda_aside *aside);
void atedm_cuda_stream_begin_aside(atedm_stream *s);
void atedm_cuda_stream_end_aside(atedm_stream *s);
void atedm_cuda_stream_join_aside(atedm_stream *s);

// ---- graph.c

void atedm_cuda_graphs_init(atedm_cuda_stream *s);
void atedm_cuda_graphs_finish(atedm_cuda_stream *s);
void atedm_cuda_stream_repeat(atedm_stream *s, const void *key, size_t key_bytes,
                              atedm_enqueue_fn enqueue, void *user);
void atedm_cuda_stream_forget(atedm_stream *s);
// To be called before the stream's scratch memory moves: drops all graphs, which hold its address.
// False, after failing the stream, during a capture: then it must not move.
bool atedm_cuda_graphs_release(atedm_cuda_stream *s);

// ---- linear.c, ops.c, ops_tokens.c: atedm_cuda_linear and so on

#define X(op, parameters, arguments, bytes) void atedm_cuda_##op parameters;
ATEDM_OPERATIONS(X)
#undef X

#endif
