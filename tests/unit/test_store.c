// The job store: what was committed is there again, in order, once; failures are told and change
// nothing.
#include "server/store.h"

#include <criterion/criterion.h>
#include <pthread.h>
#include <sqlite3.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

// Texts of several ids.
#define IDS_MAX 2000

static char folder[64], path[96];
static uv_loop_t loop;
static atedm_store *store;

// What the last operation said.
static int calls;
static atedm_status status;
static size_t n_jobs, n_images, image_size;
static bool more;
static atedm_store_job first;
static char order[IDS_MAX];

// ---- a clock that was set: calls come here

static time_t set_by; // seconds

time_t time(time_t *ret_now)
{
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    now.tv_sec += set_by;
    if (ret_now)
        *ret_now = now.tv_sec;
    return now.tv_sec;
}

// ---- a disk that hangs while this is held: SQLite's calls come here

static pthread_mutex_t disk = PTHREAD_MUTEX_INITIALIZER;

int fdatasync(int fd)
{
    pthread_mutex_lock(&disk);
    pthread_mutex_unlock(&disk);
    return fsync(fd);
}

static void append(char text[IDS_MAX], const char *id)
{
    size_t size = strlen(text);
    snprintf(text + size, IDS_MAX - size, "%s ", id);
}

static void keep(void *user, atedm_store_result *result)
{
    (void)user;
    calls++;
    status = result->status;
    n_jobs = result->n_jobs;
    more = result->more;
    n_images = result->n_images;
    image_size = n_images ? result->images[0].size : 0;
    order[0] = '\0';
    for (size_t i = 0; i < n_jobs; i++) {
        append(order, result->jobs[i].id);
    }
    atedm_store_job_finish(&first);
    if (n_jobs)
        cr_assert_eq(atedm_store_job_copy(&result->jobs[0], &first), ATEDM_OK);
}

static void keep_pending(void *user, const atedm_store_job *job)
{
    append(user, job->id);
}

static void run_until(int wanted)
{
    while (calls < wanted)
        uv_run(&loop, UV_RUN_ONCE);
}

// Opens the store; `pending` gets the ids of what it has pending.
static atedm_status open_store(int64_t seconds, int64_t bytes, char *pending)
{
    char ignored[IDS_MAX] = "";
    atedm_error err = {""};
    atedm_status result = atedm_store_open(&(atedm_store_options){path, seconds, bytes}, &loop,
                                           keep_pending, pending ? pending : ignored, &store, &err);
    if (result)
        cr_log_info("%s", err.message);
    return result;
}

static void close_store(void)
{
    atedm_store_close(store);
    uv_run(&loop, UV_RUN_DEFAULT);
    store = NULL;
}

static void setup(void)
{
    snprintf(folder, sizeof folder, "/tmp/atedm-store-XXXXXX");
    cr_assert(mkdtemp(folder));
    snprintf(path, sizeof path, "%s/jobs.db", folder);
    uv_loop_init(&loop);
    calls = 0;
    cr_assert_eq(open_store(1000, 1000000, NULL), ATEDM_OK);
}

static void teardown(void)
{
    if (store)
        close_store();
    uv_loop_close(&loop);
    atedm_store_job_finish(&first);
    char command[128];
    snprintf(command, sizeof command, "rm -r %s", folder);
    cr_assert_eq(system(command), 0);
}

TestSuite(store, .init = setup, .fini = teardown);

static void add(const char *id, const char *owner, const char *key, const char *sent)
{
    atedm_store_job job = {.owner = owner, .key = key, .sent = sent, .request = "{}", .created = 1};
    strncpy(job.id, id, sizeof job.id - 1);
    cr_assert_eq(atedm_store_add(store, &job, keep, NULL), ATEDM_OK);
    run_until(calls + 1);
    cr_assert_eq(status, ATEDM_OK);
}

