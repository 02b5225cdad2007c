// The engine's evaluations: chooses the images of the next one, enqueues it, waits for it and
// reports it to the hooks. See engine.h.
#include "core/base/clock.h"
#include "core/engine_private.h"

#include <stdlib.h>

bool atedm_engine_is_drawn(const atedm_engine_job *j, int image)
{
    return atedm_generation_steps_done(j->generation, image) == j->request.steps;
}

// Fills the evaluation with images of the class that have steps left, in order of admission, up to
// as many as fit.
static void choose_lanes(const atedm_engine *e, const atedm_engine_size *c,
                         atedm_engine_evaluation *v)
{
    v->n = 0;
    for (atedm_engine_job *j = e->jobs; j; j = j->next) {
        if (!j->encoded || j->size != c)
            continue;
        for (int i = 0; i < j->request.num_images && v->n < c->most; i++)
            if (!atedm_engine_is_drawn(j, i)) {
                v->jobs[v->n] = j;
                v->lanes[v->n++] = (atedm_lane){j->generation, i};
            }
    }
}

static bool has_steps_left(const atedm_engine *e, const atedm_engine_size *c)
{
    for (const atedm_engine_job *j = e->jobs; j; j = j->next)
        if (j->encoded && j->size == c && !atedm_engine_is_drawn(j, j->request.num_images - 1))
            return true;
    return false;
}

static atedm_engine_size *least_served(const atedm_engine *e)
{
    atedm_engine_size *least = NULL;
    for (atedm_engine_size *c = e->classes; c; c = c->next)
        if ((!least || c->served < least->served) && has_steps_left(e, c))
            least = c;
    return least;
}

// Records the evaluation in the report of the job that has lanes first..last - 1, and reports the
// steps that all its images have done.
static void account(atedm_engine *e, const atedm_engine_evaluation *v, size_t first, size_t last)
{
    atedm_engine_job *j = v->jobs[first];
    atedm_engine_report *r = &j->report;
    int step = -1;
    for (size_t i = first; i < last; i++) {
        int done = atedm_generation_steps_done(j->generation, v->lanes[i].image) - 1;
        if (done != step) // a request's images may be at different steps if not all fit at once
            r->timing.steps_s[done] += e->evaluation_s;
        step = done;
    }
    r->timing.denoise_s += e->evaluation_s;
    r->evaluations++;
    r->batch_images += v->n;
    r->max_batch = v->n > r->max_batch ? v->n : r->max_batch;
    // Images are chosen in order, so none has done fewer steps than the last one.
    int all = atedm_generation_steps_done(j->generation, j->request.num_images - 1);
    while (j->stepped < all)
        e->hooks.stepped(e->hooks.user, j->id, ++j->stepped);
}

// Fits the map of colours at the first preview. No evaluation is under way, and the fit returns its
// device memory when it ends. Returns whether there is a map.
static bool fit_map(atedm_engine *e)
{
    size_t held = atedm_engine_memory(e), limit = e->options.memory_limit;
    if (!e->fitted && !e->unfit)
        e->fitted = !atedm_preview_fit(e->model, limit > held ? limit - held : 0, &e->map, NULL);
    e->unfit = !e->fitted;
    return e->fitted;
}

// Makes a preview of image 0, if it is the lane and the job is watched.
static void preview(atedm_engine *e, const atedm_engine_job *j, const atedm_lane *first)
{
    const float *latents = first->image == 0 ? atedm_generation_clean(j->generation) : NULL;
    if (!latents || !fit_map(e))
        return;
    int64_t h, w;
    atedm_generation_latent_size(j->generation, &h, &w);
    const atedm_preview_grid grid = atedm_preview_grid_of(h, w);
    uint8_t *rgb = malloc(3 * (size_t)(grid.h * grid.w));
    if (!rgb)
        return;
    atedm_preview_render(&e->map, latents, h, w, rgb);
    e->hooks.preview(e->hooks.user, j->id, atedm_generation_steps_done(j->generation, 0), grid.w,
                     grid.h, rgb);
}

// Handles an evaluation that failed. If the device has no room for so many images, later
// evaluations take fewer; any other failure, or one image that does not fit, ends its request.
static void shrink(atedm_engine *e, const atedm_engine_evaluation *v, atedm_status status,
                   const atedm_error *error)
{
    if (status == ATEDM_ERR_NOMEM && v->n > 1)
        v->jobs[0]->size->most = v->n / 2;
    else if (v->n)
        atedm_engine_fail(e, v->jobs[0], status, error);
}

bool atedm_engine_evaluation_begin(atedm_engine *e)
{
    const atedm_engine_size *c = least_served(e);
    if (!c)
        return false;
    atedm_engine_evaluation *v = &e->evaluation;
    atedm_error error = {0};
    choose_lanes(e, c, v);
    v->since = atedm_clock_monotonic();
    atedm_status status = atedm_pipeline_step_begin(e->pipeline, v->lanes, v->n, &error);
    v->under_way = !status;
    if (status)
        shrink(e, v, status, &error);
    return true;
}

void atedm_engine_evaluation_end(atedm_engine *e)
{
    if (!e->evaluation.under_way)
        return;
    e->evaluation.under_way = false;
    const atedm_engine_evaluation *v = &e->evaluation;
    atedm_error error = {0};
    uint64_t before = atedm_engine_flops(e);
    atedm_status status = atedm_pipeline_step_end(e->pipeline, v->lanes, v->n, &error);
    if (status) {
        shrink(e, v, status, &error);
        return;
    }
    atedm_engine_limit_spare(e); // the evaluation may have added a recording
    if (!v->n)
        return;
    v->jobs[0]->size->served += (double)(atedm_engine_flops(e) - before);
    e->evaluation_s = atedm_clock_monotonic() - v->since;
    e->hooks.evaluated(e->hooks.user, v->n, e->evaluation_s);
    for (size_t first = 0, last; first < v->n; first = last) {
        for (last = first + 1; last < v->n && v->jobs[last] == v->jobs[first]; last++)
            ;
        account(e, v, first, last);
        preview(e, v->jobs[first], &v->lanes[first]);
    }
}

void atedm_engine_evaluation_leave(atedm_engine *e, const atedm_engine_job *j)
{
    atedm_engine_evaluation *v = &e->evaluation;
    size_t n = 0;
    if (!v->under_way)
        return;
    for (size_t i = 0; i < v->n; i++) {
        if (v->jobs[i] == j)
            continue;
        v->lanes[n] = v->lanes[i];
        v->jobs[n++] = v->jobs[i];
    }
    if (n == v->n)
        return;
    v->n = n;
    atedm_pipeline_step_wait(e->pipeline);
}
