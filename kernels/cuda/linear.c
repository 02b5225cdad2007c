// Linear layers of the cuda backend, by cuBLASLt. Where act holds the bias exactly and there is no
// activation, cuBLASLt does everything. Else it leaves sums in F32, and a kernel of ours adds the
// rest: cuBLASLt's GELU is the tanh approximation, and its bias has act's dtype. The same where its
// kernel would round once more before it adds the bias. Shapes for which it has no algorithm (rows
// at odd addresses) are computed as a 1 x 1 convolution.
#include "kernels/cuda/linear.h"

// Fewer outputs are not for cuBLASLt: its kernels for a matrix times a vector add up in another
// order for other numbers of rows (ADR 16).
#define LEAST_OUT 8

// The alignment of rows of `row_bytes` bytes from p on: the same whichever row comes first.
static size_t row_align(const void *p, size_t row_bytes)
{
    size_t bits = (size_t)(uintptr_t)p | row_bytes | ATEDM_CUDA_LINEAR_ALIGN;
    return bits & -bits;
}

// Whether cuBLASLt says that the algorithm is not for these operands; then nothing has happened.
static bool is_refusal(cublasStatus_t status)
{
    return status == CUBLAS_STATUS_NOT_SUPPORTED || status == CUBLAS_STATUS_INVALID_VALUE;
}

static void multiply(atedm_cuda_stream *s, const atedm_cuda_weight *w, const atedm_cuda_plan *plan,
                     const atedm_linear_args *args, void *y)
{
    const atedm_cuda_operands operands = {.weight = w->values,
                                          .bias = w->act_bias,
                                          .x = args->x,
                                          .residual = args->residual,
                                          .y = y,
                                          .rows = args->rows};
    cublasStatus_t status = atedm_cuda_multiply(s, &plan->key, &plan->algo, &operands);
    // Some algorithms take certain numbers of rows only. The first plan's gives the same bits.
    const atedm_cuda_plan *first =
        is_refusal(status) ? atedm_cuda_plan_get(s, &plan->key, ATEDM_CUDA_PLAN_ROWS) : NULL;
    if (first && first != plan)
        status = atedm_cuda_multiply(s, &first->key, &first->algo, &operands);
    if (first && is_refusal(status))
        status = atedm_cuda_multiply_padded(s, first, &operands);
    if (status) // where the device is lost, CUDA's own message says more
        atedm_cuda_check(&s->head, cudaGetLastError(), "linear");
    if (status)
        atedm_stream_fail(&s->head, ATEDM_ERR_DEVICE,
                          "cuda: linear: cuBLASLt status %d on %lld rows, %lld to %lld",
                          (int)status, (long long)args->rows, (long long)plan->key.in,
                          (long long)plan->key.out);
}

// By way of sums in F32, as many rows at a time as scratch memory has room for. A row's result does
// not depend on which others are in its piece.
static void multiply_in_pieces(atedm_cuda_stream *s, const atedm_cuda_weight *w,
                               const atedm_cuda_plan *plan, const atedm_linear_args *args)
{
    atedm_stream *head = &s->head;
    int64_t out = w->head.out, element = (int64_t)atedm_dtype_size(head->act);
    int64_t most = (int64_t)(ATEDM_CUDA_SUMS_BYTES / sizeof(float)) / out, n;
    most = most > 0 ? most : 1;
    for (int64_t first = 0; !head->status && first < args->rows; first += n) {
        n = args->rows - first < most ? args->rows - first : most;
        int64_t x_at = first * w->head.in * element, y_at = first * out * element;
        atedm_linear_args piece = *args;
        piece.rows = n;
        piece.x = (const char *)args->x + x_at;
        piece.y = (char *)args->y + y_at;
        piece.residual = args->residual ? (const char *)args->residual + y_at : NULL;
        float *sums = atedm_cuda_scratch_get(s, ATEDM_CUDA_SCRATCH_SUMS, n * out, sizeof *sums);
        if (!sums)
            return;
        multiply(s, w, plan, &piece, sums);
        if (!head->status)
            atedm_cuda_check(head,
                             atedm_cuda_launch_epilogue(head->act, (int)args->activation, sums,
                                                        w->bias, piece.residual, piece.y, n, out,
                                                        s->stream),
                             "linear");
    }
}

// As a convolution over a column of pixels.
static void convolve(atedm_cuda_stream *s, const atedm_cuda_weight *w,
                     const atedm_linear_args *args)
{
    const atedm_cuda_conv_call conv = {
        .x = args->x,
        .weight = w->values,
        .bias = w->bias,
        .residual = args->residual,
        .y = args->y,
        .n = 1,
        .h = args->rows,
        .w = 1,
        .ho = args->rows,
        .wo = 1,
        .in = (int32_t)w->head.in,
        .out = (int32_t)w->head.out,
        .kernel = 1,
        .stride = 1,
        .activation = (int32_t)args->activation,
        .weight_stride = w->row_elements,
    };
    atedm_cuda_check(&s->head, atedm_cuda_launch_conv(s->head.act, &conv, s->stream), "linear");
}

// The plan for the call: with sums, or with cuBLASLt adding bias and residual. NULL after failing
// the stream.
static const atedm_cuda_plan *get_plan(atedm_cuda_stream *s, const atedm_cuda_weight *w,
                                       const atedm_linear_args *args, bool sums)
{
    size_t element = atedm_dtype_size(s->head.act);
    size_t in_bytes = (size_t)w->head.in * element, out_bytes = (size_t)w->head.out * element;
    atedm_cuda_plan_key key = {
        .in = w->head.in,
        .out = w->head.out,
        .weight_stride = w->row_elements,
        .weight_align = row_align(w->values, (size_t)w->row_elements * element),
        .x_align = row_align(args->x, in_bytes),
        .sums = sums,
        .bias = w->bias && !sums,
        .residual = args->residual && !sums,
    };
    // Sums stand at the start of scratch memory, whichever rows they are of.
    key.y_align = key.sums ? row_align(NULL, (size_t)w->head.out * sizeof(float))
                           : row_align(args->y, out_bytes);
    key.residual_align = key.residual ? row_align(args->residual, out_bytes) : key.y_align;
    return atedm_cuda_plan_get(s, &key, args->rows);
}

void atedm_cuda_linear(atedm_stream *head, const atedm_linear_args *args)
{
    atedm_cuda_stream *s = atedm_cuda_stream_of(head);
    const atedm_cuda_weight *w = atedm_cuda_weight_of(args->weight);
    bool sums = args->activation != ATEDM_ACT_NONE || (w->bias && !w->act_bias);
    if (w->head.out < LEAST_OUT) {
        convolve(s, w, args);
        return;
    }
    const atedm_cuda_plan *plan = get_plan(s, w, args, sums);
    if (plan && plan->rounds_twice) {
        sums = true;
        plan = get_plan(s, w, args, sums);
    }
    if (!plan)
        return;
    if (!plan->found)
        convolve(s, w, args);
    else if (sums)
        multiply_in_pieces(s, w, plan, args);
    else
        multiply(s, w, plan, args, args->y);
}
