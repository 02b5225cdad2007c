// Detects whether a model's files have changed: see model_stamp.h.
#include "server/model_stamp.h"

#include "core/base/splitmix.h"
#include "core/model_files.h"

#include <fts.h>
#include <stddef.h>
#include <string.h>
#include <sys/stat.h>

static uint64_t stamp_of(const char *path, const struct stat *file)
{
    const uint64_t facts[] = {(uint64_t)file->st_size, (uint64_t)file->st_ino,
                              (uint64_t)file->st_mtim.tv_sec, (uint64_t)file->st_mtim.tv_nsec};
    uint64_t stamp = 0;
    for (const char *c = path; *c; c++)
        stamp = atedm_splitmix(stamp, (unsigned char)*c);
    for (size_t i = 0; i < sizeof facts / sizeof *facts; i++)
        stamp = atedm_splitmix(stamp, facts[i]);
    return stamp;
}

// Whether the file is the checkpoint of another model in the same folder.
static bool is_another(const FTSENT *entry, const atedm_model_files *files)
{
    atedm_model_files own;
    return entry->fts_level == 1 && !atedm_model_files_find(entry->fts_name, &own, NULL) &&
           own.checkpoint[0] && strcmp(own.name, files->checkpoint[0] ? files->name : "") != 0;
}

uint64_t atedm_model_stamp(const char *path)
{
    atedm_model_files files;
    if (atedm_model_files_find(path, &files, NULL))
        return 0;
    char *const folders[] = {files.folder, NULL};
    FTS *tree = fts_open(folders, FTS_LOGICAL | FTS_NOCHDIR, NULL);
    uint64_t sum = 0; // a sum does not depend on the order in which the files are found
    for (const FTSENT *entry; tree && (entry = fts_read(tree));)
        if (entry->fts_info == FTS_F && !is_another(entry, &files))
            sum += stamp_of(entry->fts_path, entry->fts_statp);
    if (tree)
        fts_close(tree);
    return sum;
}
