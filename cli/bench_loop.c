// The denoising loop of some images, with guidance, as the pipeline runs it: it enqueues a step,
// then waits for it. See bench_private.h.
#include "cli/bench_private.h"

// Replaces a schedule's factor in every step, so that x keeps its magnitude.
#define STEP_X 0.95
#define STEP_OUTPUT (-0.05)
#define INPUT_SCALE 0.7
#define GUIDANCE_SCALE 8.0F

static void step(const atedm_bench_case *c, atedm_stream *s, atedm_arena *arena, float *latents)
{
    const atedm_unet_config *config = &c->model->config.parts.unet;
    int64_t count = c->h * c->w * config->in_channels;
    size_t element = atedm_dtype_size(atedm_stream_dtype(s));
    double scales[ATEDM_UNET_MAX_SAMPLES];
    for (int64_t i = 0; i < c->batch; i++)
        scales[i] = INPUT_SCALE;
    char *x = atedm_arena_take(arena, s, (size_t)(2 * c->batch * count) * element);
    char *y = atedm_arena_take(arena, s, (size_t)(2 * c->batch * count) * element);
    for (int64_t i = 0; i < 2; i++) // both halves of guidance see the same latents
        atedm_scale_input(s, latents, scales, x + (size_t)(i * c->batch * count) * element,
                          c->batch, count);
    atedm_bench_case evaluation = *c;
    evaluation.batch = 2 * c->batch;
    evaluation.x = x;
    evaluation.y = y;
    atedm_bench_enqueue_unet(&evaluation, s, arena);
    for (int64_t i = 0; i < c->batch; i++)
        atedm_sampler_step(
            s, &(atedm_step_args){.cond = y + (size_t)(i * count) * element,
                                  .uncond = y + (size_t)((c->batch + i) * count) * element,
                                  .x = latents + i * count,
                                  .count = count,
                                  .guidance_scale = GUIDANCE_SCALE,
                                  .step = {.x = STEP_X, .output = STEP_OUTPUT}});
}

void atedm_bench_enqueue_loop(const atedm_bench_case *c, atedm_stream *s, atedm_arena *arena)
{
    const atedm_unet_config *config = &c->model->config.parts.unet;
    float *latents =
        atedm_bench_input_f32(c, s, arena, c->batch * c->h * c->w * config->in_channels);
    for (int k = 0; k < c->b->report->options->steps; k++) {
        atedm_bench_case at = *c;
        at.step = k;
        at.warm = c->warm || k > 0;
        size_t mark = atedm_arena_mark(arena);
        step(&at, s, arena, latents);
        atedm_arena_release(arena, mark);
        if (!atedm_stream_wait(s))
            return;
    }
}
