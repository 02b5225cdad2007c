// half precision of CUDA C++, for the emulated build: rounds to nearest even, with subnormals. C++.
#ifndef ATEDM_TESTS_FALLBACK_CUDA_FP16_H
#define ATEDM_TESTS_FALLBACK_CUDA_FP16_H

#include "tests/emulated/fallback/cuda_runtime.h"

#include <cstring>

struct __half {
    uint16_t bits;
};
struct alignas(4) __half2 {
    __half x, y;
};

inline __half __float2half_rn(float value)
{
    uint32_t u;
    memcpy(&u, &value, sizeof u);
    uint32_t sign = u >> 16 & 0x8000, a = u & 0x7fffffff;
    if (a > 0x7f800000)
        return {0x7fff};
    if (a >= 0x477ff000) // rounds to more than the largest
        return {(uint16_t)(sign | 0x7c00)};
    if (a >= 0x38800000)
        return {(uint16_t)(sign | ((a - 0x38000000 + 0xfff + (a >> 13 & 1)) >> 13))};
    float shifted; // a subnormal: the addition puts its bits where they belong, rounded
    memcpy(&shifted, &a, sizeof shifted);
    shifted += 0.5f;
    memcpy(&a, &shifted, sizeof a);
    return {(uint16_t)(sign | (a - 0x3f000000))};
}
inline float __half2float(__half h)
{
    uint32_t sign = (uint32_t)(h.bits & 0x8000) << 16, e = h.bits >> 10 & 31, m = h.bits & 1023;
    if (e == 0) {
        float value = (float)m * 0x1p-24f;
        return sign ? -value : value;
    }
    uint32_t u = sign | (e == 31 ? 0x7f800000 : (e + 112) << 23) | m << 13;
    float value;
    memcpy(&value, &u, sizeof value);
    return value;
}
inline __half2 __floats2half2_rn(float a, float b)
{
    return {__float2half_rn(a), __float2half_rn(b)};
}

#endif
