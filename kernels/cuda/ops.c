// The dense operations and the sampler's in the cuda backend: arguments for the launches. Linear
// layers are in linear.c, operations on packed tokens in ops_tokens.c.
#include "kernels/cuda/cuda.h"

#include <string.h>

// A stream's CUDA stream.
static cudaStream_t queue(atedm_stream *s)
{
    return atedm_cuda_stream_of(s)->stream;
}

void atedm_cuda_conv(atedm_stream *s, const atedm_conv_args *args)
{
    const atedm_cuda_weight *w = atedm_cuda_weight_of(args->weight);
    const atedm_cuda_conv_call conv = {
        .x = args->x,
        .weight = w->values,
        .bias = w->bias,
        .channel_add = args->channel_add,
        .residual = args->residual,
        .y = args->y,
        .n = args->n,
        .h = args->h,
        .w = args->w,
        .ho = atedm_conv_out(args->h, w->head.stride),
        .wo = atedm_conv_out(args->w, w->head.stride),
        .in = (int32_t)w->head.in,
        .out = (int32_t)w->head.out,
        .kernel = w->head.kernel,
        .stride = w->head.stride,
        .activation = ATEDM_ACT_NONE,
        .weight_stride = w->row_elements,
    };
    if (atedm_cuda_hopper_conv(s, &conv, queue(s)) || atedm_cuda_dnn_conv(s, args))
        return;
    atedm_cuda_check(s, atedm_cuda_launch_conv(s->act, &conv, queue(s)), "conv");
}

void atedm_cuda_group_norm(atedm_stream *s, const atedm_group_norm_args *args)
{
    const atedm_cuda_weight *w = atedm_cuda_weight_of(args->weight);
    float *scratch =
        atedm_cuda_scratch_get(atedm_cuda_stream_of(s), ATEDM_CUDA_SCRATCH_SUMS,
                               atedm_cuda_group_norm_scratch(args, w->head.in), sizeof *scratch);
    if (scratch)
        atedm_cuda_check(s,
                         atedm_cuda_launch_group_norm(s->act, w->values, w->bias, args, w->head.in,
                                                      scratch, queue(s)),
                         "group_norm");
}

void atedm_cuda_layer_norm(atedm_stream *s, const atedm_layer_norm_args *args)
{
    const atedm_cuda_weight *w = atedm_cuda_weight_of(args->weight);
    atedm_cuda_check(
        s, atedm_cuda_launch_layer_norm(s->act, w->values, w->bias, args, w->head.in, queue(s)),
        "layer_norm");
}

void atedm_cuda_geglu(atedm_stream *s, const void *x, void *y, int64_t rows, int64_t f)
{
    atedm_cuda_check(s, atedm_cuda_launch_geglu(s->act, x, y, rows, f, queue(s)), "geglu");
}

void atedm_cuda_activate(atedm_stream *s, atedm_activation activation, const void *x, void *y,
                         int64_t count)
{
    atedm_cuda_check(s, atedm_cuda_launch_activate(s->act, (int)activation, x, y, count, queue(s)),
                     "activate");
}

void atedm_cuda_add(atedm_stream *s, const void *a, const void *b, void *y, int64_t count)
{
    atedm_cuda_check(s, atedm_cuda_launch_add(s->act, a, b, y, count, queue(s)), "add");
}

void atedm_cuda_upsample2(atedm_stream *s, const void *x, void *y, int64_t n, int64_t h, int64_t w,
                          int64_t c)
{
    size_t pixel = (size_t)c * atedm_dtype_size(s->act);
    atedm_cuda_check(s, atedm_cuda_launch_upsample2(pixel, x, y, n, h, w, queue(s)), "upsample2");
}

void atedm_cuda_concat(atedm_stream *s, const void *a, int64_t ca, const void *b, int64_t cb,
                       void *y, int64_t rows)
{
    size_t element = atedm_dtype_size(s->act);
    atedm_cuda_check(s,
                     atedm_cuda_launch_concat((size_t)ca * element, a, (size_t)cb * element, b, y,
                                              rows, queue(s)),
                     "concat");
}

void atedm_cuda_embed_tokens(atedm_stream *s, const atedm_weight *table,
                             const atedm_weight *position, const int64_t *ids, int64_t rows,
                             int64_t tokens, void *y)
{
    atedm_cuda_ids some = {0};
    for (int64_t first = 0; first < rows && !s->status; first += some.n) {
        some.n = rows - first < ATEDM_CUDA_VALUES ? (int32_t)(rows - first) : ATEDM_CUDA_VALUES;
        for (int32_t i = 0; i < some.n; i++)
            some.id[i] = (int32_t)ids[first + i]; // below ATEDM_MAX_WEIGHT_DIM
        atedm_cuda_check(s,
                         atedm_cuda_launch_embed(s->act, atedm_cuda_weight_of(table)->values,
                                                 atedm_cuda_weight_of(position)->values, &some,
                                                 first, tokens, table->in, y, queue(s)),
                         "embed_tokens");
    }
}

void atedm_cuda_sinusoid(atedm_stream *s, const double *values, int64_t n, int64_t dim, void *y)
{
    atedm_cuda_numbers some = {0};
    size_t row = (size_t)dim * atedm_dtype_size(s->act);
    for (int64_t first = 0; first < n && !s->status; first += some.n) {
        some.n = n - first < ATEDM_CUDA_VALUES ? (int32_t)(n - first) : ATEDM_CUDA_VALUES;
        memcpy(some.value, values + first, (size_t)some.n * sizeof *values);
        atedm_cuda_check(s,
                         atedm_cuda_launch_sinusoid(s->act, &some, dim,
                                                    (char *)y + (size_t)first * row, queue(s)),
                         "sinusoid");
    }
}

void atedm_cuda_scale_input(atedm_stream *s, const float *x, const double *a, void *y, int64_t n,
                            int64_t count)
{
    size_t row = (size_t)count * atedm_dtype_size(s->act);
    for (int64_t i = 0; i < n && !s->status; i++)
        atedm_cuda_check(s,
                         atedm_cuda_launch_scale(s->act, x + i * count, a[i],
                                                 (char *)y + (size_t)i * row, count, queue(s)),
                         "scale_input");
}

void atedm_cuda_sampler_step(atedm_stream *s, const atedm_step_args *args)
{
    atedm_cuda_check(s, atedm_cuda_launch_step(s->act, args, queue(s)), "sampler_step");
}

void atedm_cuda_image_finish(atedm_stream *s, const void *x, uint8_t *y, int64_t count)
{
    atedm_cuda_check(s, atedm_cuda_launch_image(s->act, x, y, count, queue(s)), "image_finish");
}
