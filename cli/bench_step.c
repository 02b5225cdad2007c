// Times the stages of a model: see bench_step.h.
//
// Every stage is a function that enqueues it on a stream; bench_time.c times it.
#include "cli/bench_step.h"

#include "cli/bench_private.h"
#include "cli/bench_weights.h"
#include "core/base/clock.h"
#include "core/flops.h"
#include "core/model_files.h"
#include "core/rng.h"

#include <stdlib.h>
#include <string.h>

#define GEMM_ROWS 4096
#define GEMM_WIDTH 1280
#define REF_GEMM_ROWS 64 // the reference's rate is the same, and 4096 rows would take it minutes
#define DRAWN ((size_t)8000009) // values; a prime number, so that rows do not repeat early

// ---- stages

static void enqueue_text(const atedm_bench_case *c, atedm_stream *s, atedm_arena *arena)
{
    const atedm_model *m = c->model;
    int64_t ids[2 * ATEDM_TOKENIZER_MAX_LENGTH] = {0};
    size_t element = atedm_dtype_size(m->dtype), rows = (size_t)(c->batch * m->context_tokens);
    for (int e = 0; e < 2; e++) {
        const atedm_clip_config *config = &m->config.parts.clip[e];
        void *hidden = atedm_arena_take(arena, s, rows * (size_t)config->width * element);
        void *pooled = NULL;
        if (config->has_projection)
            pooled = atedm_arena_take(arena, s, (size_t)(c->batch * config->projection) * element);
        atedm_clip_encode(m->clip[e], s, arena, ids, c->batch, m->context_tokens, hidden, pooled);
    }
}

void atedm_bench_enqueue_unet(const atedm_bench_case *c, atedm_stream *s, atedm_arena *arena)
{
    const atedm_model *m = c->model;
    const atedm_unet_config *config = &m->config.parts.unet;
    atedm_unet_sample samples[ATEDM_UNET_MAX_SAMPLES];
    // The halves of guidance. The second one follows the first if the plan says so.
    int64_t images = c->batch / 2;
    bool shared = c->batch % 2 == 0 && atedm_plan_shares_masks(c->plan);
    // Scores of rankings that serve several steps. Their values do not matter, because ranking and
    // selection take as long with any.
    bool scored = c->plan && c->plan->spec.score_interval > 1;
    size_t scores = (size_t)(c->batch * atedm_unet_score_count(m->unet, c->h, c->w));
    for (int64_t i = 0; i < c->batch; i++)
        samples[i] = (atedm_unet_sample){
            .timestep = 500,
            .prune = c->plan ? &c->plan->spec : NULL,
            .rho = c->plan ? atedm_plan_step(c->plan, c->step) : NULL,
            .ranks = scored ? atedm_plan_ranks(c->plan, c->step) : NULL,
            .mask_from = shared && i >= images ? (int)-images : 0,
        };
    int64_t pixels = c->batch * c->h * c->w;
    atedm_unet_args args = {
        .x = c->x ? c->x : atedm_bench_input(c, s, arena, pixels * config->in_channels),
        .context = atedm_bench_input(c, s, arena,
                                     c->batch * m->context_tokens * config->cross_attention_dim),
        .context_tokens = m->context_tokens,
        .condition = atedm_bench_input(c, s, arena, c->batch * atedm_unet_embedding_dim(m->unet)),
        .samples = samples,
        .n = c->batch,
        .h = c->h,
        .w = c->w,
        .y = c->y ? c->y
                  : atedm_arena_take(arena, s,
                                     (size_t)(pixels * config->out_channels) *
                                         atedm_dtype_size(m->dtype)),
        .scores = scored ? atedm_arena_take(arena, s, scores * sizeof(float)) : NULL,
    };
    atedm_unet_forward(m->unet, s, arena, &args);
}

