// Whether a model's folder still has the files that it had.
#ifndef ATEDM_MODEL_STAMP_H
#define ATEDM_MODEL_STAMP_H

#include <stdint.h>

// A number that is another one once a file of the folder, or of a folder in it, has come, gone, or
// changed by its size, time or inode. Two folders' may be the same by chance only. What cannot be
// read is as if it were not there.
uint64_t atedm_model_stamp(const char *dir);

#endif
