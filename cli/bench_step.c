// Times the stages of a model: see bench_step.h.
//
// Every stage is a function that enqueues it on a stream, inputs included. It runs on the dry
// device over a measuring arena first, which tells the scratch memory that it needs, then on the
// real one.
#include "cli/bench_step.h"

#include "cli/bench_weights.h"
#include "core/arena.h"
#include "core/base/clock.h"
#include "core/flops.h"
#include "core/rng.h"

#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define GEMM_ROWS 4096
#define GEMM_WIDTH 1280
#define GEMM_SECONDS 1.0 // of measuring, before and after the stages

typedef struct bench {
    atedm_bench_report *report;
    const atedm_model_config *config;
    atedm_model *dry;
    atedm_model real;    // with the component that is being timed
    atedm_weight *gemm;  // of the yardstick
    void *inputs;        // [host] random values of dtype
    float *vae_latents;  // [host] random values
    size_t input_values; // of each
} bench;

// What one timed case is.
typedef struct bench_case {
    bench *b;
    const atedm_model *model; // the dry one or the real one
    int64_t h, w, batch;
    const atedm_plan *plan; // NULL: off
    int step;
} bench_case;
typedef void (*enqueue_fn)(const bench_case *c, atedm_stream *s, atedm_arena *arena);

// ---- stages

// A tensor of `values` random values on the device.
static void *take_input(const bench_case *c, atedm_stream *s, atedm_arena *arena, int64_t values)
{
    size_t bytes = (size_t)values * atedm_dtype_size(atedm_stream_dtype(s));
    void *memory = atedm_arena_take(arena, s, bytes);
    atedm_upload(s, c->b->inputs, memory, bytes);
    return memory;
}

static void enqueue_gemm(const bench_case *c, atedm_stream *s, atedm_arena *arena)
{
    // The dry run only measures memory; the weight belongs to the real device.
    void *x = take_input(c, s, arena, GEMM_ROWS * GEMM_WIDTH);
    void *y = atedm_arena_take(
        arena, s, (size_t)GEMM_ROWS * GEMM_WIDTH * atedm_dtype_size(atedm_stream_dtype(s)));
    if (c->model != c->b->dry)
        atedm_linear(s,
                     &(atedm_linear_args){.weight = c->b->gemm, .x = x, .y = y, .rows = GEMM_ROWS});
}

static void enqueue_text(const bench_case *c, atedm_stream *s, atedm_arena *arena)
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

static void enqueue_unet(const bench_case *c, atedm_stream *s, atedm_arena *arena)
{
    const atedm_model *m = c->model;
    const atedm_unet_config *config = &m->config.parts.unet;
    atedm_unet_sample samples[ATEDM_UNET_MAX_SAMPLES];
    for (int64_t i = 0; i < c->batch; i++)
        samples[i] = (atedm_unet_sample){
            .timestep = 500,
            .prune = c->plan ? &c->plan->spec : NULL,
            .rho = c->plan ? atedm_plan_step(c->plan, c->step) : NULL,
        };
    int64_t pixels = c->batch * c->h * c->w;
    atedm_unet_args args = {
        .x = take_input(c, s, arena, pixels * config->in_channels),
        .context =
            take_input(c, s, arena, c->batch * m->context_tokens * config->cross_attention_dim),
        .context_tokens = m->context_tokens,
        .condition = take_input(c, s, arena, c->batch * atedm_unet_embedding_dim(m->unet)),
        .samples = samples,
        .n = c->batch,
        .h = c->h,
        .w = c->w,
        .y = atedm_arena_take(arena, s,
                              (size_t)(pixels * config->out_channels) * atedm_dtype_size(m->dtype)),
    };
    atedm_unet_forward(m->unet, s, arena, &args);
}

static void enqueue_vae(const bench_case *c, atedm_stream *s, atedm_arena *arena)
{
    const atedm_model *m = c->model;
    const atedm_vae_config *config = &m->config.parts.vae;
    int64_t scale = atedm_vae_config_scale(config);
    size_t latents_bytes = (size_t)(c->h * c->w * config->latent_channels) * sizeof(float);
    size_t pixels = (size_t)(c->h * c->w * scale * scale);
    float *latents = atedm_arena_take(arena, s, latents_bytes);
    void *y = atedm_arena_take(
        arena, s, pixels * (size_t)config->out_channels * atedm_dtype_size(m->vae_dtype));
    atedm_upload(s, c->b->vae_latents, latents, latents_bytes);
    atedm_vae_decode(m->vae, s, arena, latents, c->h, c->w, y);
}

// ---- timing

