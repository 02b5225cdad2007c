// Finds the backend "cuda", a shared object that is there or not. Only device_names.c calls this.
#ifndef ATEDM_KERNELS_CUDA_LOAD_H
#define ATEDM_KERNELS_CUDA_LOAD_H

#include "kernels/backend.h"

// The shared object's file name, and what names another file in the environment (tests use it).
#define ATEDM_CUDA_FILE "atedm-cuda.so"
#define ATEDM_CUDA_ENVIRONMENT "ATEDM_CUDA_BACKEND"

// The shared object's one function: its table, or NULL where it was built for another version of
// the program or no device answers; it does not occupy the device. `table_bytes` is
// sizeof(atedm_backend).
const atedm_backend *atedm_cuda_backend(const char *version, size_t table_bytes, atedm_error *err);
typedef const atedm_backend *(*atedm_cuda_backend_fn)(const char *version, size_t table_bytes,
                                                      atedm_error *err);

// Loads it once and keeps it: the environment's file, else the one beside the program, in the build
// folder or where the dynamic linker looks. ATEDM_ERR_UNSUPPORTED where there is none, it does not
// load (a library of CUDA's is missing, say) or no device answers.
ATEDM_MUST_CHECK atedm_status atedm_cuda_load(const atedm_backend **ret_backend, atedm_error *err);

#endif