static void end(const char *id, atedm_store_state state, size_t bytes)
{
    char *png = calloc(1, bytes);
    atedm_worker_image images[2] = {{png, bytes}, {png, bytes}};
    cr_assert_eq(atedm_store_end(store, id, state, "{\"a\":1}", images,
                                 state == ATEDM_STORE_DONE ? 2 : 0, keep, NULL),
                 ATEDM_OK);
    run_until(calls + 1);
    free(png);
}

static void get(const char *id, int image)
{
    cr_assert_eq(atedm_store_get(store, id, image, keep, NULL), ATEDM_OK);
    run_until(calls + 1);
    cr_assert_eq(status, ATEDM_OK);
}

Test(store, keeps_a_job_over_its_life)
{
    add("a", "me", NULL, NULL);
    get("a", ATEDM_STORE_ALL_IMAGES);
    cr_assert_eq(n_jobs, 1);
    cr_assert_eq(n_images, 0);
    cr_assert_eq(first.state, ATEDM_STORE_PENDING);
    cr_assert_str_eq(first.owner, "me");
    cr_assert_str_eq(first.request, "{}");
    end("a", ATEDM_STORE_DONE, 100);
    close_store();
    cr_assert_eq(open_store(1000, 1000000, NULL), ATEDM_OK);
    get("a", ATEDM_STORE_ALL_IMAGES);
    cr_assert_eq(first.state, ATEDM_STORE_DONE);
    cr_assert_str_eq(first.answer, "{\"a\":1}");
    cr_assert_eq(first.n_images, 2);
    cr_assert_eq(n_images, 2);
    cr_assert_eq(image_size, 100);
    get("a", 1);
    cr_assert_eq(n_images, 1);
    get("a", 2);
    cr_assert_eq(n_images, 0);
    get("a", ATEDM_STORE_NO_IMAGES);
    cr_assert_eq(n_images, 0);
}

Test(store, tells_what_is_pending_in_order)
{
    char pending[IDS_MAX] = "";
    add("b", "", NULL, NULL);
    add("a", "", NULL, NULL);
    add("c", "", NULL, NULL);
    end("a", ATEDM_STORE_CANCELED, 0);
    close_store();
    cr_assert_eq(open_store(1000, 1000000, pending), ATEDM_OK);
    cr_assert_str_eq(pending, "b c ");
}

// Of each pending job, in order.
static void keep_tries(void *user, const atedm_store_job *job)
{
    char text[32];
    snprintf(text, sizeof text, "%s:%d", job->id, job->tries);
    append(user, text);
}

Test(store, remembers_runs_whose_end_it_did_not_see)
{
    const atedm_store_job begun = {.id = "a", .owner = "", .request = "{}", .tries = 1};
    cr_assert_eq(atedm_store_add(store, &begun, keep, NULL), ATEDM_OK);
    run_until(calls + 1);
    add("b", "", NULL, NULL);
    add("c", "", NULL, NULL);
    atedm_store_set_tries(store, "b", 2);
    atedm_store_set_tries(store, "c", 3);
    atedm_store_set_tries(store, "c", 2);
    atedm_store_set_tries(store, "nobody", 2);
    close_store();
    char pending[IDS_MAX] = "";
    atedm_error err = {""};
    cr_assert_eq(atedm_store_open(&(atedm_store_options){path, 1000, 1000000}, &loop, keep_tries,
                                  pending, &store, &err),
                 ATEDM_OK);
    cr_expect_str_eq(pending, "a:1 b:2 c:2 ");
}

// A store of the first version, which knew of no tries.
// A process that is killed behind it.
static void end_behind_settling(void)
{
    const atedm_store_job begun = {.id = "a", .owner = "", .request = "{}", .tries = 1};
    uv_loop_init(&loop);
    bool good = !open_store(1000, 1000000, NULL) && !atedm_store_add(store, &begun, keep, NULL);
    if (good)
        run_until(calls + 1);
    for (int i = 0; i < 200 && good; i++)
        good = !atedm_store_get(store, "a", ATEDM_STORE_NO_IMAGES, keep, NULL);
    atedm_store_set_tries(store, "a", 0);
    atedm_store_settle(store, 30);
    _exit(good ? 0 : 1);
}

