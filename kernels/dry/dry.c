// The dry backend: computes nothing. Arguments are checked and operations counted before they come
// here, so running a pipeline on it tells what a real run would cost. Its memory is addresses only.
#include "kernels/backend.h"

#include <stdatomic.h>
#include <stdlib.h>

// Addresses that are handed out, in bytes: x86-64 and AArch64 have nothing mapped there, so that
// following one by mistake shows at once.
#define FIRST_ADDRESS ((uint64_t)1 << 62)
#define ADDRESSES ((uint64_t)1 << 61)

typedef struct dry_device {
    atedm_device head;
    atomic_uint_fast64_t used; // of ADDRESSES; devices may be used by several threads
} dry_device;

static atedm_status device_create(int index, atedm_device **ret_device, atedm_error *err)
{
    dry_device *device = calloc(1, sizeof *device);
    if (!device)
        return atedm_error_set(err, ATEDM_ERR_NOMEM, "no memory for a device");
    *ret_device = &device->head;
    return ATEDM_OK;
}

static void device_destroy(atedm_device *device)
{
    free(device);
}

static bool supports(const atedm_device *device, atedm_dtype dtype)
{
    return dtype == ATEDM_F32 || dtype == ATEDM_BF16 || dtype == ATEDM_F16;
}

static atedm_dtype best_dtype(const atedm_device *device)
{
    return ATEDM_F32;
}

// Every allocation has addresses of its own; they are not reused, there are more than anyone wants.
static atedm_status alloc(atedm_device *device, size_t bytes, void **ret_memory, atedm_error *err)
{
    dry_device *dry = (dry_device *)device;
    uint64_t size = ((uint64_t)bytes / ATEDM_DEVICE_ALIGN + 1) * ATEDM_DEVICE_ALIGN;
    uint64_t used = atomic_load(&dry->used);
    do {
        if (size > ADDRESSES - used)
            return atedm_error_set(err, ATEDM_ERR_NOMEM, "no addresses for %zu bytes", bytes);
    } while (!atomic_compare_exchange_weak(&dry->used, &used, used + size));
    // NOLINTNEXTLINE(performance-no-int-to-ptr): it is an address and nothing else.
    *ret_memory = (void *)(uintptr_t)(FIRST_ADDRESS + used);
    return ATEDM_OK;
}

static void free_memory(atedm_device *device, void *memory)
{
}

static atedm_status stream_create(atedm_device *device, atedm_dtype act, atedm_stream **ret_stream,
                                  atedm_error *err)
{
    atedm_stream *stream = calloc(1, sizeof *stream);
    if (!stream)
        return atedm_error_set(err, ATEDM_ERR_NOMEM, "no memory for a stream");
    *ret_stream = stream;
    return ATEDM_OK;
}

static void stream_destroy(atedm_stream *stream)
{
    free(stream);
}

static void stream_sync(atedm_stream *stream)
{
}

static atedm_status make_weight(const atedm_weight *head, size_t bytes, atedm_weight **ret_weight,
                                atedm_error *err)
{
    atedm_weight *weight = malloc(sizeof *weight);
    if (!weight)
        return atedm_error_set(err, ATEDM_ERR_NOMEM, "no memory for a weight");
    *weight = *head;
    weight->bytes = bytes;
    *ret_weight = weight;
    return ATEDM_OK;
}

// Bytes of a matrix in act with an f32 bias.
static size_t matrix_bytes(const atedm_weight *head, bool bias)
{
    size_t elements = (size_t)head->in * (size_t)head->out;
    if (head->kernel)
        elements *= (size_t)(head->kernel * head->kernel);
    return elements * atedm_dtype_size(head->act) + (bias ? (size_t)head->out * sizeof(float) : 0);
}

static atedm_status linear_weight_create(const atedm_weight *head, const atedm_host_tensor *parts,
                                         const atedm_host_tensor *biases, size_t n_parts,
                                         atedm_weight **ret_weight, atedm_error *err)
{
    return make_weight(head, matrix_bytes(head, biases != NULL), ret_weight, err);
}

static atedm_status conv_weight_create(const atedm_weight *head, const atedm_host_tensor *weight,
                                       const atedm_host_tensor *bias, atedm_weight **ret_weight,
                                       atedm_error *err)
{
    return make_weight(head, matrix_bytes(head, bias != NULL), ret_weight, err);
}

static atedm_status norm_weight_create(const atedm_weight *head, const atedm_host_tensor *scale,
                                       const atedm_host_tensor *shift, atedm_weight **ret_weight,
                                       atedm_error *err)
{
    return make_weight(head, 2 * (size_t)head->in * sizeof(float), ret_weight, err);
}

static atedm_status table_weight_create(const atedm_weight *head, const atedm_host_tensor *table,
                                        atedm_weight **ret_weight, atedm_error *err)
{
    return make_weight(head, matrix_bytes(head, false), ret_weight, err);
}

static void weight_destroy(atedm_weight *weight)
{
    free(weight);
}

