// Collects the intermediates of one generation and writes them as DIR/stages.safetensors. The
// format puts the names of all tensors before the data, so nothing is written before all tensors
// are there.
#ifndef ATEDM_CLI_DUMP_H
#define ATEDM_CLI_DUMP_H

#include "core/base/status.h"
#include "core/base/tensor.h"
#include "core/safetensors.h"

typedef struct atedm_dump {
    atedm_safetensors_entry *items; // names and data are owned
    size_t count, capacity;
    atedm_status status; // ATEDM_ERR_NOMEM: a tensor could not be kept
} atedm_dump;

// Copies a tensor. An atedm_dump_fn; `user` is an atedm_dump, initialised with {0}.
void atedm_dump_add(void *user, const char *name, const atedm_host_tensor *tensor);
// Creates DIR if it does not exist, and writes the file. Fails with dump->status if that is an
// error.
ATEDM_MUST_CHECK atedm_status atedm_dump_write(const atedm_dump *dump, const char *dir,
                                               atedm_error *err);
void atedm_dump_finish(atedm_dump *dump);

#endif
