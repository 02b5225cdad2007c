// Runs requests on a model: see engine.h.
#include "server/engine.h"

#include "core/base/clock.h"
#include "core/model.h"
#include "core/png_settings.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

// What the text chunks and the container of a PNG add to its pixels at most.
#define PNG_EXTRA_MAX (1u << 20)

struct atedm_engine {
    atedm_device *device;
    atedm_model *model;
    atedm_pipeline *pipeline;
};

static atedm_status choose_dtype(const atedm_device *device, const char *name,
                                 atedm_dtype *ret_dtype, atedm_error *err)
{
    static const atedm_dtype dtypes[] = {ATEDM_F32, ATEDM_BF16, ATEDM_F16};
    if (strcmp(name, "auto") == 0) {
        *ret_dtype = atedm_device_best_dtype(device);
        return ATEDM_OK;
    }
    for (size_t i = 0; i < sizeof dtypes / sizeof *dtypes; i++) {
        if (strcmp(name, atedm_dtype_name(dtypes[i])) == 0 &&
            atedm_device_supports(device, dtypes[i])) {
            *ret_dtype = dtypes[i];
            return ATEDM_OK;
        }
    }
    return atedm_error_set(err, ATEDM_ERR_UNSUPPORTED, "backend %s has no %s on this machine",
                           atedm_device_backend(device), name);
}

atedm_status atedm_engine_open(const char *model, const char *backend, const char *dtype_name,
                               atedm_engine **ret_engine, atedm_worker_facts *ret_facts,
                               atedm_error *err)
{
    atedm_engine *engine = calloc(1, sizeof *engine);
    if (!engine)
        return atedm_error_set(err, ATEDM_ERR_NOMEM, "no memory for an engine");
    atedm_dtype dtype = ATEDM_F32;
    const char *name = strcmp(backend, "auto") == 0 ? "cpu" : backend;
    atedm_status status = atedm_device_create(name, &engine->device, err);
    if (!status)
        status = choose_dtype(engine->device, dtype_name, &dtype, err);
    if (!status)
        status = atedm_model_open(model, engine->device, dtype, &engine->model, err);
    if (!status)
        status = atedm_pipeline_create(engine->model, &engine->pipeline, err);
    if (status) {
        atedm_engine_close(engine);
        return status;
    }
    *ret_facts = (atedm_worker_facts){
        .dtype = dtype,
        .storage_dtype = engine->model->storage_dtype,
        .parameters = engine->model->parameters,
        .file_bytes = engine->model->file_bytes,
    };
    snprintf(ret_facts->device, sizeof ret_facts->device, "%s", atedm_device_name(engine->device));
    snprintf(ret_facts->backend, sizeof ret_facts->backend, "%s",
             atedm_device_backend(engine->device));
    *ret_engine = engine;
    return ATEDM_OK;
}

void atedm_engine_close(atedm_engine *engine)
{
    if (!engine)
        return;
    atedm_pipeline_destroy(engine->pipeline);
    atedm_model_close(engine->model);
    atedm_device_destroy(engine->device);
    free(engine);
}

size_t atedm_engine_device_memory(const atedm_engine *engine)
{
    return atedm_pipeline_device_memory(engine->pipeline);
}

// ---- one request

typedef struct run {
    atedm_engine *engine;
    uint64_t job;
    const atedm_request *request;
    const atedm_engine_hooks *hooks;
    atedm_generation *generation;
    atedm_worker_result *result;
    uint8_t *rgb; // of one image
} run;

static atedm_status check_canceled(const run *r, atedm_error *err)
{
    if (r->hooks->canceled(r->hooks->user, r->job))
        return atedm_error_set(err, ATEDM_ERR_CANCELED, "canceled");
    return ATEDM_OK;
}

