// Scratch copies of the golden models, for tests that break their files. What goes wrong here is
// the test machine's fault: the program says so and aborts.
#ifndef ATEDM_TESTS_MODEL_DIR_H
#define ATEDM_TESTS_MODEL_DIR_H

#include <stdbool.h>
#include <stddef.h>

#define MODEL_DIR_MAX 256 // bytes of a path, terminator included

// Copies model `name` ("a") of $ATEDM_GOLDEN_DIR to a new directory; `weights` says whether with
// the safetensors files.
void model_dir_copy(const char *name, bool weights, char ret_dir[MODEL_DIR_MAX]);
void model_dir_remove(const char *dir);

// Path of `file` in the directory.
void model_dir_path(const char *dir, const char *file, char ret_path[MODEL_DIR_MAX]);
// The file's bytes, NUL-terminated; the caller frees. ret_size: NULL allowed.
char *model_dir_read(const char *dir, const char *file, size_t *ret_size);
void model_dir_write(const char *dir, const char *file, const void *data, size_t size);
// The text of a JSON file with the key's value (NULL: the whole member) replaced by `raw`, which
// need not be JSON. The caller frees.
char *model_dir_edit(const char *dir, const char *file, const char *key, const char *raw);
void model_dir_rename(const char *dir, const char *from, const char *to);

#endif
