// Keeps jobs on disk. The store has a job before its client gets the answer 202, and it has a job's
// result before anyone learns that the job is done. The store is one SQLite file, which only one
// thread uses. The daemon's loop hands operations to that thread and gets their results by
// callbacks, so the loop never waits for a disk. Operations take effect in the order in which they
// were handed over. Operations that wait together share a transaction.
#ifndef ATEDM_STORE_H
#define ATEDM_STORE_H

#include "core/base/status.h"
#include "server/worker_message.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <uv.h>

#define ATEDM_STORE_ID_SIZE 17    // as ATEDM_HTTP_ID_SIZE
#define ATEDM_STORE_LIST_MAX 1000 // most rows of one list
// Most bytes of operations that wait for the disk. Beyond this the store refuses operations of
// clients.
#define ATEDM_STORE_WAITING_MAX ((size_t)64 << 20)

typedef enum atedm_store_state {
    ATEDM_STORE_PENDING, // accepted, has not ended
    ATEDM_STORE_DONE,
    ATEDM_STORE_FAILED,
    ATEDM_STORE_CANCELED,
} atedm_store_state;

// Functions that take a job borrow its texts. A job that the store returns owns its texts.
typedef struct atedm_store_job {
    char id[ATEDM_STORE_ID_SIZE];
    int64_t sequence;    // order of acceptance; set by the store
    const char *owner;   // the client that sent it; "": anonymous
    const char *key;     // its Idempotency-Key, unique for each owner; NULL: none
    const char *sent;    // the body that came with the key, to compare a second one; NULL: no key
    const char *request; // a body of POST /generate that makes the same pictures at every run
    int64_t created, ended; // Unix time
    atedm_store_state state;
    const char *answer; // JSON; NULL: the job has not ended
    size_t n_images;
    int tries; // runs that began and whose end no daemon has recorded
} atedm_store_job;

void atedm_store_job_finish(atedm_store_job *job); // frees the job's texts; NULL allowed
// Copies a job with its texts. ATEDM_ERR_NOMEM: *ret_copy owns nothing.
ATEDM_MUST_CHECK atedm_status atedm_store_job_copy(const atedm_store_job *job,
                                                   atedm_store_job *ret_copy);

typedef struct atedm_store_options {
    const char *path;
    int64_t retention_s;     // jobs that ended longer ago are removed
    int64_t retention_bytes; // most bytes of answers and images; the oldest go first
} atedm_store_options;

// The result of an operation. Its jobs and images are freed when the callback returns, unless the
// callback takes them.
typedef struct atedm_store_result {
    atedm_status status; // ATEDM_ERR_IO: the operation had no effect; `error` says why
    atedm_error error;
    atedm_store_job *jobs;
    size_t n_jobs;
    bool more; // of a list: there are further jobs after the last one
    atedm_worker_image *images;
    size_t n_images;
} atedm_store_result;

typedef void (*atedm_store_done)(void *user, atedm_store_result *result);

typedef struct atedm_store atedm_store;

// Opens or creates the file, and locks it until it is closed. Calls `pending` with each job that
// has not ended, in the order of acceptance; the job is lent.
ATEDM_MUST_CHECK atedm_status atedm_store_open(const atedm_store_options *options, uv_loop_t *loop,
                                               void (*pending)(void *user,
                                                               const atedm_store_job *job),
                                               void *user, atedm_store **ret_store,
                                               atedm_error *err);
// Performs all operations that were handed over, calls back, and closes the file. The memory is
// freed when the loop has closed the handle. NULL allowed.
void atedm_store_close(atedm_store *store);

// Waits until all operations that were handed over are in the file, but at most `seconds`. What is
// in the file survives this process.
void atedm_store_settle(atedm_store *store, double seconds);

// Each function below calls `done` once from the loop, never from inside. It does not call `done`
// if it fails. ATEDM_ERR_NOMEM: out of memory. ATEDM_ERR_LIMIT: too many operations wait (ends of
// jobs are taken nevertheless). ATEDM_ERR_CANCELED: the store is closing, and the caller is one of
// its last callbacks.
//
// Adds a new job. ATEDM_ERR_IO if its owner has a job with the same key, so call
// atedm_store_find_key first.
ATEDM_MUST_CHECK atedm_status atedm_store_add(atedm_store *store, const atedm_store_job *job,
                                              atedm_store_done done, void *user);
// Stores the end of a pending job. `images` are borrowed until `done`.
ATEDM_MUST_CHECK atedm_status atedm_store_end(atedm_store *store, const char *id,
                                              atedm_store_state state, const char *answer,
                                              const atedm_worker_image *images, size_t n_images,
                                              atedm_store_done done, void *user);
// Records the tries of a pending job: its run begins or is over. Nobody learns of a failure.
void atedm_store_set_tries(atedm_store *store, const char *id, int tries);
// Gets one job; n_jobs 0: there is none. `image`: the number of the image to get with it, or one of
// the values below.
enum { ATEDM_STORE_NO_IMAGES = -1, ATEDM_STORE_ALL_IMAGES = -2 };
ATEDM_MUST_CHECK atedm_status atedm_store_get(atedm_store *store, const char *id, int image,
                                              atedm_store_done done, void *user);
// Gets the job that an owner sent with a key, without images; n_jobs 0: there is none.
ATEDM_MUST_CHECK atedm_status atedm_store_find_key(atedm_store *store, const char *owner,
                                                   const char *key, atedm_store_done done,
                                                   void *user);
// Lists the jobs of an owner (NULL: of all owners), latest first. `state`: -1 for all. `before`:
// only jobs with a smaller sequence. The jobs come without requests and answers.
ATEDM_MUST_CHECK atedm_status atedm_store_list(atedm_store *store, const char *owner, int state,
                                               int64_t before, size_t limit, atedm_store_done done,
                                               void *user);
// Lists the jobs that have not ended, like `pending` of atedm_store_open.
ATEDM_MUST_CHECK atedm_status atedm_store_pending(atedm_store *store, atedm_store_done done,
                                                  void *user);
// Removes a job and its images. n_jobs 1: there was one.
ATEDM_MUST_CHECK atedm_status atedm_store_remove(atedm_store *store, const char *id,
                                                 atedm_store_done done, void *user);
// Removes jobs beyond the retention; each atedm_store_end does this too. `more`: there are further
// ones, since one call removes a limited number.
ATEDM_MUST_CHECK atedm_status atedm_store_expire(atedm_store *store, atedm_store_done done,
                                                 void *user);
// Sets the retention, from the next removal on.
void atedm_store_set_retention(atedm_store *store, int64_t retention_s, int64_t retention_bytes);

#endif
