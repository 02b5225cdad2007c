// Makes a model directory in diffusers layout with seeded random weights: every file that a real
// one has, at any size, for tests and measurements where trained weights are not to be had.
#ifndef ATEDM_MKMODEL_H
#define ATEDM_MKMODEL_H

#include "core/base/status.h"
#include "core/base/tensor.h"

#include <stdint.h>

// Called after every piece of weights: bytes written and bytes to write, of all components.
typedef void (*atedm_mkmodel_progress_fn)(void *user, uint64_t done, uint64_t total);

// Writes the architecture `arch` (as atedm_model_config_from_arch takes it) to the directory `dir`,
// which is made where it does not exist; files of an earlier model are replaced. dtype: F32, F16 or
// BF16. The same arguments give the same bytes on every machine. Weights are streamed: memory use
// does not grow with the model. progress: NULL or called as weights are written.
ATEDM_MUST_CHECK atedm_status atedm_mkmodel(const char *arch, uint64_t seed, atedm_dtype dtype,
                                            const char *dir, atedm_mkmodel_progress_fn progress,
                                            void *user, atedm_error *err);

#endif
