// Algorithms for linear layers, for linear.c: cuBLASLt's and our own (linear_hopper.cu).
// linear_plan.c chooses them so that a row's result does not depend on how many rows there are, and
// multiplies by them; linear_padded.c multiplies numbers of rows that an algorithm refuses;
// linear_trial.c tries algorithms out; hopper_linear.c calls our own ones.
#ifndef ATEDM_KERNELS_CUDA_LINEAR_H
#define ATEDM_KERNELS_CUDA_LINEAR_H

#include "kernels/cuda/cuda.h"

// Bytes that rows are aligned to at best: no algorithm asks for more.
#define ATEDM_CUDA_LINEAR_ALIGN ((size_t)16)
// The number of rows whose first proposed algorithm decides the bits for all numbers of rows.
#define ATEDM_CUDA_PLAN_ROWS 1024
#define ATEDM_CUDA_PLAN_LEAST_ROWS 16 // fewer rows have the plan for ATEDM_CUDA_PLAN_ROWS
#define ATEDM_CUDA_PLAN_CANDIDATES 8  // algorithms of cuBLASLt's heuristic that a trial tries
#define ATEDM_CUDA_PLAN_OWN 4         // our own algorithms that it tries, where there are any
// And the one that decides the bits.
#define ATEDM_CUDA_PLAN_TRIED (ATEDM_CUDA_PLAN_CANDIDATES + ATEDM_CUDA_PLAN_OWN + 1)

// What an algorithm is chosen by.
typedef struct atedm_cuda_plan_key {
    int64_t in, out;
    int64_t weight_stride; // elements from one row of the weight to the next
    // Bytes that every row of the operand is aligned to.
    size_t weight_align, x_align, y_align, residual_align;
    bool bias, residual; // the algorithm adds them
    bool sums;           // results are left in F32, for an own kernel to add the rest
    int64_t rows;        // of x and y; plans are for steps of them (round_rows in linear_plan.c)
} atedm_cuda_plan_key;

// How linear_hopper.cu cuts the results into tiles.
typedef struct atedm_cuda_linear_cut {
    int32_t rows, outputs; // of a tile
    int32_t down, across;  // blocks of a cluster, in y and in x
    // The bias is added before the residual, where there are both; cuBLASLt's kernels have either
    // order.
    bool is_bias_first;
} atedm_cuda_linear_cut;

typedef struct atedm_cuda_algorithm {
    bool is_own;
    atedm_cuda_linear_cut cut; // of our own
    cublasLtMatmulAlgo_t blas; // of the others
} atedm_cuda_algorithm;

typedef struct atedm_cuda_plan {
    atedm_cuda_plan_key key;
    bool found; // false: there is no algorithm for this key
    // The algorithm rounds to act before it adds the bias, so that another plan, with sums, has to
    // be used instead.
    bool rounds_twice;
    atedm_cuda_algorithm algo;
    struct atedm_cuda_plan *next;
} atedm_cuda_plan;

// Operands of y [rows, out] = x [rows, in] weight [out, in]^T + bias [out] + residual [rows, out].
// All are [device] act, but y is F32 where the key says `sums`. Those that the key leaves out are
// not looked at.
typedef struct atedm_cuda_operands {
    const void *weight, *bias, *x, *residual;
    void *y;
    int64_t rows;
} atedm_cuda_operands;

// Enqueues a product.
ATEDM_MUST_CHECK cublasStatus_t atedm_cuda_multiply(atedm_cuda_stream *s,
                                                    const atedm_cuda_plan_key *key,
                                                    const atedm_cuda_algorithm *algo,
                                                    const atedm_cuda_operands *operands);

// Asks cuBLASLt's heuristic for `wanted` algorithms, ATEDM_CUDA_PLAN_CANDIDATES at most, for the
// key's rows. Returns how many it proposes.
int atedm_cuda_propose(const atedm_cuda_stream *s, const atedm_cuda_plan_key *key, int wanted,
                       atedm_cuda_algorithm *ret_algos);

// The plan for the key with `rows` in place of its own rows. It is made when it is first asked for,
// which may wait for the device. NULL after failing the stream.
const atedm_cuda_plan *atedm_cuda_plan_get(atedm_cuda_stream *s, const atedm_cuda_plan_key *key,
                                           int64_t rows);

// ---- linear_padded.c

// The product by the plan for ATEDM_CUDA_PLAN_ROWS rows, where its algorithm refuses the operands'
// number of rows. May fail the stream as well.
ATEDM_MUST_CHECK cublasStatus_t atedm_cuda_multiply_padded(atedm_cuda_stream *s,
                                                           const atedm_cuda_plan *first,
                                                           const atedm_cuda_operands *operands);

// ---- linear_trial.c

// The fastest of those of the `n` candidates that give the same bits as `known`; `known` itself
// where none does or nothing can be tried.
atedm_cuda_algorithm atedm_cuda_pick(atedm_cuda_stream *s, const atedm_cuda_plan_key *key,
                                     const atedm_cuda_algorithm *candidates, int n,
                                     const atedm_cuda_algorithm *known);
// Whether the plan's algorithm adds the bias, and the residual where there is one, before it rounds
// to act. Some of cuBLASLt's kernels, for short rows or rows at odd addresses, round before and
// after. False where that cannot be tried. For 16-bit types. May fail the stream.
bool atedm_cuda_rounds_once(atedm_cuda_stream *s, const atedm_cuda_plan *plan);

// ---- hopper_linear.c

// Whether linear_hopper.cu can compute layers with this key, for any number of rows; whether the
// device can run it is not asked here.
bool atedm_cuda_hopper_takes_linear(const atedm_cuda_stream *s, const atedm_cuda_plan_key *key);
// The `wanted` best cuts for the key's rows by an estimate of their cycles, the best one first, all
// without the bias first. Returns how many there are.
int atedm_cuda_linear_cuts(const atedm_cuda_stream *s, const atedm_cuda_plan_key *key, int wanted,
                           atedm_cuda_linear_cut *ret_cuts);
// Enqueues a product of a layer that atedm_cuda_hopper_takes_linear takes. A row's bits are the
// same in every cut; is_bias_first does change them.
ATEDM_MUST_CHECK cublasStatus_t atedm_cuda_hopper_linear(atedm_cuda_stream *s,
                                                         const atedm_cuda_plan_key *key,
                                                         const atedm_cuda_linear_cut *cut,
                                                         const atedm_cuda_operands *operands);

#endif