static void upload(atedm_stream *s, const void *from_host, void *to_device, size_t bytes)
{
}

static void download(atedm_stream *s, const void *from_device, void *to_host, size_t bytes)
{
}

static void copy(atedm_stream *s, const void *from_device, void *to_device, size_t bytes)
{
}

static void linear(atedm_stream *s, const atedm_linear_args *args)
{
}

static void conv(atedm_stream *s, const atedm_conv_args *args)
{
}

static void group_norm(atedm_stream *s, const atedm_group_norm_args *args)
{
}

static void layer_norm(atedm_stream *s, const atedm_layer_norm_args *args)
{
}

static void geglu(atedm_stream *s, const void *x, void *y, int64_t rows, int64_t f)
{
}

static void activate(atedm_stream *s, atedm_activation activation, const void *x, void *y,
                     int64_t count)
{
}

static void add(atedm_stream *s, const void *a, const void *b, void *y, int64_t count)
{
}

static void upsample2(atedm_stream *s, const void *x, void *y, int64_t n, int64_t h, int64_t w,
                      int64_t c)
{
}

static void concat(atedm_stream *s, const void *a, int64_t ca, const void *b, int64_t cb, void *y,
                   int64_t rows)
{
}

static void embed_tokens(atedm_stream *s, const atedm_weight *table, const atedm_weight *position,
                         const int64_t *ids, int64_t rows, int64_t tokens, void *y)
{
}

static void sinusoid(atedm_stream *s, const double *values, int64_t n, int64_t dim, void *y)
{
}

static void to_f32(atedm_stream *s, const void *x, float *y, int64_t count)
{
}

static void from_f32(atedm_stream *s, const float *x, void *y, int64_t count)
{
}

static void attention(atedm_stream *s, const atedm_attention_args *args)
{
}

static void rank_tokens(atedm_stream *s, const atedm_rank_args *args)
{
}

static void random_scores(atedm_stream *s, const uint64_t *draws, const float *weights,
                          float *scores, const atedm_random_span *spans, int64_t n_spans)
{
}

static void select_tokens(atedm_stream *s, const float *scores, int32_t *kept,
                          const atedm_prune_span *spans, int64_t n_spans)
{
}

static void source_attention(atedm_stream *s, const atedm_source_args *args,
                             const atedm_source_map *map)
{
}

static void source_cosine(atedm_stream *s, const atedm_source_args *args, const void *x, int64_t c)
{
}

static void source_nearest(atedm_stream *s, const atedm_source_args *args, const int32_t *place,
                           int64_t width)
{
}

static void source_zero(atedm_stream *s, const atedm_source_args *args)
{
}

static void source_weights(atedm_stream *s, const int32_t *source, const float *before,
                           float *weights, const atedm_prune_span *spans, int64_t n_spans)
{
}

static void gather_rows(atedm_stream *s, const void *x, const int32_t *index, void *y,
                        size_t row_bytes, const atedm_gather_span *spans, int64_t n_spans)
{
}

static void add_rows(atedm_stream *s, const void *x, const int32_t *index, float factor, void *y,
                     int64_t c, const atedm_gather_span *spans, int64_t n_spans)
{
}

static void scale_input(atedm_stream *s, const float *x, const double *a, void *y, int64_t n,
                        int64_t count)
{
}

static void sampler_step(atedm_stream *s, const atedm_step_args *args)
{
}

static void image_finish(atedm_stream *s, const void *x, uint8_t *y, int64_t count)
{
}

const atedm_backend atedm_backend_dry = {
    .name = "dry",
    .device_create = device_create,
    .device_destroy = device_destroy,
    .supports = supports,
    .best_dtype = best_dtype,
    .alloc = alloc,
    .free = free_memory,
    .stream_create = stream_create,
    .stream_destroy = stream_destroy,
    .stream_sync = stream_sync,
    .upload = upload,
    .download = download,
    .copy = copy,
    .linear_weight_create = linear_weight_create,
    .conv_weight_create = conv_weight_create,
    .norm_weight_create = norm_weight_create,
    .table_weight_create = table_weight_create,
    .weight_destroy = weight_destroy,
    .linear = linear,
    .conv = conv,
    .group_norm = group_norm,
    .layer_norm = layer_norm,
    .geglu = geglu,
    .activate = activate,
    .add = add,
    .upsample2 = upsample2,
    .concat = concat,
    .embed_tokens = embed_tokens,
    .sinusoid = sinusoid,
    .to_f32 = to_f32,
    .from_f32 = from_f32,
    .attention = attention,
    .rank_tokens = rank_tokens,
    .random_scores = random_scores,
    .select_tokens = select_tokens,
    .source_attention = source_attention,
    .source_cosine = source_cosine,
    .source_nearest = source_nearest,
    .source_zero = source_zero,
    .source_weights = source_weights,
    .gather_rows = gather_rows,
    .add_rows = add_rows,
    .scale_input = scale_input,
    .sampler_step = sampler_step,
    .image_finish = image_finish,
};
