// Convolutions of the cpu backend, sample by sample: so a sample's result does not depend on how
// many there are, and its channel_add goes into the bias.
#include "kernels/cpu/primitive.h"

// The bias of one sample: the weight's plus its row of channel_add. NULL when memory is out.
static const float *sample_bias(atedm_cpu_stream *s, const atedm_cpu_weight *weight,
                                const char *channel_add)
{
    int64_t out = weight->head.out;
    float *bias =
        atedm_cpu_scratch_get(s, ATEDM_SCRATCH_BIAS, atedm_cpu_bytes(out, 1, sizeof *bias));
    if (!bias)
        return NULL;
    s->act->to_f32(channel_add, bias, out);
    for (int64_t i = 0; i < out; i++)
        bias[i] += weight->bias[i];
    return bias;
}

void atedm_cpu_conv(atedm_stream *stream, const atedm_conv_args *args)
{
    atedm_cpu_stream *s = atedm_cpu_stream_of(stream);
    const atedm_cpu_weight *weight = atedm_cpu_weight_of(args->weight);
    int stride = weight->head.stride;
    int64_t ho = (args->h + stride - 1) / stride, wo = (args->w + stride - 1) / stride;
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
        // oneDNN's fast convolutions add to what y holds; only its reference adds another tensor.
        .residual = args->residual ? ATEDM_RESIDUAL_Y : ATEDM_RESIDUAL_NONE,
    };
    for (int64_t i = 0; i < args->n && !stream->status; i++) {
        const float *bias = weight->bias;
        if (args->channel_add) {
            size_t add_bytes = (size_t)weight->head.out * element;
            bias = sample_bias(s, weight, (const char *)args->channel_add + (size_t)i * add_bytes);
            if (!bias)
                return;
        }
        char *y = (char *)args->y + (size_t)i * y_bytes;
        if (args->residual && args->residual != args->y)
            atedm_cpu_copy((const char *)args->residual + (size_t)i * y_bytes, y, y_bytes);
        const atedm_cpu_run run = {
            .weight = weight,
            .bias = bias,
            .x = (const char *)args->x + (size_t)i * x_bytes,
            .y = y,
        };
        atedm_cpu_run_primitive(s, &key, &run);
    }
}
