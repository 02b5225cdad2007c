// The worker thread: see worker.h. It owns device, model and pipeline; everything else in the
// struct is shared with the daemon's loop and guarded by `mutex`.
#include "server/worker.h"

#include "core/base/clock.h"
#include "core/png_settings.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define MAX_PNG_BYTES ((size_t)1 << 30)

struct atedm_worker {
    atedm_config config;
    void (*notify)(void *user);
    void *user;
    pthread_t thread; // "atedm-worker": owns the model; runs requests

    pthread_mutex_t mutex; // guards the following
    pthread_cond_t wake;   // signalled when a request or the end has come
    bool ending, has_request;
    uint64_t id;           // of the request that waits or runs
    bool canceled;         // that request is to stop
    atedm_request request; // while has_request
    atedm_worker_message *first, **last;
};

void atedm_worker_result_destroy(atedm_worker_result *result)
{
    if (!result)
        return;
    for (int i = 0; result->images && i < result->n_images; i++)
        free(result->images[i].data);
    free(result->images);
    free(result);
}

void atedm_worker_message_destroy(atedm_worker_message *message)
{
    if (!message)
        return;
    free(message->info);
    atedm_worker_result_destroy(message->result);
    free(message);
}

// ---- on the worker's thread
// ------------------------------------------------------------------------

// Hands the message over. One that cannot even be allocated is retried: the daemon waits for it.
static void post(atedm_worker *w, const atedm_worker_message *content)
{
    atedm_worker_message *message;
    while (!(message = malloc(sizeof *message)))
        nanosleep(&(struct timespec){.tv_nsec = 50000000}, NULL);
    *message = *content;
    message->next = NULL;
    pthread_mutex_lock(&w->mutex);
    *w->last = message;
    w->last = &message->next;
    pthread_mutex_unlock(&w->mutex);
    w->notify(w->user);
}

typedef struct worker_run {
    atedm_worker *w;
    atedm_device *device;
    atedm_model *model;
    atedm_pipeline *pipeline;
    uint64_t id;
    double step_started;
    int batch_size;
} worker_run;

static bool is_canceled(atedm_worker *w)
{
    pthread_mutex_lock(&w->mutex);
    bool canceled = w->canceled || w->ending;
    pthread_mutex_unlock(&w->mutex);
    return canceled;
}

// Called before each step and after the last.
static bool on_progress(void *user, int step, int steps)
{
    worker_run *run = user;
    double now = atedm_clock_monotonic();
    if (step > 0)
        post(run->w, &(atedm_worker_message){.kind = ATEDM_WORKER_STEP,
                                             .id = run->id,
                                             .step = step,
                                             .steps = steps,
                                             .batch_size = run->batch_size,
                                             .seconds = now - run->step_started});
    run->step_started = now;
    return !is_canceled(run->w);
}

static void count_tokens(const atedm_generation *g, const atedm_model *model,
                         const atedm_request *request, atedm_worker_result *result)
{
    atedm_unet_cost cost;
    int64_t scale = atedm_model_config_scale(&model->config);
    atedm_unet_cost_init(&cost, &model->config.parts.unet, request->height / scale,
                         request->width / scale, model->context_tokens);
    uint64_t samples = (uint64_t)request->num_images * (request->guidance_scale > 1 ? 2 : 1);
    const atedm_plan *plan = atedm_generation_plan(g);
    for (int step = 0; step < request->steps; step++)
        for (int block = 0; block < cost.n_blocks; block++) {
            uint64_t all = (uint64_t)atedm_unet_cost_tokens(&cost, block), kept = all;
            if (plan)
                kept = (uint64_t)atedm_plan_kept(plan, step, block, cost.blocks[block].layers,
                                                 (int64_t)all);
            int level = cost.blocks[block].level;
            result->tokens_kept[level] += samples * kept;
            result->tokens_pruned[level] += samples * (all - kept);
        }
}

static void describe(const atedm_generation *g, const worker_run *run, const atedm_request *request,
                     atedm_worker_result *result)
{
    const atedm_plan *plan = atedm_generation_plan(g);
    result->pruned = plan != NULL;
    if (plan) {
        result->plan_spec = plan->spec;
        result->plan_ratio = plan->ratio;
    }
    result->cost = *atedm_generation_cost(g);
    result->batch_size = run->batch_size;
    int evaluations = (request->num_images + ATEDM_PIPELINE_BATCH - 1) / ATEDM_PIPELINE_BATCH;
    result->mean_batch_size = (double)request->num_images / evaluations;
    result->encoded[0] = atedm_generation_encoded(g, 0);
    result->encoded[1] = atedm_generation_encoded(g, 1);
    count_tokens(g, run->model, request, result);
}

