// Draws a request's noise: the initial latents, and the noise that some samplers add at each step.
// Each image has its own generator with PyTorch's numbers, in the order in which diffusers draws
// them.
#include "core/pipeline_private.h"

// Reorders one draw from [channels, h, w], PyTorch's order, to [h, w, channels], and scales it.
static void place(const atedm_generation *g, const float *planar, float scale, float *out)
{
    size_t pixels = (size_t)(g->h * g->w), channels = (size_t)g->channels;
    for (size_t c = 0; c < channels; c++)
        for (size_t k = 0; k < pixels; k++)
            out[k * channels + c] = planar[c * pixels + k] * scale;
}

void atedm_pipeline_noise_begin(atedm_generation *g)
{
    size_t each = atedm_generation_latent_count(g);
    for (size_t i = 0; i < (size_t)g->images; i++) {
        float *to = g->staging + i * each;
        atedm_rng_seed(&g->rngs[i], g->request->seed + i);
        g->drawn[i] = 0;
        if (g->latents_given) {
            place(g, (const float *)g->latents_given->data + i * each, 1, to);
            continue;
        }
        atedm_rng_draw(&g->rngs[i], g->planar, each);
        place(g, g->planar, (float)g->schedule.init_noise_sigma, to);
    }
    atedm_upload(g->p->text_stream, g->staging, g->latents,
                 (size_t)g->images * each * sizeof *g->staging);
}

// Where the noise of `step` is kept for an image: [host] [h, w, channels].
static float *noise_of(const atedm_generation *g, int image, int step)
{
    size_t each = atedm_generation_latent_count(g);
    return g->noise + ((size_t)(step % 2) * (size_t)g->images + (size_t)image) * each;
}

// Draws each step's noise only once: a step that ran out of memory is repeated with the same noise.
static void draw(atedm_generation *g, int image, int step)
{
    if (step < g->drawn[image])
        return;
    g->drawn[image] = step + 1;
    atedm_rng_draw(&g->rngs[image], g->planar, atedm_generation_latent_count(g));
    place(g, g->planar, 1, noise_of(g, image, step));
}

void atedm_pipeline_noise_before(atedm_pipeline *p, const atedm_lane *lanes, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        atedm_generation *g = lanes[i].generation;
        int image = lanes[i].image, step = g->steps_done[image];
        if (!g->noise)
            continue;
        draw(g, image, step); // only step 0 still has to be drawn: `after` drew the others
        atedm_upload(p->stream, noise_of(g, image, step), atedm_generation_history(g, image),
                     atedm_generation_latent_count(g) * sizeof *g->noise);
    }
}

void atedm_pipeline_noise_after(const atedm_lane *lanes, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        atedm_generation *g = lanes[i].generation;
        int image = lanes[i].image, next = g->steps_done[image] + 1;
        if (g->noise && next < g->schedule.n)
            draw(g, image, next);
    }
}
