// Shared by the files of the cpu backend: its device, stream and weights.
//
// oneDNN computes convolutions and linear layers (linear.c, conv.c, through primitive.c).
// Everything else is our own code: vec.c has the inner loops, compiled once for each instruction
// set, and the other files divide the work among OpenMP's threads. Operations run when they are
// called.
#ifndef ATEDM_KERNELS_CPU_H
#define ATEDM_KERNELS_CPU_H

#include "kernels/backend.h"
#include "kernels/cpu/vec.h"

#include <oneapi/dnnl/dnnl.h>
#include <pthread.h>

typedef struct atedm_cpu_lane atedm_cpu_lane; // primitive.h

typedef struct atedm_cpu_device {
    atedm_device head;
    dnnl_engine_t engine;
    bool linear_as_conv; // linear layers as 1x1 convolutions: see backend.c
    const atedm_vec *vec;
} atedm_cpu_device;

// Scratch memory of a stream, by its content. A stream keeps it; it only grows.
typedef enum atedm_cpu_scratch {
    ATEDM_SCRATCH_RUNS,    // a convolution's samples
    ATEDM_SCRATCH_BIAS,    // a convolution's bias with each sample's channel_add
    ATEDM_SCRATCH_SUMS,    // partial sums of norms and ranks
    ATEDM_SCRATCH_KEYS,    // packed keys
    ATEDM_SCRATCH_VALUES,  // packed values
    ATEDM_SCRATCH_MAP,     // attention maps
    ATEDM_SCRATCH_THREADS, // working memory of each thread
    ATEDM_SCRATCH_ROWS,    // gathered or converted rows
    ATEDM_SCRATCH_COUNT,
} atedm_cpu_scratch;

// Memory that only ever grows.
typedef struct atedm_cpu_buffer {
    void *memory;
    size_t bytes;
} atedm_cpu_buffer;

typedef struct atedm_cpu_stream {
    atedm_stream head;
    atedm_cpu_lane *lanes;
    int n_lanes;
    const atedm_vec *vec;     // of the device
    const atedm_vec_act *act; // vec's functions for the stream's dtype
    atedm_cpu_buffer scratch[ATEDM_SCRATCH_COUNT];
} atedm_cpu_stream;

// A weight's data in another layout.
typedef struct atedm_cpu_packed {
    struct atedm_cpu_packed *next;
    dnnl_memory_desc_t layout;
    dnnl_memory_t memory;
    void *data;
} atedm_cpu_packed;

// A weight's data in further layouts.
typedef struct atedm_cpu_others {
    pthread_mutex_t mutex; // guards `first` and the list that starts there
    atedm_cpu_packed *first;
} atedm_cpu_others;

typedef struct atedm_cpu_weight {
    atedm_weight head;
    void *data;                // linear, conv: packed for oneDNN; norm: F32 scale; table: act
    float *bias;               // linear, conv: [out], zeros without a bias; norm: shift
    dnnl_memory_desc_t layout; // of data: linear [in, out], conv [out, in, k, k]
    dnnl_memory_t memory;      // around data
    // oneDNN's fast convolutions need different layouts for different sizes of the feature map, and
    // fall back to a reference implementation without them. These layouts are made when first
    // needed.
    atedm_cpu_others *others;
} atedm_cpu_weight;

static inline atedm_cpu_stream *atedm_cpu_stream_of(atedm_stream *s)
{
    return (atedm_cpu_stream *)s;
}

static inline const atedm_cpu_weight *atedm_cpu_weight_of(const atedm_weight *w)
{
    return (const atedm_cpu_weight *)w;
}

// memory.c

// Allocates `bytes` bytes aligned to ATEDM_DEVICE_ALIGN, which the caller frees with free(). Large
// blocks lie in huge pages: a large batch's activations take more small pages than the processor's
// TLB has entries. NULL if memory is exhausted.
void *atedm_cpu_alloc(size_t bytes);

// The buffer's memory, grown to at least `bytes` bytes. Growing loses its content. NULL if memory
// is exhausted; then the buffer is unchanged.
void *atedm_cpu_buffer_get(atedm_cpu_buffer *buffer, size_t bytes);

// At least `bytes` bytes, aligned to ATEDM_DEVICE_ALIGN, valid until the next call for the same
// slot. If memory is exhausted, or if `bytes` is SIZE_MAX, which stands for an overflow
// (atedm_cpu_bytes), it fails the stream and returns NULL.
void *atedm_cpu_scratch_get(atedm_cpu_stream *s, atedm_cpu_scratch slot, size_t bytes);

// a * b * c, or SIZE_MAX if that overflows.
size_t atedm_cpu_bytes(int64_t a, int64_t b, size_t c);

// An operation with less work than this, in multiply-accumulates, stays on the calling thread.
// Waking other threads takes some microseconds, and a whole time slice on a busy machine. An
// element of a memory-bound operation counts as ATEDM_CPU_ELEMENT_WORK multiply-accumulates.
#define ATEDM_CPU_FEW_MACS ((int64_t)4 << 20)
#define ATEDM_CPU_ELEMENT_WORK 32

// The number of threads for an operation with this much work: one, or all.
int atedm_cpu_threads(int64_t macs);

static inline dnnl_data_type_t atedm_cpu_dnnl_type(atedm_dtype dtype)
{
    return dtype == ATEDM_BF16 ? dnnl_bf16 : dnnl_f32;
}

// weights.c
atedm_status atedm_cpu_linear_weight_create(const atedm_weight *head,
                                            const atedm_host_tensor *parts,
                                            const atedm_host_tensor *biases, size_t n_parts,
                                            atedm_weight **ret_weight, atedm_error *err);
atedm_status atedm_cpu_conv_weight_create(const atedm_weight *head, const atedm_host_tensor *weight,
                                          const atedm_host_tensor *bias, atedm_weight **ret_weight,
                                          atedm_error *err);
atedm_status atedm_cpu_norm_weight_create(const atedm_weight *head, const atedm_host_tensor *scale,
                                          const atedm_host_tensor *shift, atedm_weight **ret_weight,
                                          atedm_error *err);
atedm_status atedm_cpu_table_weight_create(const atedm_weight *head, const atedm_host_tensor *table,
                                           atedm_weight **ret_weight, atedm_error *err);
void atedm_cpu_weight_destroy(atedm_weight *weight);
// The weight of a linear layer or convolution in `layout`, packed now if that layout is new. NULL
// if memory is exhausted.
dnnl_memory_t atedm_cpu_weight_memory(const atedm_cpu_weight *weight,
                                      const dnnl_memory_desc_t *layout);

// Copies with all threads.
void atedm_cpu_copy(const void *from, void *to, size_t bytes); // elementwise.c

// The operations, in the files with their names: atedm_cpu_linear and so on.
#define X(op, parameters, arguments, bytes) void atedm_cpu_##op parameters;
ATEDM_OPERATIONS(X)
#undef X

#endif