Test(store, what_has_settled_outlives_its_process)
{
    close_store();
    pid_t child = fork();
    cr_assert_geq(child, 0);
    if (child == 0)
        end_behind_settling();
    int how = -1;
    cr_assert_eq(waitpid(child, &how, 0), child);
    cr_assert_eq(how, 0);
    char pending[IDS_MAX] = "";
    atedm_error err = {""};
    cr_assert_eq(atedm_store_open(&(atedm_store_options){path, 1000, 1000000}, &loop, keep_tries,
                                  pending, &store, &err),
                 ATEDM_OK, "%s", err.message);
    cr_assert_str_eq(pending, "a:0 ");
    atedm_store_settle(store, 30); // there is nothing to wait for
}

Test(store, takes_over_what_an_older_daemon_left)
{
    add("a", "me", "key", "body");
    close_store();
    sqlite3 *db;
    cr_assert_eq(sqlite3_open(path, &db), SQLITE_OK);
    cr_assert_eq(sqlite3_exec(db, "ALTER TABLE jobs DROP COLUMN tries; PRAGMA user_version = 1",
                              NULL, NULL, NULL),
                 SQLITE_OK);
    sqlite3_close(db);
    for (int i = 0; i < 2; i++) {
        char pending[IDS_MAX] = "";
        cr_assert_eq(open_store(1000, 1000000, pending), ATEDM_OK);
        cr_expect_str_eq(pending, "a ");
        close_store();
    }
    cr_assert_eq(open_store(1000, 1000000, NULL), ATEDM_OK);
    end("a", ATEDM_STORE_DONE, 10);
    get("a", ATEDM_STORE_ALL_IMAGES);
    cr_expect_eq(n_images, 2);
}

Test(store, ends_a_job_once)
{
    add("a", "", NULL, NULL);
    end("a", ATEDM_STORE_DONE, 10);
    end("a", ATEDM_STORE_CANCELED, 0);
    cr_assert_eq(status, ATEDM_OK);
    get("a", ATEDM_STORE_ALL_IMAGES);
    cr_assert_eq(first.state, ATEDM_STORE_DONE);
    cr_assert_eq(n_images, 2);
    end("nobody", ATEDM_STORE_DONE, 10);
    get("nobody", ATEDM_STORE_ALL_IMAGES);
    cr_assert_eq(n_jobs, 0);
}

Test(store, has_one_job_for_each_key_of_an_owner)
{
    add("a", "me", "key", "body");
    cr_assert_eq(n_jobs, 0);
    const atedm_store_job again = {
        .id = "b", .owner = "me", .key = "key", .sent = "other", .request = "{}", .created = 1};
    cr_assert_eq(atedm_store_add(store, &again, keep, NULL), ATEDM_OK);
    run_until(calls + 1);
    cr_assert_eq(status, ATEDM_ERR_IO);
    add("c", "you", "key", "body");
    cr_assert_eq(status, ATEDM_OK);
    add("d", "me", NULL, NULL);
    add("e", "me", NULL, NULL);
    cr_assert_eq(status, ATEDM_OK);
    get("b", ATEDM_STORE_NO_IMAGES);
    cr_assert_eq(n_jobs, 0);
}

static atedm_status asked_late;

static void ask_again(void *user, atedm_store_result *result)
{
    keep(user, result);
    asked_late = atedm_store_get(store, "a", ATEDM_STORE_NO_IMAGES, keep, NULL);
}

