// The store's file: see store_sql.h. Statements are prepared once. WAL with full synchronisation
// makes committed operations survive the end of the process or the machine.
#include "server/store_sql.h"

#include "server/store_path.h"

#include <sqlite3.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#define SCHEMA_VERSION 2
// Most pages that one removal gives back to the file system.
#define VACUUM_PAGES "256"
// Most jobs that one removal takes, because other operations wait for it.
#define EXPIRED_AT_ONCE 256

static const char schema[] =
    "CREATE TABLE jobs(sequence INTEGER PRIMARY KEY AUTOINCREMENT, id TEXT NOT NULL UNIQUE,"
    " owner TEXT NOT NULL, key TEXT, sent TEXT, request TEXT NOT NULL, created INTEGER NOT NULL,"
    " ended INTEGER NOT NULL DEFAULT 0, state INTEGER NOT NULL DEFAULT 0, answer TEXT,"
    " images INTEGER NOT NULL DEFAULT 0, bytes INTEGER NOT NULL DEFAULT 0,"
    " tries INTEGER NOT NULL DEFAULT 0);"
    "CREATE UNIQUE INDEX jobs_key ON jobs(owner, key) WHERE key IS NOT NULL;"
    "CREATE INDEX jobs_pending ON jobs(sequence) WHERE state = 0;"
    "CREATE INDEX jobs_ended ON jobs(ended, sequence) WHERE state <> 0;"
    "CREATE INDEX jobs_owner ON jobs(owner, sequence);"
    "CREATE TABLE images(job INTEGER NOT NULL REFERENCES jobs(sequence) ON DELETE CASCADE,"
    " number INTEGER NOT NULL, png BLOB NOT NULL, PRIMARY KEY(job, number));"
    "PRAGMA user_version = 2;";

// Created in files of all versions. These indexes serve lists by state when few of many jobs are in
// that state.
static const char indexes[] =
    "CREATE INDEX IF NOT EXISTS jobs_state ON jobs(state, sequence);"
    "CREATE INDEX IF NOT EXISTS jobs_owner_state ON jobs(owner, state, sequence);";

static const char schema_from_1[] =
    "ALTER TABLE jobs ADD COLUMN tries INTEGER NOT NULL DEFAULT 0; PRAGMA user_version = 2;";

enum {
    BEGIN,
    COMMIT,
    ROLLBACK,
    ADD,
    SET_TRIES,
    FIND_KEY,
    END,
    ADD_IMAGE,
    GET,
    GET_IMAGES,
    LIST,
    LIST_STATE,
    LIST_OWNER,
    LIST_OWNER_STATE,
    REMOVE,
    OLDEST,
    TOTAL,
    PENDING,
    VACUUM,
    N_STATEMENTS
};

// ?1: only jobs with a smaller sequence; ?2: most rows; ?3: the owner; ?4: the state.
#define LIST_WHERE                                                                                 \
    "SELECT sequence, id, owner, NULL, NULL, NULL, created, ended, state, NULL, images, tries"     \
    " FROM jobs WHERE "
#define LIST_REST "sequence < ?1 ORDER BY sequence DESC LIMIT ?2"
#define COLUMNS                                                                                    \
    "sequence, id, owner, key, sent, request, created, ended, state, answer, images, tries"

static const char *const statements[N_STATEMENTS] = {
    [BEGIN] = "BEGIN IMMEDIATE",
    [COMMIT] = "COMMIT",
    [ROLLBACK] = "ROLLBACK",
    [ADD] = "INSERT INTO jobs(id, owner, key, sent, request, created, tries)"
            " VALUES(?, ?, ?, ?, ?, ?, ?)",
    [SET_TRIES] = "UPDATE jobs SET tries = ?2 WHERE id = ?1 AND state = 0",
    [FIND_KEY] = "SELECT " COLUMNS " FROM jobs WHERE owner = ? AND key = ?",
    [END] = "UPDATE jobs SET state = ?2, ended = ?3, answer = ?4, images = ?5, bytes = ?6"
            " WHERE id = ?1 AND state = 0 RETURNING sequence",
    [ADD_IMAGE] = "INSERT INTO images(job, number, png) VALUES(?, ?, ?)",
    [GET] = "SELECT " COLUMNS " FROM jobs WHERE id = ?",
    [GET_IMAGES] = "SELECT png FROM images WHERE job = ?1 AND (?2 < 0 OR number = ?2)"
                   " ORDER BY number",
    [LIST] = LIST_WHERE LIST_REST,
    [LIST_STATE] = LIST_WHERE "state = ?4 AND " LIST_REST,
    [LIST_OWNER] = LIST_WHERE "owner = ?3 AND " LIST_REST,
    [LIST_OWNER_STATE] = LIST_WHERE "owner = ?3 AND state = ?4 AND " LIST_REST,
    [REMOVE] = "DELETE FROM jobs WHERE id = ? RETURNING bytes",
    [OLDEST] = "SELECT id, ended FROM jobs WHERE state <> 0 AND id <> ? ORDER BY ended, sequence"
               " LIMIT 1",
    [TOTAL] = "SELECT coalesce(sum(bytes), 0) FROM jobs",
    [PENDING] = "SELECT " COLUMNS " FROM jobs WHERE state = 0 ORDER BY sequence",
    [VACUUM] = "PRAGMA incremental_vacuum(" VACUUM_PAGES ")",
};

