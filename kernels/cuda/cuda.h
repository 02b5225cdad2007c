// What the host files of the cuda backend share: plain C against the CUDA runtime and cuBLASLt,
// with own kernels behind launch.h. The backend is a shared object that kernels/cuda_load.c loads
// at run time; tests/emulated builds the same files against a runtime on the host.
//
// Work is enqueued on one CUDA stream for each atedm_stream, and on a second one where it may run
// beside that (aside.c). A result for a row does not depend on how many rows there are: kernels sum
// in an order that follows from the sample alone, and cuBLASLt's algorithm is chosen once a shape,
// for one number of rows (linear.c).
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

// What linear_hopper.cu is.
typedef enum atedm_cuda_linear_choice {
    ATEDM_CUDA_LINEAR_CUBLAS, // nothing: linear layers are cuBLASLt's
    ATEDM_CUDA_LINEAR_TRIED,  // one more candidate of trials
    ATEDM_CUDA_LINEAR_HOPPER, // whose the layers are that it takes
} atedm_cuda_linear_choice;

// What the kernels for compute capability 9.0 need of a device.
typedef struct atedm_cuda_hopper {
    atedm_cuda_encode_fn encode; // where one of these is
    bool attention, conv;        // are those of these kernels: attention and ranking; convolutions
    atedm_cuda_linear_choice linear;
    int multiprocessors; // of any device
} atedm_cuda_hopper;

typedef struct atedm_cuda_device {
    atedm_device head;
    int index;
    cublasLtHandle_t blas;
    struct atedm_cuda_nvml *nvml;       // opened when it is first asked; NULL: not yet
    struct atedm_cuda_dnn_library *dnn; // NULL: convolutions are own kernels'
    atedm_cuda_hopper hopper;
} atedm_cuda_device;

// Scratch memory of a stream, there from its start so that no operation allocates. Larger
// operations work in pieces; where one cannot, it grows, and is kept. Each is overwritten by the
// next operation that uses it.
typedef enum atedm_cuda_scratch {
    ATEDM_CUDA_SCRATCH_SUMS, // results in F32: products before their epilogue, statistics, scores
    ATEDM_CUDA_SCRATCH_WORKSPACE, // cuBLASLt's and cuDNN's
    ATEDM_CUDA_SCRATCH_ASIDE,     // in place of sums, of operations aside
    ATEDM_CUDA_SCRATCH_PADDED,    // linear_padded.c's; none at the start
    ATEDM_CUDA_SCRATCH_COUNT,
} atedm_cuda_scratch;

// Bytes of each. That aside is enough to rank 32 samples of 4096 tokens with 10 heads, and to look
// for their sources. The emulated backend has small ones, so that toy sizes come in pieces too.
#ifndef ATEDM_CUDA_SUMS_BYTES
#define ATEDM_CUDA_SUMS_BYTES ((size_t)128 << 20)
#define ATEDM_CUDA_WORKSPACE_BYTES ((size_t)32 << 20)
#define ATEDM_CUDA_ASIDE_BYTES ((size_t)24 << 20)
#define ATEDM_CUDA_STAGE_BYTES ((size_t)4 << 20)
#endif

// Copies between the host's and the device's memory go through a ring of pinned memory, since CUDA
// makes the host wait for those from and to memory that is not: staging.c.
#define ATEDM_CUDA_STAGES 4
#define ATEDM_CUDA_STAGE_DOWNLOADS 64

typedef struct atedm_cuda_stage {
    char *memory; // pinned, ATEDM_CUDA_STAGE_BYTES
    size_t used;
    cudaEvent_t done; // behind the copies in it
    bool full;        // `done` is recorded; until then it is being filled
    int n_downloads;  // that are in it and have yet to go to where they belong
    struct {
        const char *from;
        void *to;
        size_t bytes;
    } downloads[ATEDM_CUDA_STAGE_DOWNLOADS];
} atedm_cuda_stage;

typedef struct atedm_cuda_staging {
    atedm_cuda_stage stages[ATEDM_CUDA_STAGES];
    int at; // the one that is being filled; the next one is the oldest
} atedm_cuda_staging;

