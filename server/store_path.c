// The path of the job store's file, and its identity: see store_path.h.
#include "server/store_path.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

// Makes the missing folders of a file's path.
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

static atedm_status too_long(atedm_error *err)
{
    return atedm_error_set(err, ATEDM_ERR_LIMIT, "the path of the job store is too long");
}

atedm_status atedm_store_path(const char *option, char ret_path[ATEDM_CONFIG_PATH_MAX],
                              atedm_error *err)
{
    if (strcmp(option, "auto") != 0) {
        // "./" makes the value a file's name in any case. Without it, SQLite would take ":memory:"
        // and "file:jobs.db?mode=memory" as databases in memory.
        int size =
            snprintf(ret_path, ATEDM_CONFIG_PATH_MAX, "%s%s", *option == '/' ? "" : "./", option);
        return size < ATEDM_CONFIG_PATH_MAX ? ATEDM_OK : too_long(err);
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
        return too_long(err);
    return make_folders(ret_path, err);
}

// ---- whether the files are still there

// Stats the database (`which` 0) or its log (1), and returns its name. False if it does not exist.
static bool find_file(const char *path, int which, struct stat *ret_file,
                      char ret_name[ATEDM_CONFIG_PATH_MAX + 8])
{
    snprintf(ret_name, ATEDM_CONFIG_PATH_MAX + 8, "%s%s", path, which ? "-wal" : "");
    return stat(ret_name, ret_file) == 0;
}

atedm_status atedm_store_place_init(atedm_store_place *place, const char *path, atedm_error *err)
{
    char name[ATEDM_CONFIG_PATH_MAX + 8];
    struct stat file;
    *place = (atedm_store_place){.path = strdup(path)};
    if (!place->path)
        return atedm_error_set(err, ATEDM_ERR_NOMEM, "no memory for the job store");
    for (int i = 0; i < ATEDM_STORE_FILES; i++) {
        bool found = find_file(path, i, &file, name);
        place->devices[i] = found ? file.st_dev : 0;
        place->inodes[i] = found ? file.st_ino : 0;
    }
    return ATEDM_OK;
}

void atedm_store_place_finish(atedm_store_place *place)
{
    free(place->path);
    *place = (atedm_store_place){.path = NULL};
}

atedm_status atedm_store_place_check(const atedm_store_place *place, atedm_error *err)
{
    char name[ATEDM_CONFIG_PATH_MAX + 8];
    struct stat file;
    for (int i = 0; i < ATEDM_STORE_FILES; i++) {
        if (place->inodes[i] &&
            (!find_file(place->path, i, &file, name) || file.st_ino != place->inodes[i] ||
             file.st_dev != place->devices[i]))
            return atedm_error_set(err, ATEDM_ERR_IO, "%s was moved or removed", name);
    }
    return ATEDM_OK;
}
