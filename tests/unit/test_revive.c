// Jobs that another daemon left, where memory is short: none is taken for one that cannot be done,
// and none is lost.
#include "server/admit.h"
#include "server/jobs.h"
#include "server/json_body.h"

#include <criterion/criterion.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

// ---- memory that is not there: the linker has these calls come here

static int allocations, refused_from, refused_to; // counted from 1; 0: none is refused

static bool is_refused(void)
{
    allocations++;
    return refused_from && allocations >= refused_from && allocations <= refused_to;
}

void *__real_malloc(size_t bytes);
void *__wrap_malloc(size_t bytes);
void *__real_calloc(size_t count, size_t bytes);
void *__wrap_calloc(size_t count, size_t bytes);
char *__real_strdup(const char *text);
char *__wrap_strdup(const char *text);

void *__wrap_malloc(size_t bytes)
{
    return is_refused() ? NULL : __real_malloc(bytes);
}

void *__wrap_calloc(size_t count, size_t bytes)
{
    return is_refused() ? NULL : __real_calloc(count, bytes);
}

char *__wrap_strdup(const char *text)
{
    return is_refused() ? NULL : __real_strdup(text);
}

// ---- a request is read back

static const char request[] =
    "{\"prompt\":\"a red circle beside a blue square, and nothing else that one could see\","
    "\"negative_prompt\":\"\\u00e9\",\"steps\":4,\"num_images\":2,\"seed\":7,"
    "\"pruning\":{\"ratio\":0.5,\"phases\":[{\"until\":0.5,\"skip\":[\"down.first\"]},"
    "{\"until\":1.0}]}}";

static atedm_config config = {.default_pruning = "at-edm"};

static void open_daemon(atedm_daemon *d)
{
    char path[512];
    atedm_error err = {""};
    *d = (atedm_daemon){.config = &config};
    snprintf(path, sizeof path, "%s/models/demo", getenv("ATEDM_SOURCE_DIR"));
    cr_assert_eq(atedm_model_config_read(path, &d->model, &err), ATEDM_OK, "%s", err.message);
    d->limits = (atedm_request_limits){.native_width = 96,
                                       .native_height = 96,
                                       .size_multiple = 8,
                                       .max_area = 1 << 20,
                                       .max_images = 3,
                                       .max_steps = 40};
    cr_assert_eq(atedm_prune_preset("at-edm", &d->default_prune), ATEDM_OK);
}

static void expect_whole(const atedm_job *job)
{
    cr_expect_str_eq(job->request.prompt,
                     "a red circle beside a blue square, and nothing else that one could see");
    cr_expect_str_eq(job->request.negative_prompt, "\u00e9");
    cr_expect_eq(job->request.steps, 4);
    cr_expect_eq(job->request.seed, 7);
    cr_expect_eq(job->request.prune.n_phases, 2);
    cr_expect_not_null(job->plan);
}

// Refuses one allocation, or all from one on, each in turn.
static void refuse_each(atedm_daemon *d, bool all)
{
    for (int at = 1;; at++) {
        atedm_job *job = NULL;
        atedm_error err = {""};
        allocations = 0;
        refused_from = at;
        refused_to = all ? INT32_MAX : at;
        atedm_status status = atedm_admit_stored(d, request, &job, &err);
        bool refused = allocations >= at;
        refused_from = 0;
        cr_expect_eq(status, refused ? ATEDM_ERR_NOMEM : ATEDM_OK, "allocation %d: %d, %s", at,
                     status, err.message);
        if (!status)
            expect_whole(job);
        atedm_job_destroy(job);
        if (!refused)
            break;
    }
    cr_expect_gt(allocations, 20);
}

Test(revive, want_of_memory_is_nothing_that_a_request_is_to_blame_for)
{
    atedm_daemon d;
    atedm_json_body_prepare();
    open_daemon(&d);
    refuse_each(&d, false);
    refuse_each(&d, true);
    atedm_job *job = NULL;
    d.limits.max_steps = 3;
    cr_expect_eq(atedm_admit_stored(&d, request, &job, NULL), ATEDM_ERR_INVALID);
    cr_expect_eq(atedm_admit_stored(&d, "{", &job, NULL), ATEDM_ERR_INVALID);
}

