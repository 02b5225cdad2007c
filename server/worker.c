// The daemon's end of a worker process: see worker.h.
//
// The process, its pipe and the restart timer are handles of the loop. A process counts as ended
// when its exit was reported and its pipe was read to the end. Then the handles are closed, LOST is
// sent, and the timer starts the next process.
#include "server/worker.h"

#include "core/base/clock.h"
#include "core/base/control_group.h"
#include "server/frames.h"
#include "server/worker_environment.h"

#include <math.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

// Seconds before the restart of a worker that ended. They double each time, unless the worker lived
// for a while.
#define RESTART_FIRST_S 0.1
#define RESTART_MOST_S 30
#define LIVED_S 60

#define WORKER_FD 3
#define PATH_MAX_BYTES 4096
#define ARGUMENTS 18

struct atedm_worker {
    char *arguments[ARGUMENTS]; // arguments of the program; NULL ends them
    char **environment;
    uv_loop_t *loop;
    void (*receive)(void *user, atedm_worker_message *message);
    void *user;

    uv_process_t process;
    uv_pipe_t pipe;
    uv_timer_t restart;
    atedm_frame_reader reader;
    bool running; // a process and a pipe are open or closing
    bool greeted, ever_ready, failed, destroyed;
    bool exited, read_to_end;
    int process_handles;   // handles of the process that are open in the loop
    int handles;           // open handles, including the timer
    char end[128];         // how the process ended
    atedm_error last_word; // the reason that the process gave for its end; "": none
    double started, heard, delay_s;
};

// A frame that is being written to the process.
typedef struct parcel {
    uv_write_t request;
    atedm_buffer buffer;
} parcel;

static void free_worker(atedm_worker *w)
{
    for (size_t i = 0; i < ARGUMENTS; i++)
        free(w->arguments[i]);
    atedm_worker_environment_destroy(w->environment);
    atedm_frame_reader_finish(&w->reader);
    free(w);
}

// ---- the end of a process

static void on_restart(uv_timer_t *timer);

static void tell(atedm_worker *w, atedm_worker_message *message)
{
    if (!w->destroyed)
        w->receive(w->user, message);
    atedm_worker_message_finish(message);
}

// Called when all handles of the process are closed.
static void gone(atedm_worker *w)
{
    w->running = false;
    atedm_frame_reader_finish(&w->reader);
    atedm_frame_reader_init(&w->reader);
    if (w->destroyed || w->failed)
        return;
    bool lived = atedm_clock_monotonic() - w->started > LIVED_S;
    w->delay_s = lived ? RESTART_FIRST_S : fmin(2 * w->delay_s, RESTART_MOST_S);
    uv_timer_start(&w->restart, on_restart, (uint64_t)(w->delay_s * 1e3), 0);
    atedm_worker_message message = {.type = ATEDM_WORKER_LOST, .status = ATEDM_ERR_DEVICE};
    atedm_error_set(&message.error, ATEDM_ERR_DEVICE, "the worker process ended: %s%s%s", w->end,
                    *w->last_word.message ? ": " : "", w->last_word.message);
    tell(w, &message);
}

static void on_closed(uv_handle_t *handle)
{
    atedm_worker *w = handle->data;
    w->handles--;
    if (w->running && handle != (uv_handle_t *)&w->restart && --w->process_handles == 0)
        gone(w);
    if (w->handles == 0)
        free_worker(w);
}

static void check_ended(atedm_worker *w)
{
    if (!w->exited || !w->read_to_end)
        return;
    uv_close((uv_handle_t *)&w->process, on_closed);
    uv_close((uv_handle_t *)&w->pipe, on_closed);
}

static void on_process_exit(uv_process_t *process, int64_t status, int number)
{
    atedm_worker *w = process->data;
    w->exited = true;
    if (number)
        snprintf(w->end, sizeof w->end, "signal %d, %s", number, strsignal(number));
    else
        snprintf(w->end, sizeof w->end, "exit status %d", (int)status);
    check_ended(w);
}

static void kill_process(atedm_worker *w)
{
    if (w->running && !w->exited)
        uv_process_kill(&w->process, SIGKILL);
}

// ---- frames

static void fail(atedm_worker *w, const atedm_error *error)
{
    atedm_worker_message message = {
        .type = ATEDM_WORKER_FAILED, .status = ATEDM_ERR_UNSUPPORTED, .error = *error};
    w->failed = true;
    kill_process(w);
    tell(w, &message);
}

// The worker's start failed. Only a first start fails for good: later, a lost device may come back,
// and a replaced program may be replaced again.
static void not_come_up(atedm_worker *w, const atedm_error *error)
{
    if (w->ever_ready)
        w->last_word = *error;
    else
        fail(w, error);
}

