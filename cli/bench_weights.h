// Random weights, made in memory when a module asks for them. So an architecture can be timed
// without a model on disk.
#ifndef ATEDM_CLI_BENCH_WEIGHTS_H
#define ATEDM_CLI_BENCH_WEIGHTS_H

#include "core/base/status.h"
#include "core/base/tensor.h"
#include "core/weights.h"

// Matrices and convolutions are uniform with variance 1 / fan-in, in `dtype` (F32, BF16 or F16), so
// that activations neither vanish nor overflow. Norms have scale 1 and shift 0; biases are 0.
ATEDM_MUST_CHECK atedm_status atedm_random_weights_create(atedm_dtype dtype,
                                                          atedm_weights **ret_weights);
void atedm_random_weights_destroy(atedm_weights *weights); // NULL allowed

#endif
