// Damaged configs of a model. Those that are taken, however odd, are used: modules without weights
// are made of them and run on the dry backend, which checks every argument.
#include "fuzz.h"

#include "core/arena.h"
#include "core/model.h"
#include "core/pipeline.h"
#include "tests/unit/model_dir.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char *const files[] = {"model_index.json",         "scheduler/scheduler_config.json",
                                    "text_encoder/config.json", "text_encoder_2/config.json",
                                    "unet/config.json",         "vae/config.json"};
#define N_FILES (sizeof files / sizeof *files)

typedef struct config_state {
    char dir[MODEL_DIR_MAX];
    char *good[N_FILES];
} config_state;

static void *setup(void)
{
    config_state *state = fuzz_allocate(sizeof *state);
    model_dir_copy("a", false, state->dir);
    for (size_t i = 0; i < N_FILES; i++)
        state->good[i] = model_dir_read(state->dir, files[i], NULL);
    return state;
}

static void finish(void *user)
{
    config_state *state = user;
    model_dir_remove(state->dir);
    for (size_t i = 0; i < N_FILES; i++)
        free(state->good[i]);
    free(state);
}

// Scratch memory that only measures.
typedef struct dry_run {
    atedm_arena arena;
    atedm_stream *s;
    int64_t h, w;
} dry_run;

static void *take(dry_run *r, int64_t count)
{
    return atedm_arena_take(&r->arena, r->s, (size_t)count * sizeof(float));
}

static void run_unet(const atedm_model *m, dry_run *r)
{
    const atedm_unet_config *c = &m->config.parts.unet;
    const atedm_unet_sample sample = {.timestep = 500};
    int64_t tokens = m->context_tokens, pixels = r->h * r->w;
    atedm_unet_forward(m->unet, r->s, &r->arena,
                       &(atedm_unet_args){
                           .x = take(r, pixels * c->in_channels),
                           .context = take(r, tokens * c->cross_attention_dim),
                           .context_tokens = tokens,
                           .condition = take(r, atedm_unet_embedding_dim(m->unet)),
                           .samples = &sample,
                           .n = 1,
                           .h = r->h,
                           .w = r->w,
                           .y = take(r, pixels * c->out_channels),
                       });
    atedm_op_counts counts = atedm_stream_counts(r->s);
    atedm_stream_reset_counts(r->s);
    if (atedm_stream_sync(r->s, NULL) != ATEDM_OK)
        return;
    atedm_unet_cost cost;
    atedm_unet_cost_init(&cost, c, r->h, r->w, tokens);
    atedm_op_counts expected = atedm_unet_cost_eval(&cost, NULL, NULL);
    fuzz_expect(memcmp(&counts, &expected, sizeof counts) == 0, "the cost model is exact");
}

static void run_clip_and_vae(const atedm_model *m, dry_run *r)
{
    const int64_t ids[ATEDM_TOKENIZER_MAX_LENGTH] = {0};
    for (int i = 0; i < 2; i++) {
        const atedm_clip_config *c = &m->config.parts.clip[i];
        atedm_clip_encode(m->clip[i], r->s, &r->arena, ids, 1, m->context_tokens,
                          take(r, m->context_tokens * c->width), i ? take(r, c->projection) : NULL);
    }
    int64_t scale = atedm_model_config_scale(&m->config);
    atedm_vae_decode(m->vae, r->s, &r->arena,
                     take(r, r->h * r->w * m->config.parts.vae.latent_channels), r->h, r->w,
                     take(r, r->h * scale * r->w * scale * 3));
}

static void run_dry(const atedm_model_config *config, int64_t side)
{
    atedm_model *model = NULL;
    atedm_error err = {.message = ""};
    atedm_status status = atedm_model_open_dry(config, ATEDM_F32, ATEDM_F32, &model, &err);
    fuzz_expect(status == ATEDM_OK, "a config that is taken makes modules");
    dry_run r = {.h = side, .w = side};
    atedm_arena_init_measuring(&r.arena);
    fuzz_expect(atedm_stream_create(model->device, ATEDM_F32, &r.s, &err) == ATEDM_OK,
                "there is a stream");
    run_unet(model, &r);
    run_clip_and_vae(model, &r);
    fuzz_expect_message(atedm_stream_sync(r.s, &err), &err);
    atedm_stream_destroy(r.s);
    atedm_model_close(model);
}

static void run_estimate(const atedm_model_config *config, fuzz_rng *rng, int64_t pixels)
{
    static const char *const presets[] = {"off", "at-edm", "at-edm-a", "at-edm-d"};
    const atedm_request_limits limits = {.native_width = pixels, .native_height = pixels};
    atedm_prune_spec spec;
    atedm_request request;
    atedm_request_cost cost;
    atedm_schedule schedule;
    atedm_plan *plan = NULL;
    atedm_error err = {.message = ""};
    fuzz_expect(atedm_prune_preset(presets[fuzz_below(rng, 4)], &spec) == ATEDM_OK, "presets are");
    if (spec.enabled && fuzz_below(rng, 2)) {
        spec.flops_budget = (double)(fuzz_below(rng, 100) + 1) / 100;
        spec.ratio = 0;
    }
    atedm_request_init(&request, &limits, &spec);
    fuzz_expect_message(atedm_estimate(config, &request, &plan, &cost, &err), &err);
    atedm_plan_destroy(plan);
    int steps = 1 + (int)fuzz_below(rng, ATEDM_MAX_STEPS);
    size_t samplers;
    const atedm_sampler *sampler = atedm_samplers(&samplers);
    sampler += fuzz_below(rng, (unsigned)samplers);
    atedm_status status = atedm_schedule_make(&config->scheduler, sampler, steps, &schedule, &err);
    fuzz_expect_message(status, &err);
    for (int k = 0; k < steps && !status; k++)
        fuzz_expect(schedule.sigmas[k] > 0 && schedule.sigmas[k] < 1e300, "sigmas are numbers");
}

static bool run(void *user, fuzz_rng *rng)
{
    const config_state *state = user;
    atedm_model_config config;
    atedm_error err = {.message = ""};
    size_t which = fuzz_below(rng, N_FILES);
    fuzz_bytes damaged = fuzz_mutate_json_text(rng, state->good[which]);
    model_dir_write(state->dir, files[which], damaged.data, damaged.size);
    memset(&config, FUZZ_FILL, sizeof config);
    atedm_status status = atedm_model_config_read(state->dir, &config, &err);
    fuzz_expect_message(status, &err);
    if (status) {
        fuzz_expect(fuzz_is_untouched(&config, sizeof config), "output is untouched");
        fuzz_expect(strstr(err.message, state->dir) != NULL, "the message names the file");
    } else {
        int64_t scale = atedm_model_config_scale(&config);
        run_dry(&config, (int64_t)1 + (int64_t)fuzz_below(rng, 64));
        run_dry(&config, ATEDM_SIZE_MAX / scale);
        run_estimate(&config, rng, scale * (int64_t)(1 + fuzz_below(rng, 128)));
        run_estimate(&config, rng, ATEDM_SIZE_MAX / scale * scale);
    }
    model_dir_write(state->dir, files[which], state->good[which], strlen(state->good[which]));
    free(damaged.data);
    return !status;
}

const fuzz_target fuzz_configs = {"configs", setup, run, finish};
