// Loading a model on the dry backend: see inspect_model.h.
#include "cli/inspect_model.h"

#include "core/arena.h"
#include "core/model_files.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

// A source of weights that counts the weights it passes on from another source.
typedef struct tally {
    atedm_weights base; // first: a tally is an atedm_weights
    atedm_weights *source;
    bool has_files;
    atedm_inspect_component *component;
} tally;

static atedm_status tally_get(atedm_weights *weights, const char *name, int ndim,
                              const int64_t *shape, bool optional, atedm_host_tensor *ret_tensor,
                              atedm_error *err)
{
    tally *t = (tally *)weights;
    atedm_host_tensor tensor;
    atedm_status status = t->source->get(t->source, name, ndim, shape, optional, &tensor, err);
    if (status)
        return status;
    if (tensor.ndim >= 0) { // else: optional and absent
        uint64_t count = (uint64_t)atedm_host_tensor_count(&tensor);
        t->component->parameters += count;
        if (t->has_files)
            t->component->stored[tensor.dtype] += count;
    }
    *ret_tensor = tensor;
    return ATEDM_OK;
}

static void tally_done(atedm_weights *weights, const atedm_host_tensor *tensor)
{
    tally *t = (tally *)weights;
    if (t->source->done)
        t->source->done(t->source, tensor);
}

// Makes module i on the device and destroys it again: only the weights that it asks for matter.
static atedm_status ask(const atedm_model_configs *parts, int i, atedm_device *device,
                        atedm_weights *weights, atedm_error *err)
{
    atedm_status status;
    if (i < 2) {
        atedm_clip *clip = NULL;
        status = atedm_clip_create(device, ATEDM_F32, &parts->clip[i], weights, &clip, err);
        atedm_clip_destroy(clip);
    } else if (i == 2) {
        atedm_unet *unet = NULL;
        status = atedm_unet_create(device, ATEDM_F32, &parts->unet, weights, &unet, err);
        atedm_unet_destroy(unet);
    } else {
        atedm_vae *vae = NULL;
        status = atedm_vae_create(device, ATEDM_F32, &parts->vae, weights, &vae, err);
        atedm_vae_destroy(vae);
    }
    return status;
}

static atedm_status count_from_files(const atedm_model_configs *parts, int i, const char *path,
                                     atedm_device *device, atedm_inspect_component *component,
                                     atedm_error *err)
{
    atedm_model_files files;
    atedm_weights *source = NULL;
    atedm_status status = atedm_model_files_find(path, &files, err);
    if (!status)
        status = atedm_model_files_open(&files, parts, (atedm_component)i, &source, err);
    if (status)
        return status;
    tally t = {.base = {.get = tally_get, .done = tally_done},
               .source = source,
               .has_files = true,
               .component = component};
    status = ask(parts, i, device, &t.base, err);
    if (!status)
        status = atedm_model_files_check_all_used((atedm_component)i, source, err);
    component->stored_bytes = atedm_weights_bytes(source);
    atedm_weights_close(source);
    return status;
}

static atedm_status count_from_config(const atedm_model_configs *parts, int i, atedm_device *device,
                                      atedm_inspect_component *component, atedm_error *err)
{
    atedm_recorder *recorder = NULL;
    atedm_status status = atedm_recorder_create(&recorder);
    if (status)
        return atedm_error_set(err, status, "no memory for a list of parameters");
    tally t = {.base = {.get = tally_get, .done = tally_done},
               .source = atedm_recorder_weights(recorder),
               .component = component};
    status = ask(parts, i, device, &t.base, err);
    atedm_recorder_destroy(recorder);
    return status;
}

atedm_status
atedm_inspect_components(const atedm_model_config *config, const char *dir,
                         atedm_inspect_component ret_components[ATEDM_INSPECT_COMPONENTS],
                         atedm_error *err)
{
    atedm_inspect_component components[ATEDM_INSPECT_COMPONENTS] = {{0}};
    atedm_device *device = NULL;
    atedm_status status = atedm_device_create("dry", &device, err);
    for (int i = 0; i < ATEDM_INSPECT_COMPONENTS && !status; i++) {
        components[i].name = atedm_component_name((atedm_component)i);
        status = dir ? count_from_files(&config->parts, i, dir, device, &components[i], err)
                     : count_from_config(&config->parts, i, device, &components[i], err);
    }
    atedm_device_destroy(device);
    if (!status)
        memcpy(ret_components, components, sizeof components);
    return status;
}

// ---- scratch memory

static void run_text_encoders(const atedm_model *model, atedm_stream *s, atedm_arena *arena,
                              int samples, void *operand)
{
    int64_t n = samples;
    int64_t *ids = calloc((size_t)(n * model->context_tokens), sizeof *ids);
    if (!ids) {
        atedm_stream_fail(s, ATEDM_ERR_NOMEM, "no memory for token ids");
        return;
    }
    for (int i = 0; i < 2; i++)
        atedm_clip_encode(model->clip[i], s, arena, ids, n, model->context_tokens, operand,
                          model->config.parts.clip[i].has_projection ? operand : NULL);
    free(ids);
}

// Runs every step whose ratios differ from those of the step before.
static void run_unet(const atedm_model *model, atedm_stream *s, atedm_arena *arena, int samples,
                     int64_t h, int64_t w, const atedm_plan *plan, void *operand)
{
    int steps = plan ? plan->steps : 1;
    for (int k = 0; k < steps; k++) {
        const float *rho = plan ? atedm_plan_step(plan, k) : NULL;
        if (k > 0 &&
            memcmp(rho, atedm_plan_step(plan, k - 1), (size_t)plan->n_blocks * sizeof *rho) == 0)
            continue;
        atedm_unet_sample list[2];
        for (int i = 0; i < samples; i++)
            list[i] = (atedm_unet_sample){.prune = plan ? &plan->spec : NULL, .rho = rho};
        atedm_unet_forward(model->unet, s, arena,
                           &(atedm_unet_args){.x = operand,
                                              .context = operand,
                                              .context_tokens = model->context_tokens,
                                              .condition = operand,
                                              .samples = list,
                                              .n = samples,
                                              .h = h,
                                              .w = w,
                                              .y = operand});
    }
}

atedm_status atedm_inspect_scratch_measure(const atedm_model_config *config, atedm_dtype dtype,
                                           int samples, int64_t h, int64_t w,
                                           const atedm_plan *plan,
                                           atedm_inspect_scratch *ret_scratch, atedm_error *err)
{
    atedm_model *model = NULL;
    atedm_stream *s = NULL;
    atedm_status status = atedm_model_open_dry(config, dtype, dtype, &model, err);
    if (!status)
        status = atedm_stream_create(model->device, dtype, &s, err);
    if (status)
        goto fail;
    // On the dry backend operands need addresses only.
    atedm_arena operands;
    atedm_arena arena[3];
    atedm_arena_init_measuring(&operands);
    for (int i = 0; i < 3; i++)
        atedm_arena_init_measuring(&arena[i]);
    void *operand = atedm_arena_take(&operands, s, ATEDM_DEVICE_ALIGN);
    run_text_encoders(model, s, &arena[0], samples, operand);
    run_unet(model, s, &arena[1], samples, h, w, plan, operand);
    atedm_vae_decode(model->vae, s, &arena[2], operand, h, w, operand);
    status = atedm_stream_sync(s, err);
    if (!status)
        *ret_scratch = (atedm_inspect_scratch){
            .text_encoder = arena[0].peak, .unet = arena[1].peak, .vae = arena[2].peak};
fail:
    atedm_stream_destroy(s);
    atedm_model_close(model);
    return status;
}