static int compare_seconds(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static atedm_status measure_scratch(const bench_case *c, atedm_dtype dtype, enqueue_fn enqueue,
                                    size_t *ret_bytes, atedm_error *err)
{
    bench_case dry_case = *c;
    dry_case.model = c->b->dry;
    atedm_stream *s = NULL;
    atedm_arena arena;
    atedm_arena_init_measuring(&arena);
    atedm_status status = atedm_stream_create(c->b->dry->device, dtype, &s, err);
    if (status)
        return status;
    enqueue(&dry_case, s, &arena);
    status = atedm_stream_sync(s, err);
    if (!status)
        *ret_bytes = arena.peak;
    atedm_stream_destroy(s);
    return status;
}

// One run; seconds until its results are there.
static atedm_status run_once(const bench_case *c, enqueue_fn enqueue, atedm_stream *s,
                             atedm_arena *arena, double *ret_seconds, atedm_error *err)
{
    double start = atedm_clock_monotonic();
    atedm_stream_reset_counts(s);
    enqueue(c, s, arena);
    atedm_status status = atedm_stream_sync(s, err);
    atedm_arena_release(arena, 0);
    *ret_seconds = atedm_clock_monotonic() - start;
    return status;
}

// Runs the case again, `repeat` times, each operation timed: fills the means of a run.
static atedm_status profile_case(const bench_case *c, enqueue_fn enqueue, atedm_stream *s,
                                 atedm_arena *arena, atedm_bench_row *row, atedm_error *err)
{
    atedm_profile *profile = NULL;
    double seconds;
    int repeat = c->b->report->options->repeat;
    atedm_status status = atedm_profile_start(c->b->real.device, &profile, err);
    for (int i = 0; i < repeat && !status; i++)
        status = run_once(c, enqueue, s, arena, &seconds, err);
    if (!status)
        row->n_ops = atedm_profile_read(profile, row->ops);
    for (size_t i = 0; i < row->n_ops; i++) {
        row->ops[i].calls /= (uint64_t)repeat;
        row->ops[i].flops /= (uint64_t)repeat;
        row->ops[i].seconds /= repeat;
    }
    atedm_profile_stop(profile);
    return status;
}

// Fills the times, counts and memory of `row`: one run to warm up, then `repeat` (or as many more
// as fill `seconds`).
static atedm_status time_case(bench_case *c, atedm_dtype dtype, enqueue_fn enqueue, double seconds,
                              atedm_bench_row *row, atedm_error *err)
{
    double times[ATEDM_BENCH_MAX_REPEAT], warm_up, total = 0;
    atedm_stream *s = NULL;
    atedm_arena arena = {0};
    c->model = &c->b->real;
    atedm_status status = measure_scratch(c, dtype, enqueue, &row->scratch_bytes, err);
    if (!status)
        status = atedm_stream_create(c->b->real.device, dtype, &s, err);
    if (!status)
        status = atedm_arena_init(&arena, c->b->real.device, row->scratch_bytes, err);
    if (!status)
        status = run_once(c, enqueue, s, &arena, &warm_up, err);
    int n = 0;
    while (!status && n < ATEDM_BENCH_MAX_REPEAT &&
           (n < c->b->report->options->repeat || total < seconds)) {
        status = run_once(c, enqueue, s, &arena, &times[n], err);
        total += times[n++];
    }
    if (!status) {
        qsort(times, (size_t)n, sizeof *times, compare_seconds);
        row->min_s = times[0];
        row->median_s = times[n / 2];
        row->counts = atedm_stream_counts(s);
    }
    if (!status && c->b->report->options->ops && enqueue != enqueue_gemm)
        status = profile_case(c, enqueue, s, &arena, row, err);
    atedm_arena_finish(&arena);
    atedm_stream_destroy(s);
    return status;
}

static atedm_status add_row(bench *b, bench_case *c, atedm_dtype dtype, enqueue_fn enqueue,
                            const atedm_bench_row *row, double seconds, atedm_error *err)
{
    atedm_bench_report *report = b->report;
    if (report->n_rows == ATEDM_BENCH_MAX_ROWS)
        return atedm_error_set(err, ATEDM_ERR_LIMIT, "more than %d cases", ATEDM_BENCH_MAX_ROWS);
    bool visible = isatty(STDERR_FILENO) == 1;
    if (visible)
        fprintf(stderr, "\r\033[Ktiming %s ...", row->stage);
    atedm_bench_row *mine = &report->rows[report->n_rows];
    *mine = *row;
    atedm_status status = time_case(c, dtype, enqueue, seconds, mine, err);
    if (visible)
        fputs("\r\033[K", stderr);
    if (!status)
        report->n_rows++;
    return status;
}

// ---- the yardstick

static atedm_status make_gemm(bench *b, atedm_error *err)
{
    const int64_t shape[2] = {GEMM_WIDTH, GEMM_WIDTH};
    atedm_weights *weights = NULL;
    atedm_host_tensor tensor;
    atedm_status status = atedm_random_weights_create(b->real.dtype, &weights);
    if (status)
        return atedm_error_set(err, status, "no memory for weights");
    status = weights->get(weights, "gemm", 2, shape, false, &tensor, err);
    if (!status) {
        status = atedm_linear_weight_create(b->real.device, b->real.dtype, &tensor, NULL, 1,
                                            &b->gemm, err);
        weights->done(weights, &tensor);
    }
    atedm_random_weights_destroy(weights);
    return status;
}

static atedm_status time_gemm(bench *b, atedm_error *err)
{
    bench_case c = {.b = b};
    atedm_bench_row row = {.stage = "gemm", .batch = 1};
    atedm_status status = add_row(b, &c, b->real.dtype, enqueue_gemm, &row, GEMM_SECONDS, err);
    if (status)
        return status;
    double rate = atedm_bench_row_rate(&b->report->rows[b->report->n_rows - 1]);
    if (rate > b->report->gemm_flops_per_s)
        b->report->gemm_flops_per_s = rate;
    return ATEDM_OK;
}

// ---- components

// Parameters of one component: from the model's files, or random.
static atedm_status open_weights(bench *b, const char *component, const char *base,
                                 atedm_dtype dtype, atedm_weights **ret_weights, atedm_error *err)
{
    const char *dir = b->report->options->model;
    char path[PATH_MAX];
    if (!dir)
        return atedm_error_context(err, atedm_random_weights_create(dtype, ret_weights), "weights");
    if (snprintf(path, sizeof path, "%s/%s", dir, component) >= (int)sizeof path)
        return atedm_error_set(err, ATEDM_ERR_LIMIT, "%s: path too long", dir);
    return atedm_weights_open(path, base, ret_weights, err);
}

static void close_weights(const bench *b, atedm_weights *weights)
{
    if (b->report->options->model)
        atedm_weights_close(weights);
    else
        atedm_random_weights_destroy(weights);
}

static atedm_status time_text(bench *b, atedm_error *err)
{
    atedm_status status = ATEDM_OK;
    for (int e = 0; e < 2 && !status; e++) {
        double start = atedm_clock_monotonic();
        atedm_weights *weights = NULL;
        status = open_weights(b, e ? "text_encoder_2" : "text_encoder", "model", b->real.dtype,
                              &weights, err);
        if (status)
            break;
        status = atedm_clip_create(b->real.device, b->real.dtype, &b->config->parts.clip[e],
                                   weights, &b->real.clip[e], err);
        close_weights(b, weights);
        b->report->load_s[e] = atedm_clock_monotonic() - start;
    }
    bench_case c = {.b = b, .batch = 2};
    atedm_bench_row row = {.stage = "text", .batch = 2};
    if (!status)
        status = add_row(b, &c, b->real.dtype, enqueue_text, &row, 0, err);
    for (int e = 0; e < 2; e++) {
        atedm_clip_destroy(b->real.clip[e]);
        b->real.clip[e] = NULL;
    }
    return status;
}

// A plan's steps fall into runs of equal ratios: one row for each.
static atedm_status time_plan(bench *b, bench_case *c, atedm_bench_row *row, atedm_error *err)
{
    int steps = b->report->options->steps;
    for (int k = 0; k < steps;) {
        int end = k + 1;
        while (end < steps &&
               (!c->plan || memcmp(atedm_plan_step(c->plan, k), atedm_plan_step(c->plan, end),
                                   (size_t)c->plan->n_blocks * sizeof(float)) == 0))
            end++;
        c->step = k;
        row->first_step = k;
        row->steps = end - k;
        atedm_status status = add_row(b, c, b->real.dtype, enqueue_unet, row, 0, err);
        if (status)
            return status;
        k = end;
    }
    return ATEDM_OK;
}

static atedm_status time_unet_size(bench *b, const atedm_bench_size *size, int64_t batch,
                                   atedm_error *err)
{
    const atedm_bench_options *options = b->report->options;
    int64_t scale = atedm_model_config_scale(b->config);
    bench_case c = {.b = b, .h = size->height / scale, .w = size->width / scale, .batch = batch};
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
        atedm_bench_row row = {
            .stage = "unet", .size = *size, .batch = batch, .pruning = options->prunings[i]};
        status = time_plan(b, &c, &row, err);
        atedm_plan_destroy(plan);
        if (status)
            return status;
    }
    return ATEDM_OK;
}

