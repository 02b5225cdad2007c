// The reference backend's device, stream, memory and table: see ref.h.
#include "kernels/ref/ref.h"

#include <stdlib.h>
#include <string.h>

float ref_load(atedm_dtype dtype, const void *data, int64_t i)
{
    if (dtype == ATEDM_F32)
        return ((const float *)data)[i];
    uint16_t bits = ((const uint16_t *)data)[i];
    return dtype == ATEDM_BF16 ? atedm_bf16_to_f32(bits) : atedm_f16_to_f32(bits);
}

void ref_store(atedm_dtype dtype, void *data, int64_t i, double value)
{
    if (dtype == ATEDM_F32)
        ((float *)data)[i] = (float)value;
    else if (dtype == ATEDM_BF16)
        ((uint16_t *)data)[i] = atedm_f32_to_bf16((float)value);
    else
        ((uint16_t *)data)[i] = atedm_f32_to_f16((float)value);
}

void ref_load_row(atedm_dtype dtype, const void *data, int64_t first, float *row, int64_t count)
{
    const char *from = (const char *)data + (size_t)first * atedm_dtype_size(dtype);
    atedm_convert(from, dtype, row, ATEDM_F32, (size_t)count);
}

// Partial sums of a dot product. With a single sum, every addition would wait for the one before.
#define LANES 8

double ref_dot(const float *a, const float *b, int64_t n)
{
    double sums[LANES] = {0}, sum = 0;
    int64_t i = 0;
    for (; i + LANES <= n; i += LANES)
        for (int lane = 0; lane < LANES; lane++)
            sums[lane] += (double)a[i + lane] * (double)b[i + lane];
    for (; i < n; i++)
        sum += (double)a[i] * (double)b[i];
    for (int lane = 0; lane < LANES; lane++)
        sum += sums[lane];
    return sum;
}

void *ref_scratch(atedm_stream *s, size_t count, size_t size)
{
    void *memory = calloc(count ? count : 1, size);
    if (!memory)
        atedm_stream_fail(s, ATEDM_ERR_NOMEM, "no memory for %zu elements of scratch", count);
    return memory;
}

static atedm_status device_create(int index, atedm_device **ret_device, atedm_error *err)
{
    atedm_device *device = calloc(1, sizeof *device);
    if (!device)
        return atedm_error_set(err, ATEDM_ERR_NOMEM, "no memory for a device");
    *ret_device = device;
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

static atedm_status alloc(atedm_device *device, size_t bytes, void **ret_memory, atedm_error *err)
{
    void *memory = NULL;
    if (posix_memalign(&memory, ATEDM_DEVICE_ALIGN, bytes ? bytes : 1))
        return atedm_error_set(err, ATEDM_ERR_NOMEM, "no memory for %zu bytes", bytes);
    *ret_memory = memory;
    return ATEDM_OK;
}

static void free_memory(atedm_device *device, void *memory)
{
    free(memory);
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

// Operations run when they are enqueued.
static void stream_sync(atedm_stream *stream)
{
}

static void upload(atedm_stream *s, const void *from_host, void *to_device, size_t bytes)
{
    memcpy(to_device, from_host, bytes);
}

static void download(atedm_stream *s, const void *from_device, void *to_host, size_t bytes)
{
    memcpy(to_host, from_device, bytes);
}

const atedm_backend atedm_backend_ref = {
    .name = "ref",
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
    .copy = upload,
    .linear_weight_create = ref_linear_weight_create,
    .conv_weight_create = ref_conv_weight_create,
    .norm_weight_create = ref_norm_weight_create,
    .table_weight_create = ref_table_weight_create,
    .weight_destroy = ref_weight_destroy,
#define X(op, parameters, arguments, bytes) .op = ref_##op,
    .ops = {ATEDM_OPERATIONS(X)},
#undef X
};
