// The runner, in this process: files are those that are made on the spot, previews come while a job
// is watched, and whatever is in the encoder when a job goes is gone with it.
#include "server/runner.h"

#include "core/png_settings.h"
#include "tests/unit/pipeline_bench.h"

#include <criterion/criterion.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MAX_JOBS 16

// What a runner said, and how it is woken.
typedef struct listener {
    pthread_mutex_t mutex; // guards `woken`
    pthread_cond_t changed;
    bool woken;
    atedm_worker_result *results[MAX_JOBS];
    int ends[MAX_JOBS], steps[MAX_JOBS], previews[MAX_JOBS], last_preview[MAX_JOBS];
    atedm_status failed[MAX_JOBS];
} listener;

static void hear(void *user, const atedm_worker_message *message)
{
    listener *l = user;
    uint64_t job = message->job;
    cr_assert_lt(job, MAX_JOBS);
    switch (message->type) {
    case ATEDM_WORKER_STEPPED:
        l->steps[job] = message->step;
        break;
    case ATEDM_WORKER_PREVIEW:
        cr_expect_eq(l->ends[job], 0);
        cr_expect_gt(message->step, l->last_preview[job]);
        l->last_preview[job] = message->step;
        l->previews[job]++;
        cr_assert_geq(message->image.size, 8);
        cr_expect(!memcmp(message->image.png, "\x89PNG\r\n\x1a\n", 8));
        free(message->image.png);
        break;
    case ATEDM_WORKER_DONE:
        l->results[job] = message->result;
        l->ends[job]++;
        break;
    case ATEDM_WORKER_ERROR:
        l->failed[job] = message->status;
        l->ends[job]++;
        break;
    default:
        break;
    }
}

static void wake(void *user)
{
    listener *l = user;
    pthread_mutex_lock(&l->mutex);
    l->woken = true;
    pthread_cond_signal(&l->changed);
    pthread_mutex_unlock(&l->mutex);
}

static atedm_runner *open_runner(listener *l)
{
    atedm_runner *runner = NULL;
    atedm_worker_facts facts;
    atedm_error err = {""};
    char dir[4096];
    snprintf(dir, sizeof dir, "%s/models/b", getenv("ATEDM_GOLDEN_DIR"));
    *l = (listener){.mutex = PTHREAD_MUTEX_INITIALIZER, .changed = PTHREAD_COND_INITIALIZER};
    const atedm_worker_options options = {.model = dir,
                                          .backend = "cpu",
                                          .dtype = "f32",
                                          .max_batch = 4,
                                          .max_requests = 4,
                                          .memory_limit = SIZE_MAX};
    cr_assert_eq(atedm_runner_open(&options, hear, wake, l, &runner, &facts, &err), ATEDM_OK, "%s",
                 err.message);
    return runner;
}

static void close_runner(atedm_runner *runner, listener *l)
{
    atedm_runner_close(runner);
    for (int i = 0; i < MAX_JOBS; i++)
        atedm_worker_result_destroy(l->results[i]);
}

static atedm_request make_request(uint64_t job)
{
    atedm_request request = pipeline_bench_request(job % 2 ? "at-edm-b" : "off");
    request.seed = job;
    request.num_images = 1 + (int)(job % 3);
    return request;
}

static void submit(atedm_runner *runner, uint64_t job)
{
    atedm_request request = make_request(job);
    atedm_runner_submit(runner, job, &request);
}

// As the worker's loop: sleeps where there is nothing to do, until all those jobs have ended.
static void run(atedm_runner *runner, listener *l, uint64_t first, uint64_t last)
{
    for (uint64_t job = first; job <= last;) {
        if (l->ends[job]) {
            job++;
            continue;
        }
        if (atedm_runner_turn(runner) || l->ends[job])
            continue;
        pthread_mutex_lock(&l->mutex);
        while (!l->woken)
            pthread_cond_wait(&l->changed, &l->mutex);
        l->woken = false;
        pthread_mutex_unlock(&l->mutex);
    }
}

