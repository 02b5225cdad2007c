// PyTorch's CPU generator: mt19937, and normal deviates that equal those of torch.randn.
#ifndef ATEDM_RNG_H
#define ATEDM_RNG_H

#include <stddef.h>
#include <stdint.h>

#define ATEDM_RNG_WORDS 624 // words of MT19937's state

typedef struct atedm_rng {
    uint32_t state[ATEDM_RNG_WORDS];
    int next; // index of the next unused word; ATEDM_RNG_WORDS: the state must be renewed
} atedm_rng;

// Same as torch.Generator("cpu").manual_seed(seed). Only the lower 32 bits of the seed count.
void atedm_rng_seed(atedm_rng *rng, uint64_t seed);
// Fills `out`, [host] F32 [count], as torch.randn(count, generator=rng) would, and advances rng in
// the same way. `count` must be even, or at least 16: for an odd smaller count PyTorch would keep
// the second deviate for the next call, which this does not.
void atedm_rng_draw(atedm_rng *rng, float *out, size_t count);
// Fills `out`, [host] F32 [count], as torch.randn(count,
// generator=torch.Generator("cpu").manual_seed(seed), dtype=float32) would, with every bit as on
// x86-64 with AVX2. Only the lower 32 bits of the seed count. From 16 elements on it is Box-Muller
// on blocks of 16 uniforms; below, the scalar path, in which two deviates come from each pair of
// draws (ATen/native/cpu/DistributionTemplates.h: normal_fill; ATen/core/DistributionsHelper.h).
void atedm_rng_normal(uint64_t seed, float *out, size_t count);

#endif