struct atedm_store_file {
    sqlite3 *db;
    atedm_store_place place;
    sqlite3_stmt *statements[N_STATEMENTS];
    int64_t total; // bytes of all answers and images; -1: not counted yet
};

// ---- helpers

static atedm_status fail(const atedm_store_file *file, atedm_error *err)
{
    int code = sqlite3_extended_errcode(file->db);
    return atedm_error_set(err, code == SQLITE_NOMEM ? ATEDM_ERR_NOMEM : ATEDM_ERR_IO,
                           "the job store: %s (SQLite %d)", sqlite3_errmsg(file->db), code);
}

static void bind_text(sqlite3_stmt *s, int at, const char *text)
{
    sqlite3_bind_text(s, at, text, -1, SQLITE_STATIC); // a NULL text binds NULL
}

// Runs a statement, ignores its rows, and resets it for the next use.
static atedm_status run(atedm_store_file *file, int which, atedm_error *err)
{
    sqlite3_stmt *s = file->statements[which];
    int code;
    do
        code = sqlite3_step(s);
    while (code == SQLITE_ROW);
    atedm_status status = code == SQLITE_DONE ? ATEDM_OK : fail(file, err);
    sqlite3_reset(s);
    sqlite3_clear_bindings(s);
    return status;
}

// Gets the first column of a statement's first row; *ret_found false: there is no row.
static atedm_status run_for_integer(atedm_store_file *file, int which, bool *ret_found,
                                    int64_t *ret_value, atedm_error *err)
{
    sqlite3_stmt *s = file->statements[which];
    int code = sqlite3_step(s);
    *ret_found = code == SQLITE_ROW;
    if (*ret_found) {
        *ret_value = sqlite3_column_int64(s, 0);
        code = sqlite3_step(s);
    }
    atedm_status status = code == SQLITE_DONE ? ATEDM_OK : fail(file, err);
    sqlite3_reset(s);
    sqlite3_clear_bindings(s);
    return status;
}

static char *copy_column(sqlite3_stmt *s, int at, bool *lost)
{
    const char *text = (const char *)sqlite3_column_text(s, at);
    char *copy = text ? strdup(text) : NULL;
    *lost |= !copy && sqlite3_column_type(s, at) != SQLITE_NULL;
    return copy;
}

static atedm_status append_job(sqlite3_stmt *s, atedm_store_result *result)
{
    atedm_store_job *jobs = realloc(result->jobs, (result->n_jobs + 1) * sizeof *jobs);
    if (!jobs)
        return ATEDM_ERR_NOMEM;
    result->jobs = jobs;
    bool lost = false;
    atedm_store_job *job = &jobs[result->n_jobs++];
    *job = (atedm_store_job){
        .sequence = sqlite3_column_int64(s, 0),
        .owner = copy_column(s, 2, &lost),
        .key = copy_column(s, 3, &lost),
        .sent = copy_column(s, 4, &lost),
        .request = copy_column(s, 5, &lost),
        .created = sqlite3_column_int64(s, 6),
        .ended = sqlite3_column_int64(s, 7),
        .state = (atedm_store_state)sqlite3_column_int(s, 8),
        .answer = copy_column(s, 9, &lost),
        .n_images = (size_t)sqlite3_column_int64(s, 10),
        .tries = sqlite3_column_int(s, 11),
    };
    const char *id = (const char *)sqlite3_column_text(s, 1);
    snprintf(job->id, sizeof job->id, "%s", id ? id : "");
    return lost || !id ? ATEDM_ERR_NOMEM : ATEDM_OK;
}