// The job's files are those of a pipeline alone, encoded on the spot.
static void expect_files(const pipeline_bench *b, uint64_t job, const atedm_worker_result *result)
{
    atedm_request request = make_request(job);
    atedm_plan *plan = NULL;
    atedm_request_cost cost;
    uint8_t *rgb = pipeline_bench_generate(b, &request);
    cr_assert_eq(atedm_estimate(&b->model->config, &request, &plan, &cost, NULL), ATEDM_OK);
    cr_assert_not_null(result);
    cr_assert_eq(result->n_images, (size_t)request.num_images);
    cr_expect_gt(result->report.timing.encode_s, 0);
    for (int i = 0; i < request.num_images; i++) {
        atedm_buffer png;
        atedm_buffer_init(&png, 1u << 20);
        cr_assert_eq(atedm_png_encode_image(rgb + (size_t)i * BYTES, &request, plan, i,
                                            &b->model->config, ATEDM_F32, "cpu", &png, NULL),
                     ATEDM_OK);
        cr_assert_eq(result->images[i].size, png.size);
        cr_expect(!memcmp(result->images[i].png, png.data, png.size), "image %d", i);
        atedm_buffer_finish(&png);
    }
    atedm_plan_destroy(plan);
    atedm_request_finish(&request);
    free(rgb);
}

// Odd jobs are watched: from the start, or (7) before they have been let in.
Test(runner, files_are_those_of_requests_alone_watched_or_not, .timeout = 120)
{
    listener l;
    atedm_runner *runner = open_runner(&l);
    pipeline_bench b = pipeline_bench_open("cpu", ATEDM_F32);
    for (uint64_t job = 0; job < 8; job++) {
        submit(runner, job);
        atedm_runner_watch(runner, job, job % 2);
    }
    run(runner, &l, 0, 7);
    for (uint64_t job = 0; job < 8; job++) {
        cr_expect_eq(l.ends[job], 1);
        cr_expect_eq(l.failed[job], ATEDM_OK);
        cr_expect_eq(l.previews[job] > 0, job % 2, "job %d: %d", (int)job, l.previews[job]);
        cr_expect_leq(l.previews[job], 4);
        expect_files(&b, job, l.results[job]);
    }
    pipeline_bench_close(&b);
    close_runner(runner, &l);
}

Test(runner, a_wish_can_be_taken_back, .timeout = 120)
{
    listener l;
    atedm_runner *runner = open_runner(&l);
    atedm_runner_watch(runner, 1, true); // nobody is there
    submit(runner, 1);
    atedm_runner_watch(runner, 1, true);
    while (l.previews[1] == 0)
        atedm_runner_turn(runner);
    atedm_runner_watch(runner, 1, false);
    int before = l.previews[1];
    run(runner, &l, 1, 1);
    cr_expect_eq(l.previews[1], before);
    cr_expect_not_null(l.results[1]);
    close_runner(runner, &l);
}

// Canceled at every point of its way, also while its pictures are in the encoder.
Test(runner, a_canceled_job_is_not_heard_of, .timeout = 120)
{
    listener l;
    atedm_runner *runner = open_runner(&l);
    int canceled = 0;
    for (int turns = 0; turns < 60; turns++) {
        submit(runner, 2); // three images
        atedm_runner_watch(runner, 2, true);
        for (int i = 0; i < turns && !l.ends[2]; i++)
            atedm_runner_turn(runner);
        if (l.ends[2])
            break;
        atedm_runner_cancel(runner, 2);
        canceled++;
        l.last_preview[2] = 0;
        int previews = l.previews[2];
        submit(runner, 3);
        run(runner, &l, 3, 3);
        cr_expect_eq(l.ends[2], 0);
        cr_expect_eq(l.previews[2], previews);
        atedm_worker_result_destroy(l.results[3]);
        l.results[3] = NULL;
        l.ends[3] = 0;
    }
    cr_expect_gt(canceled, 4);
    submit(runner, 4);
    close_runner(runner, &l); // with a request in it
}
