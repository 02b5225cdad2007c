// Runs requests through the engine and the encoder: see runner.h.
#include "server/runner.h"

#include "core/base/clock.h"
#include "core/engine.h"
#include "core/model.h"
#include "server/encoder.h"
#include "server/fault.h"
#include "server/figures.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

// A request from submit to its end.
typedef struct order {
    uint64_t job;
    bool admitted;
    atedm_request request; // owned; the engine takes its contents when it admits the request
    atedm_worker_result *result;
    bool watched;        // the daemon wants previews
    bool previewing;     // the encoder has a preview of it
    bool drawn;          // the engine is done with it
    size_t encoded;      // images that are encoded or have failed
    double encode_s;     // seconds that encoding took
    atedm_status status; // of the last image that could not be encoded
    atedm_error error;
    struct order *next;
} order;

struct atedm_runner {
    atedm_device *device;
    atedm_model *model;
    atedm_engine *engine;
    atedm_encoder *encoder;
    atedm_figures *figures; // NULL: the device reports no figures
    atedm_runner_post_fn post;
    void *user;
    order *orders, **orders_end; // by arrival
    bool refusal_told; // atedm_runner_take_remark has returned the refusal of atedm_engine_repeats
    bool full;         // the next order does not fit into the engine until another one leaves it
    double busy_s;     // seconds spent in turns since the last message EVALUATED
    uint64_t flops;    // of the engine, up to that message
    double posted;     // when the last message was posted (monotonic clock)
};

static void tell(atedm_runner *r, atedm_worker_message *message)
{
    r->posted = atedm_clock_monotonic();
    r->post(r->user, message);
}

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
static void on_preview(void *user, uint64_t job, int step, int64_t width, int64_t height,
                       uint8_t *take_rgb);
static void on_done(void *user, uint64_t job, const atedm_engine_report *report);
static void on_failed(void *user, uint64_t job, atedm_status status, const atedm_error *error);

static atedm_status open_engine(atedm_runner *r, const atedm_worker_options *options,
                                atedm_error *err)
{
    const atedm_engine_options engine = {.max_batch = options->max_batch,
                                         .max_requests = options->max_requests,
                                         .memory_limit = options->memory_limit,
                                         .sharers = options->sharers};
    const atedm_engine_hooks hooks = {.evaluated = on_evaluated,
                                      .stepped = on_stepped,
                                      .image = on_image,
                                      .preview = on_preview,
                                      .done = on_done,
                                      .failed = on_failed,
                                      .user = r};
    return atedm_engine_create(r->model, &engine, &hooks, &r->engine, err);
}

atedm_status atedm_runner_open(const atedm_worker_options *options, atedm_runner_post_fn post,
                               atedm_runner_wake_fn wake, void *user, atedm_runner **ret_runner,
                               atedm_worker_facts *ret_facts, atedm_error *err)
{
    atedm_runner *r = calloc(1, sizeof *r);
    if (!r)
        return atedm_error_set(err, ATEDM_ERR_NOMEM, "no memory for a worker");
    r->post = post;
    r->user = user;
    r->orders_end = &r->orders;
    atedm_dtype dtype = ATEDM_F32;
    atedm_status status = atedm_device_create(atedm_backend_of(options->backend), &r->device, err);
    if (!status)
        status = choose_dtype(r->device, options->dtype, &dtype, err);
    if (!status)
        status = atedm_model_open(options->model, r->device, dtype, &r->model, err);
    if (!status)
        status = open_engine(r, options, err);
    if (!status)
        status = atedm_encoder_create(wake, user, &r->encoder, err);
    if (!status)
        status = atedm_figures_start(r->device, wake, user, &r->figures, err);
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
    const char *model = atedm_device_describe(r->device)->model;
    snprintf(ret_facts->device, sizeof ret_facts->device, "%s",
             *model ? model : atedm_device_backend(r->device));
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
    atedm_figures_stop(r->figures);
    atedm_encoder_destroy(r->encoder);
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

const char *atedm_runner_take_remark(atedm_runner *r)
{
    const char *refusal = atedm_engine_repeats(r->engine)->refusal;
    if (r->refusal_told || !*refusal)
        return NULL;
    r->refusal_told = true;
    return refusal;
}

// ---- orders

// The pointer in the list that points to the job's order, or the NULL at the list's end.
static order **find(atedm_runner *r, uint64_t job)
{
    order **place = &r->orders;
    while (*place && (*place)->job != job)
        place = &(*place)->next;
    return place;
}

// Frees the order, and removes its pictures from the encoder.
static void remove_order(atedm_runner *r, order **place)
{
    order *o = *place;
    atedm_encoder_cancel(r->encoder, o->job);
    r->full = false;
    *place = o->next;
    if (!o->next)
        r->orders_end = place;
    free_order(o);
}

// Posts the job's last message, and removes its order.
static void end(atedm_runner *r, uint64_t job, atedm_worker_message *message)
{
    message->job = job;
    message->device_memory = atedm_runner_device_memory(r);
    tell(r, message);
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

void atedm_runner_watch(atedm_runner *r, uint64_t job, bool on)
{
    order *o = *find(r, job);
    if (!o)
        return;
    o->watched = on;
    if (o->admitted)
        atedm_engine_watch(r->engine, job, on);
}

// Admits orders as they arrived. When one does not fit yet, none overtakes it.
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
        if (!status && o->watched)
            atedm_engine_watch(r->engine, o->job, true);
        if (status && !r->full)
            end_failed(r, o->job, status, &error);
    }
}

// ---- what comes back from the encoder

