// Devices, streams and weights: the part of kernels.h that is not an operation (those are in
// ops.c).
#include "kernels/backend.h"

#include <stdio.h>
#include <string.h>

// Largest dimension of a weight, and of its matrix: keeps every product below within int64_t.
#define MAX_DIMENSION ((int64_t)1 << 31)

static const atedm_backend *const backends[] = {
    &atedm_backend_ref,
#ifdef ATEDM_HAVE_CPU
    &atedm_backend_cpu,
#endif
    &atedm_backend_dry,
};

// ---- devices
// ---------------------------------------------------------------------------------------

atedm_status atedm_device_create(const char *backend, atedm_device **ret_device, atedm_error *err)
{
    for (size_t i = 0; i < sizeof backends / sizeof *backends; i++) {
        if (strcmp(backends[i]->name, backend))
            continue;
        atedm_device *device = NULL;
        atedm_status status = backends[i]->device_create(&device, err);
        if (status)
            return status;
        device->backend = backends[i];
        if (!device->name[0])
            snprintf(device->name, sizeof device->name, "%s", backends[i]->name);
        *ret_device = device;
        return ATEDM_OK;
    }
    return atedm_error_set(err, ATEDM_ERR_NOT_FOUND, "there is no backend \"%s\"", backend);
}

void atedm_device_destroy(atedm_device *device)
{
    if (device)
        device->backend->device_destroy(device);
}

const char *atedm_device_backend(const atedm_device *device)
{
    return device->backend->name;
}

const char *atedm_device_name(const atedm_device *device)
{
    return device->name;
}

bool atedm_device_is_dry(const atedm_device *device)
{
    return device->backend == &atedm_backend_dry;
}

bool atedm_device_supports(const atedm_device *device, atedm_dtype dtype)
{
    return device->backend->supports(device, dtype);
}

atedm_dtype atedm_device_best_dtype(const atedm_device *device)
{
    return device->backend->best_dtype(device);
}

atedm_status atedm_device_alloc(atedm_device *device, size_t bytes, void **ret_memory,
                                atedm_error *err)
{
    return device->backend->alloc(device, bytes, ret_memory, err);
}

void atedm_device_free(atedm_device *device, void *memory)
{
    if (memory)
        device->backend->free(device, memory);
}

// ---- streams
// ---------------------------------------------------------------------------------------

atedm_status atedm_stream_create(atedm_device *device, atedm_dtype act, atedm_stream **ret_stream,
                                 atedm_error *err)
{
    if (!device->backend->supports(device, act))
        return atedm_error_set(err, ATEDM_ERR_UNSUPPORTED,
                               "the %s backend cannot compute in %s here", device->backend->name,
                               atedm_dtype_name(act));
    atedm_stream *stream = NULL;
    atedm_status status = device->backend->stream_create(device, act, &stream, err);
    if (status)
        return status;
    stream->device = device;
    stream->act = act;
    *ret_stream = stream;
    return ATEDM_OK;
}

void atedm_stream_destroy(atedm_stream *stream)
{
    if (stream)
        stream->device->backend->stream_destroy(stream);
}

atedm_device *atedm_stream_device(const atedm_stream *stream)
{
    return stream->device;
}

atedm_dtype atedm_stream_dtype(const atedm_stream *stream)
{
    return stream->act;
}

bool atedm_stream_wait(atedm_stream *stream)
{
    stream->device->backend->stream_sync(stream);
    return !stream->status;
}

atedm_status atedm_stream_sync(atedm_stream *stream, atedm_error *err)
{
    if (atedm_stream_wait(stream))
        return ATEDM_OK;
    atedm_status status = stream->status;
    stream->status = ATEDM_OK;
    return atedm_error_set(err, status, "%s", stream->error.message);
}

void atedm_stream_fail(atedm_stream *stream, atedm_status status, const char *format, ...)
{
    if (stream->status)
        return;
    va_list args;
    va_start(args, format);
    vsnprintf(stream->error.message, sizeof stream->error.message, format, args);
    va_end(args);
    stream->status = status;
}

bool atedm_stream_failed(const atedm_stream *stream)
{
    return stream->status != ATEDM_OK;
}

atedm_op_counts atedm_stream_counts(const atedm_stream *stream)
{
    return stream->counts;
}

void atedm_stream_reset_counts(atedm_stream *stream)
{
    stream->counts = (atedm_op_counts){0};
}

// ---- weights
// ---------------------------------------------------------------------------------------

static bool is_float(atedm_dtype dtype)
{
    return dtype == ATEDM_F32 || dtype == ATEDM_BF16 || dtype == ATEDM_F16;
}

