// Linear layers, convolutions and norms of the reference backend.
#include "kernels/ref/ref.h"

#include <math.h>
#include <stdlib.h>

void ref_linear(atedm_stream *s, const atedm_linear_args *args)
{
    const ref_weight *w = (const ref_weight *)args->weight;
    int64_t in = w->head.in, out = w->head.out;
    float *x = ref_scratch(s, (size_t)in, sizeof *x);
    if (!x)
        return;
    for (int64_t r = 0; r < args->rows; r++) {
        ref_load_row(s->act, args->x, r * in, x, in);
        for (int64_t o = 0; o < out; o++) {
            double y = ref_dot(x, w->values + o * in, in) + (w->bias ? (double)w->bias[o] : 0);
            y = ref_activate_value(args->activation, y);
            if (args->residual)
                y += (double)ref_load(s->act, args->residual, r * out + o);
            ref_store(s->act, args->y, r * out + o, y);
        }
    }
    free(x);
}

// Computes one output pixel: gathers the window's rows (zeros outside the image), then computes a
// dot product for each output channel.
static void conv_pixel(atedm_stream *s, const atedm_conv_args *args, int64_t n, int64_t oy,
                       int64_t ox, int64_t wo, int64_t ho, float *window)
{
    const ref_weight *w = (const ref_weight *)args->weight;
    int64_t in = w->head.in, out = w->head.out;
    int k = w->head.kernel, pad = (k - 1) / 2;
    for (int dy = 0; dy < k; dy++)
        for (int dx = 0; dx < k; dx++) {
            int64_t y = oy * w->head.stride + dy - pad, x = ox * w->head.stride + dx - pad;
            float *tap = window + (dy * k + dx) * in;
            if (y < 0 || y >= args->h || x < 0 || x >= args->w)
                for (int64_t i = 0; i < in; i++)
                    tap[i] = 0;
            else
                ref_load_row(s->act, args->x, ((n * args->h + y) * args->w + x) * in, tap, in);
        }
    int64_t length = (int64_t)k * k * in, first = ((n * ho + oy) * wo + ox) * out;
    for (int64_t o = 0; o < out; o++) {
        double y =
            ref_dot(window, w->values + o * length, length) + (w->bias ? (double)w->bias[o] : 0);
        if (args->channel_add)
            y += (double)ref_load(s->act, args->channel_add, n * out + o);
        if (args->residual)
            y += (double)ref_load(s->act, args->residual, first + o);
        ref_store(s->act, args->y, first + o, y);
    }
}

void ref_conv(atedm_stream *s, const atedm_conv_args *args)
{
    const atedm_weight *w = args->weight;
    int64_t ho = atedm_conv_out(args->h, w->stride), wo = atedm_conv_out(args->w, w->stride);
    float *window = ref_scratch(s, (size_t)(w->kernel * w->kernel * w->in), sizeof *window);
    if (!window)
        return;
    for (int64_t n = 0; n < args->n; n++)
        for (int64_t y = 0; y < ho; y++)
            for (int64_t x = 0; x < wo; x++)
                conv_pixel(s, args, n, y, x, wo, ho, window);
    free(window);
}

// Mean and 1 / sqrt(variance + epsilon) of columns first .. first + columns - 1 of a [rows, stride]
// matrix.
static void statistics(atedm_dtype act, const void *x, int64_t first, int64_t rows, int64_t stride,
                       int64_t columns, double epsilon, double *ret_mean, double *ret_scale)
{
    double sum = 0, squares = 0;
    double count = (double)rows * (double)columns;
    for (int64_t r = 0; r < rows; r++)
        for (int64_t c = 0; c < columns; c++)
            sum += (double)ref_load(act, x, first + r * stride + c);
    double mean = sum / count;
    for (int64_t r = 0; r < rows; r++)
        for (int64_t c = 0; c < columns; c++) {
            double d = (double)ref_load(act, x, first + r * stride + c) - mean;
            squares += d * d;
        }
    *ret_mean = mean;
    *ret_scale = 1 / sqrt(squares / count + epsilon);
}

void ref_group_norm(atedm_stream *s, const atedm_group_norm_args *args)
{
    const ref_weight *w = (const ref_weight *)args->weight;
    int64_t c = w->head.in, width = c / args->groups;
    for (int64_t n = 0; n < args->n; n++)
        for (int g = 0; g < args->groups; g++) {
            int64_t first = n * args->hw * c + g * width;
            double mean, scale;
            statistics(s->act, args->x, first, args->hw, c, width, (double)args->epsilon, &mean,
                       &scale);
            for (int64_t r = 0; r < args->hw; r++)
                for (int64_t i = 0; i < width; i++) {
                    int64_t at = first + r * c + i, channel = g * width + i;
                    double y = ((double)ref_load(s->act, args->x, at) - mean) * scale *
                                   (double)w->values[channel] +
                               (double)w->bias[channel];
                    ref_store(s->act, args->y, at,
                              args->silu ? ref_activate_value(ATEDM_ACT_SILU, y) : y);
                }
        }
}

void ref_layer_norm(atedm_stream *s, const atedm_layer_norm_args *args)
{
    const ref_weight *w = (const ref_weight *)args->weight;
    int64_t c = w->head.in;
    for (int64_t r = 0; r < args->rows; r++) {
        double mean, scale;
        statistics(s->act, args->x, r * c, 1, c, c, (double)args->epsilon, &mean, &scale);
        for (int64_t i = 0; i < c; i++)
            ref_store(s->act, args->y, r * c + i,
                      ((double)ref_load(s->act, args->x, r * c + i) - mean) * scale *
                              (double)w->values[i] +
                          (double)w->bias[i]);
    }
}
