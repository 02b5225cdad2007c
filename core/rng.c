// PyTorch's CPU generator: see rng.h.
//
// Every bit of the values equals that of PyTorch's x86-64 builds on machines with AVX2 (or
// AVX-512). For blocks of 16 those builds use the single-precision logarithm, sine and cosine of
// the Cephes library (Moshier 1992), and the compiler fused some multiplications and additions.
// Which of them it fused affects the result, so this file writes those as fmaf. Elsewhere PyTorch
// uses libm's functions; its values then differ by about 1e-6 (relative).
#include "core/rng.h"

#include <math.h>
#include <string.h>

// MT19937, Matsumoto & Nishimura 1998.
#define STATE_WORDS ATEDM_RNG_WORDS
#define STATE_SHIFT 397
#define BLOCK 16 // values of one vectorised Box-Muller step
#define TWO_PI 6.283185307179586476925286766559

// PyTorch passes its 64-bit seed to a 32-bit initialiser, so the upper half has no effect.
void atedm_rng_seed(atedm_rng *rng, uint64_t seed)
{
    rng->state[0] = (uint32_t)seed;
    for (uint32_t i = 1; i < STATE_WORDS; i++) {
        uint32_t previous = rng->state[i - 1];
        rng->state[i] = 1812433253u * (previous ^ (previous >> 30)) + i;
    }
    rng->next = STATE_WORDS;
}

static void renew_state(atedm_rng *rng)
{
    uint32_t *s = rng->state;
    for (int i = 0; i < STATE_WORDS; i++) {
        uint32_t joined = (s[i] & 0x80000000u) | (s[(i + 1) % STATE_WORDS] & 0x7fffffffu);
        s[i] = s[(i + STATE_SHIFT) % STATE_WORDS] ^ (joined >> 1) ^ (joined & 1 ? 0x9908b0dfu : 0);
    }
    rng->next = 0;
}

static uint32_t draw_32(atedm_rng *rng)
{
    if (rng->next == STATE_WORDS)
        renew_state(rng);
    uint32_t y = rng->state[rng->next++];
    y ^= y >> 11;
    y ^= (y << 7) & 0x9d2c5680u;
    y ^= (y << 15) & 0xefc60000u;
    return y ^ (y >> 18);
}

// Uniform in [0, 1): the low 24 bits of a draw.
static float draw_float(atedm_rng *rng)
{
    return (float)(draw_32(rng) & 0xffffffu) * 0x1p-24f;
}

// Uniform in [0, 1): the low 53 bits of two draws, of which the first is the upper half.
static double draw_double(atedm_rng *rng)
{
    uint64_t high = draw_32(rng);
    uint64_t bits = high << 32 | draw_32(rng);
    return (double)(bits & 0x1fffffffffffffu) * 0x1p-53;
}

static uint32_t float_bits(float value)
{
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    return bits;
}

