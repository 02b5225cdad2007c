// Collects the intermediates of one generation and writes them as DIR/stages.safetensors. A
// safetensors file names everything before its data, so nothing is written before all is there.
#ifndef ATEDM_CLI_DUMP_H
#define ATEDM_CLI_DUMP_H

#include "core/base/status.h"
#include "core/base/tensor.h"
#include "core/safetensors.h"

typedef struct atedm_dump {
    atedm_safetensors_entry *items; // names and data are owned
    size_t count, capacity;
    atedm_status status; // ATEDM_ERR_NOMEM once a tensor could not be kept
} atedm_dump;

// An atedm_dump_fn: `user` is an atedm_dump that began as {0}.
void atedm_dump_add(void *user, const char *name, const atedm_host_tensor *tensor);
// Makes DIR where it is missing and writes the file.
ATEDM_MUST_CHECK atedm_status atedm_dump_write(const atedm_dump *dump, const char *dir,
                                               atedm_error *err);
void atedm_dump_finish(atedm_dump *dump);

#endif
