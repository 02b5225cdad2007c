// Creates and destroys pipelines and requests, and runs a request from start to end: see
// pipeline.h. The stages are in pipeline_encode.c (texts), pipeline_step.c (denoising steps) and
// pipeline_decode.c (pixels); pipeline_dump.c writes dumps, pipeline_watch.c provides previews'
// latents, pipeline_measure.c finds out the scratch memory, plan.c resolves plans and flops.c
// costs.
#include "core/pipeline.h"

#include "core/base/clock.h"
#include "core/pipeline_private.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

atedm_status atedm_pipeline_create(const atedm_model *model, atedm_pipeline **ret_pipeline,
                                   atedm_error *err)
{
    atedm_pipeline *p = calloc(1, sizeof *p);
    if (!p)
        return atedm_error_set(err, ATEDM_ERR_NOMEM, "no memory for a pipeline");
    p->model = model;
    atedm_status status = atedm_stream_create(model->device, model->dtype, &p->stream, err);
    if (!status)
        status = atedm_stream_create(model->device, model->dtype, &p->text_stream, err);
    if (!status)
        status = atedm_stream_create(model->device, model->vae_dtype, &p->vae_stream, err);
    if (!status)
        status = atedm_stream_create(model->dry->device, model->dtype, &p->dry_stream, err);
    if (status) {
        atedm_pipeline_destroy(p);
        return status;
    }
    p->overlaps =
        atedm_stream_set_background(p->vae_stream) && atedm_stream_set_background(p->text_stream);
    *ret_pipeline = p;
    return ATEDM_OK;
}

void atedm_pipeline_destroy(atedm_pipeline *p)
{
    if (!p)
        return;
    atedm_arena_finish(&p->scratch);
    atedm_arena_finish(&p->text_scratch);
    atedm_arena_finish(&p->vae_scratch);
    atedm_arena_spares_finish(&p->spares);
    atedm_stream_destroy(p->stream);
    atedm_stream_destroy(p->text_stream);
    atedm_stream_destroy(p->vae_stream);
    atedm_stream_destroy(p->dry_stream);
    free(p);
}

size_t atedm_pipeline_device_memory(const atedm_pipeline *p)
{
    return p->model->weight_bytes + p->scratch.capacity + p->text_scratch.capacity +
           p->vae_scratch.capacity + atedm_pipeline_spare(p);
}

bool atedm_pipeline_overlaps(const atedm_pipeline *p)
{
    return p->overlaps;
}

size_t atedm_pipeline_spare(const atedm_pipeline *p)
{
    return p->spares.bytes + atedm_stream_repeats(p->stream)->bytes;
}

void atedm_pipeline_forget(atedm_pipeline *p)
{
    atedm_arena_spares_finish(&p->spares);
    atedm_stream_forget(p->stream);
}

atedm_status atedm_pipeline_reserve(atedm_pipeline *p, atedm_arena *arena, size_t need,
                                    atedm_error *err)
{
    if (need <= arena->capacity)
        return ATEDM_OK;
    atedm_arena_finish(arena);
    atedm_status status = atedm_arena_init(arena, p->model->device, need, err);
    if (status == ATEDM_ERR_NOMEM && atedm_pipeline_spare(p)) {
        atedm_pipeline_forget(p);
        status = atedm_arena_init(arena, p->model->device, need, err);
    }
    return atedm_error_context(err, status, "scratch memory of %zu bytes", need);
}

static atedm_status reserve_all(atedm_pipeline *p, atedm_scratch_need need, atedm_error *err)
{
    atedm_status status = atedm_pipeline_reserve(p, &p->scratch, need.steps, err);
    if (!status && !p->encoding.generation)
        status = atedm_pipeline_reserve(p, &p->text_scratch, need.text, err);
    if (!status && !p->decoding.generation)
        status = atedm_pipeline_reserve(p, &p->vae_scratch, need.vae, err);
    return status;
}

static void give_back(atedm_pipeline *p)
{
    atedm_arena_finish(&p->scratch);
    if (!p->encoding.generation)
        atedm_arena_finish(&p->text_scratch);
    if (!p->decoding.generation)
        atedm_arena_finish(&p->vae_scratch);
}

