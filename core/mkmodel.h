// Makes a model's folder in diffusers layout with seeded random weights: all files of a real model,
// at any size, for tests and measurements that need no trained weights.
#ifndef ATEDM_MKMODEL_H
#define ATEDM_MKMODEL_H

#include "core/base/status.h"
#include "core/base/tensor.h"

#include <stdint.h>

// Called after every piece of weights, with the bytes written and the bytes of all components.
typedef void (*atedm_mkmodel_progress_fn)(void *user, uint64_t done, uint64_t total);

// Writes a model of architecture `arch` (as for atedm_model_config_from_arch) to the folder `dir`.
// Creates the folder if it does not exist, and replaces the files of an earlier model. dtype: F32,
// F16 or BF16. The same arguments give the same bytes on every machine. Weights are written in
// pieces, so memory use does not grow with the model. progress: NULL, or called as weights are
// written. ATEDM_ERR_IO: a file cannot be written.
ATEDM_MUST_CHECK atedm_status atedm_mkmodel(const char *arch, uint64_t seed, atedm_dtype dtype,
                                            const char *dir, atedm_mkmodel_progress_fn progress,
                                            void *user, atedm_error *err);

#endif
