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

// An operation does nothing.
#define X(op, parameters, arguments, bytes)                                                        \
    static void dry_##op parameters                                                                \
    {                                                                                              \
    }
ATEDM_OPERATIONS(X)
#undef X

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
#define X(op, parameters, arguments, bytes) .op = dry_##op,
    .ops = {ATEDM_OPERATIONS(X)},
#undef X
};