// ---- and its job goes on

static int revivals, failures; // how often it was asked; how often there is no memory

static atedm_status revive(void *user, const char *text, atedm_job **ret_job, atedm_error *err)
{
    (void)user;
    cr_expect_str_eq(text, request);
    revivals++;
    if (failures) {
        failures--;
        return atedm_error_set(err, ATEDM_ERR_NOMEM, "no memory");
    }
    *ret_job = calloc(1, sizeof **ret_job);
    (*ret_job)->request = (atedm_request){.prompt = strdup("a"), .steps = 4, .deadline_s = NAN};
    return ATEDM_OK;
}

static void on_idle(void *user)
{
    (void)user;
}

static atedm_jobs_options options;

static void open_jobs(uv_loop_t *loop, const char *path, atedm_jobs **ret_jobs)
{
    static int64_t lost;
    static const atedm_log log = {.fd = STDERR_FILENO, .level = ATEDM_LOG_ERROR, .lost = &lost};
    atedm_error err = {""};
    options = (atedm_jobs_options){
        .loop = loop, .log = &log, .store = {path, 1000, 1 << 20}, .revive = revive};
    cr_assert_eq(atedm_metrics_create(&options.metrics), ATEDM_OK);
    const atedm_dispatch_options dispatch = {
        .loop = loop, .metrics = options.metrics, .max_queue = 4, .idle = on_idle};
    cr_assert_eq(atedm_dispatch_create(&dispatch, &options.dispatch, &err), ATEDM_OK);
    cr_assert_eq(atedm_jobs_create(&options, ret_jobs, &err), ATEDM_OK, "%s", err.message);
}

static void close_jobs(uv_loop_t *loop, atedm_jobs *jobs)
{
    atedm_jobs_close(jobs);
    atedm_dispatch_close(options.dispatch);
    uv_run(loop, UV_RUN_DEFAULT);
    atedm_jobs_destroy(jobs);
    atedm_dispatch_destroy(options.dispatch);
    atedm_metrics_destroy(options.metrics);
}

static void on_event(void *user, atedm_live *live, atedm_job_event event)
{
    (void)live;
    *(atedm_job_event *)user = event;
}

Test(revive, a_job_that_there_is_no_memory_for_is_tried_again)
{
    char folder[] = "/tmp/test-revive-XXXXXX", path[64];
    cr_assert_not_null(mkdtemp(folder));
    snprintf(path, sizeof path, "%s/jobs.db", folder);
    uv_loop_t loop;
    uv_loop_init(&loop);
    atedm_jobs *jobs;
    open_jobs(&loop, path, &jobs);
    atedm_job *job = NULL;
    cr_assert_eq(revive(NULL, request, &job, NULL), ATEDM_OK);
    atedm_job_event event = ATEDM_JOB_MOVED;
    atedm_job_watcher watcher = {.call = on_event, .user = &event};
    const atedm_store_job record = {.id = "0123456789abcdef", .owner = "", .request = request};
    cr_assert_eq(atedm_jobs_submit(jobs, job, &record, &watcher), ATEDM_OK);
    while (event != ATEDM_JOB_ACCEPTED)
        uv_run(&loop, UV_RUN_ONCE);
    close_jobs(&loop, jobs);
    cr_expect_eq(event, ATEDM_JOB_LEFT);

    revivals = 0;
    failures = 2;
    open_jobs(&loop, path, &jobs);
    cr_expect_eq(revivals, 1);
    cr_expect_null(atedm_jobs_find(jobs, record.id), "the store has it, as it was");
    cr_expect_eq(atedm_dispatch_get_state(options.dispatch).depth, 0);
    while (!atedm_jobs_find(jobs, record.id) && revivals < 10)
        uv_run(&loop, UV_RUN_ONCE);
    cr_expect_eq(revivals, 3);
    cr_expect_eq(atedm_dispatch_get_state(options.dispatch).depth, 1);
    close_jobs(&loop, jobs);
    uv_loop_close(&loop);
    snprintf(path, sizeof path, "rm -r %s", folder);
    cr_expect_eq(system(path), 0);
}