static atedm_status time_unet(bench *b, atedm_error *err)
{
    const atedm_bench_options *options = b->report->options;
    double start = atedm_clock_monotonic();
    atedm_weights *weights = NULL;
    atedm_status status =
        open_weights(b, "unet", "diffusion_pytorch_model", b->real.dtype, &weights, err);
    if (status)
        return status;
    status = atedm_unet_create(b->real.device, b->real.dtype, &b->config->parts.unet, weights,
                               &b->real.unet, err);
    close_weights(b, weights);
    b->report->load_s[2] = atedm_clock_monotonic() - start;
    for (int i = 0; i < options->n_sizes; i++)
        for (int k = 0; k < options->n_batches && !status; k++)
            status = time_unet_size(b, &options->sizes[i], options->batches[k], err);
    atedm_unet_destroy(b->real.unet);
    b->real.unet = NULL;
    return status;
}

static atedm_status time_vae(bench *b, atedm_error *err)
{
    const atedm_bench_options *options = b->report->options;
    double start = atedm_clock_monotonic();
    atedm_weights *weights = NULL;
    atedm_status status =
        open_weights(b, "vae", "diffusion_pytorch_model", b->real.vae_dtype, &weights, err);
    if (status)
        return status;
    status = atedm_vae_create(b->real.device, b->real.vae_dtype, &b->config->parts.vae, weights,
                              &b->real.vae, err);
    close_weights(b, weights);
    b->report->load_s[3] = atedm_clock_monotonic() - start;
    int64_t scale = atedm_model_config_scale(b->config);
    for (int i = 0; i < options->n_sizes && !status; i++) {
        const atedm_bench_size *size = &options->sizes[i];
        bench_case c = {.b = b, .h = size->height / scale, .w = size->width / scale, .batch = 1};
        atedm_bench_row row = {.stage = "vae", .size = *size, .batch = 1};
        status = add_row(b, &c, b->real.vae_dtype, enqueue_vae, &row, 0, err);
    }
    atedm_vae_destroy(b->real.vae);
    b->real.vae = NULL;
    return status;
}

