// Linear layers of the cpu backend.
#include "kernels/cpu/primitive.h"

void atedm_cpu_linear(atedm_stream *stream, const atedm_linear_args *args)
{
    const atedm_cpu_weight *weight = atedm_cpu_weight_of(args->weight);
    bool as_conv = ((const atedm_cpu_device *)stream->device)->linear_as_conv;
    const void *residual = args->residual;
    if (as_conv && residual && residual != args->y) { // see conv.c
        atedm_cpu_copy(residual, args->y,
                       (size_t)(args->rows * weight->head.out) * atedm_dtype_size(stream->act));
        residual = args->y;
    }
    const atedm_cpu_key key = {
        .kind = ATEDM_WEIGHT_LINEAR,
        .act = stream->act,
        .in = weight->head.in,
        .out = weight->head.out,
        .kernel = 1,
        .stride = 1,
        .h = args->rows,
        .w = 1,
        .as_conv = as_conv,
        .activation = args->activation,
        .residual = !residual             ? ATEDM_RESIDUAL_NONE
                    : residual == args->y ? ATEDM_RESIDUAL_Y
                                          : ATEDM_RESIDUAL_OTHER,
    };
    const atedm_cpu_run run = {
        .weight = weight,
        .bias = weight->bias,
        .x = args->x,
        .residual = residual,
        .y = args->y,
    };
    atedm_cpu_run_primitives(atedm_cpu_stream_of(stream), &key, &run, 1);
}
