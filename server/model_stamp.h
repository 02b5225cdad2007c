// Detects whether a model's files have changed.
#ifndef ATEDM_MODEL_STAMP_H
#define ATEDM_MODEL_STAMP_H

#include <stdint.h>

// A number that stands for the state of the model's files. It changes when a file in the model's
// folder, or in a folder below it, is added or removed, or has another size, modification time or
// inode. Of several checkpoints in one folder (model_files.h) only the model's own counts. Files
// that cannot be read do not count; 0 if `path` is not a model. Different states have the same
// number only by chance. Reads the file system and may wait; any thread.
uint64_t atedm_model_stamp(const char *path);

#endif