// What is kept of sequences that come again: graph.c. The latest of each.
#define ATEDM_CUDA_MAX_KEYS 64
#define ATEDM_CUDA_MAX_GRAPHS 16
#define ATEDM_CUDA_MAX_GRAPH_BYTES ((size_t)256 << 20)
#define ATEDM_CUDA_GRAPH_PAUSE 256 // sequences that are not kept after one that no memory was for
typedef struct atedm_cuda_graphs {
    struct atedm_cuda_graph *latest;
    bool off, capturing;
    int pause; // sequences until they are kept again
} atedm_cuda_graphs;

// A stream's second queue: aside.c.
typedef struct atedm_cuda_aside {
    cudaStream_t stream;     // NULL: there is none
    cudaEvent_t begun, done; // what it waits for; what is waited for
    int32_t multiprocessors; // that ranking takes there at most
    bool open;               // operations go there now
    bool unjoined;           // the main queue does not wait for it yet
} atedm_cuda_aside;

typedef struct atedm_cuda_stream {
    atedm_stream head;
    cudaStream_t stream; // the main queue
    atedm_cuda_aside aside;
    void *scratch[ATEDM_CUDA_SCRATCH_COUNT];
    size_t scratch_bytes[ATEDM_CUDA_SCRATCH_COUNT];
    atedm_cuda_staging staging;
    struct atedm_cuda_plan *plans; // of linear layers, by shape: linear.c
    struct atedm_cuda_dnn *dnn;    // cuDNN's part: dnn.c; NULL where it has none
    atedm_cuda_graphs graphs;
} atedm_cuda_stream;

typedef struct atedm_cuda_weight {
    atedm_weight head;
    void *values;   // [device] act: linear, conv [out, stride]; table [entries, c]; norm: F32 scale
    float *bias;    // [device] F32 [out] or NULL; norm: shift
    void *act_bias; // [device] act [out]: linear, conv: where act holds the bias exactly; or NULL
    int64_t row_elements; // of `values`, for linear and conv: [kernel, kernel, in], then zeros
} atedm_cuda_weight;

// ---- devices.c

// All that this can run on. Makes no context: programs ask that leave the devices to others.
size_t atedm_cuda_devices(atedm_device_facts ret_facts[ATEDM_MAX_DEVICES]);
// The error where there is none.
ATEDM_MUST_CHECK atedm_status atedm_cuda_find_devices(atedm_error *err);
// Makes it the calling thread's, to which CUDA's calls go.
cudaError_t atedm_cuda_use(const atedm_device *device);

// Every operation comes through here, so that it finds its own device in use.
static inline atedm_cuda_stream *atedm_cuda_stream_of(atedm_stream *s)
{
    (void)atedm_cuda_use(s->device); // where that fails, so does what follows
    return (atedm_cuda_stream *)s;
}

static inline const atedm_cuda_weight *atedm_cuda_weight_of(const atedm_weight *w)
{
    return (const atedm_cuda_weight *)w;
}

// ---- error.c

// Makes the stream fail where `error` is one. What the context does not outlive is said so: from
// then on every call on the device fails, and only a new process helps.
void atedm_cuda_check(atedm_stream *s, cudaError_t error, const char *what);
// The same as a status.
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
// Scratch for so many elements of so many bytes; NULL after failing the stream.
void *atedm_cuda_scratch_get(atedm_cuda_stream *s, atedm_cuda_scratch which, int64_t elements,
                             size_t element);
void atedm_cuda_copy(atedm_stream *s, const void *from_device, void *to_device, size_t bytes);

// ---- staging.c

// Memory and events of the stream's ring.
ATEDM_MUST_CHECK atedm_status atedm_cuda_staging_init(atedm_cuda_staging *staging,
                                                      atedm_error *err);
void atedm_cuda_staging_finish(atedm_cuda_staging *staging);
void atedm_cuda_upload(atedm_stream *s, const void *from_host, void *to_device, size_t bytes);
void atedm_cuda_download(atedm_stream *s, const void *from_device, void *to_host, size_t bytes);
// Waits for all that is enqueued, and puts what was downloaded to where it belongs.
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