// ---- the whole

static int64_t larger(int64_t a, int64_t b)
{
    return a > b ? a : b;
}

// Random values for the largest input of any case.
static atedm_status make_inputs(bench *b, atedm_error *err)
{
    const atedm_bench_options *options = b->report->options;
    const atedm_unet_config *unet = &b->config->parts.unet;
    int64_t channels = larger(unet->in_channels, b->config->parts.vae.latent_channels);
    int64_t scale = atedm_model_config_scale(b->config), most = GEMM_ROWS * GEMM_WIDTH;
    for (int k = 0; k < options->n_batches; k++) {
        int64_t batch = options->batches[k];
        most = larger(most, batch * b->real.context_tokens * unet->cross_attention_dim);
        most = larger(most, batch * 4 * unet->channels[0]); // the condition's embedding
        for (int i = 0; i < options->n_sizes; i++)
            most = larger(most, batch * channels * (options->sizes[i].width / scale) *
                                    (options->sizes[i].height / scale));
    }
    b->input_values = (size_t)most;
    b->vae_latents = calloc(b->input_values, sizeof *b->vae_latents);
    b->inputs = calloc(b->input_values, atedm_dtype_size(b->real.dtype));
    if (!b->vae_latents || !b->inputs)
        return atedm_error_set(err, ATEDM_ERR_NOMEM, "no memory for inputs");
    atedm_rng_normal(1, b->vae_latents, b->input_values);
    atedm_convert(b->vae_latents, ATEDM_F32, b->inputs, b->real.dtype, b->input_values);
    return ATEDM_OK;
}

atedm_status atedm_bench_step_run(atedm_bench_report *report, atedm_device *device,
                                  atedm_error *err)
{
    bench b = {
        .report = report,
        .config = report->config,
        .real = {.config = *report->config,
                 .device = device,
                 .dtype = report->dtype,
                 .vae_dtype = report->vae_dtype,
                 .context_tokens = report->config->parts.clip[0].positions},
    };
    atedm_status status =
        atedm_model_open_dry(report->config, report->dtype, report->vae_dtype, &b.dry, err);
    if (!status)
        status = make_inputs(&b, err);
    if (!status)
        status = make_gemm(&b, err);
    if (!status)
        status = time_gemm(&b, err);
    if (!status && report->options->text)
        status = time_text(&b, err);
    if (!status && report->options->unet)
        status = time_unet(&b, err);
    if (!status && report->options->vae)
        status = time_vae(&b, err);
    if (!status)
        status = time_gemm(&b, err); // again: a machine that slowed down meanwhile shows
    atedm_weight_destroy(b.gemm);
    atedm_model_close(b.dry);
    free(b.inputs);
    free(b.vae_latents);
    return status;
}
