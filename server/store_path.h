// Finds the path of the job store's file, and detects when the file has been moved or removed.
#ifndef ATEDM_STORE_PATH_H
#define ATEDM_STORE_PATH_H

#include "config/config.h"

#include <sys/types.h>

// The path of the job store for the option "job_store". It is the option's value, unless that is
// "auto". Then it is jobs.db in $STATE_DIRECTORY (set by systemd), else in $XDG_STATE_HOME/atedmd,
// else in $HOME/.local/state/atedmd; a variable counts if it is an absolute path. Missing folders
// are made. ATEDM_ERR_NOT_FOUND: none of the variables is set; ATEDM_ERR_LIMIT: the path is too
// long; ATEDM_ERR_IO: a folder cannot be made.
ATEDM_MUST_CHECK atedm_status atedm_store_path(const char *option,
                                               char ret_path[ATEDM_CONFIG_PATH_MAX],
                                               atedm_error *err);

#define ATEDM_STORE_FILES 2 // SQLite's database and its write-ahead log

// The identity of the store's files when it was opened. SQLite keeps writing to a file that has
// been moved or removed, and the next daemon would not find the jobs in it.
typedef struct atedm_store_place {
    char *path; // owned
    dev_t devices[ATEDM_STORE_FILES];
    ino_t inodes[ATEDM_STORE_FILES]; // 0: the file did not exist
} atedm_store_place;

// Notes which files are at `path` now. ATEDM_ERR_NOMEM.
ATEDM_MUST_CHECK atedm_status atedm_store_place_init(atedm_store_place *place, const char *path,
                                                     atedm_error *err);
void atedm_store_place_finish(atedm_store_place *place);
// ATEDM_ERR_IO: one of the noted files is no longer there.
ATEDM_MUST_CHECK atedm_status atedm_store_place_check(const atedm_store_place *place,
                                                      atedm_error *err);

#endif
