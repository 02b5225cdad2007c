// Loading of the cuda backend: see cuda_load.h.
#include "kernels/cuda_load.h"

#include <dlfcn.h>
#include <limits.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

// What the kernel module of NVIDIA's driver makes.
#define DRIVER "/proc/driver/nvidia/version"

// Where it stands from the program's folder: installed, and in a build folder.
static const char *const places[] = {"", "../lib/atedmd/", "../kernels/cuda/"};

// The result of the one attempt, guarded by `once`.
static pthread_once_t once = PTHREAD_ONCE_INIT;
static const atedm_backend *loaded;
static atedm_error reason;
static bool broken; // there is a file, which does not load

// Folder of the program, with a slash at its end; "" where that is not to be had.
static void program_folder(char *folder, size_t size)
{
    ssize_t length = readlink("/proc/self/exe", folder, size - 1);
    folder[length > 0 ? length : 0] = '\0';
    char *slash = strrchr(folder, '/');
    if (slash)
        slash[1] = '\0';
}

// A handle, or NULL with the reason in `reason`.
static void *open_file(void)
{
    const char *named = getenv(ATEDM_CUDA_ENVIRONMENT);
    bool there = false;
    char folder[PATH_MAX], path[PATH_MAX + sizeof "../kernels/cuda/" ATEDM_CUDA_FILE];
    snprintf(path, sizeof path, "%s", named ? named : ATEDM_CUDA_FILE);
    program_folder(folder, sizeof folder);
    for (size_t i = 0; !named && *folder && i < sizeof places / sizeof *places; i++) {
        char candidate[sizeof path];
        snprintf(candidate, sizeof candidate, "%s%s" ATEDM_CUDA_FILE, folder, places[i]);
        if (access(candidate, F_OK))
            continue;
        snprintf(path, sizeof path, "%s", candidate);
        there = true;
        break;
    }
    void *handle = dlopen(path, RTLD_NOW | RTLD_LOCAL);
    broken = there && !handle;
    if (!handle)
        snprintf(reason.message, sizeof reason.message, "the cuda backend does not load: %s",
                 dlerror());
    return handle;
}

static void load(void)
{
    void *handle = open_file(); // stays open: its table is in use until the end
    if (!handle)
        return;
    // POSIX has it that a function's address fits into a void pointer; C has no cast for it.
    void *symbol = dlsym(handle, "atedm_cuda_backend");
    atedm_cuda_backend_fn function = NULL;
    memcpy(&function, &symbol, sizeof function);
    if (function)
        loaded = function(ATEDM_VERSION, sizeof(atedm_backend), &reason);
    else
        snprintf(reason.message, sizeof reason.message, "%s is not the cuda backend",
                 ATEDM_CUDA_FILE);
}

atedm_status atedm_cuda_load(const atedm_backend **ret_backend, atedm_error *err)
{
    pthread_once(&once, load);
    if (!loaded)
        return atedm_error_set(err, ATEDM_ERR_UNSUPPORTED, "%s", reason.message);
    *ret_backend = loaded;
    return ATEDM_OK;
}

bool atedm_cuda_is_missed(atedm_error *ret_reason)
{
    pthread_once(&once, load);
    if (loaded || (!broken && !getenv(ATEDM_CUDA_ENVIRONMENT) && access(DRIVER, F_OK)))
        return false;
    *ret_reason = reason;
    return true;
}
