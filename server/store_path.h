// Where the job store lies when nobody says.
#ifndef ATEDM_STORE_PATH_H
#define ATEDM_STORE_PATH_H

#include "config/config.h"

// `option` itself, unless it is "auto": then jobs.db in the first that is set of $STATE_DIRECTORY
// (systemd's), $XDG_STATE_HOME/atedmd, $HOME/.local/state/atedmd; folders that are missing are
// made.
ATEDM_MUST_CHECK atedm_status atedm_store_path(const char *option,
                                               char ret_path[ATEDM_CONFIG_PATH_MAX],
                                               atedm_error *err);

#endif
