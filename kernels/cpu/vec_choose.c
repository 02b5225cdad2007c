// Which instruction set's table (vec.h) this machine runs.
#include "kernels/cpu/vec.h"

const atedm_vec *atedm_vec_choose(void)
{
#if defined(__x86_64__)
    bool avx512 = __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                  __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq") &&
                  __builtin_cpu_supports("fma");
    if (avx512 && __builtin_cpu_supports("avx512bf16"))
        return &atedm_vec_avx512_bf16;
    if (avx512)
        return &atedm_vec_avx512;
    if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"))
        return &atedm_vec_avx2;
#endif
    return &atedm_vec_portable;
}