static atedm_status encode_images(const atedm_generation *g, const worker_run *run,
                                  const atedm_request *request, uint8_t *const *rgb,
                                  atedm_worker_result *result, atedm_error *err)
{
    double start = atedm_clock_monotonic();
    for (int i = 0; i < request->num_images; i++) {
        atedm_buffer png;
        atedm_buffer_init(&png, MAX_PNG_BYTES);
        atedm_status status = atedm_png_encode_image(rgb[i], request, atedm_generation_plan(g), i,
                                                     &run->model->config, run->model->dtype,
                                                     atedm_device_backend(run->device), &png, err);
        if (status) {
            atedm_buffer_finish(&png);
            return status;
        }
        result->images[i] = (atedm_png_image){png.data, png.size};
    }
    result->timing.encode_s = atedm_clock_monotonic() - start;
    return ATEDM_OK;
}

// Memory of a request's pictures: one block, and a pointer to each.
static uint8_t **allocate_pictures(const atedm_request *request)
{
    size_t n = (size_t)request->num_images;
    size_t bytes = 3 * (size_t)request->width * (size_t)request->height;
    uint8_t **rgb = malloc(n * sizeof *rgb + n * bytes);
    for (size_t i = 0; rgb && i < n; i++)
        rgb[i] = (uint8_t *)(rgb + n) + i * bytes;
    return rgb;
}

static atedm_status run_request(worker_run *run, const atedm_request *request,
                                atedm_worker_result **ret_result, atedm_error *err)
{
    atedm_generation *g = NULL;
    atedm_status status = ATEDM_OK;
    uint8_t **rgb = allocate_pictures(request);
    atedm_worker_result *result = calloc(1, sizeof *result);
    if (result)
        result->images = calloc((size_t)request->num_images, sizeof *result->images);
    if (!rgb || !result || !result->images) {
        status =
            atedm_error_set(err, ATEDM_ERR_NOMEM, "no memory for %d pictures", request->num_images);
        goto fail;
    }
    result->n_images = request->num_images;
    run->batch_size =
        request->num_images < ATEDM_PIPELINE_BATCH ? request->num_images : ATEDM_PIPELINE_BATCH;
    status = atedm_generation_create(run->pipeline, request, NULL, NULL, NULL, &g, err);
    if (!status)
        status = atedm_generation_run(g, on_progress, run, rgb, &result->timing, err);
    if (!status)
        status = encode_images(g, run, request, rgb, result, err);
    if (status)
        goto fail;
    describe(g, run, request, result);
    *ret_result = result;
    result = NULL;
fail:
    atedm_generation_destroy(g);
    atedm_worker_result_destroy(result);
    free(rgb);
    return status;
}

static atedm_status load(worker_run *run, atedm_error *err)
{
    const atedm_config *config = &run->w->config;
    const char *backend = strcmp(config->backend, "auto") ? config->backend : "cpu";
    atedm_status status = atedm_device_create(backend, &run->device, err);
    if (status)
        return status;
    atedm_dtype dtype = atedm_device_best_dtype(run->device);
    if (!strcmp(config->dtype, "f32"))
        dtype = ATEDM_F32;
    else if (!strcmp(config->dtype, "bf16"))
        dtype = ATEDM_BF16;
    status = atedm_model_open(config->model, run->device, dtype, &run->model, err);
    return status ? status : atedm_pipeline_create(run->model, &run->pipeline, err);
}

static void say_ready(const worker_run *run)
{
    atedm_worker_info *info = calloc(1, sizeof *info);
    if (!info) {
        post(run->w, &(atedm_worker_message){.kind = ATEDM_WORKER_LOAD_FAILED,
                                             .status = ATEDM_ERR_NOMEM,
                                             .error = {"no memory"}});
        return;
    }
    info->config = run->model->config;
    snprintf(info->backend, sizeof info->backend, "%s", atedm_device_backend(run->device));
    snprintf(info->device, sizeof info->device, "%s", atedm_device_name(run->device));
    info->dtype = run->model->dtype;
    info->storage_dtype = run->model->storage_dtype;
    info->parameters = run->model->parameters;
    info->file_bytes = run->model->file_bytes;
    post(run->w,
         &(atedm_worker_message){.kind = ATEDM_WORKER_READY,
                                 .info = info,
                                 .device_memory = atedm_pipeline_device_memory(run->pipeline)});
}

