// Where the job store lies when nobody says: see store_path.h.
#include "server/store_path.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

// Makes the folders of a file's path that are missing.
static atedm_status make_folders(char *path, atedm_error *err)
{
    for (char *slash = strchr(path + 1, '/'); slash; slash = strchr(slash + 1, '/')) {
        *slash = '\0';
        bool failed = mkdir(path, 0700) != 0 && errno != EEXIST;
        if (failed)
            atedm_error_set(err, ATEDM_ERR_IO, "the job store's folder %s: %s", path,
                            strerror(errno));
        *slash = '/';
        if (failed)
            return ATEDM_ERR_IO;
    }
    return ATEDM_OK;
}

static const char *variable(const char *name)
{
    const char *value = getenv(name);
    return value && *value == '/' ? value : NULL;
}

atedm_status atedm_store_path(const char *option, char ret_path[ATEDM_CONFIG_PATH_MAX],
                              atedm_error *err)
{
    if (strcmp(option, "auto") != 0) {
        snprintf(ret_path, ATEDM_CONFIG_PATH_MAX, "%s", option);
        return ATEDM_OK;
    }
    const char *folder, *below;
    if ((folder = variable("STATE_DIRECTORY")))
        below = "";
    else if ((folder = variable("XDG_STATE_HOME")))
        below = "/atedmd";
    else if ((folder = variable("HOME")))
        below = "/.local/state/atedmd";
    else
        return atedm_error_set(err, ATEDM_ERR_NOT_FOUND,
                               "nowhere to keep jobs: give a file with --job-store");
    // systemd may list several folders.
    int size = (int)strcspn(folder, ":");
    int written = snprintf(ret_path, ATEDM_CONFIG_PATH_MAX, "%.*s%s/jobs.db", size, folder, below);
    if (written >= ATEDM_CONFIG_PATH_MAX)
        return atedm_error_set(err, ATEDM_ERR_LIMIT, "the path of the job store is too long");
    return make_folders(ret_path, err);
}