atedm_status atedm_pipeline_prepare(atedm_pipeline *p, atedm_scratch_need need, atedm_error *err)
{
    atedm_status status = reserve_all(p, need, err);
    if (status != ATEDM_ERR_NOMEM)
        return status;
    // One arena may still hold memory, from larger requests, that another one lacks.
    give_back(p);
    status = reserve_all(p, need, err);
    if (status)
        give_back(p); // the stages of other requests then allocate what they turn out to need
    return status;
}

void atedm_generation_count(atedm_generation *g, atedm_stage stage, atedm_stream *s)
{
    atedm_op_counts counts = atedm_stream_counts(s);
    atedm_op_counts_add(&g->counts[stage], &counts);
    atedm_op_counts_add(&g->p->counts[stage], &counts);
    atedm_stream_reset_counts(s);
}

// ---- creating and destroying requests

atedm_status atedm_estimate(const atedm_model_config *config, const atedm_request *request,
                            atedm_plan **ret_plan, atedm_request_cost *ret_cost, atedm_error *err)
{
    int64_t scale = atedm_model_config_scale(config);
    bool guided = request->guidance_scale > 1;
    bool zeros = !request->negative_prompt && config->force_zeros_for_empty_prompt;
    atedm_request_shape shape = {
        .latent_h = request->height / scale,
        .latent_w = request->width / scale,
        .context_tokens = config->parts.clip[0].positions,
        .steps = request->steps,
        .prompts = guided && !zeros ? 2 : 1,
        .samples = guided ? 2 : 1,
        .images = request->num_images,
    };
    atedm_plan *plan = NULL;
    if (request->prune.enabled) {
        atedm_unet_cost cost;
        atedm_unet_cost_init(&cost, &config->parts.unet, shape.latent_h, shape.latent_w,
                             shape.context_tokens);
        atedm_status status = atedm_plan_create(&request->prune, request->steps, &cost, &plan, err);
        if (status)
            return status;
    }
    *ret_cost = atedm_request_cost_eval(&config->parts, &shape, plan);
    *ret_plan = plan;
    return ATEDM_OK;
}

static atedm_status check_request(const atedm_generation *g, const atedm_host_tensor *latents,
                                  atedm_error *err)
{
    const atedm_request *r = g->request;
    int64_t multiple = atedm_model_config_scale(&g->p->model->config);
    if (r->width < 1 || r->height < 1 || r->width > ATEDM_SIZE_MAX || r->height > ATEDM_SIZE_MAX ||
        r->width % multiple || r->height % multiple)
        return atedm_error_set(err, ATEDM_ERR_INVALID,
                               "%lld x %lld pixels: both sides must be multiples of %lld",
                               (long long)r->width, (long long)r->height, (long long)multiple);
    if (r->num_images < 1 || !r->prompt)
        return atedm_error_set(err, ATEDM_ERR_INVALID, "a request needs a prompt and an image");
    if (!atedm_sampler_find(r->sampler))
        return atedm_error_set(err, ATEDM_ERR_INVALID, "sampler \"%s\" is not known", r->sampler);
    int64_t shape[4] = {r->num_images, g->channels, g->h, g->w};
    if (latents && (latents->dtype != ATEDM_F32 || !atedm_host_tensor_has_shape(latents, 4, shape)))
        return atedm_error_set(
            err, ATEDM_ERR_INVALID, "initial latents must be f32 of shape [%d, %lld, %lld, %lld]",
            r->num_images, (long long)g->channels, (long long)g->h, (long long)g->w);
    if (g->dump.call && r->num_images > ATEDM_PIPELINE_BATCH)
        return atedm_error_set(err, ATEDM_ERR_LIMIT, "a dump holds at most %d images",
                               ATEDM_PIPELINE_BATCH);
    return ATEDM_OK;
}

size_t atedm_generation_latent_count(const atedm_generation *g)
{
    return (size_t)(g->h * g->w * g->channels);
}

float *atedm_generation_latents(const atedm_generation *g, int image)
{
    return g->latents + (size_t)image * atedm_generation_latent_count(g);
}

float *atedm_generation_history(const atedm_generation *g, int image)
{
    return g->history ? g->history + (size_t)image * atedm_generation_latent_count(g) : NULL;
}