Test(store, takes_nothing_more_once_it_closes)
{
    const atedm_store_job job = {.id = "a", .owner = "", .request = "{}", .created = 1};
    cr_assert_eq(atedm_store_add(store, &job, ask_again, NULL), ATEDM_OK);
    close_store(); // which calls back
    cr_assert_eq(calls, 1);
    cr_assert_eq(status, ATEDM_OK);
    cr_assert_eq(asked_late, ATEDM_ERR_CANCELED);
}

Test(store, finds_a_job_by_its_key)
{
    static const struct {
        const char *owner, *key, *id;
    } cases[] = {{"me", "key", "a"},
                 {"you", "key", "b"},
                 {"me", "other", NULL},
                 {"they", "key", NULL},
                 {"me", "KEY", NULL}};
    add("a", "me", "key", "body");
    add("b", "you", "key", "text");
    end("a", ATEDM_STORE_DONE, 10);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        cr_assert_eq(atedm_store_find_key(store, cases[i].owner, cases[i].key, keep, NULL),
                     ATEDM_OK);
        run_until(calls + 1);
        cr_assert_eq(status, ATEDM_OK);
        cr_assert_eq(n_jobs, cases[i].id ? 1 : 0, "case %zu", i);
        if (cases[i].id)
            cr_assert_str_eq(first.id, cases[i].id);
    }
    cr_assert_eq(n_images, 0);
}

Test(store, lists_an_owner_by_state_and_page)
{
    const char *ids[] = {"a", "b", "c", "d"};
    for (int i = 0; i < 4; i++)
        add(ids[i], "me", NULL, NULL);
    add("x", "you", NULL, NULL);
    end("b", ATEDM_STORE_DONE, 1);
    cr_assert_eq(atedm_store_list(store, "me", -1, INT64_MAX, 3, keep, NULL), ATEDM_OK);
    run_until(calls + 1);
    cr_assert_str_eq(order, "d c b ");
    cr_assert(more);
    cr_assert_eq(atedm_store_list(store, "me", -1, 2, 3, keep, NULL), ATEDM_OK);
    run_until(calls + 1);
    cr_assert_str_eq(order, "a ");
    cr_assert_not(more);
    cr_assert_eq(atedm_store_list(store, "me", -1, INT64_MAX, 4, keep, NULL), ATEDM_OK);
    run_until(calls + 1);
    cr_assert_str_eq(order, "d c b a ");
    cr_assert_not(more);
    cr_assert_eq(atedm_store_list(store, "me", ATEDM_STORE_DONE, INT64_MAX, 3, keep, NULL),
                 ATEDM_OK);
    run_until(calls + 1);
    cr_assert_str_eq(order, "b ");
    cr_assert_null(first.answer);
}

Test(store, forgets_the_oldest_over_its_bytes_but_never_the_latest)
{
    atedm_store_set_retention(store, 1000, 500);
    const char *ids[] = {"a", "b", "c"};
    for (int i = 0; i < 3; i++) {
        add(ids[i], "", NULL, NULL);
        end(ids[i], ATEDM_STORE_DONE, 100); // 207 bytes with the answer
    }
    get("a", ATEDM_STORE_NO_IMAGES);
    cr_assert_eq(n_jobs, 0);
    get("b", ATEDM_STORE_NO_IMAGES);
    cr_assert_eq(n_jobs, 1);
    add("d", "", NULL, NULL);
    end("d", ATEDM_STORE_DONE, 1000);
    get("d", ATEDM_STORE_ALL_IMAGES);
    cr_assert_eq(n_images, 2);
    get("c", ATEDM_STORE_NO_IMAGES);
    cr_assert_eq(n_jobs, 0);
}

Test(store, forgets_the_old_and_not_the_pending)
{
    add("a", "", NULL, NULL);
    end("a", ATEDM_STORE_DONE, 100);
    add("b", "", NULL, NULL);
    atedm_store_set_retention(store, -1, 1000000);
    cr_assert_eq(atedm_store_expire(store, keep, NULL), ATEDM_OK);
    run_until(calls + 1);
    cr_assert_eq(status, ATEDM_OK);
    get("a", ATEDM_STORE_NO_IMAGES);
    cr_assert_eq(n_jobs, 0);
    get("b", ATEDM_STORE_NO_IMAGES);
    cr_assert_eq(n_jobs, 1);
}

