// What a device says about itself: memory by CUDA, the other figures by NVML, the library of the
// driver that nvidia-smi stands on. That is loaded at run time, where it is there; its few types
// are written down here, as its reference has them, since not every toolkit has its header.
// https://docs.nvidia.com/deploy/nvml-api/
#include "kernels/cuda/cuda.h"

#include <dlfcn.h>
#include <stdlib.h>
#include <string.h>

#define LIBRARY "libnvidia-ml.so.1"

typedef int nvml_return;                 // nvmlReturn_t; 0: success
typedef struct nvml_device *nvml_device; // nvmlDevice_t
typedef struct nvml_utilization {        // nvmlUtilization_t, percent
    unsigned gpu, memory;
} nvml_utilization;
typedef struct nvml_memory { // nvmlMemory_t, bytes
    unsigned long long total, free, used;
} nvml_memory;
enum { NVML_TEMPERATURE_GPU = 0 };              // nvmlTemperatureSensors_t
enum { NVML_CLOCK_SM = 1, NVML_CLOCK_MEM = 2 }; // nvmlClockType_t

typedef struct atedm_cuda_nvml {
    void *library;
    nvml_return (*init)(void);
    nvml_return (*shutdown)(void);
    nvml_return (*by_uuid)(const char *uuid, nvml_device *ret_device);
    nvml_return (*utilization)(nvml_device device, nvml_utilization *ret_utilization);
    nvml_return (*memory)(nvml_device device, nvml_memory *ret_memory);
    nvml_return (*power)(nvml_device device, unsigned *ret_milliwatts);
    nvml_return (*temperature)(nvml_device device, int sensor, unsigned *ret_degrees);
    nvml_return (*clock)(nvml_device device, int type, unsigned *ret_megahertz);
    bool started;
    nvml_device device; // NULL: it says nothing
} atedm_cuda_nvml;

// False where the library has no such function. `ret_function` points to a function pointer.
static bool find(const atedm_cuda_nvml *n, const char *name, void *ret_function)
{
    void *symbol = dlsym(n->library, name);
    // POSIX has it that a function's address fits into a void pointer; C has no cast for it.
    memcpy(ret_function, &symbol, sizeof symbol);
    return symbol != NULL;
}

static bool load(atedm_cuda_nvml *n)
{
    n->library = dlopen(LIBRARY, RTLD_NOW | RTLD_LOCAL);
    return n->library && find(n, "nvmlInit_v2", &n->init) &&
           find(n, "nvmlShutdown", &n->shutdown) &&
           find(n, "nvmlDeviceGetHandleByUUID", &n->by_uuid) &&
           find(n, "nvmlDeviceGetUtilizationRates", &n->utilization) &&
           find(n, "nvmlDeviceGetMemoryInfo", &n->memory) &&
           find(n, "nvmlDeviceGetPowerUsage", &n->power) &&
           find(n, "nvmlDeviceGetTemperature", &n->temperature) &&
           find(n, "nvmlDeviceGetClockInfo", &n->clock);
}

// Where anything is missing it stays without a device.
static atedm_cuda_nvml *open_nvml(const char *uuid)
{
    atedm_cuda_nvml *n = calloc(1, sizeof *n);
    if (!n || !load(n))
        return n;
    n->started = !n->init();
    if (!n->started || n->by_uuid(uuid, &n->device))
        n->device = NULL;
    return n;
}

void atedm_cuda_nvml_close(atedm_cuda_nvml *n)
{
    if (!n)
        return;
    if (n->started)
        n->shutdown();
    if (n->library)
        dlclose(n->library);
    free(n);
}

static void ask_nvml(const atedm_cuda_nvml *n, double *value)
{
    nvml_utilization utilization;
    nvml_memory memory;
    unsigned number;
    if (!n->utilization(n->device, &utilization))
        value[ATEDM_FIGURE_UTILIZATION] = utilization.gpu / 100.0;
    if (!n->memory(n->device, &memory))
        value[ATEDM_FIGURE_MEMORY_USED] = (double)memory.used;
    if (!n->power(n->device, &number))
        value[ATEDM_FIGURE_POWER] = number / 1e3;
    if (!n->temperature(n->device, NVML_TEMPERATURE_GPU, &number))
        value[ATEDM_FIGURE_TEMPERATURE] = number;
    if (!n->clock(n->device, NVML_CLOCK_SM, &number))
        value[ATEDM_FIGURE_SM_CLOCK] = number * 1e6;
    if (!n->clock(n->device, NVML_CLOCK_MEM, &number))
        value[ATEDM_FIGURE_MEMORY_CLOCK] = number * 1e6;
}

void atedm_cuda_measure(atedm_device *head, atedm_device_figures *figures)
{
    atedm_cuda_device *device = (atedm_cuda_device *)head;
    size_t unused, total;
    if (!device->nvml)
        device->nvml = open_nvml(head->facts.uuid);
    if (device->nvml && device->nvml->device)
        ask_nvml(device->nvml, figures->value);
    if (atedm_cuda_use(head) || cudaMemGetInfo(&unused, &total))
        return;
    figures->value[ATEDM_FIGURE_MEMORY_FREE] = (double)unused;
    figures->value[ATEDM_FIGURE_MEMORY_TOTAL] = (double)total;
}
