// Vectors of VL floats and the functions on them, for vec.c (see vec.h). GCC's vector extensions
// let one source serve every instruction set.
#ifndef ATEDM_KERNELS_CPU_VEC_MATH_H
#define ATEDM_KERNELS_CPU_VEC_MATH_H

#include <stdint.h>
#include <string.h>

#if defined(__AVX512F__)
#include <immintrin.h>
#define VL 16
#elif defined(__AVX2__)
#define VL 8
#else
#define VL 4
#endif

#define ALWAYS_INLINE static inline __attribute__((always_inline))

typedef float vf __attribute__((vector_size(VL * 4)));
typedef int32_t vi __attribute__((vector_size(VL * 4)));
typedef uint32_t vu __attribute__((vector_size(VL * 4)));
typedef uint16_t vh __attribute__((vector_size(VL * 2)));

ALWAYS_INLINE vf vf_set(float x)
{
    return x - (vf){0};
}

ALWAYS_INLINE vf vf_load(const float *x)
{
    vf v;
    memcpy(&v, x, sizeof v);
    return v;
}

ALWAYS_INLINE void vf_store(float *x, vf v)
{
    memcpy(x, &v, sizeof v);
}

// mask ? a : b, with a comparison's result as mask.
ALWAYS_INLINE vf vf_select(vi mask, vf a, vf b)
{
    return (vf)((mask & (vi)a) | (~mask & (vi)b));
}

// The larger one; a where either is not a number.
ALWAYS_INLINE vf vf_max(vf a, vf b)
{
    return vf_select(b > a, b, a);
}

ALWAYS_INLINE float vf_sum(vf v)
{
    float lanes[VL];
    vf_store(lanes, v);
    for (int width = VL / 2; width; width /= 2)
        for (int i = 0; i < width; i++)
            lanes[i] += lanes[i + width];
    return lanes[0];
}

ALWAYS_INLINE float vf_largest(vf v)
{
    float lanes[VL];
    vf_store(lanes, v);
    for (int width = VL / 2; width; width /= 2)
        for (int i = 0; i < width; i++)
            lanes[i] = lanes[i + width] > lanes[i] ? lanes[i + width] : lanes[i];
    return lanes[0];
}

// e^x to about 1e-7 of it: x = n ln 2 + r, |r| <= ln 2 / 2, Taylor's polynomial of e^r (its error
// at degree 7 is below 5e-9), times 2^n. 0 below the smallest normal number, infinity from 2^128 /
// sqrt 2 on; NaN stays NaN.
ALWAYS_INLINE vf vf_exp(vf x)
{
    const float shift = 12582912.0f; // 1.5 * 2^23: rounds a small float to an integer
    vf clamped = vf_select(x < -87.3f, vf_set(-87.3f), x);
    clamped = vf_select(clamped > 88.8f, vf_set(88.8f), clamped);
    vf rounded = clamped * 1.44269504f + shift;
    vf n = rounded - shift;
    vf r = clamped - n * 0.693359375f;
    r = r + n * 2.12194440e-4f;
    vf p = r * (1.0f / 5040) + 1.0f / 720;
    p = p * r + 1.0f / 120;
    p = p * r + 1.0f / 24;
    p = p * r + 1.0f / 6;
    p = p * r + 0.5f;
    p = p * r + 1.0f;
    p = p * r + 1.0f;
    vf power = (vf)(((vu)rounded << 23) + (127u << 23));
    return vf_select(x < -87.3f, vf_set(0), p * power);
}

ALWAYS_INLINE vf vf_silu(vf x)
{
    return x / (1.0f + vf_exp(-x));
}

ALWAYS_INLINE vf vf_quick_gelu(vf x)
{
    return x / (1.0f + vf_exp(x * -1.702f));
}

// x Phi(x). Phi(-|x|) = e^(-x^2/2) R(t), t = 1 / (1 + 0.27 |x|), where the polynomial R was fitted
// to 3e-8 of the true value (weighted least squares over |x| <= 14.5), so that the tail keeps its
// relative accuracy.
ALWAYS_INLINE vf vf_gelu(vf x)
{
    vf z = vf_select(x < 0, -x, x);
    vf t = 1.0f / (1.0f + 0.27f * z);
    vf r = t * 2.896109657e-2f - 1.264858391e-1f;
    r = r * t + 1.697861072e-1f;
    r = r * t - 6.921070036e-2f;
    r = r * t + 1.078255807e-1f;
    r = r * t + 7.204963277e-2f;
    r = r * t + 1.018106025e-1f;
    r = r * t + 1.075428749e-1f;
    r = r * t + 1.077206567e-1f;
    vf tail = r * t * vf_exp(x * x * -0.5f);
    return x * vf_select(x > 0, 1.0f - tail, tail);
}

#endif
