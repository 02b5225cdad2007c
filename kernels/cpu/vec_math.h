// Vectors of VL floats and the functions on them, for vec.c (see vec.h). GCC's vector extensions
// let one source serve every instruction set.
#ifndef ATEDM_KERNELS_CPU_VEC_MATH_H
#define ATEDM_KERNELS_CPU_VEC_MATH_H

#include <stdint.h>
#include <string.h>

#if defined(__AVX2__)
#include <immintrin.h>
#endif

#if defined(__AVX512F__)
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

// The larger or smaller one; a if either is NaN. (The x86 instructions return their second operand
// then.)
ALWAYS_INLINE vf vf_max(vf a, vf b)
{
#if defined(__AVX512F__)
    return (vf)_mm512_max_ps((__m512)b, (__m512)a);
#elif defined(__AVX2__)
    return (vf)_mm256_max_ps((__m256)b, (__m256)a);
#else
    return vf_select(b > a, b, a);
#endif
}

ALWAYS_INLINE vf vf_min(vf a, vf b)
{
#if defined(__AVX512F__)
    return (vf)_mm512_min_ps((__m512)b, (__m512)a);
#elif defined(__AVX2__)
    return (vf)_mm256_min_ps((__m256)b, (__m256)a);
#else
    return vf_select(b < a, b, a);
#endif
}

ALWAYS_INLINE float vf_sum(vf v)
{
#if defined(__AVX512F__)
    return _mm512_reduce_add_ps((__m512)v);
#else
    float lanes[VL];
    vf_store(lanes, v);
    for (int width = VL / 2; width; width /= 2)
        for (int i = 0; i < width; i++)
            lanes[i] += lanes[i + width];
    return lanes[0];
#endif
}

ALWAYS_INLINE float vf_largest(vf v)
{
#if defined(__AVX512F__)
    return _mm512_reduce_max_ps((__m512)v);
#else
    float lanes[VL];
    vf_store(lanes, v);
    for (int width = VL / 2; width; width /= 2)
        for (int i = 0; i < width; i++)
            lanes[i] = lanes[i + width] > lanes[i] ? lanes[i + width] : lanes[i];
    return lanes[0];
#endif
}

ALWAYS_INLINE vf vf_round(vf x)
{
#if defined(__AVX512F__)
    return (vf)_mm512_roundscale_ps((__m512)x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
#else
    const float shift = 12582912.0f; // 1.5 * 2^23, for |x| < 2^22
    return (x + shift) - shift;
#endif
}

// 2^(n + r) for a whole number n <= 128 and |r| <= 1/2 or slightly more, by a polynomial fitted to
// 2^r (least squares of the relative error, 2e-9). The result is 0 if `x`, from which n and r were
// computed, is below `least`, so that no result is denormal.
ALWAYS_INLINE vf vf_power(vf n, vf r, vf x, float least)
{
    vf p = r * 1.535336196e-4f + 1.339887385e-3f;
    p = p * r + 9.618436918e-3f;
    p = p * r + 5.550332367e-2f;
    p = p * r + 2.402264774e-1f;
    p = p * r + 6.931471825e-1f;
    p = p * r + 1.0f;
#if defined(__AVX512F__)
    __mmask16 normal = _mm512_cmp_ps_mask((__m512)x, _mm512_set1_ps(least), _CMP_NLT_UQ);
    return (vf)_mm512_maskz_scalef_ps(normal, (__m512)p, (__m512)n);
#else
    // In two steps, because 2^128 is not a float.
    vi whole = __builtin_convertvector(n, vi), half = whole >> 1;
    vf first = (vf)((half + 127) << 23), second = (vf)((whole - half + 127) << 23);
    return vf_select(x < least, vf_set(0), p * first * second);
#endif
}

// 2^x with a relative error of about 1e-7. Infinity from 2^128 on, 0 below the smallest normal
// number; NaN stays NaN.
ALWAYS_INLINE vf vf_exp2(vf x)
{
#if defined(__AVX512F__)
    vf limited = vf_min(x, vf_set(128.0f));
#else
    vf limited = vf_max(vf_min(x, vf_set(128.0f)), vf_set(-126.0f));
#endif
    vf n = vf_round(limited);
    return vf_power(n, limited - n, x, -126.0f);
}

// e^x, likewise: x = n ln 2 + s, with ln 2 in two parts so that s is exact enough, and e^s = 2^(s /
// ln 2).
ALWAYS_INLINE vf vf_exp(vf x)
{
#if defined(__AVX512F__)
    vf limited = vf_min(x, vf_set(88.8f));
#else
    vf limited = vf_max(vf_min(x, vf_set(88.8f)), vf_set(-87.3f));
#endif
    vf n = vf_round(limited * 1.44269504f);
    vf s = limited - n * 0.693359375f;
    s = s + n * 2.12194440e-4f;
    return vf_power(n, s * 1.44269504f, x, -87.3f);
}

ALWAYS_INLINE vf vf_silu(vf x)
{
    return x / (1.0f + vf_exp(-x));
}

ALWAYS_INLINE vf vf_quick_gelu(vf x)
{
    return x / (1.0f + vf_exp(x * -1.702f));
}

// x Phi(x). Phi(-|x|) = e^(-x^2/2) R(t), t = 1 / (1 + 0.27 |x|). The polynomial R was fitted with
// an error of 3e-8 (weighted least squares over |x| <= 14.5), so that the tail keeps its relative
// accuracy.
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
