// Element-wise operations, embeddings and the sampler's arithmetic of the reference backend.
#include "kernels/ref/ref.h"

#include <math.h>
#include <string.h>

double ref_activate_value(atedm_activation activation, double x)
{
    switch (activation) {
    case ATEDM_ACT_NONE:
        return x;
    case ATEDM_ACT_SILU:
        return x / (1 + exp(-x));
    case ATEDM_ACT_GELU:
        return x * 0.5 * (1 + erf(x * 0.70710678118654752440)); // 1 / sqrt(2)
    case ATEDM_ACT_QUICK_GELU:
        return x / (1 + exp(-1.702 * x));
    }
    return x;
}

void ref_geglu(atedm_stream *s, const void *x, void *y, int64_t rows, int64_t f)
{
    for (int64_t r = 0; r < rows; r++)
        for (int64_t j = 0; j < f; j++) {
            double value = (double)ref_load(s->act, x, r * 2 * f + j);
            double gate = (double)ref_load(s->act, x, r * 2 * f + f + j);
            ref_store(s->act, y, r * f + j, value * ref_activate_value(ATEDM_ACT_GELU, gate));
        }
}

void ref_activate(atedm_stream *s, atedm_activation activation, const void *x, void *y,
                  int64_t count)
{
    for (int64_t i = 0; i < count; i++)
        ref_store(s->act, y, i, ref_activate_value(activation, (double)ref_load(s->act, x, i)));
}

void ref_add(atedm_stream *s, const void *a, const void *b, void *y, int64_t count)
{
    for (int64_t i = 0; i < count; i++)
        ref_store(s->act, y, i, (double)ref_load(s->act, a, i) + (double)ref_load(s->act, b, i));
}

void ref_upsample2(atedm_stream *s, const void *x, void *y, int64_t n, int64_t h, int64_t w,
                   int64_t c)
{
    size_t pixel = (size_t)c * atedm_dtype_size(s->act);
    int64_t hx = (h + 1) / 2, wx = (w + 1) / 2;
    for (int64_t i = 0; i < n; i++)
        for (int64_t yy = 0; yy < h; yy++)
            for (int64_t xx = 0; xx < w; xx++)
                memcpy((char *)y + (size_t)((i * h + yy) * w + xx) * pixel,
                       (const char *)x + (size_t)((i * hx + yy / 2) * wx + xx / 2) * pixel, pixel);
}

void ref_concat(atedm_stream *s, const void *a, int64_t ca, const void *b, int64_t cb, void *y,
                int64_t rows)
{
    size_t element = atedm_dtype_size(s->act), left = (size_t)ca * element,
           right = (size_t)cb * element;
    for (size_t r = 0; r < (size_t)rows; r++) {
        memcpy((char *)y + r * (left + right), (const char *)a + r * left, left);
        memcpy((char *)y + r * (left + right) + left, (const char *)b + r * right, right);
    }
}

void ref_embed_tokens(atedm_stream *s, const atedm_weight *table, const atedm_weight *position,
                      const int64_t *ids, int64_t rows, int64_t tokens, void *y)
{
    const float *t = ((const ref_weight *)table)->values,
                *p = ((const ref_weight *)position)->values;
    int64_t c = table->in;
    for (int64_t r = 0; r < rows; r++)
        for (int64_t j = 0; j < c; j++)
            ref_store(s->act, y, r * c + j,
                      (double)t[ids[r] * c + j] + (double)p[(r % tokens) * c + j]);
}

void ref_sinusoid(atedm_stream *s, const double *values, int64_t n, int64_t dim, void *y)
{
    int64_t half = dim / 2;
    for (int64_t i = 0; i < n; i++)
        for (int64_t j = 0; j < half; j++) {
            double angle = values[i] * exp(-log(10000.0) * (double)j / (double)half);
            ref_store(s->act, y, i * dim + j, cos(angle));
            ref_store(s->act, y, i * dim + half + j, sin(angle));
        }
}

void ref_scale_input(atedm_stream *s, const float *x, const double *a, void *y, int64_t n,
                     int64_t count)
{
    for (int64_t i = 0; i < n; i++)
        for (int64_t j = 0; j < count; j++)
            ref_store(s->act, y, i * count + j, a[i] * (double)x[i * count + j]);
}

void ref_sampler_step(atedm_stream *s, const atedm_step_args *args)
{
    for (int64_t i = 0; i < args->count; i++) {
        double m = (double)ref_load(s->act, args->cond, i);
        if (args->uncond) {
            double u = (double)ref_load(s->act, args->uncond, i);
            m = u + (double)args->guidance_scale * (m - u);
        }
        double x = (double)args->x[i], next = args->step.x * x + args->step.output * m;
        if (args->history && args->step.earlier != 0)
            next += args->step.earlier * (double)args->history[i];
        if (args->history)
            args->history[i] = (float)(args->step.keep_x * x + args->step.keep_output * m);
        args->x[i] = (float)next;
    }
}

void ref_image_finish(atedm_stream *s, const void *x, uint8_t *y, int64_t count)
{
    for (int64_t i = 0; i < count; i++) {
        double value = (double)ref_load(s->act, x, i) / 2 + 0.5;
        // Written so that NaN becomes 0.
        value = value > 0 ? (value < 1 ? value : 1) : 0;
        y[i] = (uint8_t)nearbyint(255 * value);
    }
}
