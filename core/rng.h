// PyTorch's CPU generator: mt19937, and normal deviates exactly as torch.randn draws them.
#ifndef ATEDM_RNG_H
#define ATEDM_RNG_H

#include <stddef.h>
#include <stdint.h>

// Fills `out` with torch.randn(count, generator=torch.Generator("cpu").manual_seed(seed),
// dtype=float32), equal in every bit to PyTorch on x86-64 with AVX2. PyTorch looks at the lower 32
// bits of the seed only. Above 15 elements: Box-Muller over blocks of 16 uniforms; fewer: the
// scalar path with a cached second deviate (ATen/native/cpu/DistributionTemplates.h: normal_fill;
// ATen/core/DistributionsHelper.h).
void atedm_rng_normal(uint64_t seed, float *out, size_t count);

#endif
