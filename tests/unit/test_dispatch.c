// Dispatch against workers that do what the test wants: who is told of progress and of previews,
// and that a wish to watch follows the job from worker to worker.
#include "core/base/clock.h"
#include "server/dispatch.h"

#include <criterion/criterion.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

// ---- a worker that only writes down

struct atedm_worker {
    void (*receive)(void *user, atedm_worker_message *message);
    void *user;
    uint64_t job;    // the last that was submitted
    size_t jobs;     // that were
    int wishes;      // that were heard
    bool watched;    // the last of them
    uint64_t wanted; // its job
    double heard;    // as atedm_worker_last_heard tells it
};

// In the order in which they are made.
static atedm_worker workers[2];
static size_t n_workers;
#define the_worker (workers[0])

atedm_status atedm_worker_create(const atedm_worker_options *options, uv_loop_t *loop,
                                 void (*receive)(void *user, atedm_worker_message *message),
                                 void *user, atedm_worker **ret_worker, atedm_error *err)
{
    *ret_worker = &workers[n_workers++];
    **ret_worker = (atedm_worker){.receive = receive, .user = user};
    return ATEDM_OK;
}

atedm_status atedm_worker_submit(atedm_worker *worker, uint64_t job, const atedm_request *request)
{
    cr_expect_not_null(request->prompt);
    worker->job = job;
    worker->jobs++;
    return ATEDM_OK;
}

void atedm_worker_watch(atedm_worker *worker, uint64_t job, bool on)
{
    worker->wishes++;
    worker->watched = on;
    worker->wanted = job;
}

bool atedm_worker_cancel(atedm_worker *worker, uint64_t job)
{
    cr_expect_eq(worker->job, job);
    return true;
}

double atedm_worker_last_heard(const atedm_worker *worker)
{
    return worker->heard;
}

void atedm_worker_kill(atedm_worker *worker, double silent_s)
{
    cr_expect(false, "killed");
}

void atedm_worker_destroy(atedm_worker *worker)
{
    worker->receive = NULL;
}

static void say_of(size_t i, atedm_worker_message message)
{
    workers[i].receive(workers[i].user, &message);
}

static void say(atedm_worker_message message)
{
    say_of(0, message);
}

// ---- the bench

typedef struct bench {
    uv_loop_t loop;
    atedm_metrics *metrics;
    atedm_dispatch *dispatch;
    int ends, progress, previews, last_step;
    atedm_job_end how;             // of the last end
    int figures;                   // that were told
    double power;                  // of the last; NAN: that nothing is known
    const struct atedm_seat *seat; // at the last progress; NULL: none
} bench;

static void on_ready(void *user, const char *device, const atedm_worker_facts *facts)
{
}

static void on_lost(void *user, const char *device, const atedm_error *error)
{
}

static void on_figures(void *user, const char *device, const atedm_device_figures *figures)
{
    bench *b = user;
    cr_expect_str_eq(device, "fake");
    b->figures++;
    b->power = figures ? figures->value[ATEDM_FIGURE_POWER] : NAN;
}

static void on_idle(void *user)
{
}

static void on_end(void *user, const atedm_job *job, atedm_job_end how, atedm_worker_result *result,
                   const atedm_error *error)
{
    bench *b = user;
    b->ends++;
    b->how = how;
}

static void on_progress(void *user, const atedm_job *job)
{
    bench *b = user;
    b->progress++;
    b->last_step = job->steps_done;
    b->seat = job->seat;
}

static void on_preview(void *user, const atedm_job *job, int step, const atedm_worker_image *image)
{
    bench *b = user;
    cr_expect_eq(step, 3);
    cr_expect_eq(image->size, 4);
    b->previews++;
}

