// Which instruction set's table (vec.h) this machine runs.
#include "kernels/cpu/vec.h"

#if defined(__x86_64__)
#include <sys/syscall.h>
#include <unistd.h>

// From Linux's asm/prctl.h: asks for a state component of the processor that is off by default.
#define REQUEST_PERMISSION 0x1023
#define TILE_DATA 18

// Whether this process may use AMX's tiles. oneDNN asks for the same.
static bool tiles_allowed(void)
{
    return __builtin_cpu_supports("amx-tile") && __builtin_cpu_supports("amx-bf16") &&
           syscall(SYS_arch_prctl, REQUEST_PERMISSION, TILE_DATA) == 0;
}
#endif

const atedm_vec *atedm_vec_choose(void)
{
#if defined(__x86_64__)
    bool avx512 = __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                  __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq") &&
                  __builtin_cpu_supports("fma");
    if (avx512 && __builtin_cpu_supports("avx512bf16"))
        return tiles_allowed() ? &atedm_vec_avx512_amx : &atedm_vec_avx512_bf16;
    if (avx512)
        return &atedm_vec_avx512;
    if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"))
        return &atedm_vec_avx2;
#endif
    return &atedm_vec_portable;
}
