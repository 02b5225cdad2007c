// Whether a model's files are still those that they were.
#ifndef ATEDM_MODEL_STAMP_H
#define ATEDM_MODEL_STAMP_H

#include <stdint.h>

// A number that is another one once a file of the model's folder, or of a folder in it, has come,
// gone, or changed by its size, time or inode; of checkpoints beside each other (model_files.h)
// only the model's own counts. Two models' may be the same by chance only. What cannot be read is
// as if it were not there.
uint64_t atedm_model_stamp(const char *path);

#endif
