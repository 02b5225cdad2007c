// Denoising steps: images of one or several requests share a UNet evaluation. See pipeline.h.
#include "core/base/splitmix.h"
#include "core/pipeline_private.h"

// The inputs and outputs of one evaluation. The buffers are scratch memory on the device.
typedef struct evaluation {
    const atedm_model *model;
    atedm_stream *s;
    atedm_arena *arena;
    const atedm_lane *lanes;
    size_t n;
    bool mixed;
    int64_t samples;          // of all lanes together
    atedm_generation *dumped; // the request whose intermediates are dumped; NULL: none
    char *x, *y, *context, *condition;
    float *scores; // NULL: no lane keeps scores for later steps
} evaluation;

static float *latents_of(const atedm_lane *lane)
{
    return atedm_generation_latents(lane->generation, lane->image);
}

// Copies each sample's text and condition embeddings together, and scales its latents for the UNet.
static void gather(const evaluation *e)
{
    const atedm_model *m = e->model;
    size_t element = atedm_dtype_size(m->dtype);
    size_t context =
        (size_t)(m->context_tokens * m->config.parts.unet.cross_attention_dim) * element;
    size_t condition = (size_t)atedm_unet_embedding_dim(m->unet) * element;
    size_t at = 0; // index of the sample
    for (size_t i = 0; i < e->n; i++) {
        const atedm_generation *g = e->lanes[i].generation;
        size_t samples = (size_t)g->samples, count = atedm_generation_latent_count(g);
        double scale = atedm_schedule_input_scale(&g->schedule, g->steps_done[e->lanes[i].image]);
        atedm_copy(e->s, g->context, e->context + at * context, samples * context);
        atedm_copy(e->s, g->condition, e->condition + at * condition, samples * condition);
        for (size_t k = 0; k < samples; k++)
            atedm_scale_input(e->s, latents_of(&e->lanes[i]), &scale,
                              e->x + (at + k) * count * element, 1, (int64_t)count);
        at += samples;
    }
}

// Copies the scores of the lanes that keep them: from the requests to the evaluation, or `back`,
// for later steps.
static void copy_scores(const evaluation *e, bool back)
{
    size_t at = 0;
    for (size_t i = 0; e->scores && i < e->n; i++) {
        const atedm_generation *g = e->lanes[i].generation;
        size_t count = (size_t)(g->samples * g->score_count);
        float *here = e->scores + at;
        float *kept = g->scores ? g->scores + (size_t)e->lanes[i].image * count : NULL;
        if (kept)
            atedm_copy(e->s, back ? here : kept, back ? kept : here, count * sizeof *here);
        at += count;
    }
}

static bool is_dry(const evaluation *e)
{
    return !e->model->dry;
}

static void evaluate(const evaluation *e)
{
    atedm_unet_sample samples[ATEDM_UNET_MAX_SAMPLES];
    int64_t at = 0;
    for (size_t i = 0; i < e->n; i++) {
        const atedm_generation *g = e->lanes[i].generation;
        int image = e->lanes[i].image, step = g->steps_done[image];
        bool shared = atedm_plan_shares_masks(g->plan);
        for (int64_t k = 0; k < g->samples; k++)
            samples[at++] = (atedm_unet_sample){
                .timestep = g->schedule.timesteps[step],
                .prune = g->plan ? &g->plan->spec : NULL,
                .rho = g->plan ? atedm_plan_step(g->plan, step) : NULL,
                .ranks = g->scores ? atedm_plan_ranks(g->plan, step) : NULL,
                // The same for both halves of guidance: a random selection is to keep the same
                // tokens in both.
                .draw = atedm_splitmix(g->request->seed + (uint64_t)image, (uint64_t)step),
                .mask_from = shared ? (int)(g->samples - 1 - k) : 0, // the conditional one is last
            };
    }
    const atedm_generation *first = e->lanes[0].generation;
    atedm_unet_forward(e->model->unet, e->s, e->arena,
                       &(atedm_unet_args){
                           .x = e->x,
                           .context = e->context,
                           .context_tokens = e->model->context_tokens,
                           .condition = e->condition,
                           .samples = samples,
                           .n = e->samples,
                           .h = first->h,
                           .w = first->w,
                           .y = e->y,
                           .scores = e->scores,
                           .traced = e->dumped != NULL,
                           .mixed = e->mixed,
                           .trace = e->dumped && !is_dry(e) ? atedm_pipeline_dump_trace : NULL,
                           .trace_user = e->dumped,
                       });
}

