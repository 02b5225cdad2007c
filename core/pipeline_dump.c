// `atedm generate --dump`: passes every intermediate to the dump callback, as F32 or I64 in
// diffusers' layouts (NCHW, negative samples before positive ones).
#include "core/pipeline_private.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define NAME_MAX_BYTES 64

static void call(atedm_generation *g, const char *name, atedm_dtype dtype, const void *data,
                 int ndim, const int64_t *shape)
{
    atedm_host_tensor tensor = {.data = data, .dtype = dtype, .ndim = ndim};
    memcpy(tensor.shape, shape, (size_t)ndim * sizeof *shape);
    g->dump.call(g->dump.user, name, &tensor);
}

// Downloads `count` elements, [device] of dtype `dtype`, as F32 into new host memory that the
// caller frees. NULL on failure, and then the stream has failed.
static float *fetch(atedm_stream *s, atedm_dtype dtype, const void *from, size_t count)
{
    size_t bytes = count * atedm_dtype_size(dtype);
    float *values = malloc(count * sizeof *values);
    void *raw = malloc(bytes);
    if (!values || !raw) {
        atedm_stream_fail(s, ATEDM_ERR_NOMEM, "no memory for a dump");
        goto fail;
    }
    atedm_download(s, from, raw, bytes);
    if (!atedm_stream_wait(s))
        goto fail;
    atedm_convert(raw, dtype, values, ATEDM_F32, count);
    free(raw);
    return values;
fail:
    free(values);
    free(raw);
    return NULL;
}

// Transposes [n][pixels][channels] to [n][channels][pixels]; sample order[i] becomes sample i. The
// caller frees the result; NULL: out of memory.
static float *to_planar(const float *x, int64_t n, const int64_t *order, int64_t pixels,
                        int64_t channels)
{
    float *y = malloc((size_t)(n * pixels * channels) * sizeof *y);
    if (!y)
        return NULL;
    for (int64_t i = 0; i < n; i++)
        for (int64_t k = 0; k < pixels; k++)
            for (int64_t c = 0; c < channels; c++)
                y[(i * channels + c) * pixels + k] = x[(order[i] * pixels + k) * channels + c];
    return y;
}

// Dumps x, [host] F32 [n, h, w, c], as [n, c, h, w].
static void call_planar(atedm_generation *g, atedm_stream *s, const char *name, const float *x,
                        int64_t n, const int64_t *order, const int64_t hwc[3])
{
    float *y = to_planar(x, n, order, hwc[0] * hwc[1], hwc[2]);
    if (y)
        call(g, name, ATEDM_F32, y, 4, (int64_t[]){n, hwc[2], hwc[0], hwc[1]});
    else
        atedm_stream_fail(s, ATEDM_ERR_NOMEM, "no memory for a dump");
    free(y);
}

static void dump_maps(atedm_generation *g, atedm_stream *s, const char *name, atedm_dtype dtype,
                      const void *from, int64_t n, const int64_t *order, const int64_t hwc[3])
{
    float *x = fetch(s, dtype, from, (size_t)(n * hwc[0] * hwc[1] * hwc[2]));
    if (x)
        call_planar(g, s, name, x, n, order, hwc);
    free(x);
}

static void dump_matrix(atedm_generation *g, const char *name, const void *from, int ndim,
                        const int64_t *shape)
{
    size_t count = 1;
    for (int i = 0; i < ndim; i++)
        count *= (size_t)shape[i];
    float *x = fetch(g->p->text_stream, g->p->model->dtype, from, count);
    if (x)
        call(g, name, ATEDM_F32, x, ndim, shape);
    free(x);
}

void atedm_pipeline_dump_doubles(atedm_generation *g, const char *name, const double *values,
                                 int ndim, const int64_t *shape)
{
    if (!g->dump.call)
        return;
    float small[2 * ATEDM_MAX_STEPS + 2];
    int64_t count = ndim == 2 ? shape[0] * shape[1] : shape[0];
    for (int64_t i = 0; i < count; i++)
        small[i] = (float)values[i];
    call(g, name, ATEDM_F32, small, ndim, shape);
}

void atedm_pipeline_dump_encoded(atedm_generation *g, int64_t *const ids[2], const void *pooled)
{
    if (!g->dump.call)
        return;
    const atedm_model_configs *parts = &g->p->model->config.parts;
    int64_t tokens = g->p->model->context_tokens, n = g->samples;
    call(g, "tokens", ATEDM_I64, ids[0], 2, (int64_t[]){n, tokens});
    call(g, "tokens_2", ATEDM_I64, ids[1], 2, (int64_t[]){n, tokens});
    dump_matrix(g, "prompt_embeds", g->context, 3,
                (int64_t[]){n, tokens, parts->unet.cross_attention_dim});
    dump_matrix(g, "pooled_prompt_embeds", pooled, 2, (int64_t[]){n, parts->clip[1].projection});
    atedm_pipeline_dump_doubles(g, "sigmas", g->schedule.sigmas, 1, (int64_t[]){g->schedule.n + 1});
    atedm_pipeline_dump_doubles(g, "timesteps", g->schedule.timesteps, 1,
                                (int64_t[]){g->schedule.n});
    int64_t order[ATEDM_PIPELINE_BATCH];
    for (int i = 0; i < g->images; i++)
        order[i] = i;
    dump_maps(g, g->p->text_stream, "latents_init", ATEDM_F32, g->latents, g->images, order,
              (int64_t[]){g->h, g->w, g->channels});
}