static void enqueue_vae(const atedm_bench_case *c, atedm_stream *s, atedm_arena *arena)
{
    const atedm_model *m = c->model;
    const atedm_vae_config *config = &m->config.parts.vae;
    int64_t scale = atedm_vae_config_scale(config);
    size_t pixels = (size_t)(c->h * c->w * scale * scale);
    float *latents = atedm_bench_input_f32(c, s, arena, c->h * c->w * config->latent_channels);
    void *y = atedm_arena_take(
        arena, s, pixels * (size_t)config->out_channels * atedm_dtype_size(m->vae_dtype));
    atedm_vae_decode(m->vae, s, arena, latents, c->h, c->w, y);
}

// Times the yardstick, before and after the stages.
static atedm_status time_gemm(atedm_bench *b, atedm_error *err)
{
    double rate = 0;
    if (b->report->options->dry)
        return ATEDM_OK;
    bool is_ref = strcmp(atedm_device_backend(b->real.device), "ref") == 0;
    atedm_status status =
        atedm_bench_matrix(b, "gemm", is_ref ? REF_GEMM_ROWS : GEMM_ROWS, GEMM_WIDTH, &rate, err);
    if (!status && rate > b->report->gemm_flops_per_s)
        b->report->gemm_flops_per_s = rate;
    return status;
}

// ---- components

// Opens the parameters of one component: from the model's files, or random ones; for a dry device
// only their shapes.
static atedm_status open_weights(atedm_bench *b, atedm_component component, atedm_dtype dtype,
                                 atedm_weights **ret_weights, atedm_error *err)
{
    atedm_model_files files;
    atedm_status status;
    if (b->report->options->dry) {
        status = atedm_recorder_create(&b->recorder);
        if (!status)
            *ret_weights = atedm_recorder_weights(b->recorder);
        return status ? atedm_error_set(err, status, "no memory for weights") : ATEDM_OK;
    }
    if (!b->report->options->model) {
        status = atedm_random_weights_create(dtype, ret_weights);
        return status ? atedm_error_set(err, status, "no memory for weights") : ATEDM_OK;
    }
    status = atedm_model_files_find(b->report->options->model, &files, err);
    return status ? status
                  : atedm_model_files_open(&files, &b->config->parts, component, ret_weights, err);
}

static void close_weights(const atedm_bench *b, atedm_weights *weights)
{
    if (b->report->options->dry)
        atedm_recorder_destroy(b->recorder);
    else if (b->report->options->model)
        atedm_weights_close(weights);
    else
        atedm_random_weights_destroy(weights);
}

static atedm_status time_text(atedm_bench *b, atedm_error *err)
{
    atedm_status status = ATEDM_OK;
    for (int e = 0; e < 2 && !status; e++) {
        double start = atedm_clock_monotonic();
        atedm_weights *weights = NULL;
        status = open_weights(b, e ? ATEDM_TEXT_ENCODER_2 : ATEDM_TEXT_ENCODER, b->real.dtype,
                              &weights, err);
        if (status)
            break;
        status = atedm_clip_create(b->real.device, b->real.dtype, &b->config->parts.clip[e],
                                   weights, &b->real.clip[e], err);
        close_weights(b, weights);
        b->report->load_s[e] = atedm_clock_monotonic() - start;
    }
    atedm_bench_case c = {.b = b, .batch = 2};
    atedm_bench_row row = {.stage = "text", .batch = 2, .profiled = true};
    if (!status)
        status = atedm_bench_add_row(&c, b->real.dtype, enqueue_text, &row, 0, err);
    for (int e = 0; e < 2; e++) {
        atedm_clip_destroy(b->real.clip[e]);
        b->real.clip[e] = NULL;
    }
    return status;
}