static void open_bench_of(bench *b, size_t n)
{
    *b = (bench){0};
    n_workers = 0;
    uv_loop_init(&b->loop);
    cr_assert_eq(atedm_metrics_create(&b->metrics), ATEDM_OK);
    const atedm_device_facts device = {.name = "fake"};
    const atedm_dispatch_options options = {.loop = &b->loop,
                                            .metrics = b->metrics,
                                            .max_queue = 4,
                                            .devices = &device,
                                            .n_devices = 1,
                                            .workers = n,
                                            .worker_timeout_s = 1000,
                                            .worker = {.max_requests = 1},
                                            .user = b,
                                            .ready = on_ready,
                                            .lost = on_lost,
                                            .figures = on_figures,
                                            .idle = on_idle};
    cr_assert_eq(atedm_dispatch_create(&options, &b->dispatch, NULL), ATEDM_OK);
}

static void open_bench(bench *b)
{
    open_bench_of(b, 1);
}

static void close_bench(bench *b)
{
    atedm_dispatch_end_all(b->dispatch, ATEDM_JOB_FAILED, &(atedm_error){"the end"});
    atedm_dispatch_close(b->dispatch);
    uv_run(&b->loop, UV_RUN_DEFAULT);
    atedm_dispatch_destroy(b->dispatch);
    uv_loop_close(&b->loop);
    atedm_metrics_destroy(b->metrics);
}

static atedm_job *make_job(bench *b)
{
    atedm_job *job = calloc(1, sizeof *job);
    job->request = (atedm_request){.prompt = strdup("a fox"), .steps = 5, .deadline_s = NAN};
    job->ended = on_end;
    job->progress = on_progress;
    job->preview = on_preview;
    job->user = b;
    return job;
}

static void say_preview(uint64_t job)
{
    char png[] = "png";
    say((atedm_worker_message){.type = ATEDM_WORKER_PREVIEW,
                               .job = job,
                               .step = 3,
                               .image = {.png = png, .size = sizeof png}});
}

Test(dispatch, progress_is_told_at_the_start_and_at_each_step)
{
    bench b;
    open_bench(&b);
    atedm_job *job = make_job(&b), *silent = make_job(&b);
    silent->progress = NULL;
    silent->preview = NULL;
    cr_assert_eq(atedm_dispatch_submit(b.dispatch, job), ATEDM_OK);
    cr_assert_eq(atedm_dispatch_submit(b.dispatch, silent), ATEDM_OK);
    cr_expect_eq(b.progress, 0); // it waits
    say((atedm_worker_message){.type = ATEDM_WORKER_READY});
    cr_expect_eq(b.progress, 1);
    cr_expect_not_null(b.seat);
    cr_expect_eq(b.last_step, 0);
    for (int step = 1; step <= 2; step++)
        say((atedm_worker_message){
            .type = ATEDM_WORKER_STEPPED, .job = the_worker.job, .step = step});
    cr_expect_eq(b.progress, 3);
    cr_expect_eq(b.last_step, 2);
    say((atedm_worker_message){
        .type = ATEDM_WORKER_ERROR, .job = the_worker.job, .status = ATEDM_ERR_NOMEM});
    cr_expect_eq(b.ends, 1);
    cr_expect_eq(b.how, ATEDM_JOB_NO_MEMORY);
    // Now the one that wants to hear nothing, watched all the same.
    atedm_dispatch_watch(silent, true);
    say((atedm_worker_message){.type = ATEDM_WORKER_STEPPED, .job = the_worker.job, .step = 1});
    say_preview(the_worker.job);
    cr_expect_eq(b.progress, 3);
    cr_expect_eq(b.previews, 0);
    close_bench(&b);
}

Test(dispatch, previews_come_while_the_job_is_watched)
{
    bench b;
    open_bench(&b);
    say((atedm_worker_message){.type = ATEDM_WORKER_READY});
    atedm_job *job = make_job(&b);
    cr_assert_eq(atedm_dispatch_submit(b.dispatch, job), ATEDM_OK);
    cr_expect_eq(the_worker.wishes, 0);
    say_preview(the_worker.job); // nobody asked
    atedm_dispatch_watch(job, true);
    atedm_dispatch_watch(job, true);
    cr_expect_eq(the_worker.wishes, 1);
    cr_expect(the_worker.watched);
    cr_expect_eq(the_worker.wanted, the_worker.job);
    say_preview(the_worker.job);
    say_preview(the_worker.job + 1); // of nobody
    cr_expect_eq(b.previews, 1);
    atedm_dispatch_watch(job, false);
    cr_expect_eq(the_worker.wishes, 2);
    cr_expect(!the_worker.watched);
    say_preview(the_worker.job); // was on its way
    cr_expect_eq(b.previews, 1);
    close_bench(&b);
}

