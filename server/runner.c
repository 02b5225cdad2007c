// Requests in, pictures out: see runner.h.
#include "server/runner.h"

#include "core/base/clock.h"
#include "core/engine.h"
#include "core/model.h"
#include "core/png_settings.h"
#include "server/fault.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

// What the text chunks and the container of a PNG add to its pixels at most.
#define PNG_EXTRA_MAX (1u << 20)

// A request from submit to its end.
typedef struct order {
    uint64_t job;
    bool admitted;
    atedm_request request; // until it is admitted
    atedm_worker_result *result;
    double encode_s;
    atedm_status status; // of the last image that could not be encoded
    atedm_error error;
    struct order *next;
} order;

struct atedm_runner {
    atedm_device *device;
    atedm_model *model;
    atedm_engine *engine;
    atedm_runner_post_fn post;
    void *user;
    order *orders, **orders_end; // by arrival
    bool full;                   // the next order does not fit until another one leaves
    double busy_s;               // time in turns since the last evaluation was told
    uint64_t flops;              // of the engine until then
};

// ---- opening

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

static void on_evaluated(void *user, size_t images, double seconds);
static void on_stepped(void *user, uint64_t job, int step);
static void on_image(void *user, uint64_t job, int image, const atedm_request *request,
                     const atedm_plan *plan, uint8_t *take_rgb);
static void on_done(void *user, uint64_t job, const atedm_engine_report *report);
static void on_failed(void *user, uint64_t job, atedm_status status, const atedm_error *error);

static atedm_status open_engine(atedm_runner *r, const atedm_worker_options *options,
                                atedm_error *err)
{
    const atedm_engine_options engine = {.max_batch = options->max_batch,
                                         .max_requests = options->max_requests,
                                         .memory_limit = options->memory_limit};
    const atedm_engine_hooks hooks = {.evaluated = on_evaluated,
                                      .stepped = on_stepped,
                                      .image = on_image,
                                      .done = on_done,
                                      .failed = on_failed,
                                      .user = r};
    return atedm_engine_create(r->model, &engine, &hooks, &r->engine, err);
}

atedm_status atedm_runner_open(const atedm_worker_options *options, atedm_runner_post_fn post,
                               void *user, atedm_runner **ret_runner, atedm_worker_facts *ret_facts,
                               atedm_error *err)
{
    atedm_runner *r = calloc(1, sizeof *r);
    if (!r)
        return atedm_error_set(err, ATEDM_ERR_NOMEM, "no memory for a worker");
    r->post = post;
    r->user = user;
    r->orders_end = &r->orders;
    atedm_dtype dtype = ATEDM_F32;
    const char *backend = strcmp(options->backend, "auto") == 0 ? "cpu" : options->backend;
    atedm_status status = atedm_device_create(backend, &r->device, err);
    if (!status)
        status = choose_dtype(r->device, options->dtype, &dtype, err);
    if (!status)
        status = atedm_model_open(options->model, r->device, dtype, &r->model, err);
    if (!status)
        status = open_engine(r, options, err);
    if (status) {
        atedm_runner_close(r);
        return status;
    }
    *ret_facts = (atedm_worker_facts){
        .dtype = dtype,
        .storage_dtype = r->model->storage_dtype,
        .parameters = r->model->parameters,
        .file_bytes = r->model->file_bytes,
    };
    snprintf(ret_facts->device, sizeof ret_facts->device, "%s", atedm_device_name(r->device));
    snprintf(ret_facts->backend, sizeof ret_facts->backend, "%s", atedm_device_backend(r->device));
    *ret_runner = r;
    return ATEDM_OK;
}

static void free_order(order *o)
{
    atedm_request_finish(&o->request);
    atedm_worker_result_destroy(o->result);
    free(o);
}

void atedm_runner_close(atedm_runner *r)
{
    if (!r)
        return;
    atedm_engine_destroy(r->engine);
    while (r->orders) {
        order *o = r->orders;
        r->orders = o->next;
        free_order(o);
    }
    atedm_model_close(r->model);
    atedm_device_destroy(r->device);
    free(r);
}

size_t atedm_runner_device_memory(const atedm_runner *r)
{
    return atedm_engine_memory(r->engine);
}

// ---- orders

// The place that points to the job's order, or the end.
static order **find(atedm_runner *r, uint64_t job)
{
    order **place = &r->orders;
    while (*place && (*place)->job != job)
        place = &(*place)->next;
    return place;
}

static void remove_order(atedm_runner *r, order **place)
{
    order *o = *place;
    r->full = false;
    *place = o->next;
    if (!o->next)
        r->orders_end = place;
    free_order(o);
}

// The last that is heard of the job.
static void end(atedm_runner *r, uint64_t job, atedm_worker_message *message)
{
    message->job = job;
    message->device_memory = atedm_runner_device_memory(r);
    r->post(r->user, message);
    order **place = find(r, job);
    if (*place)
        remove_order(r, place);
}

