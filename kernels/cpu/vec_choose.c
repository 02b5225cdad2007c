// Chooses the table (vec.h) of this machine's instruction set.
#include "kernels/cpu/vec.h"

#if defined(__x86_64__)
#include <cpuid.h>
#include <sys/syscall.h>
#include <unistd.h>

// Leaf 7 of cpuid, register edx.
#define AMX_BF16 (1u << 22)
#define AMX_TILE (1u << 24)

// From Linux's asm/prctl.h: asks for a state component of the processor that is off by default.
#define REQUEST_PERMISSION 0x1023
#define TILE_DATA 18

// Whether the processor has AMX's tiles and the kernel lets this process use them. oneDNN asks for
// the same.
static bool tiles_allowed(void)
{
    unsigned eax, ebx, ecx, edx;
    return __get_cpuid_count(7, 0, &eax, &ebx, &ecx, &edx) && edx & AMX_BF16 && edx & AMX_TILE &&
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