// Loads the library, as ATEDM_CUDA_CONV says: "auto", "hopper", "cudnn" or "own". NULL where all
// convolutions are for conv.cu.
ATEDM_MUST_CHECK atedm_status atedm_cuda_dnn_load(struct atedm_cuda_dnn_library **ret_library,
                                                  atedm_error *err);
void atedm_cuda_dnn_unload(struct atedm_cuda_dnn_library *library); // NULL allowed
ATEDM_MUST_CHECK atedm_status atedm_cuda_dnn_create(const struct atedm_cuda_dnn_library *library,
                                                    cudaStream_t stream, atedm_dtype act,
                                                    struct atedm_cuda_dnn **ret_dnn,
                                                    atedm_error *err);
void atedm_cuda_dnn_destroy(struct atedm_cuda_dnn *dnn); // NULL allowed
// Later calls go to this stream. False: cuDNN refuses.
bool atedm_cuda_dnn_move(struct atedm_cuda_dnn *dnn, cudaStream_t stream); // NULL allowed
// True: it is enqueued, or the stream has failed. False: it is for conv.cu.
bool atedm_cuda_dnn_conv(atedm_stream *s, const atedm_conv_args *args);

// ---- hopper.c

// As ATEDM_CUDA_ATTENTION, ATEDM_CUDA_CONV and ATEDM_CUDA_LINEAR say for the device.
ATEDM_MUST_CHECK atedm_status atedm_cuda_hopper_choose(int index, atedm_cuda_hopper *ret_hopper,
                                                       atedm_error *err);
// For what atedm_cuda_is_head64 takes. Takes the spans from `spans`, not from args.
cudaError_t atedm_cuda_hopper_attention(const atedm_cuda_hopper *hopper, atedm_dtype act,
                                        const atedm_attention_args *args,
                                        const atedm_cuda_spans *spans, cudaStream_t stream);

// Whether ranking of these spans, with heads of 64, is these kernels'.
bool atedm_cuda_hopper_takes_rank(const atedm_cuda_hopper *hopper, const atedm_cuda_rank *rank);
// The maps of q, k and offsets; false: the driver refuses.
bool atedm_cuda_hopper_rank_maps_make(const atedm_cuda_hopper *hopper, atedm_dtype act,
                                      const atedm_cuda_rank *rank,
                                      atedm_cuda_hopper_rank_maps *ret_maps);
// A tensor map of `rank` dimensions from the dense one on; zeros outside. strides [rank - 1]: bytes
// from one to the next. Boxes with rows of 128 bytes are swizzled, for products. False: the driver
// refuses.
bool atedm_cuda_hopper_encode(atedm_cuda_encode_fn function, atedm_dtype act, const void *tensor,
                              cuuint32_t rank, const cuuint64_t *dims, const cuuint64_t *strides,
                              const cuuint32_t *box, CUtensorMap *ret_map);
// Coordinates of a copy are 32 bits, those behind the last row too: a box has 256 at most.
#define ATEDM_CUDA_HOPPER_MOST_ROWS (INT32_MAX - 256)

// ---- hopper_conv.c

// True: it is enqueued, or the stream has failed. False: it is for others.
bool atedm_cuda_hopper_conv(atedm_stream *s, const atedm_cuda_conv_call *conv, cudaStream_t stream);

// ---- stream.c

// How urgent a CUDA stream is: whose blocks go first where several wait for multiprocessors.
typedef enum atedm_cuda_urgency {
    ATEDM_CUDA_URGENT,     // a stream's main queue
    ATEDM_CUDA_BESIDE,     // what runs beside that: next to it, where the device knows three
    ATEDM_CUDA_BACKGROUND, // both queues of a stream that stands back
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
// Memory of the stream's own is about to move: graphs have its address, and go. During a capture it
// cannot: false, after failing the stream.
bool atedm_cuda_graphs_release(atedm_cuda_stream *s);

// ---- linear.c, ops.c, ops_tokens.c: atedm_cuda_linear and so on

#define X(op, parameters, arguments, bytes) void atedm_cuda_##op parameters;
ATEDM_OPERATIONS(X)
#undef X

#endif