static void end_failed(atedm_runner *r, uint64_t job, atedm_status status, const atedm_error *error)
{
    end(r, job,
        &(atedm_worker_message){.type = ATEDM_WORKER_ERROR, .status = status, .error = *error});
}

static atedm_worker_result *new_result(int images)
{
    atedm_worker_result *result = calloc(1, sizeof *result);
    if (!result)
        return NULL;
    result->images = calloc((size_t)images, sizeof *result->images);
    result->n_images = (size_t)images;
    if (result->images)
        return result;
    atedm_worker_result_destroy(result);
    return NULL;
}

void atedm_runner_submit(atedm_runner *r, uint64_t job, atedm_request *take_request)
{
    order *o = calloc(1, sizeof *o);
    atedm_worker_result *result = new_result(take_request->num_images);
    if (!o || !result) {
        free(o);
        atedm_worker_result_destroy(result);
        atedm_request_finish(take_request);
        end_failed(r, job, ATEDM_ERR_NOMEM, &(atedm_error){"no memory for the request"});
        return;
    }
    *o = (order){.job = job, .request = *take_request, .result = result};
    take_request->prompt = NULL;
    take_request->negative_prompt = NULL;
    *r->orders_end = o;
    r->orders_end = &o->next;
}

void atedm_runner_cancel(atedm_runner *r, uint64_t job)
{
    atedm_engine_cancel(r->engine, job);
    order **place = find(r, job);
    if (*place)
        remove_order(r, place);
}

// In order of arrival: none overtakes one that does not fit yet.
static void admit(atedm_runner *r)
{
    order *next;
    for (order *o = r->orders; o && !r->full; o = next) {
        next = o->next;
        if (o->admitted)
            continue;
        atedm_fault_strike(o->request.prompt);
        atedm_error error = {""};
        atedm_status status = atedm_engine_admit(r->engine, o->job, &o->request, &error);
        r->full = status == ATEDM_ERR_LIMIT;
        o->admitted = !r->full;
        if (status && !r->full)
            end_failed(r, o->job, status, &error);
    }
}

bool atedm_runner_turn(atedm_runner *r)
{
    admit(r);
    double start = atedm_clock_monotonic();
    bool busy = atedm_engine_turn(r->engine);
    r->busy_s += atedm_clock_monotonic() - start;
    return busy;
}

// ---- what the engine tells

static void on_evaluated(void *user, size_t images, double seconds)
{
    atedm_runner *r = user;
    uint64_t flops = atedm_engine_flops(r->engine);
    r->post(r->user, &(atedm_worker_message){.type = ATEDM_WORKER_EVALUATED,
                                             .images = images,
                                             .seconds = seconds,
                                             .busy_s = r->busy_s + seconds,
                                             .flops = flops - r->flops,
                                             .device_memory = atedm_runner_device_memory(r)});
    r->flops = flops;
    r->busy_s = -seconds; // which the turn that is not over yet will count
}

static void on_stepped(void *user, uint64_t job, int step)
{
    atedm_runner *r = user;
    r->post(r->user,
            &(atedm_worker_message){.type = ATEDM_WORKER_STEPPED, .job = job, .step = step});
}

static void on_image(void *user, uint64_t job, int image, const atedm_request *request,
                     const atedm_plan *plan, uint8_t *take_rgb)
{
    atedm_runner *r = user;
    order *o = *find(r, job);
    size_t pixels = (size_t)(request->width * request->height);
    atedm_buffer png;
    atedm_buffer_init(&png, 4 * pixels + PNG_EXTRA_MAX);
    double start = atedm_clock_monotonic();
    o->status =
        atedm_png_encode_image(take_rgb, request, plan, image, &r->model->config, r->model->dtype,
                               atedm_device_backend(r->device), &png, &o->error);
    o->encode_s += atedm_clock_monotonic() - start;
    free(take_rgb);
    if (o->status)
        atedm_buffer_finish(&png);
    else
        o->result->images[image] = (atedm_worker_image){.png = png.data, .size = png.size};
}

static void on_done(void *user, uint64_t job, const atedm_engine_report *report)
{
    atedm_runner *r = user;
    order *o = *find(r, job);
    for (size_t i = 0; i < o->result->n_images; i++)
        if (!o->result->images[i].png) {
            end_failed(r, job, o->status, &o->error);
            return;
        }
    o->result->report = *report;
    o->result->report.timing.encode_s = o->encode_s;
    atedm_worker_message message = {.type = ATEDM_WORKER_DONE, .result = o->result};
    o->result = NULL;
    end(r, job, &message);
}

static void on_failed(void *user, uint64_t job, atedm_status status, const atedm_error *error)
{
    end_failed(user, job, status, error);
}