static atedm_status prepare(run *r, atedm_error *err)
{
    size_t images = (size_t)r->request->num_images;
    r->result = calloc(1, sizeof *r->result);
    r->rgb = malloc(3 * (size_t)(r->request->width * r->request->height));
    if (r->result)
        r->result->images = calloc(images, sizeof *r->result->images);
    if (!r->rgb || !r->result || !r->result->images)
        return atedm_error_set(err, ATEDM_ERR_NOMEM, "no memory for %zu images", images);
    r->result->n_images = images;
    return atedm_generation_create(r->engine->pipeline, r->request, NULL, NULL, NULL,
                                   &r->generation, err);
}

static atedm_status encode_prompt(run *r, atedm_error *err)
{
    double start = atedm_clock_monotonic();
    atedm_status status = atedm_generation_encode(r->generation, err);
    r->result->timing.text_encoder_s = atedm_clock_monotonic() - start;
    return status;
}

static atedm_status denoise(run *r, atedm_error *err)
{
    atedm_timing *timing = &r->result->timing;
    int images = r->request->num_images;
    for (int k = 0; k < r->request->steps; k++) {
        atedm_status status = check_canceled(r, err);
        double start = atedm_clock_monotonic();
        if (!status)
            status = atedm_generation_step(r->generation, err);
        if (status)
            return status;
        timing->steps_s[k] = atedm_clock_monotonic() - start;
        timing->denoise_s += timing->steps_s[k];
        r->result->evaluations[ATEDM_PIPELINE_BATCH] += (uint64_t)(images / ATEDM_PIPELINE_BATCH);
        if (images % ATEDM_PIPELINE_BATCH)
            r->result->evaluations[images % ATEDM_PIPELINE_BATCH]++;
        r->hooks->progress(r->hooks->user, r->job, k + 1, timing->steps_s[k]);
    }
    return ATEDM_OK;
}

static atedm_status encode_png(run *r, int image, atedm_error *err)
{
    const atedm_model *model = r->engine->model;
    size_t pixels = (size_t)(r->request->width * r->request->height);
    atedm_buffer png;
    atedm_buffer_init(&png, 4 * pixels + PNG_EXTRA_MAX);
    atedm_status status = atedm_png_encode_image(
        r->rgb, r->request, atedm_generation_plan(r->generation), image, &model->config,
        model->dtype, atedm_device_backend(r->engine->device), &png, err);
    if (status) {
        atedm_buffer_finish(&png);
        return status;
    }
    r->result->images[image] = (atedm_worker_image){.png = png.data, .size = png.size};
    return ATEDM_OK;
}

static atedm_status decode(run *r, atedm_error *err)
{
    atedm_timing *timing = &r->result->timing;
    for (int i = 0; i < r->request->num_images; i++) {
        atedm_status status = check_canceled(r, err);
        double start = atedm_clock_monotonic();
        if (!status)
            status = atedm_generation_decode(r->generation, i, r->rgb, err);
        double decoded = atedm_clock_monotonic();
        if (!status)
            status = encode_png(r, i, err);
        if (status)
            return status;
        timing->vae_s += decoded - start;
        timing->encode_s += atedm_clock_monotonic() - decoded;
    }
    return ATEDM_OK;
}

atedm_status atedm_engine_run(atedm_engine *engine, uint64_t job, const atedm_request *request,
                              const atedm_engine_hooks *hooks, atedm_worker_result **ret_result,
                              atedm_error *err)
{
    run r = {.engine = engine, .job = job, .request = request, .hooks = hooks};
    atedm_status status = check_canceled(&r, err);
    if (!status)
        status = prepare(&r, err);
    if (!status)
        status = encode_prompt(&r, err);
    if (!status)
        status = denoise(&r, err);
    if (!status)
        status = decode(&r, err);
    if (!status) {
        atedm_generation_counts(r.generation, r.result->counts);
        for (int which = 0; which < 2; which++)
            r.result->encoded[which] = atedm_generation_encoded(r.generation, which);
    }
    atedm_generation_destroy(r.generation);
    free(r.rgb);
    if (status) {
        atedm_worker_result_destroy(r.result);
        return status;
    }
    *ret_result = r.result;
    return ATEDM_OK;
}
