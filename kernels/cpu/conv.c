// Convolutions of the cpu backend, sample by sample. So a sample's result does not depend on the
// number of samples, and channel_add can be part of the bias.
#include "kernels/cpu/primitive.h"

// A bias for each of `n` samples: the weight's bias plus the sample's row of channel_add. NULL if
// memory is exhausted.
static const float *sample_biases(atedm_cpu_stream *s, const atedm_cpu_weight *weight,
                                  const char *channel_add, int64_t n)
{
    int64_t out = weight->head.out;
    float *biases =
        atedm_cpu_scratch_get(s, ATEDM_SCRATCH_BIAS, atedm_cpu_bytes(n, out, sizeof *biases));
    if (!biases)
        return NULL;
    s->act->to_f32(channel_add, biases, n * out);
    for (int64_t i = 0; i < n * out; i++)
        biases[i] += weight->bias[i % out];
    return biases;
}

void atedm_cpu_conv(atedm_stream *stream, const atedm_conv_args *args)
{
    atedm_cpu_stream *s = atedm_cpu_stream_of(stream);
    const atedm_cpu_weight *weight = atedm_cpu_weight_of(args->weight);
    int stride = weight->head.stride;
    int64_t ho = atedm_conv_out(args->h, stride), wo = atedm_conv_out(args->w, stride);
    size_t element = atedm_dtype_size(stream->act);
    size_t x_bytes = (size_t)(args->h * args->w * weight->head.in) * element;
    size_t y_bytes = (size_t)(ho * wo * weight->head.out) * element;
    const atedm_cpu_key key = {
        .kind = ATEDM_WEIGHT_CONV,
        .act = stream->act,
        .in = weight->head.in,
        .out = weight->head.out,
        .kernel = weight->head.kernel,
        .stride = stride,
        .h = args->h,
        .w = args->w,
        .activation = ATEDM_ACT_NONE,
        // oneDNN's fast convolutions can only add to the content of y. Only its reference adds
        // another tensor.
        .residual = args->residual ? ATEDM_RESIDUAL_Y : ATEDM_RESIDUAL_NONE,
    };
    const float *biases = NULL;
    if (args->channel_add && !(biases = sample_biases(s, weight, args->channel_add, args->n)))
        return;
    atedm_cpu_run *runs =
        atedm_cpu_scratch_get(s, ATEDM_SCRATCH_RUNS, atedm_cpu_bytes(args->n, 1, sizeof *runs));
    if (!runs)
        return;
    if (args->residual && args->residual != args->y)
        atedm_cpu_copy(args->residual, args->y, (size_t)args->n * y_bytes);
    for (int64_t i = 0; i < args->n; i++)
        runs[i] = (atedm_cpu_run){
            .weight = weight,
            .bias = biases ? biases + i * weight->head.out : weight->bias,
            .x = (const char *)args->x + (size_t)i * x_bytes,
            .y = (char *)args->y + (size_t)i * y_bytes,
        };
    atedm_cpu_run_primitives(s, &key, runs, args->n);
}
