// Figures of this process, from /proc.
#ifndef ATEDM_PROCESS_H
#define ATEDM_PROCESS_H

#include <stddef.h>

typedef struct atedm_process {
    double cpu_seconds;
    double start_time; // seconds since 1970
    double open_fds, max_fds;
    double virtual_bytes, resident_bytes;
} atedm_process;

// What cannot be read is NAN.
atedm_process atedm_process_read(void);

#endif
