// Element types and tensors in host memory: see tensor.h.
#include "core/base/tensor.h"

#include <assert.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

// Elements that atedm_host_tensor_convert brings to an aligned place at a time.
#define CONVERT_PIECE ((size_t)4096)

size_t atedm_dtype_size(atedm_dtype dtype)
{
    switch (dtype) {
    case ATEDM_F32:
    case ATEDM_I32:
        return 4;
    case ATEDM_BF16:
    case ATEDM_F16:
        return 2;
    case ATEDM_I64:
        return 8;
    case ATEDM_U8:
        return 1;
    }
    return 0;
}

const char *atedm_dtype_name(atedm_dtype dtype)
{
    switch (dtype) {
    case ATEDM_F32:
        return "f32";
    case ATEDM_BF16:
        return "bf16";
    case ATEDM_F16:
        return "f16";
    case ATEDM_I64:
        return "i64";
    case ATEDM_I32:
        return "i32";
    case ATEDM_U8:
        return "u8";
    }
    return "?";
}

int64_t atedm_host_tensor_count(const atedm_host_tensor *t)
{
    int64_t count = 1;
    for (int i = 0; i < t->ndim; i++)
        count *= t->shape[i];
    return count;
}

bool atedm_host_tensor_has_shape(const atedm_host_tensor *t, int ndim, const int64_t *shape)
{
    if (t->ndim != ndim)
        return false;
    for (int i = 0; i < ndim; i++)
        if (t->shape[i] != shape[i])
            return false;
    return true;
}

const char *atedm_shape_text(int ndim, const int64_t *shape, char *buffer, size_t size)
{
    size_t used = 0;
    buffer[0] = '\0';
    for (int i = 0; i < ndim && used < size; i++)
        used +=
            (size_t)snprintf(buffer + used, size - used, "%s%" PRId64, i ? ", " : "[", shape[i]);
    if (used < size)
        snprintf(buffer + used, size - used, ndim ? "]" : "[]");
    return buffer;
}

float atedm_f16_to_f32(uint16_t bits)
{
    uint32_t sign = (uint32_t)(bits & 0x8000u) << 16;
    uint32_t exponent = (bits >> 10) & 0x1fu;
    uint32_t mantissa = bits & 0x3ffu;
    uint32_t out;
    if (exponent == 0x1f) {
        out = sign | 0x7f800000u | (mantissa << 13);
    } else if (exponent) {
        out = sign | ((exponent + 112) << 23) | (mantissa << 13);
    } else { // zero or subnormal: mantissa * 2^-24 is exact in binary32
        float value = (float)mantissa * 0x1p-24f;
        memcpy(&out, &value, sizeof out);
        out |= sign;
    }
    float result;
    memcpy(&result, &out, sizeof result);
    return result;
}

uint16_t atedm_f32_to_f16(float value)
{
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    uint16_t sign = (uint16_t)((bits >> 16) & 0x8000u);
    uint32_t magnitude = bits & 0x7fffffffu;
    if (magnitude > 0x7f800000u)
        return sign | 0x7e00u;
    if (magnitude >= 0x477ff000u) // rounds to 65536 or more, or is infinite
        return sign | 0x7c00u;
    if (magnitude < 0x38800000u) { // below 2^-14: subnormal, in units of 2^-24
        if (magnitude <= 0x33000000u)
            return sign; // at most half of the smallest subnormal: ties to even, which is zero
        uint32_t shift = 126 - (magnitude >> 23);
        uint32_t mantissa = (magnitude & 0x7fffffu) | 0x800000u;
        uint32_t kept = mantissa >> shift;
        uint32_t rest = mantissa & ((1u << shift) - 1);
        uint32_t half = 1u << (shift - 1);
        kept += rest > half || (rest == half && (kept & 1));
        return sign | (uint16_t)kept;
    }
    uint32_t rounded = magnitude + 0xfffu + ((magnitude >> 13) & 1);
    return sign | (uint16_t)((rounded - 0x38000000u) >> 13);
}

float atedm_bf16_to_f32(uint16_t bits)
{
    uint32_t wide = (uint32_t)bits << 16;
    float result;
    memcpy(&result, &wide, sizeof result);
    return result;
}

uint16_t atedm_f32_to_bf16(float value)
{
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    if ((bits & 0x7fffffffu) > 0x7f800000u)
        return (uint16_t)(bits >> 16) | 0x40u;
    return (uint16_t)((bits + 0x7fffu + ((bits >> 16) & 1)) >> 16);
}

static float load_f32(const void *from, atedm_dtype dtype, size_t i)
{
    switch (dtype) {
    case ATEDM_F32:
        return ((const float *)from)[i];
    case ATEDM_BF16:
        return atedm_bf16_to_f32(((const uint16_t *)from)[i]);
    case ATEDM_F16:
        return atedm_f16_to_f32(((const uint16_t *)from)[i]);
    default:
        assert(!"not a floating-point dtype");
        return 0;
    }
}

void atedm_convert(const void *from, atedm_dtype from_dtype, void *to, atedm_dtype to_dtype,
                   size_t count)
{
    if (from_dtype == to_dtype) {
        memcpy(to, from, count * atedm_dtype_size(from_dtype));
        return;
    }
    for (size_t i = 0; i < count; i++) {
        float value = load_f32(from, from_dtype, i);
        if (to_dtype == ATEDM_F32)
            ((float *)to)[i] = value;
        else if (to_dtype == ATEDM_BF16)
            ((uint16_t *)to)[i] = atedm_f32_to_bf16(value);
        else
            ((uint16_t *)to)[i] = atedm_f32_to_f16(value);
    }
}

void atedm_host_tensor_convert(const atedm_host_tensor *from, size_t first, size_t count, void *to,
                               atedm_dtype to_dtype)
{
    _Alignas(64) char aligned[CONVERT_PIECE * sizeof(float)];
    size_t from_size = atedm_dtype_size(from->dtype), to_size = atedm_dtype_size(to_dtype), n;
    for (size_t done = 0; done < count; done += n) {
        n = count - done < CONVERT_PIECE ? count - done : CONVERT_PIECE;
        memcpy(aligned, (const char *)from->data + (first + done) * from_size, n * from_size);
        atedm_convert(aligned, from->dtype, (char *)to + done * to_size, to_dtype, n);
    }
}