// The steps of a plan form runs with equal pruning. Adds one row for each run.
static atedm_status time_plan(atedm_bench *b, atedm_bench_case *c, atedm_bench_row *row,
                              atedm_error *err)
{
    int steps = b->report->options->steps;
    for (int k = 0; k < steps;) {
        int end = k + 1;
        while (end < steps && (!c->plan || atedm_plan_same_step(c->plan, k, end)))
            end++;
        c->step = k;
        row->first_step = k;
        row->steps = end - k;
        atedm_status status =
            atedm_bench_add_row(c, b->real.dtype, atedm_bench_enqueue_unet, row, 0, err);
        if (status)
            return status;
        k = end;
    }
    return ATEDM_OK;
}

// Times, with each pruning, single evaluations of `batch` samples or whole loops of `batch` images.
static atedm_status time_unet_size(atedm_bench *b, const atedm_bench_size *size, int64_t batch,
                                   bool loop, atedm_error *err)
{
    const atedm_bench_options *options = b->report->options;
    int64_t scale = atedm_model_config_scale(b->config);
    atedm_bench_case c = {
        .b = b, .h = size->height / scale, .w = size->width / scale, .batch = batch};
    atedm_unet_cost cost;
    atedm_unet_cost_init(&cost, &b->config->parts.unet, c.h, c.w, b->real.context_tokens);
    for (int i = 0; i < options->n_prunings; i++) {
        atedm_plan *plan = NULL;
        atedm_status status = ATEDM_OK;
        if (options->specs[i].enabled)
            status = atedm_plan_create(&options->specs[i], options->steps, &cost, &plan, err);
        if (status)
            return atedm_error_context(err, status, "pruning %.60s", options->prunings[i]);
        c.plan = plan;
        atedm_bench_row row = {.stage = loop ? "loop" : "unet",
                               .size = *size,
                               .batch = batch,
                               .pruning = options->prunings[i],
                               .steps = options->steps,
                               .profiled = !loop || options->dry};
        if (loop)
            status = atedm_bench_add_row(&c, b->real.dtype, atedm_bench_enqueue_loop, &row, 0, err);
        else
            status = time_plan(b, &c, &row, err);
        atedm_plan_destroy(plan);
        if (status)
            return status;
    }
    return ATEDM_OK;
}

static atedm_status time_unet(atedm_bench *b, atedm_error *err)
{
    const atedm_bench_options *options = b->report->options;
    double start = atedm_clock_monotonic();
    atedm_weights *weights = NULL;
    atedm_status status = open_weights(b, ATEDM_UNET, b->real.dtype, &weights, err);
    if (status)
        return status;
    status = atedm_unet_create(b->real.device, b->real.dtype, &b->config->parts.unet, weights,
                               &b->real.unet, err);
    close_weights(b, weights);
    b->report->load_s[ATEDM_UNET] = atedm_clock_monotonic() - start;
    for (int i = 0; i < options->n_sizes; i++) {
        for (int k = 0; options->unet && k < options->n_batches && !status; k++)
            status = time_unet_size(b, &options->sizes[i], options->batches[k], false, err);
        for (int k = 0; options->loop && k < options->n_images && !status; k++)
            status = time_unet_size(b, &options->sizes[i], options->images[k], true, err);
    }
    atedm_unet_destroy(b->real.unet);
    b->real.unet = NULL;
    return status;
}

static atedm_status time_vae(atedm_bench *b, atedm_error *err)
{
    const atedm_bench_options *options = b->report->options;
    double start = atedm_clock_monotonic();
    atedm_weights *weights = NULL;
    atedm_status status = open_weights(b, ATEDM_VAE, b->real.vae_dtype, &weights, err);
    if (status)
        return status;
    status = atedm_vae_create(b->real.device, b->real.vae_dtype, &b->config->parts.vae, weights,
                              &b->real.vae, err);
    close_weights(b, weights);
    b->report->load_s[ATEDM_VAE] = atedm_clock_monotonic() - start;
    int64_t scale = atedm_model_config_scale(b->config);
    for (int i = 0; i < options->n_sizes && !status; i++) {
        const atedm_bench_size *size = &options->sizes[i];
        atedm_bench_case c = {
            .b = b, .h = size->height / scale, .w = size->width / scale, .batch = 1};
        atedm_bench_row row = {.stage = "vae", .size = *size, .batch = 1, .profiled = true};
        status = atedm_bench_add_row(&c, b->real.vae_dtype, enqueue_vae, &row, 0, err);
    }
    atedm_vae_destroy(b->real.vae);
    b->real.vae = NULL;
    return status;
}