// A float tensor of `ndim` dimensions, each within bounds, with data unless the device is dry.
static bool is_usable(const atedm_device *device, const atedm_host_tensor *t, int ndim)
{
    if (t->ndim != ndim || !is_float(t->dtype) || (!t->data && !atedm_device_is_dry(device)))
        return false;
    for (int i = 0; i < ndim; i++)
        if (t->shape[i] < 1 || t->shape[i] > MAX_DIMENSION)
            return false;
    return true;
}

static atedm_status unusable(atedm_error *err, const char *what)
{
    return atedm_error_set(err, ATEDM_ERR_INVALID, "%s: shapes, dtypes or data do not fit", what);
}

atedm_status atedm_linear_weight_create(atedm_device *device, atedm_dtype act,
                                        const atedm_host_tensor *parts,
                                        const atedm_host_tensor *biases, size_t n_parts,
                                        atedm_weight **ret_weight, atedm_error *err)
{
    atedm_weight head = {.device = device, .kind = ATEDM_WEIGHT_LINEAR, .act = act};
    if (!n_parts || !device->backend->supports(device, act))
        return unusable(err, "linear weight");
    for (size_t i = 0; i < n_parts; i++) {
        if (!is_usable(device, &parts[i], 2) || parts[i].shape[1] != parts[0].shape[1] ||
            parts[i].dtype != parts[0].dtype)
            return unusable(err, "linear weight");
        if (biases &&
            (!is_usable(device, &biases[i], 1) || biases[i].shape[0] != parts[i].shape[0]))
            return unusable(err, "linear bias");
        head.out += parts[i].shape[0];
    }
    head.in = parts[0].shape[1];
    head.kernel = head.stride = 1;
    return device->backend->linear_weight_create(&head, parts, biases, n_parts, ret_weight, err);
}

atedm_status atedm_conv_weight_create(atedm_device *device, atedm_dtype act,
                                      const atedm_host_tensor *weight,
                                      const atedm_host_tensor *bias, int stride,
                                      atedm_weight **ret_weight, atedm_error *err)
{
    if (!is_usable(device, weight, 4) || !device->backend->supports(device, act) ||
        weight->shape[2] != weight->shape[3] || (weight->shape[2] != 1 && weight->shape[2] != 3) ||
        (stride != 1 && stride != 2))
        return unusable(err, "convolution weight");
    if (bias && (!is_usable(device, bias, 1) || bias->shape[0] != weight->shape[0]))
        return unusable(err, "convolution bias");
    atedm_weight head = {.device = device,
                         .kind = ATEDM_WEIGHT_CONV,
                         .act = act,
                         .in = weight->shape[1],
                         .out = weight->shape[0],
                         .kernel = (int)weight->shape[2],
                         .stride = stride};
    return device->backend->conv_weight_create(&head, weight, bias, ret_weight, err);
}

atedm_status atedm_norm_weight_create(atedm_device *device, const atedm_host_tensor *scale,
                                      const atedm_host_tensor *shift, atedm_weight **ret_weight,
                                      atedm_error *err)
{
    if (!is_usable(device, scale, 1) || !is_usable(device, shift, 1) ||
        scale->shape[0] != shift->shape[0])
        return unusable(err, "norm weight");
    atedm_weight head = {.device = device,
                         .kind = ATEDM_WEIGHT_NORM,
                         .act = ATEDM_F32,
                         .in = scale->shape[0],
                         .out = scale->shape[0]};
    return device->backend->norm_weight_create(&head, scale, shift, ret_weight, err);
}

atedm_status atedm_table_weight_create(atedm_device *device, atedm_dtype act,
                                       const atedm_host_tensor *table, atedm_weight **ret_weight,
                                       atedm_error *err)
{
    if (!is_usable(device, table, 2) || !device->backend->supports(device, act))
        return unusable(err, "table");
    atedm_weight head = {.device = device,
                         .kind = ATEDM_WEIGHT_TABLE,
                         .act = act,
                         .in = table->shape[1],
                         .out = table->shape[0]};
    return device->backend->table_weight_create(&head, table, ret_weight, err);
}

void atedm_weight_destroy(atedm_weight *weight)
{
    if (weight)
        weight->device->backend->weight_destroy(weight);
}

int64_t atedm_weight_in(const atedm_weight *weight)
{
    return weight->in;
}

int64_t atedm_weight_out(const atedm_weight *weight)
{
    return weight->out;
}

size_t atedm_weight_bytes(const atedm_weight *weight)
{
    return weight->bytes;
}
