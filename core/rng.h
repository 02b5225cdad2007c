// PyTorch's CPU generator: mt19937, and normal deviates exactly as torch.randn draws them.
#ifndef ATEDM_RNG_H
#define ATEDM_RNG_H

#include <stddef.h>
#include <stdint.h>

#define ATEDM_RNG_WORDS 624 // of MT19937's state

typedef struct atedm_rng {
    uint32_t state[ATEDM_RNG_WORDS];
    int next;
} atedm_rng;

// As torch.Generator("cpu").manual_seed(seed); of the seed the lower 32 bits count.
void atedm_rng_seed(atedm_rng *rng, uint64_t seed);
// As torch.randn(count, generator=rng), which stands behind it afterwards. `count` is even, or 16
// or more: PyTorch keeps the second deviate of an odd number of them.
void atedm_rng_draw(atedm_rng *rng, float *out, size_t count);
// Fills `out` with torch.randn(count, generator=torch.Generator("cpu").manual_seed(seed),
// dtype=float32), equal in every bit to PyTorch on x86-64 with AVX2. PyTorch looks at the lower 32
// bits of the seed only. Above 15 elements: Box-Muller over blocks of 16 uniforms; fewer: the
// scalar path with a cached second deviate (ATen/native/cpu/DistributionTemplates.h: normal_fill;
// ATen/core/DistributionsHelper.h).
void atedm_rng_normal(uint64_t seed, float *out, size_t count);

#endif
