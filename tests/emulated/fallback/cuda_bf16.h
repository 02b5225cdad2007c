// bfloat16 of CUDA C++, for the emulated build: rounds to nearest even. C++.
#ifndef ATEDM_TESTS_FALLBACK_CUDA_BF16_H
#define ATEDM_TESTS_FALLBACK_CUDA_BF16_H

#include "tests/emulated/fallback/cuda_runtime.h"

#include <cstring>

struct __nv_bfloat16 {
    uint16_t bits;
};
struct alignas(4) __nv_bfloat162 {
    __nv_bfloat16 x, y;
};

inline __nv_bfloat16 __float2bfloat16_rn(float value)
{
    uint32_t u;
    memcpy(&u, &value, sizeof u);
    if ((u & 0x7fffffff) > 0x7f800000)
        return {0x7fff}; // the NaN that the device makes
    return {(uint16_t)((u + 0x7fff + (u >> 16 & 1)) >> 16)};
}
inline float __bfloat162float(__nv_bfloat16 h)
{
    uint32_t u = (uint32_t)h.bits << 16;
    float value;
    memcpy(&value, &u, sizeof value);
    return value;
}
inline __nv_bfloat162 __floats2bfloat162_rn(float a, float b)
{
    return {__float2bfloat16_rn(a), __float2bfloat16_rn(b)};
}

#endif
