// The cuda backend's streams and table of operations: see cuda.h. Which devices there are is
// devices.c's.
#include "kernels/cuda/cuda.h"

#include "kernels/cuda_load.h"

#include <stdlib.h>
#include <string.h>

static atedm_status device_create(int index, atedm_device **ret_device, atedm_error *err)
{
    atedm_cuda_device *device = calloc(1, sizeof *device);
    if (!device)
        return atedm_error_set(err, ATEDM_ERR_NOMEM, "no memory for a device");
    device->index = index;
    atedm_status status =
        atedm_cuda_status(atedm_cuda_use(&device->head), "taking the device", err);
    if (!status && cublasLtCreate(&device->blas))
        status = atedm_error_set(err, ATEDM_ERR_DEVICE, "cuda: cuBLASLt does not start");
    if (!status) {
        status = atedm_cuda_hopper_choose(index, &device->hopper, err);
        if (!status)
            status = atedm_cuda_dnn_load(&device->dnn, err);
        if (status)
            (void)cublasLtDestroy(device->blas);
    }
    if (status) {
        free(device);
        return status;
    }
    *ret_device = &device->head;
    return ATEDM_OK;
}

static void device_destroy(atedm_device *head)
{
    atedm_cuda_device *device = (atedm_cuda_device *)head;
    (void)atedm_cuda_use(head);
    atedm_cuda_nvml_close(device->nvml);
    atedm_cuda_dnn_unload(device->dnn);
    (void)cublasLtDestroy(device->blas);
    free(device);
}

static bool supports(const atedm_device *device, atedm_dtype dtype)
{
    return dtype == ATEDM_F32 || dtype == ATEDM_BF16 || dtype == ATEDM_F16;
}

static atedm_dtype best_dtype(const atedm_device *device)
{
    return ATEDM_BF16;
}

// ---- streams

static void stream_destroy(atedm_stream *head)
{
    atedm_cuda_stream *s = atedm_cuda_stream_of(head);
    // What is enqueued uses the scratch memory.
    if (s->stream)
        (void)cudaStreamSynchronize(s->stream);
    if (s->aside.stream)
        (void)cudaStreamSynchronize(s->aside.stream);
    atedm_cuda_graphs_finish(s);
    for (int i = 0; i < ATEDM_CUDA_SCRATCH_COUNT; i++)
        atedm_cuda_free(head->device, s->scratch[i]);
    atedm_cuda_staging_finish(&s->staging);
    atedm_cuda_plans_destroy(s->plans);
    atedm_cuda_dnn_destroy(s->dnn);
    atedm_cuda_aside_finish(&s->aside);
    if (s->stream)
        (void)cudaStreamDestroy(s->stream);
    free(s);
}

static atedm_status stream_create(atedm_device *device, atedm_dtype act, atedm_stream **ret_stream,
                                  atedm_error *err)
{
    atedm_cuda_stream *s = calloc(1, sizeof *s);
    if (!s)
        return atedm_error_set(err, ATEDM_ERR_NOMEM, "no memory for a stream");
    s->head.device = device; // which scratch memory asks for
    atedm_status status = atedm_cuda_status(atedm_cuda_use(device), "taking the device", err);
    if (!status)
        status = atedm_cuda_status(atedm_cuda_stream_make(ATEDM_CUDA_URGENT, &s->stream),
                                   "making a stream", err);
    if (!status)
        status = atedm_cuda_aside_init(&s->aside, err);
    if (!status)
        status = atedm_cuda_staging_init(&s->staging, err);
    if (!status)
        status = atedm_cuda_scratch_init(s, err);
    if (!status)
        status = atedm_cuda_dnn_create(((const atedm_cuda_device *)device)->dnn, s->stream, act,
                                       &s->dnn, err);
    if (status) {
        stream_destroy(&s->head);
        return status;
    }
    atedm_cuda_graphs_init(s);
    *ret_stream = &s->head;
    return ATEDM_OK;
}

static const atedm_backend table = {
    .name = "cuda",
    .devices = atedm_cuda_devices,
    .device_create = device_create,
    .device_destroy = device_destroy,
    .measure = atedm_cuda_measure,
    .supports = supports,
    .best_dtype = best_dtype,
    .alloc = atedm_cuda_alloc,
    .free = atedm_cuda_free,
    .stream_create = stream_create,
    .stream_destroy = stream_destroy,
    .stream_sync = atedm_cuda_sync,
    .upload = atedm_cuda_upload,
    .download = atedm_cuda_download,
    .copy = atedm_cuda_copy,
    .stream_set_background = atedm_cuda_stream_set_background,
    .stream_idle = atedm_cuda_stream_idle,
    .stream_begin_aside = atedm_cuda_stream_begin_aside,
    .stream_end_aside = atedm_cuda_stream_end_aside,
    .stream_join_aside = atedm_cuda_stream_join_aside,
    .stream_repeat = atedm_cuda_stream_repeat,
    .stream_forget = atedm_cuda_stream_forget,
    .linear_weight_create = atedm_cuda_linear_weight_create,
    .conv_weight_create = atedm_cuda_conv_weight_create,
    .norm_weight_create = atedm_cuda_norm_weight_create,
    .table_weight_create = atedm_cuda_table_weight_create,
    .weight_destroy = atedm_cuda_weight_destroy,
#define X(op, parameters, arguments, bytes) .op = atedm_cuda_##op,
    .ops = {ATEDM_OPERATIONS(X)},
#undef X
};

// The one symbol that the shared object shows.
__attribute__((visibility("default"))) const atedm_backend *
atedm_cuda_backend(const char *version, size_t table_bytes, atedm_error *err)
{
    if (strcmp(version, ATEDM_VERSION) != 0 || table_bytes != sizeof table) {
        (void)atedm_error_set(err, ATEDM_ERR_UNSUPPORTED,
                              "cuda: the backend was built for another version of this program");
        return NULL;
    }
    return atedm_cuda_find_devices(err) ? NULL : &table;
}