// Takes the device memory that lives as long as the request. The caller runs this on a measuring
// arena first, to learn the size, and then on the real one.
static void lay_out(atedm_generation *g, atedm_arena *arena)
{
    const atedm_model *m = g->p->model;
    atedm_stream *s = g->p->stream;
    size_t element = atedm_dtype_size(m->dtype), samples = (size_t)g->samples;
    size_t latents = (size_t)g->images * atedm_generation_latent_count(g);
    size_t context = (size_t)(m->context_tokens * m->config.parts.unet.cross_attention_dim);
    g->latents = atedm_arena_take(arena, s, latents * sizeof(float));
    g->history = g->schedule.sampler->keeps_clean
                     ? atedm_arena_take(arena, s, latents * sizeof *g->history)
                     : NULL;
    g->context = atedm_arena_take(arena, s, samples * context * element);
    g->condition =
        atedm_arena_take(arena, s, samples * (size_t)atedm_unet_embedding_dim(m->unet) * element);
    size_t scores = (size_t)g->images * samples * (size_t)g->score_count;
    g->scores = g->plan && g->plan->spec.score_interval > 1
                    ? atedm_arena_take(arena, s, scores * sizeof *g->scores)
                    : NULL;
}

static atedm_status allocate(atedm_generation *g, atedm_error *err)
{
    atedm_arena measuring;
    atedm_arena_init_measuring(&measuring);
    lay_out(g, &measuring);
    atedm_device *device = g->p->model->device;
    atedm_status status =
        atedm_arena_init_spare(&g->memory, &g->p->spares, device, measuring.peak, err);
    if (status == ATEDM_ERR_NOMEM && atedm_pipeline_spare(g->p)) {
        atedm_pipeline_forget(g->p);
        status = atedm_arena_init(&g->memory, device, measuring.peak, err);
    }
    if (status)
        return status;
    lay_out(g, &g->memory);
    size_t each = atedm_generation_latent_count(g), latents = (size_t)g->images * each;
    g->staging = malloc(latents * sizeof *g->staging);
    g->planar = malloc(each * sizeof *g->planar);
    g->rngs = calloc((size_t)g->images, sizeof *g->rngs);
    g->drawn = calloc((size_t)g->images, sizeof *g->drawn);
    if (g->schedule.sampler->noise)
        g->noise = malloc(2 * latents * sizeof *g->noise);
    g->steps_done = calloc((size_t)g->images, sizeof *g->steps_done);
    g->step_counts = calloc((size_t)g->schedule.n, sizeof *g->step_counts);
    if (!g->staging || !g->planar || !g->rngs || !g->drawn || !g->steps_done || !g->step_counts ||
        (g->schedule.sampler->noise && !g->noise))
        return atedm_error_set(err, ATEDM_ERR_NOMEM, "no memory for latents");
    return ATEDM_OK;
}

// Fills in what each step costs one image. With shared masks only the first sample has overhead.
static void cost_steps(atedm_generation *g)
{
    atedm_unet_cost cost;
    atedm_unet_cost_init(&cost, &g->p->model->config.parts.unet, g->h, g->w,
                         g->p->model->context_tokens);
    for (int k = 0; k < g->schedule.n; k++) {
        atedm_op_counts counts = g->plan ? atedm_unet_cost_step(&cost, g->plan, k)
                                         : atedm_unet_cost_eval(&cost, NULL, NULL);
        for (int64_t i = 0; i < g->samples; i++) {
            atedm_op_counts_add(&g->step_counts[k], &counts);
            if (atedm_plan_shares_masks(g->plan))
                counts.overhead = 0;
        }
    }
}

static void init(atedm_generation *g, atedm_pipeline *p, const atedm_request *request)
{
    const atedm_model_config *config = &p->model->config;
    int64_t scale = atedm_model_config_scale(config);
    g->p = p;
    g->request = request;
    g->h = request->height / scale;
    g->w = request->width / scale;
    g->channels = config->parts.vae.latent_channels;
    g->score_count = atedm_unet_score_count(p->model->unet, g->h, g->w);
    g->images = request->num_images;
    g->samples = request->guidance_scale > 1 ? 2 : 1;
    g->zero_negative = !request->negative_prompt && config->force_zeros_for_empty_prompt;
}