static void expire(void)
{
    cr_assert_eq(atedm_store_expire(store, keep, NULL), ATEDM_OK);
    run_until(calls + 1);
    cr_assert_eq(status, ATEDM_OK);
}

static size_t count_ended(void)
{
    cr_assert_eq(atedm_store_list(store, NULL, ATEDM_STORE_CANCELED, INT64_MAX, 1000, keep, NULL),
                 ATEDM_OK);
    run_until(calls + 1);
    return n_jobs;
}

Test(store, a_clock_that_is_set_forward_makes_no_job_old)
{
    add("a", "", NULL, NULL);
    end("a", ATEDM_STORE_CANCELED, 0);
    set_by = 7200;
    expire();
    cr_expect_eq(count_ended(), 1);
    add("b", "", NULL, NULL);
    end("b", ATEDM_STORE_CANCELED, 0);
    set_by = 0; // and back
    expire();
    cr_expect_eq(count_ended(), 2);
    set_by = -7200; // both are from the future
    expire();
    cr_expect_eq(count_ended(), 2);
    close_store();
    set_by = 20000; // this one has to believe it
    cr_assert_eq(open_store(1000, 1000000, NULL), ATEDM_OK);
    expire();
    cr_expect_eq(count_ended(), 0);
}

Test(store, forgets_so_many_at_once)
{
    enum { MANY = 600 };
    for (int i = 0; i < MANY; i++) {
        atedm_store_job job = {.owner = "", .request = "{}"};
        snprintf(job.id, sizeof job.id, "%d", i);
        cr_assert_eq(atedm_store_add(store, &job, keep, NULL), ATEDM_OK);
        cr_assert_eq(
            atedm_store_end(store, job.id, ATEDM_STORE_CANCELED, "{}", NULL, 0, keep, NULL),
            ATEDM_OK);
    }
    run_until(2 * MANY);
    cr_assert_eq(count_ended(), MANY);
    atedm_store_set_retention(store, 1000, 0);
    size_t left = MANY;
    for (bool goes_on = true; goes_on;) {
        expire();
        goes_on = more;
        size_t now = count_ended();
        cr_assert_lt(now, left);
        cr_assert_geq(now + 256, left);
        left = now;
    }
    cr_expect_eq(left, 0);
}

Test(store, removes)
{
    add("a", "", NULL, NULL);
    end("a", ATEDM_STORE_DONE, 100);
    cr_assert_eq(atedm_store_remove(store, "a", keep, NULL), ATEDM_OK);
    run_until(calls + 1);
    cr_assert_eq(n_jobs, 1);
    get("a", ATEDM_STORE_ALL_IMAGES);
    cr_assert_eq(n_jobs, 0);
    cr_assert_eq(n_images, 0);
}

// Among operations that share a transaction one that fails must not take the others along.
Test(store, one_failure_is_no_other_ones)
{
    atedm_store_job job = {.id = "same", .owner = "", .request = "{}"};
    atedm_store_job other = {.id = "other", .owner = "", .request = "{}"};
    cr_assert_eq(atedm_store_add(store, &job, keep, NULL), ATEDM_OK);
    cr_assert_eq(atedm_store_add(store, &job, keep, NULL), ATEDM_OK); // the id is there
    cr_assert_eq(atedm_store_add(store, &other, keep, NULL), ATEDM_OK);
    run_until(3);
    cr_assert_eq(status, ATEDM_OK);
    get("same", ATEDM_STORE_NO_IMAGES);
    cr_assert_eq(n_jobs, 1);
    get("other", ATEDM_STORE_NO_IMAGES);
    cr_assert_eq(n_jobs, 1);
    cr_assert_eq(atedm_store_add(store, &job, keep, NULL), ATEDM_OK);
    run_until(calls + 1);
    cr_assert_eq(status, ATEDM_ERR_IO);
}

