// The part of NVML that kernels/cuda calls. It takes its figures from
// ATEDM_EMULATED_NVML="UTILIZATION MILLIWATTS DEGREES USED_BYTES SM_MHZ MEMORY_MHZ"; "-" stands for
// an unsupported one. Emulated device N reports N more of each. Without the variable there is no
// driver.
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { SUCCESS, UNINITIALIZED, INVALID_ARGUMENT, NOT_SUPPORTED, NOT_FOUND = 6, NO_DRIVER = 9 };
enum { UTILIZATION, POWER, TEMPERATURE, MEMORY_USED, SM_CLOCK, MEMORY_CLOCK };

struct nvml_device {
    unsigned number;
};

static int started;

int nvmlInit_v2(void);
int nvmlShutdown(void);
int nvmlDeviceGetHandleByUUID(const char *uuid, struct nvml_device **ret_device);
int nvmlDeviceGetUtilizationRates(struct nvml_device *device, unsigned *ret_rates);
int nvmlDeviceGetMemoryInfo(struct nvml_device *device, unsigned long long *ret_memory);
int nvmlDeviceGetPowerUsage(struct nvml_device *device, unsigned *ret_milliwatts);
int nvmlDeviceGetTemperature(struct nvml_device *device, int sensor, unsigned *ret_degrees);
int nvmlDeviceGetClockInfo(struct nvml_device *device, int type, unsigned *ret_megahertz);

// Figure `which` of the device.
static int read_figure(const struct nvml_device *device, int which, unsigned long long *ret_value)
{
    const char *text = getenv("ATEDM_EMULATED_NVML");
    for (int i = 0; text && i < which; i++) {
        text = strchr(text, ' ');
        text = text ? text + 1 : NULL;
    }
    if (!started)
        return UNINITIALIZED;
    if (!text || *text == '-')
        return NOT_SUPPORTED;
    *ret_value = strtoull(text, NULL, 10) + device->number;
    return SUCCESS;
}

static int read_number(const struct nvml_device *device, int which, unsigned *ret_value)
{
    unsigned long long value;
    int status = read_figure(device, which, &value);
    if (!status)
        *ret_value = (unsigned)value;
    return status;
}

int nvmlInit_v2(void)
{
    if (!getenv("ATEDM_EMULATED_NVML"))
        return NO_DRIVER;
    started++;
    return SUCCESS;
}

int nvmlShutdown(void)
{
    return started-- ? SUCCESS : UNINITIALIZED;
}

// The UUIDs of tests/emulated/devices.cpp end with the device's number.
int nvmlDeviceGetHandleByUUID(const char *uuid, struct nvml_device **ret_device)
{
    static struct nvml_device devices[16];
    size_t size = strlen(uuid);
    if (size != strlen("GPU-a0000000-0000-0000-0000-000000000000") ||
        strncmp(uuid, "GPU-a", 5) != 0)
        return NOT_FOUND;
    struct nvml_device *device = &devices[strtoul(uuid + size - 1, NULL, 16)];
    device->number = (unsigned)(device - devices);
    *ret_device = device;
    return SUCCESS;
}

int nvmlDeviceGetUtilizationRates(struct nvml_device *device, unsigned *ret_rates)
{
    ret_rates[1] = 0; // of memory
    return read_number(device, UTILIZATION, ret_rates);
}

int nvmlDeviceGetMemoryInfo(struct nvml_device *device, unsigned long long *ret_memory)
{
    ret_memory[0] = ret_memory[1] = 0; // total, free
    return read_figure(device, MEMORY_USED, &ret_memory[2]);
}

int nvmlDeviceGetPowerUsage(struct nvml_device *device, unsigned *ret_milliwatts)
{
    return read_number(device, POWER, ret_milliwatts);
}

int nvmlDeviceGetTemperature(struct nvml_device *device, int sensor, unsigned *ret_degrees)
{
    return sensor ? INVALID_ARGUMENT : read_number(device, TEMPERATURE, ret_degrees);
}

int nvmlDeviceGetClockInfo(struct nvml_device *device, int type, unsigned *ret_megahertz)
{
    if (type != 1 && type != 2)
        return INVALID_ARGUMENT;
    return read_number(device, type == 1 ? SM_CLOCK : MEMORY_CLOCK, ret_megahertz);
}
