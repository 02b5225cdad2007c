// The worker as a thread of the daemon's process: see worker.h. This file has the thread and the
// two mailboxes; what the thread does with a request is engine.c's.
//
// Threads: the loop's thread owns the struct and its handle; the worker's thread ("atedm-worker")
// owns the engine, that is device, model and pipeline. They share the two mailboxes, which the
// mutex guards, and `canceled`, which is atomic because the engine looks at it between two steps.
#include "server/worker.h"

#include "server/engine.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

// A request on its way in.
typedef struct order {
    uint64_t job;
    atedm_request request;
    struct order *next;
} order;

// A message on its way out.
typedef struct letter {
    atedm_worker_message message;
    struct letter *next;
} letter;

struct atedm_worker {
    char *model, *backend, *dtype;
    uv_async_t wake; // drains `letters`
    void (*receive)(void *user, atedm_worker_message *message);
    void *user;
    pthread_t thread;
    pthread_mutex_t mutex; // guards what follows, up to `canceled`
    pthread_cond_t changed;
    order *orders, **orders_end;
    letter *letters, **letters_end;
    bool stop;
    atomic_uint_fast64_t canceled; // the job to give up; 0: none
};

void atedm_worker_result_destroy(atedm_worker_result *result)
{
    if (!result)
        return;
    for (size_t i = 0; result->images && i < result->n_images; i++)
        free(result->images[i].png);
    free(result->images);
    free(result);
}

// ---- the worker's thread

// Puts a message into the mailbox; takes its result. Where there is no memory for the letter there
// is none to go on with either.
static void post(atedm_worker *worker, const atedm_worker_message *message)
{
    letter *l = malloc(sizeof *l);
    if (!l)
        abort();
    *l = (letter){.message = *message};
    pthread_mutex_lock(&worker->mutex);
    *worker->letters_end = l;
    worker->letters_end = &l->next;
    pthread_mutex_unlock(&worker->mutex);
    uv_async_send(&worker->wake);
}

static void send_progress(void *user, uint64_t job, int step, double step_s)
{
    post(user, &(atedm_worker_message){
                   .type = ATEDM_WORKER_PROGRESS, .job = job, .step = step, .step_s = step_s});
}

static bool is_canceled(void *user, uint64_t job)
{
    atedm_worker *worker = user;
    return atomic_load(&worker->canceled) == job;
}

// The next order, or NULL when the worker is to stop.
static order *next_order(atedm_worker *worker)
{
    pthread_mutex_lock(&worker->mutex);
    while (!worker->stop && !worker->orders)
        pthread_cond_wait(&worker->changed, &worker->mutex);
    order *o = worker->stop ? NULL : worker->orders;
    if (o) {
        worker->orders = o->next;
        if (!worker->orders)
            worker->orders_end = &worker->orders;
    }
    pthread_mutex_unlock(&worker->mutex);
    return o;
}

static void work(atedm_worker *worker, atedm_engine *engine)
{
    const atedm_engine_hooks hooks = {
        .progress = send_progress, .canceled = is_canceled, .user = worker};
    for (order *o = next_order(worker); o; o = next_order(worker)) {
        atedm_worker_message message = {.type = ATEDM_WORKER_DONE, .job = o->job};
        message.status =
            atedm_engine_run(engine, o->job, &o->request, &hooks, &message.result, &message.error);
        if (message.status)
            message.type = ATEDM_WORKER_ERROR;
        message.device_memory = atedm_engine_device_memory(engine);
        atedm_request_finish(&o->request);
        free(o);
        post(worker, &message);
    }
}

static void *thread_main(void *user)
{
    atedm_worker *worker = user;
    pthread_setname_np(pthread_self(), "atedm-worker");
    atedm_engine *engine = NULL;
    atedm_worker_message message = {.type = ATEDM_WORKER_READY};
    message.status = atedm_engine_open(worker->model, worker->backend, worker->dtype, &engine,
                                       &message.facts, &message.error);
    if (message.status) {
        message.type = ATEDM_WORKER_FAILED;
        post(worker, &message);
        return NULL;
    }
    message.device_memory = atedm_engine_device_memory(engine);
    post(worker, &message);
    work(worker, engine);
    atedm_engine_close(engine);
    return NULL;
}

