// Jobs on disk: what was accepted with 202 is here before the client hears of it, and its result is
// here before anybody is told that it is done. One SQLite file, one thread that alone touches it;
// the daemon's loop hands operations over and is called back, so it never waits for a disk.
// Operations take effect in the order in which they were handed over; those that wait together
// share a transaction.
#ifndef ATEDM_STORE_H
#define ATEDM_STORE_H

#include "core/base/status.h"
#include "server/worker_message.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <uv.h>

#define ATEDM_STORE_ID_SIZE 17    // as ATEDM_HTTP_ID_SIZE
#define ATEDM_STORE_LIST_MAX 1000 // rows of one listing
// Bytes of operations that wait for the disk, before what clients ask for is refused.
#define ATEDM_STORE_WAITING_MAX ((size_t)64 << 20)

typedef enum atedm_store_state {
    ATEDM_STORE_PENDING, // accepted, not at its end
    ATEDM_STORE_DONE,
    ATEDM_STORE_FAILED,
    ATEDM_STORE_CANCELED,
} atedm_store_state;

// Texts are lent to the calls that take a job, and owned by the jobs that are given.
typedef struct atedm_store_job {
    char id[ATEDM_STORE_ID_SIZE];
    int64_t sequence;    // order of acceptance; the store's to give
    const char *owner;   // who sent it; "": anybody
    const char *key;     // its Idempotency-Key; NULL: none. One job for each key of an owner.
    const char *sent;    // what was sent with the key, to compare a second time with; NULL: no key
    const char *request; // a body of POST /generate that makes the same pictures whenever it is run
    int64_t created, ended; // Unix time
    atedm_store_state state;
    const char *answer; // JSON; NULL: not at its end
    size_t n_images;
    int tries; // runs that were begun, and that no daemon has seen the end of
} atedm_store_job;

void atedm_store_job_finish(atedm_store_job *job); // frees its texts; NULL allowed
// ATEDM_ERR_NOMEM: *ret_copy owns nothing.
ATEDM_MUST_CHECK atedm_status atedm_store_job_copy(const atedm_store_job *job,
                                                   atedm_store_job *ret_copy);

typedef struct atedm_store_options {
    const char *path;
    int64_t retention_s;     // jobs that ended longer ago are forgotten
    int64_t retention_bytes; // of all answers and images that are kept; the oldest go first
} atedm_store_options;

// How an operation went. What it lends is gone when the callback returns, unless it is taken.
typedef struct atedm_store_result {
    atedm_status status; // ATEDM_ERR_IO: nothing of the operation happened, `error` says why
    atedm_error error;
    atedm_store_job *jobs;
    size_t n_jobs;
    bool more; // of a list: there are jobs behind the last one
    atedm_worker_image *images;
    size_t n_images;
} atedm_store_result;

typedef void (*atedm_store_done)(void *user, atedm_store_result *result);

typedef struct atedm_store atedm_store;

// Opens the file or makes one, and locks it for as long as it is open. Calls `pending` with each
// job that is not at its end, in the order of acceptance; the job is lent.
ATEDM_MUST_CHECK atedm_status atedm_store_open(const atedm_store_options *options, uv_loop_t *loop,
                                               void (*pending)(void *user,
                                                               const atedm_store_job *job),
                                               void *user, atedm_store **ret_store,
                                               atedm_error *err);
// Does all that was handed over before, calls back, closes the file. The memory goes when the loop
// has closed the handle. NULL allowed.
void atedm_store_close(atedm_store *store);

// Waits until all that was handed over before is in the file, but no longer than so many seconds.
// That outlives this process.
void atedm_store_settle(atedm_store *store, double seconds);

// Each calls `done` once from the loop, never from inside. It does not on ATEDM_ERR_NOMEM, nor on
// ATEDM_ERR_LIMIT: too much waits (ends of jobs are taken nevertheless), nor on ATEDM_ERR_CANCELED:
// the store is being closed, and this is one of its last calls back.
//
// A new job. ATEDM_ERR_IO where its owner has one of the same key: atedm_store_find_key comes
// first.
ATEDM_MUST_CHECK atedm_status atedm_store_add(atedm_store *store, const atedm_store_job *job,
                                              atedm_store_done done, void *user);
// The end of a pending job; `images` are borrowed until `done`.
ATEDM_MUST_CHECK atedm_status atedm_store_end(atedm_store *store, const char *id,
                                              atedm_store_state state, const char *answer,
                                              const atedm_worker_image *images, size_t n_images,
                                              atedm_store_done done, void *user);
// A run of a pending job begins, or is over. Where it cannot be written, nobody is told.
void atedm_store_set_tries(atedm_store *store, const char *id, int tries);
// One job; n_jobs 0: there is none. `image`: the number of the image that comes with it, or one of
// the following.
enum { ATEDM_STORE_NO_IMAGES = -1, ATEDM_STORE_ALL_IMAGES = -2 };
ATEDM_MUST_CHECK atedm_status atedm_store_get(atedm_store *store, const char *id, int image,
                                              atedm_store_done done, void *user);
// The job that an owner sent with a key, without images; n_jobs 0: there is none.
ATEDM_MUST_CHECK atedm_status atedm_store_find_key(atedm_store *store, const char *owner,
                                                   const char *key, atedm_store_done done,
                                                   void *user);
// Jobs of an owner (NULL: of all), latest first. `state`: -1 for all. `before`: only those with a
// smaller sequence. Without requests and answers.
ATEDM_MUST_CHECK atedm_status atedm_store_list(atedm_store *store, const char *owner, int state,
                                               int64_t before, size_t limit, atedm_store_done done,
                                               void *user);
// Jobs that are not at their end, as `pending` of atedm_store_open gets them.
ATEDM_MUST_CHECK atedm_status atedm_store_pending(atedm_store *store, atedm_store_done done,
                                                  void *user);
// Forgets a job and its images. n_jobs 1 where there was one.
ATEDM_MUST_CHECK atedm_status atedm_store_remove(atedm_store *store, const char *id,
                                                 atedm_store_done done, void *user);
// Forgets what is older or more than the options say; happens at each end as well. `more`: there is
// more of it than may be at once.
ATEDM_MUST_CHECK atedm_status atedm_store_expire(atedm_store *store, atedm_store_done done,
                                                 void *user);
// Takes effect with the next expiry.
void atedm_store_set_retention(atedm_store *store, int64_t retention_s, int64_t retention_bytes);

#endif
