// Holds single stages against diffusers: one UNet evaluation (two samples with timesteps of their
// own) and one VAE decode, with the golden's inputs. `stages --data DIR [--backend NAME]`.
#include "compare.h"

#include "core/pipeline.h"
#include "core/safetensors.h"

#include <getopt.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MAX_RELATIVE_L2 1e-4

typedef struct stage_run {
    atedm_device *device;
    atedm_model *model;
    atedm_stream *s;
    atedm_arena arena; // inputs, outputs and scratch
    const atedm_safetensors *golden;
} stage_run;

static const atedm_host_tensor *find(const stage_run *r, const char *name)
{
    const atedm_host_tensor *t = atedm_safetensors_find(r->golden, name);
    if (!t) {
        printf("the golden lacks %s\n", name);
        exit(1);
    }
    return t;
}

// A golden tensor on the device; [n, c, h, w] becomes [n, h, w, c].
static float *put(const stage_run *r, const atedm_host_tensor *t)
{
    size_t count = (size_t)atedm_host_tensor_count(t);
    float *host = malloc(count * sizeof *host), *planar = malloc(count * sizeof *planar);
    float *device = atedm_arena_take((atedm_arena *)&r->arena, r->s, count * sizeof *device);
    memcpy(planar, t->data, count * sizeof *planar);
    if (t->ndim == 4) {
        int64_t c = t->shape[1], pixels = t->shape[2] * t->shape[3];
        for (int64_t i = 0; i < (int64_t)count; i++)
            host[(i / (c * pixels) * pixels + i % pixels) * c + i / pixels % c] = planar[i];
    } else {
        memcpy(host, planar, count * sizeof *host);
    }
    atedm_upload(r->s, host, device, count * sizeof *host);
    if (!atedm_stream_wait(r->s))
        printf("upload failed\n");
    free(host);
    free(planar);
    return device;
}

// Whether the device's NHWC tensor is the golden's NCHW one.
static int check(const stage_run *r, const char *label, const float *device,
                 const atedm_host_tensor *t)
{
    size_t count = (size_t)atedm_host_tensor_count(t);
    float *ours = malloc(count * sizeof *ours), *planar = malloc(count * sizeof *planar);
    float *golden = malloc(count * sizeof *golden);
    atedm_error err = {0};
    atedm_download(r->s, device, ours, count * sizeof *ours);
    int bad = 1;
    if (atedm_stream_sync(r->s, &err)) {
        printf("not ok %s: %s\n", label, err.message);
        goto fail;
    }
    int64_t c = t->shape[1], pixels = t->shape[2] * t->shape[3];
    for (int64_t i = 0; i < (int64_t)count; i++)
        planar[i] = ours[(i / (c * pixels) * pixels + i % pixels) * c + i / pixels % c];
    memcpy(golden, t->data, count * sizeof *golden);
    double error = compare_relative_l2(planar, golden, count);
    bad = !(error <= MAX_RELATIVE_L2);
    printf("%s %s: relative L2 %.2g\n", bad ? "not ok" : "ok", label, error);
fail:
    free(ours);
    free(planar);
    free(golden);
    return bad;
}

static int check_unet(stage_run *r, const char *label)
{
    const atedm_host_tensor *sample = find(r, "sample"), *ids = find(r, "time_ids");
    const atedm_host_tensor *context = find(r, "encoder_hidden_states");
    int64_t n = sample->shape[0];
    float steps[8], small[8 * ATEDM_UNET_TIME_IDS];
    double time_ids[8 * ATEDM_UNET_TIME_IDS];
    atedm_unet_sample samples[8];
    memcpy(steps, find(r, "timestep")->data, (size_t)n * sizeof *steps);
    memcpy(small, ids->data, (size_t)(n * ATEDM_UNET_TIME_IDS) * sizeof *small);
    for (int64_t i = 0; i < n * ATEDM_UNET_TIME_IDS; i++)
        time_ids[i] = (double)small[i];
    for (int64_t i = 0; i < n; i++)
        samples[i] = (atedm_unet_sample){.timestep = (double)steps[i]};
    size_t width = (size_t)atedm_unet_embedding_dim(r->model->unet);
    float *condition = atedm_arena_take(&r->arena, r->s, (size_t)n * width * sizeof *condition);
    float *y =
        atedm_arena_take(&r->arena, r->s, (size_t)atedm_host_tensor_count(sample) * sizeof *y);
    atedm_unet_embed_condition(r->model->unet, r->s, &r->arena, put(r, find(r, "text_embeds")),
                               time_ids, n, condition);
    atedm_unet_forward(r->model->unet, r->s, &r->arena,
                       &(atedm_unet_args){.x = put(r, sample),
                                          .context = put(r, context),
                                          .context_tokens = context->shape[1],
                                          .condition = condition,
                                          .samples = samples,
                                          .n = n,
                                          .h = sample->shape[2],
                                          .w = sample->shape[3],
                                          .y = y});
    return check(r, label, y, find(r, "noise_pred"));
}