// ---- the loop's thread

static letter *take_letters(atedm_worker *worker)
{
    pthread_mutex_lock(&worker->mutex);
    letter *letters = worker->letters;
    worker->letters = NULL;
    worker->letters_end = &worker->letters;
    pthread_mutex_unlock(&worker->mutex);
    return letters;
}

static void on_wake(uv_async_t *async)
{
    atedm_worker *worker = async->data;
    letter *l = take_letters(worker);
    while (l) {
        letter *next = l->next;
        worker->receive(worker->user, &l->message);
        atedm_worker_result_destroy(l->message.result);
        free(l);
        l = next;
    }
}

static void free_worker(atedm_worker *worker)
{
    while (worker->orders) {
        order *o = worker->orders;
        worker->orders = o->next;
        atedm_request_finish(&o->request);
        free(o);
    }
    for (letter *l = take_letters(worker), *next; l; l = next) {
        next = l->next;
        atedm_worker_result_destroy(l->message.result);
        free(l);
    }
    pthread_mutex_destroy(&worker->mutex);
    pthread_cond_destroy(&worker->changed);
    free(worker->model);
    free(worker->backend);
    free(worker->dtype);
    free(worker);
}

static void on_closed(uv_handle_t *handle)
{
    free_worker(handle->data);
}

static atedm_worker *allocate(const atedm_worker_options *options)
{
    atedm_worker *worker = calloc(1, sizeof *worker);
    if (!worker)
        return NULL;
    pthread_mutex_init(&worker->mutex, NULL);
    pthread_cond_init(&worker->changed, NULL);
    worker->orders_end = &worker->orders;
    worker->letters_end = &worker->letters;
    worker->model = strdup(options->model);
    worker->backend = strdup(options->backend);
    worker->dtype = strdup(options->dtype);
    if (worker->model && worker->backend && worker->dtype)
        return worker;
    free_worker(worker);
    return NULL;
}

atedm_status atedm_worker_create(const atedm_worker_options *options, uv_loop_t *loop,
                                 void (*receive)(void *user, atedm_worker_message *message),
                                 void *user, atedm_worker **ret_worker, atedm_error *err)
{
    atedm_worker *worker = allocate(options);
    if (!worker)
        return atedm_error_set(err, ATEDM_ERR_NOMEM, "no memory for a worker");
    worker->receive = receive;
    worker->user = user;
    int result = uv_async_init(loop, &worker->wake, on_wake);
    if (result) {
        free_worker(worker);
        return atedm_error_set(err, ATEDM_ERR_IO, "libuv: %s", uv_strerror(result));
    }
    worker->wake.data = worker;
    result = pthread_create(&worker->thread, NULL, thread_main, worker);
    if (result) {
        uv_close((uv_handle_t *)&worker->wake, on_closed);
        return atedm_error_set(err, ATEDM_ERR_IO, "worker's thread: %s", strerror(result));
    }
    *ret_worker = worker;
    return ATEDM_OK;
}

atedm_status atedm_worker_submit(atedm_worker *worker, uint64_t job, atedm_request *take_request)
{
    order *o = malloc(sizeof *o);
    if (!o) {
        atedm_request_finish(take_request);
        return ATEDM_ERR_NOMEM;
    }
    *o = (order){.job = job, .request = *take_request};
    take_request->prompt = NULL;
    take_request->negative_prompt = NULL;
    pthread_mutex_lock(&worker->mutex);
    *worker->orders_end = o;
    worker->orders_end = &o->next;
    pthread_cond_signal(&worker->changed);
    pthread_mutex_unlock(&worker->mutex);
    return ATEDM_OK;
}

void atedm_worker_cancel(atedm_worker *worker, uint64_t job)
{
    atomic_store(&worker->canceled, job);
}

void atedm_worker_destroy(atedm_worker *worker)
{
    if (!worker)
        return;
    pthread_mutex_lock(&worker->mutex);
    worker->stop = true;
    pthread_cond_signal(&worker->changed);
    pthread_mutex_unlock(&worker->mutex);
    pthread_join(worker->thread, NULL);
    uv_close((uv_handle_t *)&worker->wake, on_closed);
}
