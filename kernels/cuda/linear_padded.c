// Linear layers whose algorithm for ATEDM_CUDA_PLAN_ROWS rows, which decides the bits, refuses the
// number of rows of a call. No other algorithm gives these bits for sure, but this one was proposed
// for ATEDM_CUDA_PLAN_ROWS rows: so the rows are copied into a matrix of that many, and the results
// are copied back. What stands in the rows behind them does not matter.
#include "kernels/cuda/linear.h"

// Matrices of ATEDM_CUDA_PLAN_ROWS rows, one behind the other in scratch memory; with so many rows
// each begins at an aligned address.
typedef struct padded {
    size_t x_row, residual_row, y_row; // bytes of a row; 0: there is no residual
    char *x, *residual, *y;            // [device]
} padded;

// False after failing the stream.
static bool place(atedm_cuda_stream *s, const atedm_cuda_plan_key *key, padded *ret_padded)
{
    size_t element = atedm_dtype_size(s->head.act), out = (size_t)key->out;
    padded p = {.x_row = (size_t)key->in * element,
                .residual_row = key->residual ? out * element : 0,
                .y_row = out * (key->sums ? sizeof(float) : element)};
    p.x = atedm_cuda_scratch_get(s, ATEDM_CUDA_SCRATCH_PADDED, ATEDM_CUDA_PLAN_ROWS,
                                 p.x_row + p.residual_row + p.y_row);
    if (!p.x)
        return false;
    p.residual = p.x + ATEDM_CUDA_PLAN_ROWS * p.x_row;
    p.y = p.residual + ATEDM_CUDA_PLAN_ROWS * p.residual_row;
    *ret_padded = p;
    return true;
}

// Rows first .. first + rows - 1 of the operands. The residual may be what y is.
static cublasStatus_t multiply_some(atedm_cuda_stream *s, const atedm_cuda_plan *plan,
                                    const atedm_cuda_operands *operands, const padded *p,
                                    size_t first, size_t rows)
{
    atedm_cuda_operands all = *operands;
    all.x = p->x;
    all.residual = p->residual;
    all.y = p->y;
    all.rows = ATEDM_CUDA_PLAN_ROWS;
    atedm_cuda_copy(&s->head, (const char *)operands->x + first * p->x_row, p->x, rows * p->x_row);
    if (p->residual_row)
        atedm_cuda_copy(&s->head, (const char *)operands->residual + first * p->residual_row,
                        p->residual, rows * p->residual_row);
    cublasStatus_t status = atedm_cuda_multiply(s, &plan->key, &plan->algo, &all);
    if (!status)
        atedm_cuda_copy(&s->head, p->y, (char *)operands->y + first * p->y_row, rows * p->y_row);
    return status;
}

cublasStatus_t atedm_cuda_multiply_padded(atedm_cuda_stream *s, const atedm_cuda_plan *first,
                                          const atedm_cuda_operands *operands)
{
    padded p;
    if (!place(s, &first->key, &p))
        return CUBLAS_STATUS_ALLOC_FAILED;
    size_t rows = (size_t)operands->rows, n;
    cublasStatus_t status = CUBLAS_STATUS_SUCCESS;
    for (size_t done = 0; !status && !s->head.status && done < rows; done += n) {
        n = rows - done < ATEDM_CUDA_PLAN_ROWS ? rows - done : ATEDM_CUDA_PLAN_ROWS;
        status = multiply_some(s, first, operands, &p, done, n);
    }
    return status;
}