static void count(void *user, atedm_store_result *result)
{
    cr_assert_eq(result->status, ATEDM_OK);
    ++*(int *)user;
}

// What clients ask for is refused then, and what jobs come to is not.
Test(store, keeps_so_much_for_a_disk_that_hangs)
{
    enum { SIZE = 1 << 20 };
    char *text = malloc(SIZE);
    memset(text, 'a', SIZE - 1);
    text[SIZE - 1] = '\0';
    add("a", "", NULL, NULL);
    int done = 0, taken = 0;
    pthread_mutex_lock(&disk);
    atedm_status result = ATEDM_OK;
    while (!result && taken < 1000) {
        atedm_store_job job = {.owner = "", .request = text};
        snprintf(job.id, sizeof job.id, "%d", taken);
        result = atedm_store_add(store, &job, count, &done);
        taken += !result;
    }
    cr_expect_eq(result, ATEDM_ERR_LIMIT);
    cr_expect_lt(taken, 2 * (int)(ATEDM_STORE_WAITING_MAX >> 20)); // a batch is at the disk
    for (int i = 0; i < 100000 && atedm_store_get(store, "a", ATEDM_STORE_NO_IMAGES, count,
                                                  &done) != ATEDM_ERR_LIMIT;
         i++)
        taken++;
    cr_expect_eq(atedm_store_find_key(store, "", "k", count, &done), ATEDM_ERR_LIMIT);
    cr_expect_eq(atedm_store_end(store, "a", ATEDM_STORE_DONE, text, NULL, 0, count, &done),
                 ATEDM_OK);
    pthread_mutex_unlock(&disk);
    while (done < taken + 1)
        uv_run(&loop, UV_RUN_ONCE);
    get("a", ATEDM_STORE_NO_IMAGES);
    cr_expect_eq(first.state, ATEDM_STORE_DONE);
    free(text);
}

Test(store, does_all_before_it_closes)
{
    for (int i = 0; i < 200; i++) {
        atedm_store_job job = {.owner = "", .request = "{}"};
        snprintf(job.id, sizeof job.id, "%d", i);
        cr_assert_eq(atedm_store_add(store, &job, keep, NULL), ATEDM_OK);
    }
    close_store();
    cr_assert_eq(calls, 200);
    char pending[IDS_MAX] = "";
    cr_assert_eq(open_store(1000, 1000000, pending), ATEDM_OK);
    cr_assert_not_null(strstr(pending, " 199 "));
}

Test(store, is_one_process_s)
{
    atedm_store *mine = store;
    cr_assert_eq(open_store(1000, 1000000, NULL), ATEDM_ERR_IO);
    store = mine;
    uv_run(&loop, UV_RUN_NOWAIT);
}

Test(store, refuses_what_it_does_not_know)
{
    close_store();
    sqlite3 *db;
    cr_assert_eq(sqlite3_open(path, &db), SQLITE_OK);
    cr_assert_eq(sqlite3_exec(db, "PRAGMA user_version = 99", NULL, NULL, NULL), SQLITE_OK);
    sqlite3_close(db);
    cr_assert_eq(open_store(1000, 1000000, NULL), ATEDM_ERR_UNSUPPORTED);
    FILE *f = fopen(path, "w");
    fputs("this is no database, whatever its name says, and long enough to be looked at ......", f);
    fclose(f);
    cr_assert_eq(open_store(1000, 1000000, NULL), ATEDM_ERR_IO);
    snprintf(path, sizeof path, "%s/nowhere/jobs.db", folder);
    cr_assert_eq(open_store(1000, 1000000, NULL), ATEDM_ERR_IO);
}