void atedm_pipeline_dump_noise(atedm_generation *g, int64_t images, const void *y)
{
    if (!g->dump.call)
        return;
    int64_t n = images * g->samples, order[2 * ATEDM_PIPELINE_BATCH];
    for (int64_t i = 0; i < n; i++)
        order[i] = (i % images) * g->samples + i / images;
    char name[NAME_MAX_BYTES];
    snprintf(name, sizeof name, "noise_pred.%d", g->steps_done[0]);
    dump_maps(g, g->p->stream, name, g->p->model->dtype, y, n, order,
              (int64_t[]){g->h, g->w, g->channels});
}

void atedm_pipeline_dump_latents(atedm_generation *g)
{
    if (!g->dump.call)
        return;
    int64_t order[ATEDM_PIPELINE_BATCH];
    for (int i = 0; i < g->images; i++)
        order[i] = i;
    char name[NAME_MAX_BYTES];
    snprintf(name, sizeof name, "latents.%d", g->steps_done[0] - 1);
    dump_maps(g, g->p->stream, name, ATEDM_F32, g->latents, g->images, order,
              (int64_t[]){g->h, g->w, g->channels});
}

void atedm_pipeline_dump_image(atedm_generation *g, int image, const void *y)
{
    if (!g->dump.call)
        return;
    char name[NAME_MAX_BYTES] = "image";
    if (g->images > 1)
        snprintf(name, sizeof name, "image.%d", image);
    int64_t height = g->request->height, width = g->request->width;
    size_t count = (size_t)(3 * height * width);
    float *x = fetch(g->p->vae_stream, g->p->model->vae_dtype, y, count);
    for (size_t i = 0; x && i < count; i++) // as the picture's bytes: clamped to -1..1, NaN kept
        x[i] = x[i] < -1 ? -1 : x[i] > 1 ? 1 : x[i];
    if (x)
        call_planar(g, g->p->vae_stream, name, x, 1, (int64_t[]){0}, (int64_t[]){height, width, 3});
    free(x);
}

static bool reserve(atedm_generation *g, size_t count)
{
    atedm_pipeline_dump *d = &g->dump;
    if (count <= d->capacity)
        return true;
    atedm_pipeline_dump_finish(d);
    d->kept = malloc(count * sizeof *d->kept);
    d->source = malloc(count * sizeof *d->source);
    d->scores = malloc(count * sizeof *d->scores);
    if (!d->kept || !d->source || !d->scores) {
        atedm_stream_fail(g->p->stream, ATEDM_ERR_NOMEM, "no memory for a dump");
        return false;
    }
    d->capacity = count;
    return true;
}

// All samples of a request prune alike, so their counts are equal. They arrive in order 0..n-1.
void atedm_pipeline_dump_trace(void *user, const atedm_prune_trace *trace)
{
    atedm_generation *g = user;
    int64_t n = g->images * g->samples;
    if (!reserve(g, (size_t)(n * trace->tokens)))
        return;
    // Dumps have all negative samples first, as diffusers does.
    int64_t i = (trace->sample % g->samples) * g->images + trace->sample / g->samples;
    for (int64_t k = 0; k < trace->n_kept; k++)
        g->dump.kept[i * trace->n_kept + k] = trace->kept[k];
    for (int64_t k = 0; k < trace->tokens; k++) {
        g->dump.source[i * trace->tokens + k] = trace->source[k];
        g->dump.scores[i * trace->tokens + k] = trace->scores[k];
    }
    if (trace->sample < n - 1)
        return;
    char name[NAME_MAX_BYTES];
    snprintf(name, sizeof name, "kept.%d.%s", g->steps_done[0], trace->block);
    call(g, name, ATEDM_I64, g->dump.kept, 2, (int64_t[]){n, trace->n_kept});
    snprintf(name, sizeof name, "source.%d.%s", g->steps_done[0], trace->block);
    call(g, name, ATEDM_I64, g->dump.source, 2, (int64_t[]){n, trace->tokens});
    snprintf(name, sizeof name, "scores.%d.%s", g->steps_done[0], trace->block);
    call(g, name, ATEDM_F32, g->dump.scores, 2, (int64_t[]){n, trace->tokens});
}

void atedm_pipeline_dump_finish(atedm_pipeline_dump *dump)
{
    free(dump->kept);
    free(dump->source);
    free(dump->scores);
    dump->kept = dump->source = NULL;
    dump->scores = NULL;
    dump->capacity = 0;
}
