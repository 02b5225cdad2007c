// What a backend implements. Only kernels/ includes this header: callers use kernels.h, whose
// functions (ops.c, ops_tokens.c; device.c for devices and memory, stream.c for streams) check
// arguments, count multiply-accumulates, and call the backend.
//
// A function of the table may rely on this: the stream has not failed, the arguments are as
// kernels.h allows, and numbers of rows, samples and spans are above 0. It reports failures by
// atedm_stream_fail. HACKING.md says how to add an operation.
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

// Where a stream is with its work aside: see atedm_stream_begin_aside.
typedef enum atedm_aside {
    ATEDM_ASIDE_NONE,  // there is none, or it has been joined
    ATEDM_ASIDE_OPEN,  // between begin_aside and end_aside
    ATEDM_ASIDE_ENDED, // between end_aside and join_aside
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
    int64_t in, out;    // as atedm_weight_in and atedm_weight_out
    int kernel, stride; // convolutions; linear layers: 1; 0 otherwise
    size_t bytes;       // device memory that it holds
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

    // The devices that the backend can run on, by ascending index, with all their facts; returns
    // their number. NULL: there is exactly one, of which nothing is known.
    size_t (*devices)(atedm_device_facts ret_facts[ATEDM_MAX_DEVICES]);
    // Returns the backend's own struct, whose head device.c fills. (So does stream_create:
    // stream.c.)
    atedm_status (*device_create)(int index, atedm_device **ret_device, atedm_error *err);
    void (*device_destroy)(atedm_device *device);
    // Writes the figures that the backend knows; the others are NAN already. NULL: it knows none.
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

    // As atedm_stream_set_background and atedm_stream_idle. Both NULL: operations are done when
    // they return.
    bool (*stream_set_background)(atedm_stream *stream);
    bool (*stream_idle)(atedm_stream *stream);
    // As atedm_stream_begin_aside, _end_aside and _join_aside. All NULL: there is no second queue.
    // On a stream that has failed begin_aside is not called, but the other two are.
    void (*stream_begin_aside)(atedm_stream *stream);
    void (*stream_end_aside)(atedm_stream *stream);
    void (*stream_join_aside)(atedm_stream *stream);
    // As atedm_stream_repeat, with a key within the limit. NULL: `enqueue` is always called.
    void (*stream_repeat)(atedm_stream *s, const void *key, size_t key_bytes,
                          atedm_enqueue_fn enqueue, void *user);
    void (*stream_forget)(atedm_stream *stream); // with stream_repeat

    // `head` holds the common fields as kernels/weights.c worked them out; the backend copies them
    // into its own struct and sets `bytes`.
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