// Runs a query that returns jobs, and appends them to the result.
static atedm_status run_for_jobs(atedm_store_file *file, int which, atedm_store_result *result)
{
    sqlite3_stmt *s = file->statements[which];
    atedm_status status = ATEDM_OK;
    int code = SQLITE_DONE;
    while (!status && (code = sqlite3_step(s)) == SQLITE_ROW)
        status = append_job(s, result);
    if (status)
        atedm_error_set(&result->error, status, "no memory for jobs");
    else if (code != SQLITE_DONE)
        status = fail(file, &result->error);
    sqlite3_reset(s);
    sqlite3_clear_bindings(s);
    return status;
}

// ---- opening

static atedm_status execute(atedm_store_file *file, const char *sql, atedm_error *err)
{
    return sqlite3_exec(file->db, sql, NULL, NULL, NULL) ? fail(file, err) : ATEDM_OK;
}

static int read_version(sqlite3 *db)
{
    sqlite3_stmt *s;
    int version = -1;
    if (sqlite3_prepare_v2(db, "PRAGMA user_version", -1, &s, NULL) == SQLITE_OK &&
        sqlite3_step(s) == SQLITE_ROW)
        version = sqlite3_column_int(s, 0);
    sqlite3_finalize(s);
    return version;
}

// Prepares the file. The first write of an exclusive connection locks the file until it is closed.
static atedm_status prepare_file(atedm_store_file *file, atedm_error *err)
{
    sqlite3_extended_result_codes(file->db, 1);
    atedm_status status =
        execute(file,
                "PRAGMA locking_mode = EXCLUSIVE; PRAGMA auto_vacuum = INCREMENTAL;"
                "PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL;"
                "PRAGMA foreign_keys = ON; BEGIN IMMEDIATE;",
                err);
    if (status)
        return status;
    int version = read_version(file->db);
    if (version == 0)
        status = execute(file, schema, err);
    else if (version == 1)
        status = execute(file, schema_from_1, err);
    else if (version != SCHEMA_VERSION)
        status = atedm_error_set(err, ATEDM_ERR_UNSUPPORTED,
                                 "a job store of version %d, where this program knows version %d",
                                 version, SCHEMA_VERSION);
    if (!status)
        status = execute(file, indexes, err);
    return status ? status : execute(file, "COMMIT", err);
}

static atedm_status prepare_statements(atedm_store_file *file, atedm_error *err)
{
    for (int i = 0; i < N_STATEMENTS; i++) {
        if (sqlite3_prepare_v3(file->db, statements[i], -1, SQLITE_PREPARE_PERSISTENT,
                               &file->statements[i], NULL))
            return fail(file, err);
    }
    return ATEDM_OK;
}

atedm_status atedm_store_file_open(const char *path, atedm_store_file **ret_file, atedm_error *err)
{
    atedm_store_file *file = calloc(1, sizeof *file);
    if (!file)
        return atedm_error_set(err, ATEDM_ERR_NOMEM, "no memory for the job store");
    file->total = -1;
    mode_t mask = umask(S_IRWXG | S_IRWXO); // only the daemon's user may read the prompts
    int code = sqlite3_open_v2(
        path, &file->db, SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE | SQLITE_OPEN_NOMUTEX, NULL);
    atedm_status status = code ? fail(file, err) : prepare_file(file, err);
    umask(mask);
    if (!status)
        status = prepare_statements(file, err);
    if (!status)
        status = atedm_store_place_init(&file->place, path, err);
    if (status) {
        if (sqlite3_errcode(file->db) == SQLITE_BUSY)
            atedm_error_set(err, status, "another process has it open");
        atedm_store_file_close(file);
        return atedm_error_context(err, status, "%s", path);
    }
    *ret_file = file;
    return ATEDM_OK;
}

void atedm_store_file_close(atedm_store_file *file)
{
    if (!file)
        return;
    for (int i = 0; i < N_STATEMENTS; i++)
        sqlite3_finalize(file->statements[i]);
    sqlite3_close(file->db);
    atedm_store_place_finish(&file->place);
    free(file);
}

// ---- transactions

atedm_status atedm_store_file_begin(atedm_store_file *file, atedm_error *err)
{
    return run(file, BEGIN, err);
}

atedm_status atedm_store_file_commit(atedm_store_file *file, atedm_error *err)
{
    return run(file, COMMIT, err);
}

