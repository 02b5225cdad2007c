// Reads and writes safetensors files: an 8-byte little-endian header length, a JSON header that
// names each tensor's dtype, shape and byte range, and the data. Reading maps the file; nothing is
// copied.
#ifndef ATEDM_SAFETENSORS_H
#define ATEDM_SAFETENSORS_H

#include "core/base/status.h"
#include "core/base/tensor.h"

// Limits of what is read.
#define ATEDM_SAFETENSORS_MAX_HEADER                                                               \
    (100u * 1000 * 1000) // bytes, as the format's own reader has it
#define ATEDM_SAFETENSORS_MAX_TENSORS 65536
#define ATEDM_SAFETENSORS_MAX_NAME 512 // bytes of a tensor's name

typedef struct atedm_safetensors atedm_safetensors;

// Maps `path`. Every offset, shape and size is checked: header within the file, byte ranges within
// the data, in order, without overlap or gap, size = product of the shape times the dtype's size,
// no duplicate names. Dtypes other than atedm_dtype's and tensors of more than ATEDM_MAX_DIMS
// dimensions are refused. The message names the file, the tensor and what is wrong.
ATEDM_MUST_CHECK atedm_status atedm_safetensors_open(const char *path, atedm_safetensors **ret_file,
                                                     atedm_error *err);
void atedm_safetensors_close(atedm_safetensors *file); // NULL allowed

size_t atedm_safetensors_count(const atedm_safetensors *file);
const char *atedm_safetensors_name(const atedm_safetensors *file, size_t i);
// The i-th tensor, in the order of the data. `data` is borrowed from the mapping; its address may
// be unaligned for its dtype (headers of any length are legal): copy with memcpy where it matters
// (atedm_weights does).
const atedm_host_tensor *atedm_safetensors_tensor(const atedm_safetensors *file, size_t i);
// NULL where there is none of that name.
const atedm_host_tensor *atedm_safetensors_find(const atedm_safetensors *file, const char *name);
// Tells the kernel that the tensor's pages are not needed for now (they come back when touched).
// Nothing happens where the tensor is not one of this file.
void atedm_safetensors_drop(const atedm_safetensors *file, const atedm_host_tensor *tensor);

// ---- writing ----
// A writer is given all names and shapes first, then the data in the same order, in pieces of any
// size.
typedef struct atedm_safetensors_writer atedm_safetensors_writer;

typedef struct atedm_safetensors_entry {
    const char *name;
    atedm_host_tensor tensor; // data is not looked at
} atedm_safetensors_entry;

ATEDM_MUST_CHECK atedm_status atedm_safetensors_writer_create(
    const char *path, const atedm_safetensors_entry *entries, size_t n_entries,
    atedm_safetensors_writer **ret_writer, atedm_error *err);
ATEDM_MUST_CHECK atedm_status atedm_safetensors_writer_put(atedm_safetensors_writer *writer,
                                                           const void *data, size_t size,
                                                           atedm_error *err);
// Flushes and renames into place; fails where less or more data came than the entries say. Destroys
// the writer in every case.
ATEDM_MUST_CHECK atedm_status atedm_safetensors_writer_finish(atedm_safetensors_writer *writer,
                                                              atedm_error *err);
// Gives up: removes the unfinished file. NULL allowed.
void atedm_safetensors_writer_abort(atedm_safetensors_writer *writer);

#endif
