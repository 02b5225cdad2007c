// Linear layers of the cpu backend.
#include "kernels/cpu/primitive.h"

void atedm_cpu_linear(atedm_stream *stream, const atedm_linear_args *args)
{
    const atedm_cpu_weight *weight = atedm_cpu_weight_of(args->weight);
    atedm_cpu_residual residual = !args->residual             ? ATEDM_RESIDUAL_NONE
                                  : args->residual == args->y ? ATEDM_RESIDUAL_Y
                                                              : ATEDM_RESIDUAL_OTHER;
    const atedm_cpu_key key = {
        .kind = ATEDM_WEIGHT_LINEAR,
        .act = stream->act,
        .in = weight->head.in,
        .out = weight->head.out,
        .kernel = 1,
        .stride = 1,
        .h = args->rows,
        .w = 1,
        .activation = args->activation,
        .residual = residual,
    };
    const atedm_cpu_run run = {
        .weight = weight,
        .bias = weight->bias,
        .x = args->x,
        .residual = args->residual,
        .y = args->y,
    };
    atedm_cpu_run_primitive(atedm_cpu_stream_of(stream), &key, &run);
}
