// cuBLASLt's algorithms for linear layers, which linear.c goes by: how they are chosen so that a
// row's result does not depend on how many rows there are, and a product by one of them
// (linear_plan.c); rows that one does not take (linear_padded.c); what they do when they are tried
// (linear_trial.c).
#ifndef ATEDM_KERNELS_CUDA_LINEAR_H
#define ATEDM_KERNELS_CUDA_LINEAR_H

#include "kernels/cuda/cuda.h"

// Of rows, in bytes: what any algorithm can use.
#define ATEDM_CUDA_LINEAR_ALIGN ((size_t)16)
// The number of rows whose first algorithm is everybody's in bits.
#define ATEDM_CUDA_PLAN_ROWS 1024
#define ATEDM_CUDA_PLAN_LEAST_ROWS 16 // for which there is another plan
#define ATEDM_CUDA_PLAN_CANDIDATES 8  // of the heuristic that are tried

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
    bool rounds_twice; // with a bias: then the key for sums has to do
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

// Asks cuBLASLt's heuristic for so many algorithms for the key's rows; returns how many there are.
int atedm_cuda_propose(const atedm_cuda_stream *s, const atedm_cuda_plan_key *key, int wanted,
                       cublasLtMatmulHeuristicResult_t *ret_results);

// The plan for so many rows (the key's own `rows` do not count), made at its first use, which may
// wait for the device. Not found: cuBLASLt has nothing. NULL after failing the stream.
const atedm_cuda_plan *atedm_cuda_plan_get(atedm_cuda_stream *s, const atedm_cuda_plan_key *key,
                                           int64_t rows);

// ---- linear_padded.c

// The same product by a plan for ATEDM_CUDA_PLAN_ROWS rows, whose algorithm refuses the operands'
// number of rows. May fail the stream as well.
ATEDM_MUST_CHECK cublasStatus_t atedm_cuda_multiply_padded(atedm_cuda_stream *s,
                                                           const atedm_cuda_plan *first,
                                                           const atedm_cuda_operands *operands);

// ---- linear_trial.c

// The fastest of `n` algorithms that give the same bits as `known`, or that one.
cublasLtMatmulAlgo_t atedm_cuda_pick(atedm_cuda_stream *s, const atedm_cuda_plan_key *key,
                                     const cublasLtMatmulHeuristicResult_t *candidates, int n,
                                     const cublasLtMatmulAlgo_t *known);
// Whether the bias, and the residual where there is one, are added before the sum is rounded: some
// of cuBLASLt's kernels, for short rows or such as are at odd addresses, round to act in between.
// Where that cannot be tried it counts as not. For 16-bit types. May fail the stream.
bool atedm_cuda_rounds_once(atedm_cuda_stream *s, const atedm_cuda_plan *plan);

#endif
