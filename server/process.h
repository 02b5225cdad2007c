// Reads figures of this process from /proc, and sets its limits.
#ifndef ATEDM_PROCESS_H
#define ATEDM_PROCESS_H

#include <stddef.h>

typedef struct atedm_process {
    double cpu_seconds;
    double start_time; // seconds since 1970
    double open_fds, max_fds;
    double virtual_bytes, resident_bytes;
} atedm_process;

// Call this before anything else in the process. It makes the allocator return the memory of a
// burst to the system. It also raises the limit of open descriptors to `descriptors`, or as far as
// the system allows.
void atedm_process_prepare(size_t descriptors);

// Returns free memory to the system, including the gaps between blocks in use that a burst of
// connections leaves.
void atedm_process_trim(void);

// Figures that cannot be read are NAN.
atedm_process atedm_process_read(void);

#endif
