// Reads and writes safetensors files: an 8-byte little-endian header length, a JSON header with
// each tensor's name, dtype, shape and byte range, then the data. Reading maps the file and copies
// nothing.
#ifndef ATEDM_SAFETENSORS_H
#define ATEDM_SAFETENSORS_H

#include "core/base/status.h"
#include "core/base/tensor.h"

// Limits for files that are read.
#define ATEDM_SAFETENSORS_MAX_HEADER (100u * 1000 * 1000) // bytes; the format's own reader's limit
#define ATEDM_SAFETENSORS_MAX_TENSORS 65536
#define ATEDM_SAFETENSORS_MAX_NAME 512 // bytes of a tensor's name

typedef struct atedm_safetensors atedm_safetensors;

// Maps `path` and checks it: the header lies within the file; the byte ranges lie within the data
// and cover it without overlap or gap; each tensor's size is the product of its shape times its
// dtype's size; no name occurs twice. The error message names the file, the tensor, and what is
// wrong. ATEDM_ERR_FORMAT: one of these is violated. ATEDM_ERR_UNSUPPORTED: a dtype that is not in
// atedm_dtype, or more than ATEDM_MAX_DIMS dimensions. ATEDM_ERR_LIMIT: one of the limits above.
// ATEDM_ERR_IO, ATEDM_ERR_NOT_FOUND: the file cannot be opened or mapped.
ATEDM_MUST_CHECK atedm_status atedm_safetensors_open(const char *path, atedm_safetensors **ret_file,
                                                     atedm_error *err);
void atedm_safetensors_close(atedm_safetensors *file); // NULL allowed

size_t atedm_safetensors_count(const atedm_safetensors *file);
const char *atedm_safetensors_name(const atedm_safetensors *file, size_t i);
// The i-th tensor, in the order of the data. Its `data` points into the mapping. The format allows
// headers of any length, so the address may be unaligned for the dtype; atedm_weights copies such
// data.
const atedm_host_tensor *atedm_safetensors_tensor(const atedm_safetensors *file, size_t i);
// The tensor of that name; NULL: none.
const atedm_host_tensor *atedm_safetensors_find(const atedm_safetensors *file, const char *name);
// Tells the kernel that the tensor's pages are not needed for now. They are read again when
// touched. Does nothing if the tensor is not of this file.
void atedm_safetensors_drop(const atedm_safetensors *file, const atedm_host_tensor *tensor);

// ---- writing
// The writer takes all names and shapes first, then the data in the same order, in pieces of any
// size.
typedef struct atedm_safetensors_writer atedm_safetensors_writer;

typedef struct atedm_safetensors_entry {
    const char *name;
    atedm_host_tensor tensor; // only dtype and shape are used
} atedm_safetensors_entry;

// Creates PATH.part and writes the header. `entries` is borrowed for the call. ATEDM_ERR_INVALID: a
// name or shape that the format cannot hold. ATEDM_ERR_IO: the file cannot be written.
ATEDM_MUST_CHECK atedm_status atedm_safetensors_writer_create(
    const char *path, const atedm_safetensors_entry *entries, size_t n_entries,
    atedm_safetensors_writer **ret_writer, atedm_error *err);
// Appends `size` bytes of data. ATEDM_ERR_INVALID: more data than the entries have room for.
ATEDM_MUST_CHECK atedm_status atedm_safetensors_writer_put(atedm_safetensors_writer *writer,
                                                           const void *data, size_t size,
                                                           atedm_error *err);
// Closes the file and renames it to PATH. ATEDM_ERR_INVALID: less data came than the entries need.
// Destroys the writer in any case.
ATEDM_MUST_CHECK atedm_status atedm_safetensors_writer_finish(atedm_safetensors_writer *writer,
                                                              atedm_error *err);
// Removes the unfinished file and destroys the writer. NULL allowed.
void atedm_safetensors_writer_abort(atedm_safetensors_writer *writer);

#endif