static void keep_image(order *o, atedm_encoding *encoding)
{
    o->encoded++;
    o->encode_s += encoding->seconds;
    if (encoding->status) {
        o->status = encoding->status;
        o->error = encoding->error;
        return;
    }
    o->result->images[encoding->number] = encoding->file;
    encoding->file = (atedm_worker_image){0};
}

static void keep_preview(atedm_runner *r, order *o, atedm_encoding *encoding)
{
    o->previewing = false;
    if (encoding->status || !o->watched)
        return;
    tell(r, &(atedm_worker_message){.type = ATEDM_WORKER_PREVIEW,
                                    .job = o->job,
                                    .step = encoding->number,
                                    .image = encoding->file});
    encoding->file = (atedm_worker_image){0};
}

static void end_if_complete(atedm_runner *r, order *o)
{
    if (!o->drawn || o->encoded < o->result->n_images)
        return;
    if (o->status) {
        end_failed(r, o->job, o->status, &o->error);
        return;
    }
    o->result->report.timing.encode_s = o->encode_s;
    atedm_worker_message message = {.type = ATEDM_WORKER_DONE, .result = o->result};
    o->result = NULL;
    end(r, o->job, &message);
}

// Every encoding that comes back still has its order, since remove_order also removes the order's
// encodings.
static void collect(atedm_runner *r)
{
    for (atedm_encoding *e; (e = atedm_encoder_take(r->encoder)); atedm_encoding_destroy(e)) {
        order *o = *find(r, e->job);
        if (e->preview) {
            keep_preview(r, o, e);
            continue;
        }
        keep_image(o, e);
        end_if_complete(r, o);
    }
}

static void tell_figures(atedm_runner *r)
{
    atedm_worker_message message = {.type = ATEDM_WORKER_FIGURES};
    if (atedm_figures_take(r->figures, &message.figures))
        tell(r, &message);
}

// A turn that only decodes pixels, or waits for the encoder, posts no message of its own.
static void tell_alive(atedm_runner *r)
{
    if (r->orders && atedm_clock_monotonic() - r->posted > ATEDM_RUNNER_ALIVE_S)
        tell(r, &(atedm_worker_message){.type = ATEDM_WORKER_ALIVE});
}

bool atedm_runner_turn(atedm_runner *r)
{
    tell_figures(r);
    collect(r);
    admit(r);
    double start = atedm_clock_monotonic();
    bool busy = atedm_engine_turn(r->engine);
    r->busy_s += atedm_clock_monotonic() - start;
    tell_alive(r);
    return busy;
}

// ---- the engine's hooks

static void on_evaluated(void *user, size_t images, double seconds)
{
    atedm_runner *r = user;
    uint64_t flops = atedm_engine_flops(r->engine);
    tell(r, &(atedm_worker_message){.type = ATEDM_WORKER_EVALUATED,
                                    .images = images,
                                    .seconds = seconds,
                                    .busy_s = r->busy_s + seconds,
                                    .flops = flops - r->flops,
                                    .device_memory = atedm_runner_device_memory(r)});
    r->flops = flops;
    r->busy_s = -seconds; // this message has them; the turn, which is not over, will add them again
}

static void on_stepped(void *user, uint64_t job, int step)
{
    atedm_runner *r = user;
    tell(r, &(atedm_worker_message){.type = ATEDM_WORKER_STEPPED, .job = job, .step = step});
}

// Writes the settings now: when the encoder gets to the picture, the request and its plan may be
// gone.
static void on_image(void *user, uint64_t job, int image, const atedm_request *request,
                     const atedm_plan *plan, uint8_t *take_rgb)
{
    atedm_runner *r = user;
    order *o = *find(r, job);
    double start = atedm_clock_monotonic();
    atedm_encoding *e = atedm_encoding_create(take_rgb, request->width, request->height);
    if (!e) {
        free(take_rgb);
        o->encoded++;
        o->status = atedm_error_set(&o->error, ATEDM_ERR_NOMEM, "no memory for a picture");
        return;
    }
    e->job = job;
    e->number = image;
    e->status = atedm_png_settings_write(request, plan, image, &r->model->config, r->model->dtype,
                                         atedm_device_backend(r->device), &e->settings, &e->error);
    e->seconds = atedm_clock_monotonic() - start;
    if (!e->status && atedm_encoder_start(r->encoder, e))
        return;
    // If the encoder is full, this thread would have to wait for it. It encodes the picture
    // instead.
    if (!e->status)
        atedm_encoding_run(e);
    keep_image(o, e);
    atedm_encoding_destroy(e);
}

// A preview can be left out: nothing waits for it, and no job fails without it.
static void on_preview(void *user, uint64_t job, int step, int64_t width, int64_t height,
                       uint8_t *take_rgb)
{
    atedm_runner *r = user;
    order *o = *find(r, job);
    atedm_encoding *e = o->previewing ? NULL : atedm_encoding_create(take_rgb, width, height);
    if (!e) {
        free(take_rgb);
        return;
    }
    e->job = job;
    e->preview = true;
    e->number = step;
    o->previewing = atedm_encoder_start(r->encoder, e);
    if (!o->previewing)
        atedm_encoding_destroy(e);
}

static void on_done(void *user, uint64_t job, const atedm_engine_report *report)
{
    atedm_runner *r = user;
    order *o = *find(r, job);
    o->drawn = true;
    o->result->report = *report;
    r->full = false; // the engine has room again, even if the encoder is not done
    end_if_complete(r, o);
}

static void on_failed(void *user, uint64_t job, atedm_status status, const atedm_error *error)
{
    end_failed(user, job, status, error);
}
