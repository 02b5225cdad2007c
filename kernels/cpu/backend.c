// The cpu backend's device, streams and table of operations: see cpu.h.
#include "kernels/cpu/cpu.h"

#include "core/base/control_group.h"
#include "kernels/cpu/primitive.h"

#include <omp.h>
#include <stdlib.h>
#include <string.h>

// With this many threads or more, oneDNN 2.6's matmul may divide the inner dimension among them on
// AMX.
#define AMX_SPLIT_THREADS 16

// Whether oneDNN uses this instruction set: the machine has it, and ONEDNN_MAX_CPU_ISA allows it.
static bool onednn_has(dnnl_cpu_isa_t isa)
{
    return ((unsigned)dnnl_get_effective_cpu_isa() & (unsigned)isa) == (unsigned)isa;
}

// Whether oneDNN's matmul may compute a row differently when the number of rows differs. A sample
// would then depend on its batch. Without AVX-512 it may, because its GEMM unrolls over rows. On
// AMX with many threads it may, because it sometimes divides the inner dimension. oneDNN's 1x1
// convolutions do neither.
static bool matmul_mixes_rows(void)
{
    if (!onednn_has(dnnl_cpu_isa_avx512_core))
        return true;
    return onednn_has(dnnl_cpu_isa_avx512_core_amx) && omp_get_max_threads() >= AMX_SPLIT_THREADS;
}

// Limits the number of OpenMP's threads. OpenMP knows on which processors the process may run, but
// not its share of their time. In a container with a quota, one thread for each processor would use
// up the quota in the first part of each period, and then stand still.
static void limit_threads(void)
{
    if (getenv("OMP_NUM_THREADS"))
        return; // set in workers, and by users who know better
    int processors = atedm_processors();
    if (processors < omp_get_max_threads())
        omp_set_num_threads(processors);
}

static atedm_status device_create(int index, atedm_device **ret_device, atedm_error *err)
{
    limit_threads();
    atedm_cpu_device *device = calloc(1, sizeof *device);
    if (!device)
        return atedm_error_set(err, ATEDM_ERR_NOMEM, "no memory for a device");
    dnnl_status_t status = dnnl_engine_create(&device->engine, dnnl_cpu, 0);
    if (status) {
        free(device);
        return atedm_error_set(err, ATEDM_ERR_DEVICE, "oneDNN: status %d on creating an engine",
                               (int)status);
    }
    device->linear_as_conv = matmul_mixes_rows();
    device->vec = atedm_vec_choose();
    *ret_device = &device->head;
    return ATEDM_OK;
}

static void device_destroy(atedm_device *head)
{
    atedm_cpu_device *device = (atedm_cpu_device *)head;
    dnnl_engine_destroy(device->engine);
    free(device);
}

static bool supports(const atedm_device *head, atedm_dtype dtype)
{
    const atedm_cpu_device *device = (const atedm_cpu_device *)head;
    return dtype == ATEDM_F32 ||
           (dtype == ATEDM_BF16 && device->vec->bf16 && onednn_has(dnnl_cpu_isa_avx512_core_bf16));
}

static atedm_dtype best_dtype(const atedm_device *head)
{
    return supports(head, ATEDM_BF16) ? ATEDM_BF16 : ATEDM_F32;
}

static atedm_status device_alloc(atedm_device *device, size_t bytes, void **ret_memory,
                                 atedm_error *err)
{
    *ret_memory = atedm_cpu_alloc(bytes);
    if (!*ret_memory)
        return atedm_error_set(err, ATEDM_ERR_NOMEM, "no memory for %zu bytes", bytes);
    return ATEDM_OK;
}

static void device_free(atedm_device *device, void *memory)
{
    free(memory);
}

// ---- streams

static void stream_destroy(atedm_stream *head)
{
    atedm_cpu_stream *s = atedm_cpu_stream_of(head);
    atedm_cpu_lanes_destroy(s->lanes, s->n_lanes);
    for (int i = 0; i < ATEDM_SCRATCH_COUNT; i++)
        free(s->scratch[i].memory);
    free(s);
}

int atedm_cpu_threads(int64_t macs)
{
    return macs < ATEDM_CPU_FEW_MACS ? 1 : omp_get_max_threads();
}

static atedm_status stream_create(atedm_device *head, atedm_dtype act, atedm_stream **ret_stream,
                                  atedm_error *err)
{
    const atedm_cpu_device *device = (const atedm_cpu_device *)head;
    atedm_cpu_stream *s = calloc(1, sizeof *s);
    if (!s)
        return atedm_error_set(err, ATEDM_ERR_NOMEM, "no memory for a stream");
    s->vec = device->vec;
    s->act = act == ATEDM_BF16 ? device->vec->bf16 : device->vec->f32;
    s->n_lanes = omp_get_max_threads();
    s->lanes = atedm_cpu_lanes_create(device->engine, s->n_lanes);
    if (!s->lanes) {
        stream_destroy(&s->head);
        return atedm_error_set(err, ATEDM_ERR_NOMEM, "no memory for a stream");
    }
    *ret_stream = &s->head;
    return ATEDM_OK;
}

// Operations are complete when their call returns.
static void stream_sync(atedm_stream *s)
{
}

static void copy(atedm_stream *s, const void *from, void *to, size_t bytes)
{
    memcpy(to, from, bytes);
}

const atedm_backend atedm_backend_cpu = {
    .name = "cpu",
    .device_create = device_create,
    .device_destroy = device_destroy,
    .supports = supports,
    .best_dtype = best_dtype,
    .alloc = device_alloc,
    .free = device_free,
    .stream_create = stream_create,
    .stream_destroy = stream_destroy,
    .stream_sync = stream_sync,
    .upload = copy,
    .download = copy,
    .copy = copy,
    .linear_weight_create = atedm_cpu_linear_weight_create,
    .conv_weight_create = atedm_cpu_conv_weight_create,
    .norm_weight_create = atedm_cpu_norm_weight_create,
    .table_weight_create = atedm_cpu_table_weight_create,
    .weight_destroy = atedm_cpu_weight_destroy,
#define X(op, parameters, arguments, bytes) .op = atedm_cpu_##op,
    .ops = {ATEDM_OPERATIONS(X)},
#undef X
};
