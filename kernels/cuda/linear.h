// Algorithms for linear layers, cuBLASLt's and own ones, which linear.c goes by: how they are
// chosen so that a row's result does not depend on how many rows there are, and a product by one of
// them (linear_plan.c); rows that one does not take (linear_padded.c); what they do when they are
// tried (linear_trial.c); own ones (hopper_linear.c).
#ifndef ATEDM_KERNELS_CUDA_LINEAR_H
#define ATEDM_KERNELS_CUDA_LINEAR_H

#include "kernels/cuda/cuda.h"

// Of rows, in bytes: what any algorithm can use.
#define ATEDM_CUDA_LINEAR_ALIGN ((size_t)16)
// The number of rows whose first algorithm is everybody's in bits.
#define ATEDM_CUDA_PLAN_ROWS 1024
#define ATEDM_CUDA_PLAN_LEAST_ROWS 16 // for which there is another plan
#define ATEDM_CUDA_PLAN_CANDIDATES 8  // of the heuristic that are tried
#define ATEDM_CUDA_PLAN_OWN 4         // own ones beside them
#define ATEDM_CUDA_PLAN_TRIED                                                                      \
    (ATEDM_CUDA_PLAN_CANDIDATES + ATEDM_CUDA_PLAN_OWN + 1) // and the first

// What an algorithm is chosen by. Alignments are those of every row of the operand, in bytes.
typedef struct atedm_cuda_plan_key {
    int64_t in, out, weight_stride; // elements
    size_t weight_align, x_align, y_align, residual_align;
    bool bias, residual, sums; // added by cuBLASLt; leaves F32 sums
    int64_t rows;              // that it is for, more or less
} atedm_cuda_plan_key;

// How linear_hopper.cu cuts results: rows and outputs of a tile; blocks of a cluster, below and
// beside each other. Which of bias and residual, where there are both, is added first: the kernels
// of cuBLASLt may do it either way.
typedef struct atedm_cuda_linear_cut {
    int32_t rows, outputs, down, across;
    bool is_bias_first;
} atedm_cuda_linear_cut;

typedef struct atedm_cuda_algorithm {
    bool is_own;
    atedm_cuda_linear_cut cut; // own
    cublasLtMatmulAlgo_t blas; // else
} atedm_cuda_algorithm;

typedef struct atedm_cuda_plan {
    atedm_cuda_plan_key key;
    bool found;
    bool rounds_twice; // with a bias: then the key for sums has to do
    atedm_cuda_algorithm algo;
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
                                                    const atedm_cuda_algorithm *algo,
                                                    const atedm_cuda_operands *operands);

// Asks cuBLASLt's heuristic for so many algorithms, ATEDM_CUDA_PLAN_CANDIDATES at most, for the
// key's rows; returns how many there are.
int atedm_cuda_propose(const atedm_cuda_stream *s, const atedm_cuda_plan_key *key, int wanted,
                       atedm_cuda_algorithm *ret_algos);

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
atedm_cuda_algorithm atedm_cuda_pick(atedm_cuda_stream *s, const atedm_cuda_plan_key *key,
                                     const atedm_cuda_algorithm *candidates, int n,
                                     const atedm_cuda_algorithm *known);
// Whether the bias, and the residual where there is one, are added before the sum is rounded: some
// of cuBLASLt's kernels, for short rows or such as are at odd addresses, round to act in between.
// Where that cannot be tried it counts as not. For 16-bit types. May fail the stream.
bool atedm_cuda_rounds_once(atedm_cuda_stream *s, const atedm_cuda_plan *plan);

// ---- hopper_linear.c

// Whether linear_hopper.cu, where the device can run it, computes such layers, with any number of
// rows.
bool atedm_cuda_hopper_takes_linear(const atedm_cuda_stream *s, const atedm_cuda_plan_key *key);
// The best cuts for the key's rows, by arithmetic, the best one first, without the bias first;
// returns how many there are: as many as are wanted.
int atedm_cuda_linear_cuts(const atedm_cuda_stream *s, const atedm_cuda_plan_key *key, int wanted,
                           atedm_cuda_linear_cut *ret_cuts);
// Enqueues a product of a layer that it takes. A row's bits are the same in every cut, but for what
// is added first.
ATEDM_MUST_CHECK cublasStatus_t atedm_cuda_hopper_linear(atedm_cuda_stream *s,
                                                         const atedm_cuda_plan_key *key,
                                                         const atedm_cuda_linear_cut *cut,
                                                         const atedm_cuda_operands *operands);

#endif
