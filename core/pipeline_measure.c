// Finds out how much scratch memory a request needs: runs its stages on the model's dry twin, with
// arenas that only measure.
#include "core/pipeline_private.h"

#include <string.h>

static void measure_encode(const atedm_generation *g, atedm_stream *s, atedm_arena *arena)
{
    const atedm_model *m = g->p->model->dry;
    int64_t ids[ATEDM_TOKENIZER_MAX_LENGTH * 2] = {0};
    double time_ids[2 * ATEDM_UNET_TIME_IDS] = {0};
    size_t element = atedm_dtype_size(m->dtype), tokens = (size_t)m->context_tokens;
    void *pooled =
        atedm_arena_take(arena, s, 2 * (size_t)m->config.parts.clip[1].projection * element);
    size_t mark = atedm_arena_mark(arena);
    for (int e = 0; e < 2; e++) {
        size_t width = (size_t)m->config.parts.clip[e].width;
        void *hidden = atedm_arena_take(arena, s, 2 * tokens * width * element);
        atedm_clip_encode(m->clip[e], s, arena, ids, g->samples, m->context_tokens, hidden,
                          e == 1 ? pooled : NULL);
    }
    atedm_arena_release(arena, mark);
    atedm_unet_embed_condition(m->unet, s, arena, pooled, time_ids, g->samples, g->condition);
    atedm_arena_release(arena, 0);
}

// A step with the same ratios as the step before needs the same memory, and is not measured again.
static bool same_as_before(const atedm_plan *plan, int step)
{
    if (step == 0)
        return false;
    return !plan || !memcmp(atedm_plan_step(plan, step), atedm_plan_step(plan, step - 1),
                            (size_t)plan->n_blocks * sizeof *plan->rho);
}

static void measure_decode(const atedm_generation *g, atedm_stream *s, atedm_arena *arena)
{
    const atedm_model *m = g->p->model->dry;
    size_t values = (size_t)(g->request->width * g->request->height) * 3;
    void *y = atedm_arena_take(arena, s, values * atedm_dtype_size(m->vae_dtype));
    atedm_arena_take(arena, s, values);
    atedm_vae_decode(m->vae, s, arena, g->latents, g->h, g->w, y);
    atedm_arena_take(arena, s, values * sizeof(float)); // the F32 image of a dump
}

atedm_status atedm_generation_measure(atedm_generation *g, atedm_error *err)
{
    const atedm_model *m = g->p->model->dry;
    atedm_stream *s = g->p->dry_stream, *vae = NULL;
    atedm_arena arena, text_arena, vae_arena;
    atedm_arena_init_measuring(&arena);
    atedm_arena_init_measuring(&text_arena);
    atedm_arena_init_measuring(&vae_arena);
    atedm_status status = atedm_stream_create(m->device, m->vae_dtype, &vae, err);
    if (status)
        return status;
    measure_encode(g, s, &text_arena);
    for (int k = 0; k < g->schedule.n; k++) {
        g->steps_done[0] = k;
        if (!same_as_before(g->plan, k))
            atedm_lanes_step(m, s, &arena, &(atedm_lane){g, 0}, 1, true);
    }
    g->steps_done[0] = 0;
    measure_decode(g, vae, &vae_arena);
    status = atedm_stream_sync(s, err);
    if (!status)
        status = atedm_stream_sync(vae, err);
    if (!status)
        g->need = (atedm_scratch_need){
            .steps = arena.peak, .text = text_arena.peak, .vae = vae_arena.peak};
    atedm_stream_destroy(vae);
    return status;
}
