// The store's thread, and the lists of operations to and from it: see store.h. store_sql.c works on
// the file.
#include "server/store.h"

#include "core/base/clock.h"
#include "server/store_sql.h"

#include <math.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <time.h>

// Most operations of one transaction.
#define BATCH_MAX 64
// If wall clock and time since boot diverge by more than this many seconds between two looks, the
// wall clock was set.
#define CLOCK_JUMP_S 10

typedef enum operation_type {
    ADD,
    SET_TRIES,
    END,
    GET,
    FIND_KEY,
    LIST,
    PENDING,
    REMOVE,
    EXPIRE
} operation_type;

// An operation on its way to the thread, or back with its result.
typedef struct operation {
    operation_type type;
    atedm_store_job job; // SET_TRIES: id, tries; END: id, state, ended, answer, n_images; GET,
                         // REMOVE: id; FIND_KEY: owner, key; LIST: owner
    const atedm_worker_image *images; // END
    int image;                        // GET
    int state;                        // LIST, like the two members below
    int64_t before;
    size_t limit;
    atedm_store_result result;
    atedm_store_done done;
    void *user;
    struct operation *next;
} operation;

typedef struct list {
    operation *first, **end;
} list;

struct atedm_store {
    uv_async_t wake; // wakes the loop when operations are done
    pthread_t thread;
    atedm_store_file *file;          // used only by the thread, like the two members below
    int64_t offset;                  // Unix time minus seconds since boot, at the last look
    int64_t ahead;                   // seconds by which the clock was set forward
    pthread_mutex_t mutex;           // guards the members below
    pthread_cond_t changed, settled; // both use the monotonic clock
    list todo, done;
    size_t waiting; // bytes of the operations in `todo`
    bool working;   // the thread has operations that are in neither list
    int64_t retention_s, retention_bytes;
    bool closing;
};

// ---- jobs and results

void atedm_store_job_finish(atedm_store_job *job)
{
    if (!job)
        return;
    const char *const texts[] = {job->owner, job->key, job->sent, job->request, job->answer};
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++)
        free((void *)(uintptr_t)texts[i]);
    *job = (atedm_store_job){.id = ""};
}

static char *copy(const char *text, bool *lost)
{
    char *result = text ? strdup(text) : NULL;
    *lost |= text && !result;
    return result;
}

atedm_status atedm_store_job_copy(const atedm_store_job *job, atedm_store_job *ret_copy)
{
    bool lost = false;
    *ret_copy = *job;
    ret_copy->owner = copy(job->owner, &lost);
    ret_copy->key = copy(job->key, &lost);
    ret_copy->sent = copy(job->sent, &lost);
    ret_copy->request = copy(job->request, &lost);
    ret_copy->answer = copy(job->answer, &lost);
    if (lost)
        atedm_store_job_finish(ret_copy);
    return lost ? ATEDM_ERR_NOMEM : ATEDM_OK;
}

static void clear_result(atedm_store_result *result)
{
    for (size_t i = 0; i < result->n_jobs; i++)
        atedm_store_job_finish(&result->jobs[i]);
    for (size_t i = 0; i < result->n_images; i++)
        free(result->images[i].png);
    free(result->jobs);
    free(result->images);
    *result = (atedm_store_result){.status = ATEDM_OK};
}

static void free_operation(operation *o)
{
    atedm_store_job_finish(&o->job);
    clear_result(&o->result);
    free(o);
}

// ---- the thread

static void append(list *l, operation *o)
{
    o->next = NULL;
    *l->end = o;
    l->end = &o->next;
}

static operation *take_all(list *l)
{
    operation *first = l->first;
    l->first = NULL;
    l->end = &l->first;
    return first;
}

static int64_t clock_offset(void)
{
    struct timespec since_start;
    clock_gettime(CLOCK_BOOTTIME, &since_start);
    return atedm_clock_unix() - since_start.tv_sec;
}

// The time by which jobs age. If the clock is set forward, rightly or not, jobs must not suddenly
// be that much older, so the jump is subtracted. Setting the clock back undoes this.
static int64_t steady_time(atedm_store *store)
{
    int64_t offset = clock_offset(), jump = offset - store->offset;
    store->offset = offset;
    if (jump > CLOCK_JUMP_S || jump < -CLOCK_JUMP_S)
        store->ahead = store->ahead + jump > 0 ? store->ahead + jump : 0;
    return atedm_clock_unix() - store->ahead;
}