Test(dispatch, a_wish_goes_with_the_job)
{
    bench b;
    open_bench(&b);
    atedm_job *job = make_job(&b);
    atedm_dispatch_watch(job, true); // before it is even taken
    cr_assert_eq(atedm_dispatch_submit(b.dispatch, job), ATEDM_OK);
    cr_expect_eq(the_worker.wishes, 0);
    say((atedm_worker_message){.type = ATEDM_WORKER_READY});
    cr_expect_eq(the_worker.wishes, 1);
    cr_expect(the_worker.watched);
    cr_expect_eq(the_worker.wanted, the_worker.job);
    say((atedm_worker_message){.type = ATEDM_WORKER_STEPPED, .job = the_worker.job, .step = 2});
    say((atedm_worker_message){.type = ATEDM_WORKER_LOST});
    say((atedm_worker_message){.type = ATEDM_WORKER_READY}); // another one
    cr_expect_eq(the_worker.wishes, 2);
    cr_expect(the_worker.watched);
    cr_expect_eq(b.progress, 4); // two starts, one step, once back in the queue
    cr_expect_eq(b.last_step, 0);
    say_preview(the_worker.job);
    cr_expect_eq(b.previews, 1);
    close_bench(&b);
    cr_expect_eq(b.ends, 1);
}

// What it is sent lies in memory until it listens.
Test(dispatch, a_worker_that_does_not_listen_gets_no_more_wishes)
{
    bench b;
    open_bench(&b);
    say((atedm_worker_message){.type = ATEDM_WORKER_READY});
    atedm_job *job = make_job(&b);
    cr_assert_eq(atedm_dispatch_submit(b.dispatch, job), ATEDM_OK);
    for (int i = 0; i < 1000; i++)
        atedm_dispatch_watch(job, i % 2 == 0);
    cr_expect_eq(the_worker.wishes, ATEDM_MAX_WISHES);
    cr_expect(!the_worker.watched);
    atedm_dispatch_watch(job, true);
    cr_expect(!the_worker.watched);
    say((atedm_worker_message){.type = ATEDM_WORKER_STEPPED, .job = the_worker.job, .step = 1});
    cr_expect(the_worker.watched, "it has heard, and is told");
    cr_expect_eq(the_worker.wishes, ATEDM_MAX_WISHES + 1);
    say((atedm_worker_message){.type = ATEDM_WORKER_STEPPED, .job = the_worker.job, .step = 2});
    cr_expect_eq(the_worker.wishes, ATEDM_MAX_WISHES + 1);
    close_bench(&b);
}

static void submit_and_give_up(bench *b)
{
    atedm_job *job = make_job(b);
    cr_assert_eq(atedm_dispatch_submit(b->dispatch, job), ATEDM_OK);
    atedm_dispatch_give_up(b->dispatch, job);
}