// ---- all stages

static int64_t larger(int64_t a, int64_t b)
{
    return a > b ? a : b;
}

// The number of values of the largest input of any case.
static int64_t most_values(const atedm_bench *b)
{
    const atedm_bench_options *options = b->report->options;
    const atedm_unet_config *unet = &b->config->parts.unet;
    int64_t channels = larger(unet->in_channels, b->config->parts.vae.latent_channels);
    int64_t scale = atedm_model_config_scale(b->config), batch = 1;
    int64_t most = options->dry ? 1 : GEMM_ROWS * GEMM_WIDTH;
    if (options->ceilings)
        most = larger(most, options->matrix * options->matrix);
    for (int k = 0; k < options->n_batches; k++)
        batch = larger(batch, options->batches[k]);
    for (int k = 0; options->loop && k < options->n_images; k++)
        batch = larger(batch, 2 * options->images[k]);
    most = larger(most, batch * b->real.context_tokens * unet->cross_attention_dim);
    most = larger(most, batch * 4 * unet->channels[0]); // the condition's embedding
    for (int i = 0; i < options->n_sizes; i++)
        most = larger(most, batch * channels * (options->sizes[i].width / scale) *
                                (options->sizes[i].height / scale));
    return most;
}

// Makes random values for every input. Larger inputs repeat them.
static atedm_status make_inputs(atedm_bench *b, atedm_error *err)
{
    size_t most = (size_t)most_values(b), drawn = most < DRAWN ? most : DRAWN;
    b->vae_latents = calloc(most, sizeof *b->vae_latents);
    b->inputs = calloc(most, atedm_dtype_size(b->real.dtype));
    if (!b->vae_latents || !b->inputs)
        return atedm_error_set(err, ATEDM_ERR_NOMEM, "no memory for inputs");
    atedm_rng_normal(1, b->vae_latents, drawn);
    for (size_t i = drawn; i < most; i++)
        b->vae_latents[i] = b->vae_latents[i - drawn];
    atedm_convert(b->vae_latents, ATEDM_F32, b->inputs, b->real.dtype, most);
    return ATEDM_OK;
}

atedm_status atedm_bench_step_run(atedm_bench_report *report, atedm_device *device,
                                  atedm_error *err)
{
    atedm_bench b = {
        .report = report,
        .config = report->config,
        .real = {.config = *report->config,
                 .device = device,
                 .dtype = report->dtype,
                 .vae_dtype = report->vae_dtype,
                 .context_tokens = report->config->parts.clip[0].positions},
    };
    report->matrix_flops_per_s = report->options->rates.flops_per_s;
    report->copy_bytes_per_s = report->options->rates.bytes_per_s;
    atedm_status status =
        atedm_model_open_dry(report->config, report->dtype, report->vae_dtype, &b.dry, err);
    if (!status)
        status = make_inputs(&b, err);
    if (!status)
        status = time_gemm(&b, err);
    if (!status && report->options->ceilings)
        status = atedm_bench_ceilings(&b, err);
    if (!status && report->options->text)
        status = time_text(&b, err);
    if (!status && (report->options->unet || report->options->loop))
        status = time_unet(&b, err);
    if (!status && report->options->vae)
        status = time_vae(&b, err);
    if (!status)
        status = time_gemm(&b, err); // again, to show whether the machine slowed down meanwhile
    atedm_model_close(b.dry);
    free(b.inputs);
    free(b.vae_latents);
    return status;
}