static atedm_status expire(atedm_store *store, const char *spare, atedm_store_result *result)
{
    pthread_mutex_lock(&store->mutex);
    int64_t seconds = store->retention_s, bytes = store->retention_bytes;
    pthread_mutex_unlock(&store->mutex);
    return atedm_store_file_expire(store->file, steady_time(store) - seconds, bytes, spare, result);
}

static atedm_status perform(atedm_store *store, operation *o)
{
    atedm_store_file *file = store->file;
    atedm_status status = ATEDM_ERR_INVALID;
    switch (o->type) {
    case ADD:
        return atedm_store_file_add(file, &o->job, &o->result.error);
    case SET_TRIES:
        return atedm_store_file_set_tries(file, o->job.id, o->job.tries, &o->result.error);
    case END:
        status = atedm_store_file_end(file, &o->job, o->images, &o->result);
        return status ? status : expire(store, o->job.id, &o->result);
    case GET:
        return atedm_store_file_get(file, o->job.id, o->image, &o->result);
    case FIND_KEY:
        return atedm_store_file_find_key(file, o->job.owner, o->job.key, &o->result);
    case LIST:
        return atedm_store_file_list(file, o->job.owner, o->state, o->before, o->limit, &o->result);
    case PENDING:
        return atedm_store_file_pending(file, &o->result);
    case REMOVE:
        return atedm_store_file_remove(file, o->job.id, &o->result);
    case EXPIRE:
        return expire(store, "", &o->result);
    }
    return status;
}

// Performs `count` operations from `first` on in one transaction. False: none of them had an
// effect. The error is in the result of the operation that failed, or of the first one.
static bool transact(atedm_store *store, operation *first, int count)
{
    operation *hit = first;
    atedm_status status = atedm_store_file_begin(store->file, &first->result.error);
    for (operation *o = first; count-- && !status; o = o->next) {
        clear_result(&o->result);
        status = perform(store, o);
        hit = o;
    }
    if (!status)
        status = atedm_store_file_commit(store->file, &hit->result.error);
    if (!status)
        return true;
    atedm_store_file_rollback(store->file);
    atedm_error error = hit->result.error;
    clear_result(&hit->result);
    hit->result.status = status;
    hit->result.error = error;
    return false;
}

// Performs operations together. If that fails, performs each one alone, so that none fails because
// of another.
static void perform_batch(atedm_store *store, operation *first, int count)
{
    if (transact(store, first, count) || count == 1)
        return;
    for (operation *o = first; count--; o = o->next) {
        if (!transact(store, o, 1))
            continue; // the operation's result has the error
    }
}

static size_t bytes_of(const operation *o)
{
    const char *const texts[] = {o->job.owner, o->job.key, o->job.sent, o->job.request,
                                 o->job.answer};
    size_t bytes = sizeof *o;
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++)
        bytes += texts[i] ? strlen(texts[i]) + 1 : 0;
    return bytes;
}

// Whether the operation reads megabytes. They stay in memory until the end of the transaction, so
// such an operation is the last of its transaction.
static bool is_large(const operation *o)
{
    return o->type == GET && o->image != ATEDM_STORE_NO_IMAGES;
}

static void *store_main(void *user)
{
    atedm_store *store = user;
    prctl(PR_SET_NAME, "atedm-store");
    pthread_mutex_lock(&store->mutex);
    while (store->todo.first || !store->closing) {
        if (!store->todo.first) {
            pthread_cond_wait(&store->changed, &store->mutex);
            continue;
        }
        int count = 1;
        operation *first = store->todo.first, *last = first;
        store->waiting -= bytes_of(first);
        for (; last->next && count < BATCH_MAX && !is_large(last); count++) {
            last = last->next;
            store->waiting -= bytes_of(last);
        }
        store->todo.first = last->next;
        if (!last->next)
            store->todo.end = &store->todo.first;
        last->next = NULL;
        store->working = true;
        pthread_mutex_unlock(&store->mutex);
        perform_batch(store, first, count);
        pthread_mutex_lock(&store->mutex);
        store->working = false;
        pthread_cond_signal(&store->settled);
        *store->done.end = first;
        store->done.end = &last->next;
        uv_async_send(&store->wake);
    }
    pthread_mutex_unlock(&store->mutex);
    return NULL;
}