void atedm_store_file_rollback(atedm_store_file *file)
{
    file->total = -1;
    // After some errors SQLite has already ended the transaction.
    if (!sqlite3_get_autocommit(file->db) && run(file, ROLLBACK, NULL))
        return;
}

// ---- operations

atedm_status atedm_store_file_add(atedm_store_file *file, const atedm_store_job *job,
                                  atedm_error *err)
{
    // SQLite does not notice that its file was moved or removed.
    atedm_status status = atedm_store_place_check(&file->place, err);
    if (status)
        return status;
    sqlite3_stmt *s = file->statements[ADD];
    bind_text(s, 1, job->id);
    bind_text(s, 2, job->owner);
    bind_text(s, 3, job->key);
    bind_text(s, 4, job->sent);
    bind_text(s, 5, job->request);
    sqlite3_bind_int64(s, 6, job->created);
    sqlite3_bind_int(s, 7, job->tries);
    return run(file, ADD, err);
}

atedm_status atedm_store_file_set_tries(atedm_store_file *file, const char *id, int tries,
                                        atedm_error *err)
{
    sqlite3_stmt *s = file->statements[SET_TRIES];
    bind_text(s, 1, id);
    sqlite3_bind_int(s, 2, tries);
    return run(file, SET_TRIES, err);
}

atedm_status atedm_store_file_find_key(atedm_store_file *file, const char *owner, const char *key,
                                       atedm_store_result *result)
{
    bind_text(file->statements[FIND_KEY], 1, owner);
    bind_text(file->statements[FIND_KEY], 2, key);
    return run_for_jobs(file, FIND_KEY, result);
}

static atedm_status add_images(atedm_store_file *file, int64_t sequence,
                               const atedm_worker_image *images, size_t n_images, atedm_error *err)
{
    sqlite3_stmt *s = file->statements[ADD_IMAGE];
    for (size_t i = 0; i < n_images; i++) {
        sqlite3_bind_int64(s, 1, sequence);
        sqlite3_bind_int64(s, 2, (int64_t)i);
        sqlite3_bind_blob64(s, 3, images[i].png, images[i].size, SQLITE_STATIC);
        atedm_status status = run(file, ADD_IMAGE, err);
        if (status)
            return status;
    }
    return ATEDM_OK;
}

static atedm_status count_total(atedm_store_file *file, atedm_error *err)
{
    bool found;
    return file->total < 0 ? run_for_integer(file, TOTAL, &found, &file->total, err) : ATEDM_OK;
}

atedm_status atedm_store_file_end(atedm_store_file *file, const atedm_store_job *job,
                                  const atedm_worker_image *images, atedm_store_result *result)
{
    size_t bytes = strlen(job->answer);
    for (size_t i = 0; i < job->n_images; i++)
        bytes += images[i].size;
    atedm_error *err = &result->error;
    atedm_status status = count_total(file, err);
    if (status)
        return status;
    sqlite3_stmt *s = file->statements[END];
    bind_text(s, 1, job->id);
    sqlite3_bind_int(s, 2, (int)job->state);
    sqlite3_bind_int64(s, 3, job->ended);
    bind_text(s, 4, job->answer);
    sqlite3_bind_int64(s, 5, (int64_t)job->n_images);
    sqlite3_bind_int64(s, 6, (int64_t)bytes);
    bool found = false; // false: the job was removed, or has ended already
    int64_t sequence = 0;
    status = run_for_integer(file, END, &found, &sequence, err);
    if (!status && found)
        status = add_images(file, sequence, images, job->n_images, err);
    if (!status && found)
        file->total += (int64_t)bytes;
    return status;
}

static atedm_status append_image(sqlite3_stmt *s, atedm_store_result *result)
{
    size_t size = (size_t)sqlite3_column_bytes(s, 0);
    const void *png = sqlite3_column_blob(s, 0);
    atedm_worker_image *images = realloc(result->images, (result->n_images + 1) * sizeof *images);
    if (!images)
        return ATEDM_ERR_NOMEM;
    result->images = images;
    char *copy = malloc(size);
    if (!copy || !png) {
        free(copy);
        return ATEDM_ERR_NOMEM;
    }
    memcpy(copy, png, size);
    images[result->n_images++] = (atedm_worker_image){.png = copy, .size = size};
    return ATEDM_OK;
}

