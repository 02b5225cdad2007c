// Figures of this process, from /proc, and its limits.
#ifndef ATEDM_PROCESS_H
#define ATEDM_PROCESS_H

#include <stddef.h>

typedef struct atedm_process {
    double cpu_seconds;
    double start_time; // seconds since 1970
    double open_fds, max_fds;
    double virtual_bytes, resident_bytes;
} atedm_process;

// To be called first. The allocator gives memory back that a burst took, and as many descriptors as
// the system lets us have, up to `descriptors`, may be open.
void atedm_process_prepare(size_t descriptors);

// Gives free memory between what is in use back, which a burst of connections leaves.
void atedm_process_trim(void);

// What cannot be read is NAN.
atedm_process atedm_process_read(void);

#endif