static float bits_float(uint32_t bits)
{
    float value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

// Natural logarithm of a normal number in (0, 1], after Cephes' logf: x = m 2^e with m in
// [sqrt(1/2), sqrt(2)), a polynomial in m - 1, and e ln 2 in two parts.
static float log_single(float x)
{
    static const float p[] = {7.0376836292e-2f,  -1.1514610310e-1f, 1.1676998740e-1f,
                              -1.2420140846e-1f, 1.4249322787e-1f,  -1.6668057665e-1f,
                              2.0000714765e-1f,  -2.4999993993e-1f, 3.3333331174e-1f};
    float e = (float)((int)(float_bits(x) >> 23) - 126);
    float m = bits_float((float_bits(x) & 0x007fffffu) | 0x3f000000u); // in [1/2, 1)
    float f = m - 1.0f;
    if (m < 0.707106781186547524f) {
        e -= 1.0f;
        f += m;
    }
    float f2 = f * f;
    float y = p[0];
    for (size_t i = 1; i < sizeof p / sizeof p[0]; i++)
        y = fmaf(y, f, p[i]);
    y = fmaf(y * f, f2, e * -2.12194440e-4f);
    y = fmaf(-f2, 0.5f, y);
    return fmaf(e, 0.693359375f, f + y);
}

// Sine and cosine of x >= 0, after Cephes' sinf and cosf. Reduces x to [-pi/4, pi/4] by subtracting
// a multiple of pi/4 in three parts. The octant decides which polynomial gives which function, and
// the signs.
static void sincos_single(float x, float *ret_sin, float *ret_cos)
{
    uint32_t octant = ((uint32_t)(x * 1.27323954473516f) + 1) & ~1u;
    float n = (float)octant;
    x = fmaf(n, -0.78515625f, x);
    x = fmaf(n, -2.4187564849853515625e-4f, x);
    x = fmaf(n, -3.77489497744594108e-8f, x);
    float x2 = x * x;
    float c = 2.443315711809948e-5f;
    c = fmaf(c, x2, -1.388731625493765e-3f);
    c = fmaf(c, x2, 4.166664568298827e-2f);
    c = fmaf(c * x2, x2, -(x2 * 0.5f)) + 1.0f;
    float s = -1.9515295891e-4f;
    s = fmaf(s, x2, 8.3321608736e-3f);
    s = fmaf(s, x2, -1.6666654611e-1f);
    s = fmaf(s * x2, x, x);
    uint32_t swapped = octant & 2;
    uint32_t sin_sign = (octant & 4) << 29;
    uint32_t cos_sign = (~(octant - 2) & 4) << 29;
    *ret_sin = bits_float(float_bits(swapped ? c : s) ^ sin_sign);
    *ret_cos = bits_float(float_bits(swapped ? s : c) ^ cos_sign);
}

// Box & Muller 1958 on 16 uniforms in place: value j pairs with value j + 8.
static void transform_block(float *values)
{
    for (int j = 0; j < BLOCK / 2; j++) {
        float radius = sqrtf(-2.0f * log_single(1.0f - values[j])); // 1 - u lies in (0, 1]
        float sine, cosine;
        sincos_single((float)TWO_PI * values[j + BLOCK / 2], &sine, &cosine);
        values[j] = radius * cosine + 0.0f; // PyTorch adds the mean, 0: turns -0 into +0
        values[j + BLOCK / 2] = radius * sine + 0.0f;
    }
}

static void fill_uniform(atedm_rng *rng, float *out, size_t count)
{
    for (size_t i = 0; i < count; i++)
        out[i] = draw_float(rng);
}

static void fill_blocks(atedm_rng *rng, float *out, size_t count)
{
    fill_uniform(rng, out, count);
    for (size_t i = 0; i + BLOCK <= count; i += BLOCK)
        transform_block(out + i);
    if (count % BLOCK) { // as PyTorch: draws the last 16 values anew, partly over the last block
        fill_uniform(rng, out + count - BLOCK, BLOCK);
        transform_block(out + count - BLOCK);
    }
}

static void fill_scalar(atedm_rng *rng, float *out, size_t count)
{
    double second = 0;
    for (size_t i = 0; i < count; i++) {
        if (i % 2) {
            out[i] = (float)second;
            continue;
        }
        double angle = TWO_PI * draw_double(rng);
        double radius = sqrt(-2.0 * log1p(-draw_double(rng)));
        second = radius * sin(angle);
        out[i] = (float)(radius * cos(angle));
    }
}

void atedm_rng_draw(atedm_rng *rng, float *out, size_t count)
{
    if (count >= BLOCK)
        fill_blocks(rng, out, count);
    else
        fill_scalar(rng, out, count);
}

void atedm_rng_normal(uint64_t seed, float *out, size_t count)
{
    atedm_rng rng;
    atedm_rng_seed(&rng, seed);
    atedm_rng_draw(&rng, out, count);
}
