// Provides the clean latent of a watched request between two steps: see pipeline.h. preview.c turns
// it into colours.
#include "core/pipeline_private.h"

#include <stdlib.h>

void atedm_pipeline_watch_finish(atedm_pipeline_watch *watch)
{
    free(watch->before); // one allocation holds all three buffers
    *watch = (atedm_pipeline_watch){0};
}

atedm_status atedm_generation_watch(atedm_generation *g, bool on, atedm_error *err)
{
    size_t count = atedm_generation_latent_count(g);
    if (!on)
        atedm_pipeline_watch_finish(&g->watch);
    if (!on || g->watch.before)
        return ATEDM_OK;
    float *memory = malloc(3 * count * sizeof *memory);
    if (!memory)
        return atedm_error_set(err, ATEDM_ERR_NOMEM, "no memory to watch a request");
    g->watch = (atedm_pipeline_watch){
        .before = memory, .after = memory + count, .clean = memory + 2 * count, .step = -1};
    return ATEDM_OK;
}

// Enqueues the download of image 0's part of `from`.
static void download(atedm_pipeline *p, const atedm_generation *g, const float *from, float *to)
{
    atedm_download(p->stream, from, to, atedm_generation_latent_count(g) * sizeof *to);
}

void atedm_pipeline_watch_before(atedm_pipeline *p, const atedm_lane *lanes, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (lanes[i].image == 0 && lanes[i].generation->watch.before &&
            !lanes[i].generation->history)
            download(p, lanes[i].generation, lanes[i].generation->latents,
                     lanes[i].generation->watch.before);
}

void atedm_pipeline_watch_after(atedm_pipeline *p, const atedm_lane *lanes, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        atedm_generation *g = lanes[i].generation;
        if (lanes[i].image || !g->watch.before)
            continue;
        if (g->history) // after a step the history is the clean latent that the step assumed
            download(p, g, g->history, g->watch.clean);
        else
            download(p, g, g->latents, g->watch.after);
        g->watch.step = g->steps_done[0];
    }
}

const float *atedm_generation_clean(atedm_generation *g)
{
    const atedm_pipeline_watch *w = &g->watch;
    // After a failed step the downloaded numbers are meaningless: its index is not steps_done - 1.
    if (!w->before || w->step < 0 || w->step != g->steps_done[0] - 1)
        return NULL;
    if (g->history)
        return w->clean;
    double a, b;
    atedm_schedule_clean(&g->schedule, w->step, &a, &b);
    for (size_t i = 0; i < atedm_generation_latent_count(g); i++)
        w->clean[i] = (float)(a * w->after[i] + b * w->before[i]);
    return w->clean;
}

void atedm_generation_latent_size(const atedm_generation *g, int64_t *ret_h, int64_t *ret_w)
{
    *ret_h = g->h;
    *ret_w = g->w;
}