static void step_samplers(const evaluation *e)
{
    size_t at = 0, element = atedm_dtype_size(e->model->dtype);
    for (size_t i = 0; i < e->n; i++) {
        const atedm_generation *g = e->lanes[i].generation;
        size_t count = atedm_generation_latent_count(g);
        const char *uncond = e->y + at * count * element;
        atedm_step step;
        g->schedule.sampler->step(&g->schedule, g->steps_done[e->lanes[i].image], &step);
        atedm_sampler_step(e->s, &(atedm_step_args){
                                     .cond = g->samples == 2 ? uncond + count * element : uncond,
                                     .uncond = g->samples == 2 ? uncond : NULL,
                                     .x = latents_of(&e->lanes[i]),
                                     .count = (int64_t)count,
                                     .guidance_scale = (float)g->request->guidance_scale,
                                     .step = step,
                                     .history = atedm_generation_history(g, e->lanes[i].image),
                                 });
        at += (size_t)g->samples;
    }
}

void atedm_lanes_step(const atedm_model *model, atedm_stream *s, atedm_arena *arena,
                      const atedm_lane *lanes, size_t n, bool mixed)
{
    evaluation e = {.model = model, .s = s, .arena = arena, .lanes = lanes, .n = n, .mixed = mixed};
    for (size_t i = 0; i < n; i++)
        e.samples += lanes[i].generation->samples;
    if (lanes[0].generation->dump.call) // a request that dumps shares no evaluation
        e.dumped = lanes[0].generation;
    size_t mark = atedm_arena_mark(arena), element = atedm_dtype_size(model->dtype);
    size_t samples = (size_t)e.samples,
           latents = samples * atedm_generation_latent_count(lanes[0].generation);
    size_t context = (size_t)(model->context_tokens * model->config.parts.unet.cross_attention_dim);
    e.x = atedm_arena_take(arena, s, latents * element);
    e.y = atedm_arena_take(arena, s, latents * element);
    e.context = atedm_arena_take(arena, s, samples * context * element);
    e.condition = atedm_arena_take(
        arena, s, samples * (size_t)atedm_unet_embedding_dim(model->unet) * element);
    bool scored = mixed;
    for (size_t i = 0; i < n; i++)
        scored |= lanes[i].generation->scores != NULL;
    if (scored)
        e.scores = atedm_arena_take(
            arena, s, samples * (size_t)lanes[0].generation->score_count * sizeof *e.scores);
    if (!atedm_stream_failed(s)) {
        gather(&e);
        copy_scores(&e, false);
        evaluate(&e);
        copy_scores(&e, true);
        if (e.dumped && !is_dry(&e))
            atedm_pipeline_dump_noise(e.dumped, (int64_t)n, e.y);
        step_samplers(&e);
    }
    atedm_arena_release(arena, mark);
}

// Scratch memory that an evaluation of exactly these lanes takes.
static atedm_status measure(atedm_pipeline *p, const atedm_lane *lanes, size_t n, size_t *ret_bytes,
                            atedm_error *err)
{
    atedm_arena arena;
    atedm_arena_init_measuring(&arena);
    atedm_lanes_step(p->model->dry, p->dry_stream, &arena, lanes, n, false);
    atedm_status status = atedm_stream_sync(p->dry_stream, err);
    if (!status)
        *ret_bytes = arena.peak;
    return status;
}