static void receive_message(atedm_worker *w, const atedm_frame *frame)
{
    atedm_worker_message message;
    if (atedm_frame_get_message(frame, &message)) {
        kill_process(w);
        return;
    }
    if (message.type == ATEDM_WORKER_READY)
        w->ever_ready = true;
    if (message.type == ATEDM_WORKER_FAILED)
        not_come_up(w, &message.error);
    else
        tell(w, &message);
}

static void receive_frame(atedm_worker *w, const atedm_frame *frame)
{
    atedm_error error = {""};
    w->heard = atedm_clock_monotonic();
    if (w->greeted) {
        receive_message(w, frame);
        return;
    }
    w->greeted = true;
    if (atedm_frame_check_hello(frame, &error)) {
        not_come_up(w, &error);
        kill_process(w);
    }
}

static void on_read(uv_stream_t *stream, ssize_t size, const uv_buf_t *buffer)
{
    atedm_worker *w = stream->data;
    atedm_frame frame;
    if (size < 0) {
        w->read_to_end = true;
        uv_read_stop(stream);
        kill_process(w); // the process is of no use without its pipe
        check_ended(w);
    } else if (!w->failed && !w->destroyed) {
        atedm_status status = atedm_frame_reader_feed(&w->reader, buffer->base, (size_t)size);
        while (!status && !w->failed && !w->destroyed &&
               !(status = atedm_frame_reader_next(&w->reader, &frame)))
            receive_frame(w, &frame);
        if (status && status != ATEDM_ERR_NOT_FOUND)
            kill_process(w);
    }
    free(buffer->base);
}

static void on_allocate(uv_handle_t *handle, size_t size, uv_buf_t *buffer)
{
    (void)handle;
    buffer->base = malloc(size);
    buffer->len = buffer->base ? size : 0; // if len is 0, libuv reports an error to on_read
}

static void on_written(uv_write_t *request, int status)
{
    (void)status; // a broken pipe is read to its end too
    parcel *p = (parcel *)request;
    atedm_buffer_finish(&p->buffer);
    free(p);
}

static parcel *new_parcel(void)
{
    parcel *p = calloc(1, sizeof *p);
    if (p)
        atedm_buffer_init(&p->buffer, ATEDM_FRAME_MAX);
    return p;
}

// Writes the parcel, which it takes. A broken pipe is no error here: LOST follows, and covers every
// job that the process had or was about to get.
static atedm_status send_parcel(atedm_worker *w, parcel *p, atedm_status status)
{
    uv_buf_t buffer = uv_buf_init(p->buffer.data, (unsigned)p->buffer.size);
    bool sent =
        !status && uv_write(&p->request, (uv_stream_t *)&w->pipe, &buffer, 1, on_written) == 0;
    if (!sent)
        on_written(&p->request, 0);
    if (!sent && !status)
        kill_process(w);
    return status;
}

// ---- starting

// Where atedm-worker is, relative to the daemon's folder: in a build folder, and in an
// installation.
static const char *const places[] = {"", "../lib/atedmd/"};

// Returns the first path that exists; if none does, the last one, for the message.
static char *find_program(void)
{
    char path[PATH_MAX_BYTES];
    ssize_t size = readlink("/proc/self/exe", path, sizeof path - 1);
    path[size > 0 ? size : 0] = '\0';
    char *slash = strrchr(path, '/'), *program = NULL;
    if (slash)
        slash[1] = '\0';
    for (size_t i = 0; i < sizeof places / sizeof *places; i++) {
        free(program);
        if (asprintf(&program, "%s%satedm-worker", slash ? path : "./", places[i]) < 0)
            return NULL;
        if (access(program, X_OK) == 0)
            break;
    }
    return program;
}

static int spawn(atedm_worker *w)
{
    uv_stdio_container_t stdio[WORKER_FD + 1] = {
        {.flags = UV_IGNORE},
        {.flags = UV_INHERIT_FD, .data.fd = STDERR_FILENO},
        {.flags = UV_INHERIT_FD, .data.fd = STDERR_FILENO},
        {.flags = UV_CREATE_PIPE | UV_READABLE_PIPE | UV_WRITABLE_PIPE,
         .data.stream = (uv_stream_t *)&w->pipe},
    };
    uv_process_options_t options = {.exit_cb = on_process_exit,
                                    .file = w->arguments[0],
                                    .args = w->arguments,
                                    .env = w->environment,
                                    .stdio_count = WORKER_FD + 1,
                                    .stdio = stdio};
    uv_pipe_init(w->loop, &w->pipe, 0);
    w->pipe.data = w->process.data = w;
    w->greeted = w->exited = w->read_to_end = false;
    w->last_word = (atedm_error){""};
    w->started = w->heard = atedm_clock_monotonic();
    w->running = true;
    w->process_handles = 2;
    w->handles += 2;
    int result = uv_spawn(w->loop, &w->process, &options);
    if (!result)
        return uv_read_start((uv_stream_t *)&w->pipe, on_allocate, on_read);
    // No process runs: continues as if it had ended at once.
    w->exited = w->read_to_end = true;
    snprintf(w->end, sizeof w->end, "%s: %s", w->arguments[0], uv_strerror(result));
    check_ended(w);
    return result;
}

