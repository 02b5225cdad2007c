// `atedm-worker`: the process that computes on one device. The daemon starts it with one end of a
// socketpair, and it ends with the daemon. It has four threads: the reader receives frames, the
// main thread computes and sends, the encoder (encoder.h) makes PNG files, and one thread reads the
// device's figures (figures.h).
#include "core/base/exit_status.h"
#include "core/base/file.h"
#include "core/base/memory.h"
#include "server/frames.h"
#include "server/runner.h"

#include <errno.h>
#include <getopt.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <unistd.h>

#define EXIT_LOST 3 // this process has lost the device
#define READ_BYTES 65536

// An order from the daemon: a request, or what to do with one.
typedef struct order {
    uint64_t job;
    atedm_frame_type type;
    bool watch;
    atedm_request request;
    struct order *next;
} order;

typedef struct mailbox {
    int fd;
    pthread_mutex_t mutex; // guards the orders and `woken`
    pthread_cond_t changed;
    order *orders, **orders_end;
    bool woken; // the runner has work even if there are no orders
} mailbox;

// Ends the process, which cannot continue. The daemon notices and starts another one.
static void die(const char *why)
{
    fprintf(stderr, "atedm-worker: %s\n", why);
    _exit(ATEDM_EXIT_FAILED);
}

// ---- the reader

static void put(mailbox *box, const order *item)
{
    order *o = malloc(sizeof *o);
    if (!o)
        die("no memory for a request");
    *o = *item;
    o->next = NULL;
    pthread_mutex_lock(&box->mutex);
    *box->orders_end = o;
    box->orders_end = &o->next;
    pthread_cond_signal(&box->changed);
    pthread_mutex_unlock(&box->mutex);
}

static void receive(mailbox *box, const atedm_frame *frame)
{
    order o = {.job = frame->job, .type = frame->type};
    atedm_status status = ATEDM_OK;
    if (o.type == ATEDM_FRAME_WATCH)
        status = atedm_frame_get_watch(frame, &o.watch);
    else if (o.type != ATEDM_FRAME_CANCEL)
        status = atedm_frame_get_submit(frame, &o.request);
    if (status)
        die("a frame that is none");
    put(box, &o);
}

static void *reader_main(void *user)
{
    mailbox *box = user;
    static char data[READ_BYTES];
    atedm_frame_reader reader;
    atedm_frame_reader_init(&reader);
    for (;;) {
        ssize_t size = read(box->fd, data, sizeof data);
        if (size < 0 && errno == EINTR)
            continue;
        if (size <= 0) // the daemon has ended, or ends this worker
            _exit(0);
        if (atedm_frame_reader_feed(&reader, data, (size_t)size))
            die("no memory for a request");
        atedm_frame frame;
        atedm_status status;
        while (!(status = atedm_frame_reader_next(&reader, &frame)))
            receive(box, &frame);
        if (status != ATEDM_ERR_NOT_FOUND)
            die("a frame that is none");
    }
}

// ---- the encoder

static void wake(void *user)
{
    mailbox *box = user;
    pthread_mutex_lock(&box->mutex);
    box->woken = true;
    pthread_cond_signal(&box->changed);
    pthread_mutex_unlock(&box->mutex);
}

// ---- the main thread

// Takes all orders that have arrived. `wait`: waits for one, because there is nothing else to do.
static order *take_orders(mailbox *box, bool wait)
{
    pthread_mutex_lock(&box->mutex);
    while (wait && !box->orders && !box->woken)
        pthread_cond_wait(&box->changed, &box->mutex);
    box->woken = false;
    order *orders = box->orders;
    box->orders = NULL;
    box->orders_end = &box->orders;
    pthread_mutex_unlock(&box->mutex);
    return orders;
}

// Sends the buffer's frame and empties the buffer.
static void send_frame(const mailbox *box, atedm_buffer *buffer)
{
    if (atedm_write_all(box->fd, buffer->data, buffer->size))
        _exit(0); // the daemon has ended
    atedm_buffer_finish(buffer);
}

