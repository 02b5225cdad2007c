// The vector types of CUDA C++, for the emulated build. C++.
#ifndef ATEDM_TESTS_FALLBACK_CUDA_RUNTIME_H
#define ATEDM_TESTS_FALLBACK_CUDA_RUNTIME_H

#include "tests/emulated/fallback/cuda_runtime_api.h"

struct uint3 {
    unsigned x, y, z;
};
struct dim3 {
    unsigned x, y, z;
    constexpr dim3(unsigned x_ = 1, unsigned y_ = 1, unsigned z_ = 1) : x(x_), y(y_), z(z_)
    {
    }
};
// blockDim and gridDim: thread-local variables want a type without a constructor.
struct dim3_pod {
    unsigned x, y, z;
};
struct alignas(8) float2 {
    float x, y;
};
struct alignas(16) uint4 {
    unsigned x, y, z, w;
};
inline float2 make_float2(float x, float y)
{
    return {x, y};
}
inline uint4 make_uint4(unsigned x, unsigned y, unsigned z, unsigned w)
{
    return {x, y, z, w};
}

#endif
