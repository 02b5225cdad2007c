// What a backend implements. Only kernels/ includes this header: callers use kernels.h, whose
// functions (ops.c, ops_tokens.c; kernels.c for devices, memory and streams) check arguments, count
// multiply-accumulates, and call the backend.
//
// A table function may rely on: a stream that has not failed, arguments that kernels.h allows,
// counts > 0. It reports failure with atedm_stream_fail. HACKING.md says how to add an operation.
#ifndef ATEDM_KERNELS_BACKEND_H
#define ATEDM_KERNELS_BACKEND_H

#include "kernels/operations.h"

#include <stddef.h>

typedef struct atedm_backend atedm_backend;

// A backend's own device, stream and weight begin with these.
struct atedm_device {
    const atedm_backend *backend;
    atedm_device_facts facts;
};

// Work aside of a stream.
typedef enum atedm_aside {
    ATEDM_ASIDE_NONE,  // there is none, or it has been joined
    ATEDM_ASIDE_OPEN,  // operations are enqueued aside now
    ATEDM_ASIDE_ENDED, // and are no more
} atedm_aside;

struct atedm_stream {
    atedm_device *device;
    atedm_dtype act;
    atedm_op_counts counts;
    uint64_t profiled_flops; // FLOPs of `counts` that a profile has given to operations: profile.c
    atedm_repeat_figures repeats;
    atedm_aside aside;
    atedm_status status; // first failure since the last sync
    atedm_error error;
};

typedef enum atedm_weight_kind {
    ATEDM_WEIGHT_LINEAR,
    ATEDM_WEIGHT_CONV,
    ATEDM_WEIGHT_NORM,
    ATEDM_WEIGHT_TABLE,
} atedm_weight_kind;

struct atedm_weight {
    atedm_device *device;
    atedm_weight_kind kind;
    atedm_dtype act;
    int64_t in, out;
    int kernel, stride; // convolutions
    size_t bytes;
};

// Pixels along a side of a convolution's result, from those of its input.
static inline int64_t atedm_conv_out(int64_t pixels, int stride)
{
    return (pixels + stride - 1) / stride;
}

// The operations: void (*linear)(atedm_stream *s, const atedm_linear_args *args) and so on. None is
// NULL.
typedef struct atedm_op_table {
// NOLINTNEXTLINE(bugprone-macro-parentheses): they are a declaration's.
#define X(op, parameters, arguments, bytes) void(*op) parameters;
    ATEDM_OPERATIONS(X)
#undef X
} atedm_op_table;

struct atedm_backend {
    const char *name;

    // Those that it can run on, by ascending index, with all facts; NULL where there is just one,
    // of which nothing is known.
    size_t (*devices)(atedm_device_facts ret_facts[ATEDM_MAX_DEVICES]);
    // Each returns the backend's own struct with the common head zeroed; kernels.c fills the head.
    atedm_status (*device_create)(int index, atedm_device **ret_device, atedm_error *err);
    void (*device_destroy)(atedm_device *device);
    // Those that it knows; the others are NAN already. NULL where it knows none.
    void (*measure)(atedm_device *device, atedm_device_figures *figures);
    bool (*supports)(const atedm_device *device, atedm_dtype dtype);
    atedm_dtype (*best_dtype)(const atedm_device *device);
    atedm_status (*alloc)(atedm_device *device, size_t bytes, void **ret_memory, atedm_error *err);
    void (*free)(atedm_device *device, void *memory);

    atedm_status (*stream_create)(atedm_device *device, atedm_dtype act, atedm_stream **ret_stream,
                                  atedm_error *err);
    void (*stream_destroy)(atedm_stream *stream);
    void (*stream_sync)(atedm_stream *stream);
    void (*upload)(atedm_stream *s, const void *from_host, void *to_device, size_t bytes);
    void (*download)(atedm_stream *s, const void *from_device, void *to_host, size_t bytes);
    void (*copy)(atedm_stream *s, const void *from_device, void *to_device, size_t bytes);

    // As atedm_stream_set_background and atedm_stream_idle. NULL both: operations are done when
    // they return.
    bool (*stream_set_background)(atedm_stream *stream);
    bool (*stream_idle)(atedm_stream *stream);
    // As atedm_stream_begin_aside and so on, in that order. NULL all: operations are done in order.
    // The latter two are also called on a stream that has failed, and behind a begin_aside that was
    // left out because it had.
    void (*stream_begin_aside)(atedm_stream *stream);
    void (*stream_end_aside)(atedm_stream *stream);
    void (*stream_join_aside)(atedm_stream *stream);
    // As atedm_stream_repeat, with a key within the limit. NULL: `enqueue` is always called.
    void (*stream_repeat)(atedm_stream *s, const void *key, size_t key_bytes,
                          atedm_enqueue_fn enqueue, void *user);
    void (*stream_forget)(atedm_stream *stream); // with stream_repeat

    // `head` holds the common fields that kernels.c worked out; the backend copies it into its own
    // struct and sets `bytes`.
    atedm_status (*linear_weight_create)(const atedm_weight *head, const atedm_host_tensor *parts,
                                         const atedm_host_tensor *biases, size_t n_parts,
                                         atedm_weight **ret_weight, atedm_error *err);
    atedm_status (*conv_weight_create)(const atedm_weight *head, const atedm_host_tensor *weight,
                                       const atedm_host_tensor *bias, atedm_weight **ret_weight,
                                       atedm_error *err);
    atedm_status (*norm_weight_create)(const atedm_weight *head, const atedm_host_tensor *scale,
                                       const atedm_host_tensor *shift, atedm_weight **ret_weight,
                                       atedm_error *err);
    atedm_status (*table_weight_create)(const atedm_weight *head, const atedm_host_tensor *table,
                                        atedm_weight **ret_weight, atedm_error *err);
    void (*weight_destroy)(atedm_weight *weight);

    atedm_op_table ops;
};

static inline const atedm_backend *atedm_stream_backend(const atedm_stream *stream)
{
    return stream->device->backend;
}

extern const atedm_backend atedm_backend_ref;
extern const atedm_backend atedm_backend_cpu;
extern const atedm_backend atedm_backend_dry;

#endif
