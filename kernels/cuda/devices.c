// Which devices the cuda backend can run on: those that CUDA shows, which CUDA_VISIBLE_DEVICES may
// make fewer, with CUDA's numbers.
#include "kernels/cuda/cuda.h"

#include <stdio.h>

// The oldest architecture that there is code for: A100's.
#define LEAST_MAJOR 8

// The device of the calling thread, as far as this file has set it; -1: it has not.
static _Thread_local int in_use = -1;

cudaError_t atedm_cuda_use(const atedm_device *device)
{
    int index = ((const atedm_cuda_device *)device)->index;
    if (index == in_use)
        return cudaSuccess;
    cudaError_t error = cudaSetDevice(index);
    in_use = error ? -1 : index;
    return error;
}

// 8-4-4-4-12 hexadecimal digits behind "GPU-", as nvidia-smi writes it.
static void write_uuid(const cudaUUID_t *uuid, char *text, size_t size)
{
    size_t used = (size_t)snprintf(text, size, "GPU-");
    for (size_t i = 0; i < sizeof uuid->bytes; i++)
        used += (size_t)snprintf(text + used, size - used, "%s%02x",
                                 i == 4 || i == 6 || i == 8 || i == 10 ? "-" : "",
                                 (unsigned char)uuid->bytes[i]);
}

static void describe(int index, const struct cudaDeviceProp *properties,
                     atedm_device_facts *ret_facts)
{
    *ret_facts = (atedm_device_facts){.index = index, .memory = properties->totalGlobalMem};
    snprintf(ret_facts->name, sizeof ret_facts->name, "cuda:%d", index);
    snprintf(ret_facts->model, sizeof ret_facts->model, "%s", properties->name);
    write_uuid(&properties->uuid, ret_facts->uuid, sizeof ret_facts->uuid);
}

size_t atedm_cuda_devices(atedm_device_facts ret_facts[ATEDM_MAX_DEVICES])
{
    int count = 0;
    size_t n = 0;
    if (cudaGetDeviceCount(&count))
        return 0;
    for (int i = 0; i < count && n < ATEDM_MAX_DEVICES; i++) {
        struct cudaDeviceProp properties;
        if (!cudaGetDeviceProperties(&properties, i) && properties.major >= LEAST_MAJOR)
            describe(i, &properties, &ret_facts[n++]);
    }
    return n;
}

atedm_status atedm_cuda_find_devices(atedm_error *err)
{
    int count = 0;
    struct cudaDeviceProp first;
    atedm_device_facts facts[ATEDM_MAX_DEVICES];
    cudaError_t error = cudaGetDeviceCount(&count);
    if (error || count < 1)
        return atedm_error_set(err, ATEDM_ERR_UNSUPPORTED, "cuda: no device answers (%s)",
                               error ? cudaGetErrorName(error) : "none is visible");
    if (atedm_cuda_devices(facts))
        return ATEDM_OK;
    error = cudaGetDeviceProperties(&first, 0);
    if (error)
        return atedm_cuda_status(error, "asking the device", err);
    return atedm_error_set(
        err, ATEDM_ERR_UNSUPPORTED,
        "cuda: the device is of compute capability %d.%d, at least %d.0 is needed", first.major,
        first.minor, LEAST_MAJOR);
}
