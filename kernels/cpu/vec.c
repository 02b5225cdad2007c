// The table of one instruction set: see vec.h. Compiled once for each, with its flags and
// ATEDM_VEC_TABLE, the table's name.
#include "kernels/cpu/vec.h"
#include "kernels/cpu/vec_math.h"

#include <math.h>

#define STRING_OF(x) #x
#define STRING(x) STRING_OF(x)

// The tile of sums that a product keeps in registers: MR rows of NV vectors.
#define MR 6
#if VL == 16
#define NV 4
#else
#define NV 2
#endif
#define PANEL ((int64_t)NV * VL) // columns of a packed panel: see vec_tile.h
#define LOG2_E 1.44269504f
#define LN_2 0.69314718055994530942
#define KEY_TILE 256 // keys of an attention tile, a multiple of PANEL

static int64_t round_up(int64_t n, int64_t step)
{
    return (n + step - 1) / step * step;
}

// The parameters of the templates vec_act.h, vec_product.h (or vec_amx.h) and vec_tile.h are
// defined here for each dtype. The templates describe them.

// ---- float
#define T float
#define MAP_SCALE 1.0f
#define FN(x) f32_##x
#define KP 1
#define K_STEP KP
#define ROW_STEP MR
typedef vf f32_operand;
typedef float f32_map_element;

ALWAYS_INLINE vf f32_load(const float *x)
{
    return vf_load(x);
}

ALWAYS_INLINE void f32_store(float *x, vf v)
{
    vf_store(x, v);
}

ALWAYS_INLINE float f32_load_one(const float *x)
{
    return *x;
}

ALWAYS_INLINE vf f32_map_load(const float *x)
{
    return vf_load(x);
}

ALWAYS_INLINE void f32_map_store(float *x, vf v)
{
    vf_store(x, v);
}

ALWAYS_INLINE vf f32_group(const float *x)
{
    return vf_load(x);
}

ALWAYS_INLINE vf f32_broadcast(const float *x)
{
    return vf_set(*x);
}

ALWAYS_INLINE vf f32_multiply_add(vf sum, vf a, vf b)
{
    return sum + a * b;
}

ALWAYS_INLINE void f32_begin(void)
{
}

ALWAYS_INLINE void f32_end(void)
{
}

#include "kernels/cpu/vec_act.h"
#include "kernels/cpu/vec_product.h"
#include "kernels/cpu/vec_tile.h"
#undef T
#undef MAP_SCALE
#undef FN
#undef KP
#undef K_STEP
#undef ROW_STEP

#define ACT_TABLE(type)                                                                            \
    {                                                                                              \
        .to_f32 = type##_to_f32, .from_f32 = type##_from_f32, .add = type##_add,                   \
        .accumulate = type##_accumulate, .activate = type##_activate, .geglu = type##_geglu,       \
        .layer_norm = type##_layer_norm, .column_sums = type##_column_sums,                        \
        .normalize = type##_normalize, .keys_bytes = type##_keys_bytes,                            \
        .values_bytes = type##_values_bytes, .pack_keys = type##_pack_keys,                        \
        .pack_values = type##_pack_values, .work_bytes = type##_work_bytes,                        \
        .attention = type##_attention, .map = type##_map, .map_size = sizeof(type##_map_element),  \
        .packed_map = type##_packed_map, .weighted_rows = type##_weighted_rows, .dot = type##_dot  \
    }

static const atedm_vec_act f32_table = ACT_TABLE(f32);

// ---- bf16
#ifdef __AVX512BF16__
#define T uint16_t
// Maps for G-WPR are in f16, whose 11 bits are enough for all iterations. They are scaled, to reach
// down to 1.9e-9.
#define MAP_SCALE 32768.0f
#define FN(x) bf16_##x
#define KP 2

ALWAYS_INLINE vf bf16_load(const uint16_t *x)
{
    vh bits;
    memcpy(&bits, x, sizeof bits);
    return (vf)(__builtin_convertvector(bits, vu) << 16);
}

ALWAYS_INLINE void bf16_store(uint16_t *x, vf v)
{
    __m256bh bits = _mm512_cvtneps_pbh((__m512)v);
    memcpy(x, &bits, sizeof bits);
}

ALWAYS_INLINE float bf16_load_one(const uint16_t *x)
{
    return atedm_bf16_to_f32(*x);
}

typedef uint16_t bf16_map_element;

ALWAYS_INLINE vf bf16_map_load(const uint16_t *x)
{
    __m256i bits;
    memcpy(&bits, x, sizeof bits);
    return (vf)_mm512_cvtph_ps(bits);
}

ALWAYS_INLINE void bf16_map_store(uint16_t *x, vf v)
{
    __m256i bits = _mm512_cvtps_ph((__m512)v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
    memcpy(x, &bits, sizeof bits);
}

#include "kernels/cpu/vec_act.h"

#ifdef __AMX_BF16__
#include "kernels/cpu/vec_amx.h"
#else
#define K_STEP KP
#define ROW_STEP MR
typedef __m512bh bf16_operand;

ALWAYS_INLINE __m512bh bf16_group(const uint16_t *x)
{
    __m512bh v;
    memcpy(&v, x, sizeof v);
    return v;
}

ALWAYS_INLINE __m512bh bf16_broadcast(const uint16_t *x)
{
    int32_t pair;
    memcpy(&pair, x, sizeof pair);
    return (__m512bh)_mm512_set1_epi32(pair);
}

ALWAYS_INLINE vf bf16_multiply_add(vf sum, __m512bh a, __m512bh b)
{
    return (vf)_mm512_dpbf16_ps((__m512)sum, a, b);
}

ALWAYS_INLINE void bf16_begin(void)
{
}

ALWAYS_INLINE void bf16_end(void)
{
}

#include "kernels/cpu/vec_product.h"
#endif
#include "kernels/cpu/vec_tile.h"

static const atedm_vec_act bf16_table = ACT_TABLE(bf16);
#endif

const atedm_vec ATEDM_VEC_TABLE = {
    .name = STRING(ATEDM_VEC_TABLE),
    .f32 = &f32_table,
#ifdef __AVX512BF16__
    .bf16 = &bf16_table,
#endif
};