// ---- the loop's side

static void deliver(atedm_store *store)
{
    pthread_mutex_lock(&store->mutex);
    operation *o = take_all(&store->done);
    pthread_mutex_unlock(&store->mutex);
    while (o) {
        operation *next = o->next;
        if (o->done)
            o->done(o->user, &o->result);
        free_operation(o);
        o = next;
    }
}

static void on_wake(uv_async_t *wake)
{
    deliver(wake->data);
}

// Whether the limit on waiting bytes applies. Ends and tries must not be lost, and there are only
// as many as jobs.
static bool is_a_client_s(const operation *o)
{
    return o->type != END && o->type != SET_TRIES;
}

static atedm_status hand_over(atedm_store *store, const operation *what)
{
    operation *o = malloc(sizeof *o);
    if (!o)
        return ATEDM_ERR_NOMEM;
    *o = *what;
    if (atedm_store_job_copy(&what->job, &o->job)) {
        free(o);
        return ATEDM_ERR_NOMEM;
    }
    atedm_status status = ATEDM_OK;
    size_t bytes = bytes_of(o);
    pthread_mutex_lock(&store->mutex);
    if (store->closing) // the thread may have ended by now
        status = ATEDM_ERR_CANCELED;
    else if (is_a_client_s(o) && store->waiting + bytes > ATEDM_STORE_WAITING_MAX)
        status = ATEDM_ERR_LIMIT;
    if (!status) {
        store->waiting += bytes;
        append(&store->todo, o);
        pthread_cond_signal(&store->changed);
    }
    pthread_mutex_unlock(&store->mutex);
    if (status)
        free_operation(o);
    return status;
}

atedm_status atedm_store_add(atedm_store *store, const atedm_store_job *job, atedm_store_done done,
                             void *user)
{
    return hand_over(store, &(operation){.type = ADD, .job = *job, .done = done, .user = user});
}

static operation about(operation_type type, const char *id, atedm_store_done done, void *user)
{
    operation o = {.type = type, .done = done, .user = user};
    snprintf(o.job.id, sizeof o.job.id, "%s", id);
    return o;
}

void atedm_store_set_tries(atedm_store *store, const char *id, int tries)
{
    operation o = about(SET_TRIES, id, NULL, NULL);
    o.job.tries = tries;
    if (hand_over(store, &o))
        return; // the same as if it could not be written
}

atedm_status atedm_store_end(atedm_store *store, const char *id, atedm_store_state state,
                             const char *answer, const atedm_worker_image *images, size_t n_images,
                             atedm_store_done done, void *user)
{
    operation o = about(END, id, done, user);
    o.job.state = state;
    o.job.ended = atedm_clock_unix();
    o.job.answer = answer;
    o.job.n_images = n_images;
    o.images = images;
    return hand_over(store, &o);
}

atedm_status atedm_store_get(atedm_store *store, const char *id, int image, atedm_store_done done,
                             void *user)
{
    operation o = about(GET, id, done, user);
    o.image = image;
    return hand_over(store, &o);
}

atedm_status atedm_store_find_key(atedm_store *store, const char *owner, const char *key,
                                  atedm_store_done done, void *user)
{
    return hand_over(store, &(operation){.type = FIND_KEY,
                                         .job = {.owner = owner, .key = key},
                                         .done = done,
                                         .user = user});
}

atedm_status atedm_store_list(atedm_store *store, const char *owner, int state, int64_t before,
                              size_t limit, atedm_store_done done, void *user)
{
    return hand_over(store, &(operation){.type = LIST,
                                         .job.owner = owner,
                                         .state = state,
                                         .before = before,
                                         .limit = limit,
                                         .done = done,
                                         .user = user});
}

atedm_status atedm_store_pending(atedm_store *store, atedm_store_done done, void *user)
{
    return hand_over(store, &(operation){.type = PENDING, .done = done, .user = user});
}