static void send_message(const mailbox *box, const atedm_worker_message *message)
{
    atedm_buffer buffer;
    atedm_buffer_init(&buffer, 2 * ATEDM_FRAME_MAX);
    if (atedm_frame_put_message(&buffer, message))
        die("no memory for a result");
    send_frame(box, &buffer);
}

// The device is lost, so all further requests would fail too. The request is not to blame and gets
// no answer here. The daemon gets the reason as the worker's last word, and runs the request again
// elsewhere.
static void end_lost(const mailbox *box, const atedm_error *error)
{
    send_message(box, &(atedm_worker_message){.type = ATEDM_WORKER_FAILED,
                                              .status = ATEDM_ERR_DEVICE,
                                              .error = *error});
    _exit(EXIT_LOST);
}

static void post(void *user, const atedm_worker_message *message)
{
    const mailbox *box = user;
    if (message->type == ATEDM_WORKER_ERROR && message->status == ATEDM_ERR_DEVICE)
        end_lost(box, &message->error);
    send_message(box, message);
    atedm_worker_result_destroy(message->result);
    free(message->image.png);
}

static void greet(const mailbox *box)
{
    atedm_buffer buffer;
    atedm_buffer_init(&buffer, ATEDM_FRAME_MAX);
    if (atedm_frame_put_hello(&buffer))
        die("no memory");
    send_frame(box, &buffer);
}

static void hand_over(const mailbox *box, atedm_runner *runner, order *orders)
{
    while (orders) {
        order *o = orders;
        orders = o->next;
        if (o->type == ATEDM_FRAME_CANCEL) {
            atedm_runner_cancel(runner, o->job);
            send_message(box,
                         &(atedm_worker_message){.type = ATEDM_WORKER_CANCELED, .job = o->job});
        } else if (o->type == ATEDM_FRAME_WATCH) {
            atedm_runner_watch(runner, o->job, o->watch);
        } else {
            atedm_runner_submit(runner, o->job, &o->request);
        }
        free(o);
    }
}

static int work(mailbox *box, const atedm_worker_options *options)
{
    atedm_runner *runner = NULL;
    atedm_worker_message message = {.type = ATEDM_WORKER_READY};
    message.status =
        atedm_runner_open(options, post, wake, box, &runner, &message.facts, &message.error);
    if (message.status) {
        message.type = ATEDM_WORKER_FAILED;
        post(box, &message);
        return ATEDM_EXIT_FAILED;
    }
    message.device_memory = atedm_runner_device_memory(runner);
    post(box, &message);
    for (bool busy = false;;) {
        hand_over(box, runner, take_orders(box, !busy));
        busy = atedm_runner_turn(runner);
        const char *remark = atedm_runner_take_remark(runner);
        if (remark)
            fprintf(stderr, "atedm-worker: %s\n", remark);
    }
}

// ---- options

static bool read_size(const char *text, size_t *ret_size)
{
    char *end;
    errno = 0;
    unsigned long long value = strtoull(text, &end, 10);
    *ret_size = (size_t)value;
    return !errno && end != text && !*end;
}

static const char help[] =
    "usage: atedm-worker --fd N --model DIR [OPTION...]\n"
    "\n"
    "Computes for atedmd, which starts it with one end of a socketpair: nobody else has a use for "
    "it.\n"
    "\n"
    "  --fd N              the socket's descriptor\n"
    "  --model DIR         model: a folder in diffusers layout, or FILE.safetensors in one\n"
    "  --backend NAME      auto, cpu, cuda, cuda:N or ref; default auto\n"
    "  --dtype NAME        auto, f32, bf16 or f16; default auto\n"
    "  --max-batch N       images in one UNet evaluation; default 1\n"
    "  --max-active N      requests at a time; default 1\n"
    "  --memory-limit N    bytes on the device; default 0: most of what it has left\n"
    "  --sharers N         workers on the device; default 1\n"
    "  --help              this text\n"
    "  --version           the version\n"
    "\n"
    "Exit status: 0 when the daemon is gone, 1 when it failed, 2 for wrong options, 3 when the "
    "device is lost.\n";

