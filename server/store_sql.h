// The store's file: all SQL is here. One thread uses it. store.h describes the operations.
#ifndef ATEDM_STORE_SQL_H
#define ATEDM_STORE_SQL_H

#include "server/store.h"

typedef struct atedm_store_file atedm_store_file;

// Opens or creates the file at `path` and locks it until it is closed.
ATEDM_MUST_CHECK atedm_status atedm_store_file_open(const char *path, atedm_store_file **ret_file,
                                                    atedm_error *err);
void atedm_store_file_close(atedm_store_file *file); // NULL allowed

// A transaction around operations. If an operation or the commit fails, roll back: then none of
// them had an effect.
ATEDM_MUST_CHECK atedm_status atedm_store_file_begin(atedm_store_file *file, atedm_error *err);
ATEDM_MUST_CHECK atedm_status atedm_store_file_commit(atedm_store_file *file, atedm_error *err);
void atedm_store_file_rollback(atedm_store_file *file);

// The operations. They append jobs and images to the result.
ATEDM_MUST_CHECK atedm_status atedm_store_file_add(atedm_store_file *file,
                                                   const atedm_store_job *job, atedm_error *err);
ATEDM_MUST_CHECK atedm_status atedm_store_file_set_tries(atedm_store_file *file, const char *id,
                                                         int tries, atedm_error *err);
ATEDM_MUST_CHECK atedm_status atedm_store_file_end(atedm_store_file *file,
                                                   const atedm_store_job *job,
                                                   const atedm_worker_image *images,
                                                   atedm_store_result *result);
ATEDM_MUST_CHECK atedm_status atedm_store_file_get(atedm_store_file *file, const char *id,
                                                   int image, atedm_store_result *result);
ATEDM_MUST_CHECK atedm_status atedm_store_file_find_key(atedm_store_file *file, const char *owner,
                                                        const char *key,
                                                        atedm_store_result *result);
ATEDM_MUST_CHECK atedm_status atedm_store_file_list(atedm_store_file *file, const char *owner,
                                                    int state, int64_t before, size_t limit,
                                                    atedm_store_result *result);
ATEDM_MUST_CHECK atedm_status atedm_store_file_remove(atedm_store_file *file, const char *id,
                                                      atedm_store_result *result);
// Removes jobs that ended before that Unix time, and the oldest ones until all take at most
// `retention_bytes`. `more`: there are further ones, since one call removes a limited number. Never
// removes the job `spare`; "": no exception.
ATEDM_MUST_CHECK atedm_status atedm_store_file_expire(atedm_store_file *file, int64_t before,
                                                      int64_t retention_bytes, const char *spare,
                                                      atedm_store_result *result);
// Gets all pending jobs, in the order of acceptance.
ATEDM_MUST_CHECK atedm_status atedm_store_file_pending(atedm_store_file *file,
                                                       atedm_store_result *result);

#endif