atedm_status atedm_store_remove(atedm_store *store, const char *id, atedm_store_done done,
                                void *user)
{
    operation o = about(REMOVE, id, done, user);
    return hand_over(store, &o);
}

atedm_status atedm_store_expire(atedm_store *store, atedm_store_done done, void *user)
{
    return hand_over(store, &(operation){.type = EXPIRE, .done = done, .user = user});
}

void atedm_store_set_retention(atedm_store *store, int64_t retention_s, int64_t retention_bytes)
{
    pthread_mutex_lock(&store->mutex);
    store->retention_s = retention_s;
    store->retention_bytes = retention_bytes;
    pthread_mutex_unlock(&store->mutex);
}

void atedm_store_settle(atedm_store *store, double seconds)
{
    struct timespec until;
    clock_gettime(CLOCK_MONOTONIC, &until);
    double end = (double)until.tv_nsec * 1e-9 + seconds;
    until.tv_sec += (time_t)end;
    until.tv_nsec = (long)((end - floor(end)) * 1e9);
    int waited = 0;
    pthread_mutex_lock(&store->mutex);
    while (!waited && (store->todo.first || store->working))
        waited = pthread_cond_timedwait(&store->settled, &store->mutex, &until);
    pthread_mutex_unlock(&store->mutex);
}

// ---- start and end

static void init_condition(pthread_cond_t *condition)
{
    pthread_condattr_t attributes;
    pthread_condattr_init(&attributes);
    pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC);
    pthread_cond_init(condition, &attributes);
    pthread_condattr_destroy(&attributes);
}

static atedm_status tell_pending(atedm_store *store,
                                 void (*pending)(void *user, const atedm_store_job *job),
                                 void *user, atedm_error *err)
{
    atedm_store_result result = {.status = ATEDM_OK};
    atedm_status status = atedm_store_file_pending(store->file, &result);
    for (size_t i = 0; i < result.n_jobs && !status; i++)
        pending(user, &result.jobs[i]);
    if (status)
        atedm_error_set(err, status, "%s", result.error.message);
    clear_result(&result);
    return status;
}

static void on_closed(uv_handle_t *handle)
{
    free(handle->data);
}

atedm_status atedm_store_open(const atedm_store_options *options, uv_loop_t *loop,
                              void (*pending)(void *user, const atedm_store_job *job), void *user,
                              atedm_store **ret_store, atedm_error *err)
{
    atedm_store *store = calloc(1, sizeof *store);
    if (!store)
        return atedm_error_set(err, ATEDM_ERR_NOMEM, "no memory for the job store");
    store->todo.end = &store->todo.first;
    store->done.end = &store->done.first;
    store->retention_s = options->retention_s;
    store->retention_bytes = options->retention_bytes;
    store->offset = clock_offset();
    atedm_status status = atedm_store_file_open(options->path, &store->file, err);
    if (!status)
        status = tell_pending(store, pending, user, err);
    if (!status && uv_async_init(loop, &store->wake, on_wake))
        status = atedm_error_set(err, ATEDM_ERR_IO, "no descriptors for the job store");
    if (status) {
        atedm_store_file_close(store->file);
        free(store);
        return status;
    }
    store->wake.data = store;
    pthread_mutex_init(&store->mutex, NULL);
    init_condition(&store->changed);
    init_condition(&store->settled);
    if (pthread_create(&store->thread, NULL, store_main, store)) {
        atedm_store_file_close(store->file);
        uv_close((uv_handle_t *)&store->wake, on_closed);
        return atedm_error_set(err, ATEDM_ERR_IO, "no thread for the job store");
    }
    *ret_store = store;
    return ATEDM_OK;
}

void atedm_store_close(atedm_store *store)
{
    if (!store)
        return;
    pthread_mutex_lock(&store->mutex);
    store->closing = true;
    pthread_cond_signal(&store->changed);
    pthread_mutex_unlock(&store->mutex);
    pthread_join(store->thread, NULL);
    deliver(store);
    atedm_store_file_close(store->file);
    pthread_mutex_destroy(&store->mutex);
    pthread_cond_destroy(&store->changed);
    pthread_cond_destroy(&store->settled);
    uv_close((uv_handle_t *)&store->wake, on_closed);
}
