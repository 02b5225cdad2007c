// Where the job store lies, and whether it still does.
#ifndef ATEDM_STORE_PATH_H
#define ATEDM_STORE_PATH_H

#include "config/config.h"

#include <sys/types.h>

// `option` itself, unless it is "auto": then jobs.db in the first that is set of $STATE_DIRECTORY
// (systemd's), $XDG_STATE_HOME/atedmd, $HOME/.local/state/atedmd; folders that are missing are
// made.
ATEDM_MUST_CHECK atedm_status atedm_store_path(const char *option,
                                               char ret_path[ATEDM_CONFIG_PATH_MAX],
                                               atedm_error *err);

#define ATEDM_STORE_FILES 2 // SQLite's, and its log

// The files that lie there when the store is opened: SQLite goes on with files that were moved or
// removed, and the next daemon does not find what is in them.
typedef struct atedm_store_place {
    char *path;
    dev_t devices[ATEDM_STORE_FILES];
    ino_t inodes[ATEDM_STORE_FILES]; // 0: there is no such file
} atedm_store_place;

ATEDM_MUST_CHECK atedm_status atedm_store_place_init(atedm_store_place *place, const char *path,
                                                     atedm_error *err);
void atedm_store_place_finish(atedm_store_place *place);
// ATEDM_ERR_IO: they do not lie there any more.
ATEDM_MUST_CHECK atedm_status atedm_store_place_check(const atedm_store_place *place,
                                                      atedm_error *err);

#endif
