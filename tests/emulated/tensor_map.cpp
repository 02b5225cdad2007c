// The driver's tensor maps, and the runtime's lookup of driver functions. C++.
#include "tests/emulated/hopper.hpp"

#include <cstdio>
#include <cstring>

using namespace emulated;

// Checks the arguments of cuTensorMapEncodeTiled against the rules in CUDA 13's cuda.h, for tensors
// of 16-bit elements. Returns the rule that they break, or NULL.
static const char *refusal(const CUtensorMap *map, CUtensorMapDataType type, cuuint32_t rank,
                           const void *address, const cuuint64_t *dims, const cuuint64_t *strides,
                           const cuuint32_t *box, const cuuint32_t *steps,
                           CUtensorMapInterleave interleave, CUtensorMapSwizzle swizzle)
{
    if ((uintptr_t)map % 64)
        return "the map is not aligned to 64 bytes";
    if (type != CU_TENSOR_MAP_DATA_TYPE_FLOAT16 && type != CU_TENSOR_MAP_DATA_TYPE_BFLOAT16)
        return "no type that is emulated";
    if (rank < 2 || rank > MOST_RANK || interleave != CU_TENSOR_MAP_INTERLEAVE_NONE)
        return "no number of dimensions that is emulated";
    if ((uintptr_t)address % 16)
        return "the tensor is not aligned to 16 bytes";
    for (cuuint32_t i = 0; i < rank; i++)
        if (!dims[i] || dims[i] > (uint64_t)1 << 32 || !box[i] || box[i] > 256 || steps[i] != 1)
            return "a dimension, a box's dimension or a step";
    for (cuuint32_t i = 0; i + 1 < rank; i++)
        if (strides[i] % 16 || strides[i] >= (uint64_t)1 << 40 ||
            strides[i] < dims[i] * (i ? strides[i - 1] : 2))
            return "a stride";
    if (box[0] * 2 % 16)
        return "rows of the box are no multiple of 16 bytes";
    if (swizzle != CU_TENSOR_MAP_SWIZZLE_NONE &&
        (swizzle != CU_TENSOR_MAP_SWIZZLE_128B || box[0] * 2 != 128))
        return "swizzling other than of 128 bytes in rows of 128 bytes";
    return nullptr;
}

static CUresult encode_tiled(CUtensorMap *map, CUtensorMapDataType type, cuuint32_t rank,
                             void *address, const cuuint64_t *dims, const cuuint64_t *strides,
                             const cuuint32_t *box, const cuuint32_t *steps,
                             CUtensorMapInterleave interleave, CUtensorMapSwizzle swizzle,
                             CUtensorMapL2promotion, CUtensorMapFloatOOBfill fill)
{
    const char *why =
        refusal(map, type, rank, address, dims, strides, box, steps, interleave, swizzle);
    if (fill != CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE)
        why = "no zeros outside the tensor";
    if (why) {
        fprintf(stderr, "emulated cuda: cuTensorMapEncodeTiled: %s\n", why);
        return CUDA_ERROR_INVALID_VALUE;
    }
    tensor_map m = {};
    m.magic = TENSOR_MAP_MAGIC;
    m.address = (const char *)address;
    for (cuuint32_t i = 0; i < MOST_RANK; i++) {
        m.size[i] = i < rank ? dims[i] : 1;
        m.stride[i] = i == 0 ? 2 : i < rank ? strides[i - 1] : 0;
        m.box[i] = i < rank ? box[i] : 1;
    }
    m.rank = (uint16_t)rank;
    m.element_bytes = 2;
    m.swizzled = swizzle == CU_TENSOR_MAP_SWIZZLE_128B;
    memcpy(map, &m, sizeof m);
    return CUDA_SUCCESS;
}

extern "C" cudaError_t cudaGetDriverEntryPointByVersion(const char *name, void **ret_function,
                                                        unsigned version, unsigned long long flags,
                                                        cudaDriverEntryPointQueryResult *result)
{
    // 12000 is the first version that has it.
    bool found =
        !strcmp(name, "cuTensorMapEncodeTiled") && version >= 12000 && flags == cudaEnableDefault;
    *ret_function = found ? (void *)encode_tiled : nullptr;
    *result = found ? cudaDriverEntryPointSuccess : cudaDriverEntryPointSymbolNotFound;
    return cudaSuccess;
}