Test(dispatch, a_worker_that_does_not_listen_gets_no_more_requests)
{
    bench b;
    open_bench(&b);
    say((atedm_worker_message){.type = ATEDM_WORKER_READY});
    for (int i = 0; i < 1000; i++)
        submit_and_give_up(&b);
    cr_expect_eq(the_worker.jobs, 1 + ATEDM_MAX_UNHEARD);
    cr_expect_eq(atedm_dispatch_get_state(b.dispatch).depth, 0);
    atedm_job *job = make_job(&b);
    cr_assert_eq(atedm_dispatch_submit(b.dispatch, job), ATEDM_OK);
    cr_expect_eq(atedm_dispatch_get_state(b.dispatch).depth, 1, "it waits");
    // With nothing at work it is silent all the same.
    the_worker.heard = atedm_clock_monotonic() - 500;
    cr_expect_gt(atedm_dispatch_get_state(b.dispatch).silence_s, 0);
    say((atedm_worker_message){.type = ATEDM_WORKER_CANCELED, .job = 1});
    cr_expect_eq(atedm_dispatch_get_state(b.dispatch).active, 1, "it listens again");
    cr_expect_eq(the_worker.jobs, 2 + ATEDM_MAX_UNHEARD);
    submit_and_give_up(&b); // waits, and leaves at once
    cr_expect_eq(the_worker.jobs, 2 + ATEDM_MAX_UNHEARD);
    say((atedm_worker_message){.type = ATEDM_WORKER_LOST});
    say((atedm_worker_message){.type = ATEDM_WORKER_READY}); // of another one that is not true
    for (int i = 0; i < 2; i++)
        say((atedm_worker_message){.type = ATEDM_WORKER_ERROR, .job = the_worker.job});
    the_worker.jobs = 0;
    for (int i = 0; i < 1000; i++)
        submit_and_give_up(&b);
    cr_expect_eq(the_worker.jobs, 1 + ATEDM_MAX_UNHEARD);
    close_bench(&b);
}

// Whoever may have taken a daemon down is alone on all workers; nobody overtakes it.
Test(dispatch, suspects_of_a_daemon_s_end_run_alone)
{
    bench b;
    open_bench_of(&b, 2);
    for (int tries = 0; tries <= 2; tries++) {
        atedm_job *job = make_job(&b);
        job->tries = tries;
        atedm_dispatch_restore(b.dispatch, job);
    }
    for (size_t i = 0; i < 2; i++)
        say_of(i, (atedm_worker_message){.type = ATEDM_WORKER_READY});
    for (size_t i = 0; i < 4; i++) {
        cr_expect_eq(workers[0].job, i + 1);
        cr_expect_eq(workers[1].job, 0);
        cr_expect_eq(atedm_dispatch_get_state(b.dispatch).active, 1);
        if (i == 0)
            cr_assert_eq(atedm_dispatch_submit(b.dispatch, make_job(&b)), ATEDM_OK);
        say((atedm_worker_message){.type = ATEDM_WORKER_ERROR, .job = the_worker.job});
    }
    cr_assert_eq(atedm_dispatch_submit(b.dispatch, make_job(&b)), ATEDM_OK);
    cr_assert_eq(atedm_dispatch_submit(b.dispatch, make_job(&b)), ATEDM_OK);
    cr_expect_eq(atedm_dispatch_get_state(b.dispatch).active, 2, "the others need not be alone");
    close_bench(&b);
}

// Nobody is told to come back in a second because a worker that is not there has nothing to do.
Test(dispatch, a_worker_that_is_lost_has_no_room)
{
    bench b;
    open_bench(&b);
    int unknown = atedm_dispatch_retry_after(b.dispatch);
    say((atedm_worker_message){.type = ATEDM_WORKER_READY});
    say((atedm_worker_message){
        .type = ATEDM_WORKER_EVALUATED, .images = 1, .seconds = 1, .busy_s = 1, .flops = 1000});
    cr_expect_eq(atedm_dispatch_retry_after(b.dispatch), 1);
    cr_expect_eq(atedm_dispatch_get_state(b.dispatch).rate, 1000);
    say((atedm_worker_message){.type = ATEDM_WORKER_LOST});
    cr_expect_eq(atedm_dispatch_retry_after(b.dispatch), unknown);
    cr_expect_gt(unknown, 1);
    cr_expect_eq(atedm_dispatch_get_state(b.dispatch).rate, 1000); // it will be that again
    close_bench(&b);
}

static void submit_of(bench *b, uint64_t flops)
{
    atedm_job *job = make_job(b);
    job->cost.executed = flops;
    cr_assert_eq(atedm_dispatch_submit(b->dispatch, job), ATEDM_OK);
}