static atedm_status get_images(atedm_store_file *file, int64_t sequence, int image,
                               atedm_store_result *result)
{
    sqlite3_stmt *s = file->statements[GET_IMAGES];
    sqlite3_bind_int64(s, 1, sequence);
    sqlite3_bind_int(s, 2, image);
    atedm_status status = ATEDM_OK;
    int code = SQLITE_DONE;
    while (!status && (code = sqlite3_step(s)) == SQLITE_ROW)
        status = append_image(s, result);
    if (status)
        atedm_error_set(&result->error, status, "no memory for images");
    else if (code != SQLITE_DONE)
        status = fail(file, &result->error);
    sqlite3_reset(s);
    return status;
}

atedm_status atedm_store_file_get(atedm_store_file *file, const char *id, int image,
                                  atedm_store_result *result)
{
    bind_text(file->statements[GET], 1, id);
    atedm_status status = run_for_jobs(file, GET, result);
    if (!status && result->n_jobs && image != ATEDM_STORE_NO_IMAGES)
        status = get_images(file, result->jobs[0].sequence, image, result);
    return status;
}

atedm_status atedm_store_file_list(atedm_store_file *file, const char *owner, int state,
                                   int64_t before, size_t limit, atedm_store_result *result)
{
    bool any = state < 0;
    int which = owner ? (any ? LIST_OWNER : LIST_OWNER_STATE) : (any ? LIST : LIST_STATE);
    sqlite3_stmt *s = file->statements[which];
    sqlite3_bind_int64(s, 1, before);
    sqlite3_bind_int64(s, 2, (int64_t)limit + 1); // one more, to see whether there are more
    if (owner)
        bind_text(s, 3, owner);
    if (!any)
        sqlite3_bind_int(s, 4, state);
    atedm_status status = run_for_jobs(file, which, result);
    result->more = result->n_jobs > limit;
    if (result->more)
        atedm_store_job_finish(&result->jobs[--result->n_jobs]);
    return status;
}

static atedm_status remove_job(atedm_store_file *file, const char *id, bool *ret_found,
                               atedm_error *err)
{
    int64_t bytes = 0;
    bind_text(file->statements[REMOVE], 1, id);
    atedm_status status = run_for_integer(file, REMOVE, ret_found, &bytes, err);
    if (!status && *ret_found && file->total >= 0)
        file->total -= bytes;
    return status;
}

atedm_status atedm_store_file_remove(atedm_store_file *file, const char *id,
                                     atedm_store_result *result)
{
    bool found = false;
    atedm_status status = atedm_store_file_get(file, id, ATEDM_STORE_NO_IMAGES, result);
    return status ? status : remove_job(file, id, &found, &result->error);
}

// Finds the next job to remove; *ret_found false: none has to be removed.
static atedm_status find_expired(atedm_store_file *file, int64_t before, int64_t retention_bytes,
                                 const char *spare, bool *ret_found,
                                 char ret_id[ATEDM_STORE_ID_SIZE], atedm_error *err)
{
    sqlite3_stmt *s = file->statements[OLDEST];
    bind_text(s, 1, spare);
    int code = sqlite3_step(s);
    *ret_found = false;
    if (code == SQLITE_ROW) {
        const char *id = (const char *)sqlite3_column_text(s, 0);
        snprintf(ret_id, ATEDM_STORE_ID_SIZE, "%s", id ? id : "");
        *ret_found = file->total > retention_bytes || sqlite3_column_int64(s, 1) < before;
    }
    atedm_status status = code == SQLITE_ROW || code == SQLITE_DONE ? ATEDM_OK : fail(file, err);
    sqlite3_reset(s);
    return status;
}

atedm_status atedm_store_file_expire(atedm_store_file *file, int64_t before,
                                     int64_t retention_bytes, const char *spare,
                                     atedm_store_result *result)
{
    atedm_status status = count_total(file, &result->error);
    bool found = true, any = false;
    char id[ATEDM_STORE_ID_SIZE];
    for (int removed = 0; found && !status; removed++) {
        status = find_expired(file, before, retention_bytes, spare, &found, id, &result->error);
        result->more = found && removed == EXPIRED_AT_ONCE;
        if (status || !found || result->more)
            break;
        status = remove_job(file, id, &any, &result->error);
    }
    return any && !status ? run(file, VACUUM, &result->error) : status;
}

atedm_status atedm_store_file_pending(atedm_store_file *file, atedm_store_result *result)
{
    return run_for_jobs(file, PENDING, result);
}
