// cuBLASLt's algorithms for linear layers: how they are chosen so that a row's result does not
// depend on how many rows there are (linear_plan.c), and a product by one of them.
#ifndef ATEDM_KERNELS_CUDA_LINEAR_H
#define ATEDM_KERNELS_CUDA_LINEAR_H

#include "kernels/cuda/cuda.h"

// The number of rows whose first algorithm is everybody's in bits.
#define ATEDM_CUDA_PLAN_ROWS 1024

// What an algorithm is chosen by. Alignments are those of every row of the operand, in bytes.
typedef struct atedm_cuda_plan_key {
    int64_t in, out, weight_stride; // elements
    size_t weight_align, x_align, y_align, residual_align;
    bool bias, residual, sums; // added by cuBLASLt; leaves F32 sums
    int64_t rows;              // that it is for, more or less
} atedm_cuda_plan_key;

typedef struct atedm_cuda_plan {
    atedm_cuda_plan_key key;
    bool found;
    bool rounds_twice; // with bias and residual: then the key for sums has to do
    cublasLtMatmulAlgo_t algo;
    struct atedm_cuda_plan *next;
} atedm_cuda_plan;

// y [rows, out] = x [rows, in] weight [out, in]^T + bias [out] + residual [rows, out], all
// [device] of the stream's act, y in F32 where the key says sums; the last two where it says so.
typedef struct atedm_cuda_operands {
    const void *weight, *bias, *x, *residual;
    void *y;
    int64_t rows;
} atedm_cuda_operands;

// Enqueues a product; not its epilogue, where the key says sums.
ATEDM_MUST_CHECK cublasStatus_t atedm_cuda_multiply(atedm_cuda_stream *s,
                                                    const atedm_cuda_plan_key *key,
                                                    const cublasLtMatmulAlgo_t *algo,
                                                    const atedm_cuda_operands *operands);

// The plan for so many rows (the key's own `rows` do not count), made at its first use, which may
// wait for the device. Not found: cuBLASLt has nothing. NULL after failing the stream.
const atedm_cuda_plan *atedm_cuda_plan_get(atedm_cuda_stream *s, const atedm_cuda_plan_key *key,
                                           int64_t rows);

#endif
