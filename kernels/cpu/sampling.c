// Operations at the two ends of a request, in the cpu backend: embeddings, the sampler's steps, the
// finished image.
#include "kernels/cpu/cpu.h"

#include <math.h>

#define PIECE 1024 // elements that pass through a buffer on the stack

static int64_t piece_length(int64_t count, int64_t first)
{
    return count - first < PIECE ? count - first : PIECE;
}

void atedm_cpu_embed_tokens(atedm_stream *stream, const atedm_weight *table,
                            const atedm_weight *position, const int64_t *ids, int64_t rows,
                            int64_t tokens, void *y)
{
    const atedm_vec_act *act = atedm_cpu_stream_of(stream)->act;
    int64_t c = table->in, bytes = c * (int64_t)atedm_dtype_size(stream->act);
    const char *words = atedm_cpu_weight_of(table)->data;
    const char *places = atedm_cpu_weight_of(position)->data;
    for (int64_t i = 0; i < rows; i++)
        act->add(words + ids[i] * bytes, places + i % tokens * bytes, (char *)y + i * bytes, c);
}

void atedm_cpu_sinusoid(atedm_stream *stream, const double *values, int64_t n, int64_t dim, void *y)
{
    const atedm_vec_act *act = atedm_cpu_stream_of(stream)->act;
    int64_t size = (int64_t)atedm_dtype_size(stream->act), half = dim / 2;
    for (int64_t i = 0; i < n; i++)
        for (int64_t j = 0; j < half; j++) {
            double angle = values[i] * exp(-log(10000.0) * (double)j / (double)half);
            float cosine = (float)cos(angle), sine = (float)sin(angle);
            char *row = (char *)y + i * dim * size;
            act->from_f32(&cosine, row + j * size, 1);
            act->from_f32(&sine, row + (half + j) * size, 1);
        }
}

void atedm_cpu_scale_input(atedm_stream *stream, const float *x, const double *a, void *y,
                           int64_t n, int64_t count)
{
    const atedm_vec_act *act = atedm_cpu_stream_of(stream)->act;
    int64_t size = (int64_t)atedm_dtype_size(stream->act);
    for (int64_t i = 0; i < n; i++)
        for (int64_t j = 0; j < count; j += PIECE) {
            float scaled[PIECE];
            int64_t length = piece_length(count, j);
            for (int64_t k = 0; k < length; k++)
                scaled[k] = (float)(a[i] * (double)x[i * count + j + k]);
            act->from_f32(scaled, (char *)y + (i * count + j) * size, length);
        }
}

void atedm_cpu_sampler_step(atedm_stream *stream, const atedm_step_args *args)
{
    const atedm_vec_act *act = atedm_cpu_stream_of(stream)->act;
    int64_t size = (int64_t)atedm_dtype_size(stream->act);
    double scale = (double)args->guidance_scale;
    for (int64_t j = 0; j < args->count; j += PIECE) {
        float cond[PIECE], uncond[PIECE];
        int64_t length = piece_length(args->count, j);
        act->to_f32((const char *)args->cond + j * size, cond, length);
        if (args->uncond)
            act->to_f32((const char *)args->uncond + j * size, uncond, length);
        for (int64_t k = 0; k < length; k++) {
            double m = (double)cond[k];
            if (args->uncond)
                m = (double)uncond[k] + scale * (m - (double)uncond[k]);
            double x = (double)args->x[j + k], next = args->step.x * x + args->step.output * m;
            if (args->history && args->step.earlier != 0)
                next += args->step.earlier * (double)args->history[j + k];
            if (args->history)
                args->history[j + k] = (float)(args->step.keep_x * x + args->step.keep_output * m);
            args->x[j + k] = (float)next;
        }
    }
}

void atedm_cpu_image_finish(atedm_stream *stream, const void *x, uint8_t *y, int64_t count)
{
    const atedm_vec_act *act = atedm_cpu_stream_of(stream)->act;
    int64_t size = (int64_t)atedm_dtype_size(stream->act);
#pragma omp parallel for schedule(static)                                                          \
    num_threads(atedm_cpu_threads(count *ATEDM_CPU_ELEMENT_WORK))
    for (int64_t j = 0; j < count; j += PIECE) {
        float values[PIECE];
        int64_t length = piece_length(count, j);
        act->to_f32((const char *)x + j * size, values, length);
        for (int64_t k = 0; k < length; k++) {
            double level = (double)values[k] / 2 + 0.5;
            level = level > 0 ? level : 0; // NaN too
            level = level < 1 ? level : 1;
            y[j + k] = (uint8_t)nearbyint(255 * level); // rounds to even, the default mode
        }
    }
}