atedm_status atedm_generation_create(atedm_pipeline *p, const atedm_request *request,
                                     const atedm_host_tensor *latents_init, atedm_dump_fn dump,
                                     void *dump_user, atedm_generation **ret_generation,
                                     atedm_error *err)
{
    atedm_generation *g = calloc(1, sizeof *g);
    if (!g)
        return atedm_error_set(err, ATEDM_ERR_NOMEM, "no memory for a request");
    init(g, p, request);
    g->dump = (atedm_pipeline_dump){.call = dump, .user = dump_user};
    g->latents_given = latents_init;
    atedm_status status = check_request(g, latents_init, err);
    if (!status)
        status =
            atedm_schedule_make(&p->model->config.scheduler, atedm_sampler_find(request->sampler),
                                request->steps, &g->schedule, err);
    if (!status)
        status = atedm_estimate(&p->model->config, request, &g->plan, &g->cost, err);
    if (!status)
        status = allocate(g, err);
    if (!status)
        status = atedm_generation_measure(g, err);
    if (status) {
        atedm_generation_destroy(g);
        return status;
    }
    cost_steps(g);
    *ret_generation = g;
    return ATEDM_OK;
}

void atedm_generation_destroy(atedm_generation *g)
{
    if (!g)
        return;
    atedm_arena_keep(&g->memory, &g->p->spares);
    atedm_plan_destroy(g->plan);
    atedm_pipeline_dump_finish(&g->dump);
    atedm_pipeline_watch_finish(&g->watch);
    free(g->staging);
    free(g->planar);
    free(g->rngs);
    free(g->drawn);
    free(g->noise);
    free(g->steps_done);
    free(g->step_counts);
    free(g);
}

// ---- figures, and running a whole request

void atedm_pipeline_counts(const atedm_pipeline *p, atedm_op_counts ret_counts[ATEDM_N_STAGES])
{
    memcpy(ret_counts, p->counts, sizeof p->counts);
}

const atedm_repeat_figures *atedm_pipeline_repeats(const atedm_pipeline *p)
{
    return atedm_stream_repeats(p->stream);
}

int atedm_generation_steps_done(const atedm_generation *g, int image)
{
    return g->steps_done[image];
}

const atedm_plan *atedm_generation_plan(const atedm_generation *g)
{
    return g->plan;
}

const atedm_request_cost *atedm_generation_cost(const atedm_generation *g)
{
    return &g->cost;
}

size_t atedm_generation_memory(const atedm_generation *g)
{
    return g->memory.capacity;
}

atedm_scratch_need atedm_generation_scratch(const atedm_generation *g)
{
    return g->need;
}

void atedm_generation_counts(const atedm_generation *g, atedm_op_counts ret_counts[ATEDM_N_STAGES])
{
    memcpy(ret_counts, g->counts, sizeof g->counts);
}

size_t atedm_generation_encoded(const atedm_generation *g, int which)
{
    return g->encoded[which];
}

atedm_status atedm_generation_run(atedm_generation *g, atedm_progress_fn progress, void *user,
                                  uint8_t *const *rgb_images, atedm_timing *ret_timing,
                                  atedm_error *err)
{
    atedm_timing timing = {0};
    double start = atedm_clock_monotonic();
    atedm_status status = atedm_generation_encode(g, err);
    if (status)
        return status;
    timing.text_encoder_s = atedm_clock_monotonic() - start;
    const int steps = g->schedule.n;
    for (int k = 0; k < steps; k++) {
        if (progress && !progress(user, k, steps))
            return atedm_error_set(err, ATEDM_ERR_CANCELED, "canceled after %d of %d steps", k,
                                   steps);
        double began = atedm_clock_monotonic();
        status = atedm_generation_step(g, err);
        if (status)
            return status;
        timing.steps_s[k] = atedm_clock_monotonic() - began;
        timing.denoise_s += timing.steps_s[k];
    }
    if (progress && !progress(user, steps, steps))
        return atedm_error_set(err, ATEDM_ERR_CANCELED, "canceled before decoding");
    start = atedm_clock_monotonic();
    for (int i = 0; i < g->images; i++) {
        status = atedm_generation_decode(g, i, rgb_images[i], err);
        if (status)
            return status;
    }
    timing.vae_s = atedm_clock_monotonic() - start;
    *ret_timing = timing;
    return ATEDM_OK;
}
