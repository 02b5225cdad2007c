// What a backend implements. Only kernels/ includes this header: callers use kernels.h, whose
// functions (ops.c, ops_tokens.c; kernels.c for devices, memory and streams) check arguments, count
// multiply-accumulates, and call the table below.
//
// A table function may rely on: a stream that has not failed, arguments that kernels.h allows,
// counts > 0. It reports failure with atedm_stream_fail. HACKING.md says how to add an operation.
#ifndef ATEDM_KERNELS_BACKEND_H
#define ATEDM_KERNELS_BACKEND_H

#include "kernels/kernels.h"

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

    // The op table, in the order of kernels.h.
    void (*linear)(atedm_stream *s, const atedm_linear_args *args);
    void (*conv)(atedm_stream *s, const atedm_conv_args *args);
    void (*group_norm)(atedm_stream *s, const atedm_group_norm_args *args);
    void (*layer_norm)(atedm_stream *s, const atedm_layer_norm_args *args);
    void (*geglu)(atedm_stream *s, const void *x, void *y, int64_t rows, int64_t f);
    void (*activate)(atedm_stream *s, atedm_activation activation, const void *x, void *y,
                     int64_t count);
    void (*add)(atedm_stream *s, const void *a, const void *b, void *y, int64_t count);
    void (*upsample2)(atedm_stream *s, const void *x, void *y, int64_t n, int64_t h, int64_t w,
                      int64_t c);
    void (*concat)(atedm_stream *s, const void *a, int64_t ca, const void *b, int64_t cb, void *y,
                   int64_t rows);
    void (*embed_tokens)(atedm_stream *s, const atedm_weight *table, const atedm_weight *position,
                         const int64_t *ids, int64_t rows, int64_t tokens, void *y);
    void (*sinusoid)(atedm_stream *s, const double *values, int64_t n, int64_t dim, void *y);
    void (*to_f32)(atedm_stream *s, const void *x, float *y, int64_t count);
    void (*from_f32)(atedm_stream *s, const float *x, void *y, int64_t count);
    void (*attention)(atedm_stream *s, const atedm_attention_args *args);
    void (*rank_tokens)(atedm_stream *s, const atedm_rank_args *args);
    void (*random_scores)(atedm_stream *s, const uint64_t *draws, const float *weights,
                          float *scores, const atedm_random_span *spans, int64_t n_spans);
    void (*select_tokens)(atedm_stream *s, const float *scores, int32_t *kept,
                          const atedm_prune_span *spans, int64_t n_spans);
    void (*source_attention)(atedm_stream *s, const atedm_source_args *args,
                             const atedm_source_map *map);
    void (*source_cosine)(atedm_stream *s, const atedm_source_args *args, const void *x, int64_t c);
    void (*source_nearest)(atedm_stream *s, const atedm_source_args *args, const int32_t *place,
                           int64_t width);
    void (*source_zero)(atedm_stream *s, const atedm_source_args *args);
    void (*source_weights)(atedm_stream *s, const int32_t *source, const float *before,
                           float *weights, const atedm_prune_span *spans, int64_t n_spans);
    void (*gather_rows)(atedm_stream *s, const void *x, const int32_t *index, void *y,
                        size_t row_bytes, const atedm_gather_span *spans, int64_t n_spans);
    void (*add_rows)(atedm_stream *s, const void *x, const int32_t *index, float factor, void *y,
                     int64_t c, const atedm_gather_span *spans, int64_t n_spans);
    void (*scale_input)(atedm_stream *s, const float *x, const double *a, void *y, int64_t n,
                        int64_t count);
    void (*sampler_step)(atedm_stream *s, const atedm_step_args *args);
    void (*image_finish)(atedm_stream *s, const void *x, uint8_t *y, int64_t count);
};

// Entries of the op table, none of which may be NULL.
#define ATEDM_BACKEND_OPERATIONS                                                                   \
    ((sizeof(atedm_backend) - offsetof(atedm_backend, linear)) / sizeof(void (*)(void)))

extern const atedm_backend atedm_backend_ref;
extern const atedm_backend atedm_backend_cpu;
extern const atedm_backend atedm_backend_dry;

#endif