// Of two workers, with rates of 1000 and 250 FLOPs/s and room for one request each.
Test(dispatch, what_is_expected_is_of_the_workers_that_are_up)
{
    bench b;
    open_bench_of(&b, 2);
    const double rates[] = {1000, 250};
    for (size_t i = 0; i < 2; i++) {
        say_of(i, (atedm_worker_message){.type = ATEDM_WORKER_READY});
        say_of(i, (atedm_worker_message){.type = ATEDM_WORKER_EVALUATED,
                                         .images = 1,
                                         .seconds = 1,
                                         .busy_s = 1,
                                         .flops = (uint64_t)rates[i]});
    }
    cr_expect_eq(atedm_dispatch_expected_wait(b.dispatch, 0), 0, "there is room");
    submit_of(&b, 10000); // the faster one's: 10 s
    submit_of(&b, 500);   // the other one's: 2 s
    submit_of(&b, 5000);  // waits: 4 s for both
    cr_expect_eq(atedm_dispatch_expected_wait(b.dispatch, 0), 2 + 4);
    cr_expect_eq(atedm_dispatch_retry_after(b.dispatch), 2);
    say_of(1, (atedm_worker_message){.type = ATEDM_WORKER_LOST});
    // What it had waits again, ahead; all of it is the faster one's now.
    cr_expect_eq(atedm_dispatch_expected_wait(b.dispatch, 0), 10 + 5.5);
    cr_expect_eq(atedm_dispatch_retry_after(b.dispatch), 10);
    cr_expect_eq(atedm_dispatch_get_state(b.dispatch).rate, 1000);
    say_of(0, (atedm_worker_message){.type = ATEDM_WORKER_LOST});
    cr_expect_eq(atedm_dispatch_expected_wait(b.dispatch, 0), 15500.0 / 1250, "as they will be");
    cr_expect_eq(atedm_dispatch_retry_after(b.dispatch), 5, "nobody is there to say");
    say_of(1, (atedm_worker_message){.type = ATEDM_WORKER_READY});
    cr_expect_eq(atedm_dispatch_get_state(b.dispatch).rate, 250);
    cr_expect_gt(atedm_dispatch_expected_wait(b.dispatch, 0), 20);
    close_bench(&b);
    cr_expect_eq(b.ends, 3);
}

Test(dispatch, figures_of_a_device_that_is_lost_are_not_known_any_more)
{
    bench b;
    open_bench(&b);
    say((atedm_worker_message){.type = ATEDM_WORKER_READY});
    say((atedm_worker_message){.type = ATEDM_WORKER_FIGURES,
                               .figures = {.value[ATEDM_FIGURE_POWER] = 412.5}});
    cr_expect_eq(b.figures, 1);
    cr_expect_float_eq(b.power, 412.5, 0);
    say((atedm_worker_message){.type = ATEDM_WORKER_LOST});
    cr_expect_eq(b.figures, 2);
    cr_expect(isnan(b.power));
    close_bench(&b);
}

static double silence(const bench *b)
{
    return atedm_dispatch_get_state(b->dispatch).silence_s;
}

Test(dispatch, silence_is_that_of_who_has_something_to_do)
{
    bench b;
    open_bench(&b);
    the_worker.heard = atedm_clock_monotonic() - 500;
    cr_expect_eq(silence(&b), 0); // it is being started, and nobody waits
    atedm_job *first = make_job(&b), *second = make_job(&b);
    cr_assert_eq(atedm_dispatch_submit(b.dispatch, first), ATEDM_OK);
    cr_expect_geq(silence(&b), 500); // now somebody does
    say((atedm_worker_message){.type = ATEDM_WORKER_READY});
    cr_expect_lt(silence(&b), 400); // what it has is new
    the_worker.heard = atedm_clock_monotonic() + 500;
    cr_expect_eq(silence(&b), 0);
    cr_assert_eq(atedm_dispatch_submit(b.dispatch, second), ATEDM_OK);
    the_worker.heard = atedm_clock_monotonic() - 500;
    cr_expect_lt(silence(&b), 400); // requests wait, but the worker is at work
    say((atedm_worker_message){.type = ATEDM_WORKER_ERROR, .job = the_worker.job});
    say((atedm_worker_message){.type = ATEDM_WORKER_ERROR, .job = the_worker.job});
    cr_expect_eq(b.ends, 2);
    cr_expect_eq(silence(&b), 0); // idle, however long
    close_bench(&b);
}