static atedm_status check_lanes(const atedm_lane *lanes, size_t n, atedm_error *err)
{
    int64_t samples = 0;
    for (size_t i = 0; i < n; i++) {
        const atedm_generation *g = lanes[i].generation, *first = lanes[0].generation;
        samples += g->samples;
        if (g->h != first->h || g->w != first->w)
            return atedm_error_set(err, ATEDM_ERR_INVALID, "images of two sizes in one evaluation");
        if (g->steps_done[lanes[i].image] >= g->schedule.n)
            return atedm_error_set(err, ATEDM_ERR_INVALID, "all %d steps are done", g->schedule.n);
    }
    if (n == 0 || samples > ATEDM_UNET_MAX_SAMPLES)
        return atedm_error_set(err, ATEDM_ERR_LIMIT, "%lld samples in one evaluation, not 1 to %d",
                               (long long)samples, ATEDM_UNET_MAX_SAMPLES);
    return ATEDM_OK;
}

atedm_status atedm_pipeline_step_begin(atedm_pipeline *p, const atedm_lane *lanes, size_t n,
                                       atedm_error *err)
{
    if (p->stepping)
        return atedm_error_set(err, ATEDM_ERR_INVALID, "another evaluation is under way");
    size_t need = 0;
    atedm_status status = check_lanes(lanes, n, err);
    if (!status)
        status = measure(p, lanes, n, &need, err);
    if (!status)
        status = atedm_pipeline_reserve(p, &p->scratch, need, err);
    if (status)
        return status;
    p->stepping = true;
    atedm_stream_reset_counts(p->stream);
    atedm_pipeline_watch_before(p, lanes, n);
    atedm_pipeline_noise_before(p, lanes, n);
    atedm_lanes_step(p->model, p->stream, &p->scratch, lanes, n, false);
    atedm_pipeline_watch_after(p, lanes, n);
    atedm_pipeline_noise_after(lanes, n);
    return ATEDM_OK;
}

bool atedm_pipeline_step_busy(const atedm_pipeline *p)
{
    return p->stepping && !atedm_stream_idle(p->stream);
}

void atedm_pipeline_step_wait(atedm_pipeline *p)
{
    (void)atedm_stream_wait(p->stream); // atedm_pipeline_step_end reports a failure
}

atedm_status atedm_pipeline_step_end(atedm_pipeline *p, const atedm_lane *lanes, size_t n,
                                     atedm_error *err)
{
    p->stepping = false;
    atedm_op_counts counted = atedm_stream_counts(p->stream);
    atedm_status status = atedm_stream_sync(p->stream, err);
    if (status)
        return status;
    atedm_op_counts_add(&p->counts[ATEDM_STAGE_UNET], &counted);
    for (size_t i = 0; i < n; i++) {
        atedm_generation *g = lanes[i].generation;
        int *done = &g->steps_done[lanes[i].image];
        atedm_op_counts_add(&g->counts[ATEDM_STAGE_UNET], &g->step_counts[*done]);
        ++*done;
    }
    return ATEDM_OK;
}

atedm_status atedm_pipeline_step(atedm_pipeline *p, const atedm_lane *lanes, size_t n,
                                 atedm_error *err)
{
    atedm_status status = atedm_pipeline_step_begin(p, lanes, n, err);
    return status ? status : atedm_pipeline_step_end(p, lanes, n, err);
}

atedm_status atedm_generation_step(atedm_generation *g, atedm_error *err)
{
    for (int first = 0; first < g->images; first += ATEDM_PIPELINE_BATCH) {
        atedm_lane lanes[ATEDM_PIPELINE_BATCH];
        size_t n = 0;
        for (int i = first; i < g->images && n < ATEDM_PIPELINE_BATCH; i++)
            lanes[n++] = (atedm_lane){g, i};
        atedm_status status = atedm_pipeline_step(g->p, lanes, n, err);
        if (status)
            return status;
    }
    atedm_pipeline_dump_latents(g);
    return atedm_stream_sync(g->p->stream, err);
}