// Prints the text and ends the process.
static void answer(const char *text)
{
    fputs(text, stdout);
    exit(fflush(stdout) || ferror(stdout) ? ATEDM_EXIT_FAILED : 0);
}

static bool parse(int argc, char **argv, mailbox *box, atedm_worker_options *options)
{
    enum {
        FD = 256,
        MODEL,
        BACKEND,
        DTYPE,
        MAX_BATCH,
        MAX_ACTIVE,
        MEMORY_LIMIT,
        SHARERS,
        HELP,
        VERSION
    };
    static const struct option names[] = {{"fd", required_argument, NULL, FD},
                                          {"model", required_argument, NULL, MODEL},
                                          {"backend", required_argument, NULL, BACKEND},
                                          {"dtype", required_argument, NULL, DTYPE},
                                          {"max-batch", required_argument, NULL, MAX_BATCH},
                                          {"max-active", required_argument, NULL, MAX_ACTIVE},
                                          {"memory-limit", required_argument, NULL, MEMORY_LIMIT},
                                          {"sharers", required_argument, NULL, SHARERS},
                                          {"help", no_argument, NULL, HELP},
                                          {"version", no_argument, NULL, VERSION},
                                          {NULL, 0, NULL, 0}};
    size_t fd = 0;
    bool good = true;
    for (int name; (name = getopt_long(argc, argv, "", names, NULL)) != -1;) {
        if (name == FD)
            good &= read_size(optarg, &fd);
        else if (name == MODEL)
            options->model = optarg;
        else if (name == BACKEND)
            options->backend = optarg;
        else if (name == DTYPE)
            options->dtype = optarg;
        else if (name == MAX_BATCH)
            good &= read_size(optarg, &options->max_batch);
        else if (name == MAX_ACTIVE)
            good &= read_size(optarg, &options->max_requests);
        else if (name == MEMORY_LIMIT)
            good &= read_size(optarg, &options->memory_limit);
        else if (name == SHARERS)
            good &= read_size(optarg, &options->sharers);
        else if (name == HELP)
            answer(help);
        else if (name == VERSION)
            answer("atedm-worker " ATEDM_VERSION "\n");
        else
            good = false;
    }
    box->fd = (int)fd;
    return good && fd > 2 && options->model && optind == argc;
}

int main(int argc, char **argv)
{
    static mailbox box = {.mutex = PTHREAD_MUTEX_INITIALIZER, .changed = PTHREAD_COND_INITIALIZER};
    atedm_worker_options options = {
        .backend = "auto", .dtype = "auto", .max_batch = 1, .max_requests = 1};
    box.orders_end = &box.orders;
    if (!parse(argc, argv, &box, &options)) {
        fputs(
            "atedm-worker is started by atedmd, which hands it a socket: see atedm-worker --help\n",
            stderr);
        return ATEDM_EXIT_USAGE;
    }
    signal(SIGPIPE, SIG_IGN);
    signal(SIGINT, SIG_IGN); // a terminal sends it to both; the daemon decides when to end
    signal(SIGTERM, SIG_IGN);
    signal(SIGHUP, SIG_IGN);
    prctl(PR_SET_PDEATHSIG, SIGKILL); // in case the reader sees the end of the socket too late
    prctl(PR_SET_NAME, "atedm-worker");
    pthread_t reader;
    greet(&box);
    if (pthread_create(&reader, NULL, reader_main, &box))
        die("no thread to read with");
    pthread_setname_np(reader, "atedm-reader");
    return work(&box, &options);
}