static int check_vae(stage_run *r, const char *label)
{
    const atedm_host_tensor *latent = find(r, "latent"), *image = find(r, "image");
    // The golden's latent is divided by the scaling factor already; the decoder does that itself.
    size_t count = (size_t)atedm_host_tensor_count(latent);
    float *x = put(r, latent), *host = malloc(count * sizeof *host);
    atedm_download(r->s, x, host, count * sizeof *host);
    int bad = !atedm_stream_wait(r->s);
    for (size_t i = 0; i < count; i++)
        host[i] *= (float)r->model->config.parts.vae.scaling_factor;
    atedm_upload(r->s, host, x, count * sizeof *host);
    float *y =
        atedm_arena_take(&r->arena, r->s, (size_t)atedm_host_tensor_count(image) * sizeof *y);
    atedm_vae_decode(r->model->vae, r->s, &r->arena, x, latent->shape[2], latent->shape[3], y);
    bad |= check(r, label, y, image);
    free(host);
    return bad;
}

static int run_stage(stage_run *r, const char *data, const char *model, const char *stage,
                     int (*run)(stage_run *, const char *))
{
    char path[PATH_MAX], label[64];
    atedm_error err;
    atedm_safetensors *golden;
    snprintf(path, sizeof path, "%s/stages/%s-%s.safetensors", data, model, stage);
    snprintf(label, sizeof label, "%s %s", model, stage);
    if (atedm_safetensors_open(path, &golden, &err)) {
        printf("not ok %s: %s\n", label, err.message);
        return 1;
    }
    r->golden = golden;
    size_t mark = atedm_arena_mark(&r->arena);
    int bad = run(r, label);
    atedm_arena_release(&r->arena, mark);
    atedm_safetensors_close(golden);
    return bad;
}

static int run_model(stage_run *r, const char *data, const char *model)
{
    char path[PATH_MAX];
    atedm_error err;
    snprintf(path, sizeof path, "%s/models/%s", data, model);
    if (atedm_model_open(path, r->device, ATEDM_F32, &r->model, &err)) {
        printf("not ok %s: %s\n", model, err.message);
        return 2;
    }
    int bad = run_stage(r, data, model, "unet", check_unet);
    bad += run_stage(r, data, model, "vae", check_vae);
    atedm_model_close(r->model);
    return bad;
}

int main(int argc, char **argv)
{
    static const struct option options[] = {{"data", required_argument, NULL, 'd'},
                                            {"backend", required_argument, NULL, 'b'},
                                            {NULL, 0, NULL, 0}};
    static const char *const models[] = {"a", "b", "c"};
    const char *data = NULL, *backend = "ref";
    for (int c; (c = getopt_long(argc, argv, "", options, NULL)) != -1;) {
        if (c == 'd')
            data = optarg;
        else if (c == 'b')
            backend = optarg;
        else
            return 2;
    }
    stage_run r = {0};
    atedm_error err;
    if (!data || atedm_device_create(backend, &r.device, &err) ||
        atedm_stream_create(r.device, ATEDM_F32, &r.s, &err) ||
        atedm_arena_init(&r.arena, r.device, (size_t)256 << 20, &err))
        return 2;
    int failed = 0;
    for (size_t i = 0; i < sizeof models / sizeof *models; i++)
        failed += run_model(&r, data, models[i]);
    printf("%d passed, %d failed\n", 6 - failed, failed);
    atedm_arena_finish(&r.arena);
    atedm_stream_destroy(r.s);
    atedm_device_destroy(r.device);
    return failed != 0;
}