static void on_restart(uv_timer_t *timer)
{
    spawn(timer->data);
}

static bool add_argument(atedm_worker *w, size_t *count, const char *name, const char *value)
{
    char *option = w->arguments[(*count)++] = strdup(name);
    char *argument = w->arguments[(*count)++] = strdup(value);
    return option && argument;
}

static bool add_number(atedm_worker *w, size_t *count, const char *name, size_t value)
{
    char text[32];
    snprintf(text, sizeof text, "%zu", value);
    return add_argument(w, count, name, text);
}

static bool build_arguments(atedm_worker *w, const atedm_worker_options *options)
{
    size_t count = 1;
    return (w->arguments[0] = find_program()) && add_number(w, &count, "--fd", WORKER_FD) &&
           add_argument(w, &count, "--model", options->model) &&
           add_argument(w, &count, "--backend", options->backend) &&
           add_argument(w, &count, "--dtype", options->dtype) &&
           add_number(w, &count, "--max-batch", options->max_batch) &&
           add_number(w, &count, "--max-active", options->max_requests) &&
           add_number(w, &count, "--memory-limit", options->memory_limit) &&
           add_number(w, &count, "--sharers", options->sharers);
}

static bool build_environment(atedm_worker *w, const atedm_worker_options *options)
{
    w->environment = atedm_worker_environment_create(environ, atedm_processors(), options->sharers);
    return w->environment;
}

atedm_status atedm_worker_create(const atedm_worker_options *options, uv_loop_t *loop,
                                 void (*receive)(void *user, atedm_worker_message *message),
                                 void *user, atedm_worker **ret_worker, atedm_error *err)
{
    atedm_worker *w = calloc(1, sizeof *w);
    if (!w || !build_arguments(w, options) || !build_environment(w, options)) {
        if (w)
            free_worker(w);
        return atedm_error_set(err, ATEDM_ERR_NOMEM, "no memory for a worker");
    }
    w->loop = loop;
    w->receive = receive;
    w->user = user;
    w->delay_s = RESTART_FIRST_S / 2;
    atedm_frame_reader_init(&w->reader);
    uv_timer_init(loop, &w->restart); // cannot fail
    w->restart.data = w;
    w->handles = 1;
    int result = spawn(w);
    if (result) {
        atedm_status status =
            atedm_error_set(err, ATEDM_ERR_IO, "%s: %s", w->arguments[0], uv_strerror(result));
        atedm_worker_destroy(w);
        return status;
    }
    *ret_worker = w;
    return ATEDM_OK;
}

// ---- using

atedm_status atedm_worker_submit(atedm_worker *w, uint64_t job, const atedm_request *request)
{
    parcel *p = new_parcel();
    return p ? send_parcel(w, p, atedm_frame_put_submit(&p->buffer, job, request))
             : ATEDM_ERR_NOMEM;
}

bool atedm_worker_cancel(atedm_worker *w, uint64_t job)
{
    if (!w->running || w->read_to_end)
        return false;
    parcel *p = new_parcel();
    // Without memory for the frame the worker continues in vain.
    return p && !send_parcel(w, p, atedm_frame_put_cancel(&p->buffer, job));
}

void atedm_worker_watch(atedm_worker *w, uint64_t job, bool on)
{
    if (!w->running || w->read_to_end)
        return;
    parcel *p = new_parcel();
    // Without memory for the frame there are no previews.
    if (p && send_parcel(w, p, atedm_frame_put_watch(&p->buffer, job, on)))
        return;
}

double atedm_worker_last_heard(const atedm_worker *w)
{
    return w->heard;
}

void atedm_worker_kill(atedm_worker *w, double silent_s)
{
    if (!*w->last_word.message)
        atedm_error_set(&w->last_word, ATEDM_ERR_DEVICE,
                        "ended by the daemon, it had said nothing for %.3g s", silent_s);
    kill_process(w);
}

void atedm_worker_destroy(atedm_worker *w)
{
    if (!w)
        return;
    w->destroyed = true;
    kill_process(w); // the handles close after the process's exit
    uv_close((uv_handle_t *)&w->restart, on_closed);
}