// Waits for a request; false when the worker is to end.
static bool next_request(atedm_worker *w, atedm_request *ret_request, uint64_t *ret_id)
{
    pthread_mutex_lock(&w->mutex);
    while (!w->has_request && !w->ending)
        pthread_cond_wait(&w->wake, &w->mutex);
    bool go_on = !w->ending;
    if (go_on) {
        *ret_request = w->request;
        *ret_id = w->id;
        w->request = (atedm_request){0};
        w->has_request = false;
    }
    pthread_mutex_unlock(&w->mutex);
    return go_on;
}

static void serve_requests(worker_run *run)
{
    atedm_request request;
    while (next_request(run->w, &request, &run->id)) {
        atedm_worker_message message = {.id = run->id};
        message.status = run_request(run, &request, &message.result, &message.error);
        message.kind = message.status ? ATEDM_WORKER_FAILED : ATEDM_WORKER_DONE;
        message.device_memory = atedm_pipeline_device_memory(run->pipeline);
        atedm_request_finish(&request);
        post(run->w, &message);
    }
}

static void *thread_main(void *argument)
{
    worker_run run = {.w = argument};
    pthread_setname_np(pthread_self(), "atedm-worker");
    atedm_worker_message failure = {.kind = ATEDM_WORKER_LOAD_FAILED};
    failure.status = load(&run, &failure.error);
    if (failure.status) {
        post(run.w, &failure);
    } else {
        say_ready(&run);
        serve_requests(&run);
    }
    atedm_pipeline_destroy(run.pipeline);
    atedm_model_close(run.model);
    atedm_device_destroy(run.device);
    return NULL;
}

// ---- on the daemon's thread
// ------------------------------------------------------------------------

atedm_status atedm_worker_create(const atedm_config *config, void (*notify)(void *user), void *user,
                                 atedm_worker **ret_worker, atedm_error *err)
{
    atedm_worker *w = calloc(1, sizeof *w);
    if (!w)
        return atedm_error_set(err, ATEDM_ERR_NOMEM, "no memory for a worker");
    w->config = *config;
    w->notify = notify;
    w->user = user;
    w->last = &w->first;
    pthread_mutex_init(&w->mutex, NULL);
    pthread_cond_init(&w->wake, NULL);
    int error = pthread_create(&w->thread, NULL, thread_main, w);
    if (error) {
        pthread_cond_destroy(&w->wake);
        pthread_mutex_destroy(&w->mutex);
        free(w);
        return atedm_error_set(err, ATEDM_ERR_NOMEM, "cannot start the worker thread: %s",
                               strerror(error));
    }
    *ret_worker = w;
    return ATEDM_OK;
}

void atedm_worker_destroy(atedm_worker *w)
{
    if (!w)
        return;
    pthread_mutex_lock(&w->mutex);
    w->ending = true;
    pthread_cond_signal(&w->wake);
    pthread_mutex_unlock(&w->mutex);
    pthread_join(w->thread, NULL);
    atedm_worker_message *message = w->first;
    while (message) {
        atedm_worker_message *next = message->next;
        atedm_worker_message_destroy(message);
        message = next;
    }
    atedm_request_finish(&w->request);
    pthread_cond_destroy(&w->wake);
    pthread_mutex_destroy(&w->mutex);
    free(w);
}

void atedm_worker_submit(atedm_worker *w, uint64_t id, atedm_request *take_request)
{
    pthread_mutex_lock(&w->mutex);
    w->request = *take_request;
    w->id = id;
    w->has_request = true;
    w->canceled = false;
    pthread_cond_signal(&w->wake);
    pthread_mutex_unlock(&w->mutex);
    *take_request = (atedm_request){0};
}

void atedm_worker_cancel(atedm_worker *w, uint64_t id)
{
    pthread_mutex_lock(&w->mutex);
    if (w->id == id)
        w->canceled = true;
    pthread_mutex_unlock(&w->mutex);
}

atedm_worker_message *atedm_worker_take_messages(atedm_worker *w)
{
    pthread_mutex_lock(&w->mutex);
    atedm_worker_message *first = w->first;
    w->first = NULL;
    w->last = &w->first;
    pthread_mutex_unlock(&w->mutex);
    return first;
}
