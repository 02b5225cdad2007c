// The devices of the fake runtime: ATEDM_EMULATED_DEVICES=N of them, each with memory
// (ATEDM_EMULATED_MEMORY=BYTES), a name, a UUID and a context of its own, which can be lost. C++.
#include "tests/emulated/engine.hpp"
#include "tests/emulated/stream.hpp"

#include <cstdio>
#include <cstdlib>
#include <string>
#include <unistd.h>

using guard = std::lock_guard<std::recursive_mutex>;

static cudaError_t sticky[emulated::MOST_DEVICES]; // errors that stay; guarded by lock
static thread_local int of_thread;

// ATEDM_EMULATED_LOSE=PATH: if there is a file PATH.N, the next call that uses device N removes the
// file and loses the device.
static bool is_told_to_lose(int device)
{
    static const char *const path = getenv("ATEDM_EMULATED_LOSE");
    return path && !unlink((path + ("." + std::to_string(device))).c_str());
}

// ATEDM_EMULATED_FAIL_AFTER=N: the device is lost at the N-th call that enqueues something.
static bool is_last_call()
{
    static int calls_left = emulated::setting().fail_after;
    return calls_left > 0 && --calls_left == 0;
}

namespace emulated
{

int device_of_thread()
{
    return of_thread;
}

cudaError_t lost(int device)
{
    return sticky[device];
}

cudaError_t use(int device)
{
    if (is_last_call() || is_told_to_lose(device))
        sticky[device] = cudaErrorIllegalAddress;
    return sticky[device];
}

} // namespace emulated

static bool is_there(int device)
{
    return device >= 0 && device < emulated::setting().devices;
}

extern "C" {

cudaError_t cudaGetDeviceCount(int *ret_count)
{
    // Read at each call, so that a test can make the devices disappear.
    *ret_count = getenv("ATEDM_EMULATED_GONE") ? 0 : emulated::setting().devices;
    return *ret_count ? cudaSuccess : cudaErrorNoDevice;
}

cudaError_t cudaSetDevice(int device)
{
    if (!is_there(device))
        return cudaErrorInvalidDevice;
    of_thread = device;
    return cudaSuccess;
}

cudaError_t cudaMemGetInfo(size_t *ret_free, size_t *ret_total)
{
    guard g(emulated::lock);
    if (cudaError_t error = emulated::forbid_any())
        return error;
    emulated::memory_info(of_thread, ret_free, ret_total);
    return sticky[of_thread];
}

cudaError_t cudaGetDeviceProperties(cudaDeviceProp *ret_properties, int device)
{
    if (!is_there(device))
        return cudaErrorInvalidDevice;
    *ret_properties = {};
    snprintf(ret_properties->name, sizeof ret_properties->name, "Emulated GPU %d", device);
    ret_properties->uuid.bytes[0] = (char)(0xa0 + device);
    ret_properties->uuid.bytes[15] = (char)device;
    ret_properties->totalGlobalMem = emulated::setting().memory;
    ret_properties->major = emulated::setting().sm / 10;
    ret_properties->minor = emulated::setting().sm % 10;
    return cudaSuccess;
}

cudaError_t cudaDeviceGetAttribute(int *ret_value, cudaDeviceAttr attribute, int device)
{
    int sm = emulated::setting().sm;
    if (!is_there(device))
        return cudaErrorInvalidDevice;
    switch (attribute) {
    case cudaDevAttrMultiProcessorCount:
        *ret_value = emulated::setting().multiprocessors;
        return cudaSuccess;
    case cudaDevAttrComputeCapabilityMajor:
        *ret_value = sm / 10;
        return cudaSuccess;
    case cudaDevAttrComputeCapabilityMinor:
        *ret_value = sm % 10;
        return cudaSuccess;
    case cudaDevAttrMaxSharedMemoryPerBlockOptin:
        *ret_value = sm >= 90 ? (int)emulated::MOST_SHARED : 163 << 10;
        return cudaSuccess;
    }
    return cudaErrorInvalidValue;
}

} // extern "C"
