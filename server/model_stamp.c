// Whether a model's folder still has the files that it had: see model_stamp.h.
#include "server/model_stamp.h"

#include "core/base/splitmix.h"

#include <fts.h>
#include <stddef.h>
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

uint64_t atedm_model_stamp(const char *dir)
{
    char *const folders[] = {(char *)(uintptr_t)dir, NULL};
    FTS *tree = fts_open(folders, FTS_LOGICAL | FTS_NOCHDIR, NULL);
    uint64_t sum = 0; // in whatever order they are found
    for (const FTSENT *entry; tree && (entry = fts_read(tree));)
        if (entry->fts_info == FTS_F)
            sum += stamp_of(entry->fts_path, entry->fts_statp);
    if (tree)
        fts_close(tree);
    return sum;
}
